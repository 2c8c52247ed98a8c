"""Losses and gradients of objectives, alone and on two replicas that share a batch.

python -m tests.replica_objectives FILE
"""

import sys

BATCH, DIM, VIEWS, GLOBAL = 8, 5, 4, 2


def objectives_by_name():
    from keras_kssl import kernels, objectives

    gaussian = kernels.legendre_coefficients("gaussian", DIM, 6)
    return {
        "hsic_gram": objectives.HSIC(estimator="gram"),
        "hsic_features": objectives.HSIC(estimator="random_features", seed=1),
        "hsic_gaussian": objectives.HSIC(kernel=kernels.Gaussian(0.5)),
        "hsic_linear": objectives.HSIC(kernel=kernels.Linear()),
        "sfrik": objectives.SFRIK(3.0),
        "sfrik_gaussian": objectives.SFRIK(3.0, coefficients=gaussian),
        "simclr": objectives.SimCLR(0.3),
        "vicreg": objectives.VICReg(),
        "auh": objectives.AlignmentUniformity(30.0),
        "barlow_twins": objectives.BarlowTwins(0.1),
        "byol": objectives.BYOL(),
    }


def views_of(dim):
    import numpy as np

    rng = np.random.default_rng(dim)
    images = 0.3 + rng.normal(size=(BATCH, dim))
    views = images + 0.5 * rng.normal(size=(VIEWS, BATCH, dim))
    return [view.astype("float32") for view in views]


def found_by(strategy, dim):
    """Loss and gradient of every objective, with the views shared out."""
    import numpy as np
    import tensorflow as tf

    from keras_kssl import replicas

    size = BATCH // strategy.num_replicas_in_sync
    views = views_of(dim)

    def part(context):
        start = context.replica_id_in_sync_group * size
        return tuple(tf.constant(view[start : start + size]) for view in views)

    with strategy.scope():
        made = objectives_by_name()
        # Their variables are there before a function is traced.
        shared = strategy.experimental_distribute_values_from_function(part)

    def compute(*rows):
        results = {}
        for name, objective in made.items():
            with tf.GradientTape() as tape:
                tape.watch(rows)
                loss = objective(list(rows), num_global=GLOBAL)
                mine = loss / replicas.count()
            # BYOL compares no view with itself: of one target one prediction is free.
            gradients = tape.gradient(mine, rows, unconnected_gradients="zero")
            results[name] = loss, tf.stack(gradients)
        return results

    results = tf.function(lambda: strategy.run(compute, args=shared))()
    found = {}
    for name, (loss, gradient) in results.items():
        losses = strategy.experimental_local_results(loss)
        gradients = strategy.experimental_local_results(gradient)
        # The same on every replica, and on one alone.
        found[f"{name}/loss"] = np.unique(losses)
        found[f"{name}/gradient"] = tf.concat(gradients, axis=1).numpy()
    return found


def main(path):
    import numpy as np
    import tensorflow as tf

    parts = [tf.config.LogicalDeviceConfiguration() for _ in range(2)]
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, parts)
    together = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    alone = tf.distribute.get_strategy()
    found = {}
    # Fewer coordinates than images, and more: moments and Gram matrices.
    for dim in (DIM, 2 * BATCH):
        for kind, strategy in (("alone", alone), ("together", together)):
            for name, value in found_by(strategy, dim).items():
                found[f"{dim}/{kind}/{name}"] = value
    np.savez(path, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
