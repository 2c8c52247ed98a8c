"""Five steps of some methods on some devices; what comes of them, in a file.

python -m tests.replica_runs KIND COUNT FILE GROUP [WORKER PORT...]

KIND is "mirrored", "multi_worker", "jax" or "jax_workers", or "one" with the backend of
the environment. Devices are parts of one CPU.
"""

import json
import os
import sys

IMAGES, BATCH, STEPS = 64, 16, 5
# Views have all changes of colour in the first alone, and no method has its own.
METHODS = {
    "hsic_gram_target": {"estimator": "gram", "target": True, "augment": "byol"},
    "hsic_features_target": {"estimator": "random_features", "target": True},
    "hsic_gram": {"estimator": "gram", "target": False},
    "hsic_features": {"estimator": "random_features", "target": False},
    "sfrik_2": {"coefficients": (1.0, 40.0)},
    "sfrik_3": {"coefficients": (1.0, 40.0, 40.0)},
}

# Eight views of several sizes, and batches in parts.
SMALL_CROPS = {
    "hsic_obow_parts": {
        "estimator": "random_features",
        "target": True,
        "augment": "multi_crop_obow",
        "micro_batches": 2,
    },
    "sfrik_swav_parts": {
        "coefficients": (1.0, 40.0, 40.0),
        "augment": "multi_crop_swav",
        "micro_batches": 2,
    },
    "sfrik_swav": {
        "coefficients": (1.0, 40.0, 40.0),
        "augment": "multi_crop_swav",
    },
}
# For every change: both networks and both estimators, moments and Gram matrices.
QUICK = {
    name: METHODS[name] for name in ("hsic_gram_target", "hsic_features", "sfrik_3")
}
GROUPS = {"methods": METHODS, "quick": QUICK, "small_crops": SMALL_CROPS}


def devices(kind, count, worker=0, ports=()):
    """Makes devices of the CPU, and the distribution over them."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    addresses = [f"127.0.0.1:{port}" for port in ports]
    # Code that is less optimised compiles in half the time.
    flags = "--xla_backend_optimization_level=1"
    if kind.startswith("jax"):
        os.environ["KERAS_BACKEND"] = "jax"
        local = count // max(1, len(ports))
        flags += f" --xla_force_host_platform_device_count={local}"
    os.environ["XLA_FLAGS"] = flags
    if kind == "jax_workers":
        os.environ["KERAS_DISTRIBUTION_JOB_ADDRESSES"] = addresses[0]
        os.environ["KERAS_DISTRIBUTION_NUM_PROCESSES"] = str(len(ports))
        os.environ["KERAS_DISTRIBUTION_PROCESS_ID"] = str(worker)
    if kind == "multi_worker":
        task = {"type": "worker", "index": worker}
        config = {"cluster": {"worker": addresses}, "task": task}
        os.environ["TF_CONFIG"] = json.dumps(config)
    if kind in ("mirrored", "multi_worker"):
        import tensorflow as tf

        local = count // max(1, len(ports))
        parts = [tf.config.LogicalDeviceConfiguration() for _ in range(local)]
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, parts)
    from keras_kssl import distribution

    name = {"one": "none", "jax_workers": "jax"}.get(kind, kind)
    return distribution.choose(name, worker_timeout=120.0)


def tiny_encoder():
    """Compiles at once; two layers whose statistics are those of the global batch."""
    import keras

    from keras_kssl.models.layers import BatchNorm

    layers = [keras.Input((None, None, 3))]
    for i, filters in enumerate((8, 16)):
        initializer = keras.initializers.GlorotUniform(seed=i)
        options = {"strides": 2, "kernel_initializer": initializer, "use_bias": False}
        layers.append(keras.layers.Conv2D(filters, 3, **options))
        layers.append(BatchNorm())
        layers.append(keras.layers.Activation("relu"))
    return keras.Sequential(layers)


def model_of(name):
    import keras

    import keras_kssl as kssl

    keras.utils.set_random_seed(0)
    options = dict({**METHODS, **SMALL_CROPS}[name])
    encoder = tiny_encoder()
    name_of_policy = options.pop("augment", None)
    if name_of_policy is None:
        view = kssl.augment.View(12, flip=0.5)
        augment = kssl.augment.Policy([view, view])
    else:
        size = 12 if name_of_policy == "byol" else 24
        augment = getattr(kssl.augment, name_of_policy)(size)
    normalize = name.startswith("hsic")
    heads = [
        kssl.models.MLPHead((32,), 16, normalize_output=normalize, seed=seed)
        for seed in (2, 3)
    ]
    shared = {"augment": augment, "projector": heads[0], "seed": 4}
    shared["micro_batches"] = options.pop("micro_batches", 1)
    if name.startswith("sfrik"):
        objective = kssl.objectives.SFRIK(2.0, weight_per_pair=True, **options)
        model = kssl.models.SFRIK(encoder, objective=objective, **shared)
    else:
        target = options.pop("target")
        objective = kssl.objectives.HSIC(num_features=24, seed=5, **options)
        if target:
            shared |= {"predictor": heads[1], "target_decay": 0.9}
        model = kssl.models.SSLHSIC(
            encoder, target=target, objective=objective, **shared
        )
    # The loss of SFRIK, and its gradient, is some ten times as large.
    model.compile(kssl.optimizers.LARS(0.002 if name.startswith("sfrik") else 0.02))
    return model


def train(name, distribution):
    """Losses and metrics of each step, and all variables."""
    import keras
    import numpy as np

    import keras_kssl as kssl

    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs):
            seen.append({key: float(np.mean(logs[key])) for key in sorted(logs)})

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, 16, 16, 3), dtype=np.uint8)
    with distribution.scope():
        model = model_of(name)
        batches = kssl.data.load(images, BATCH, seed=0)
        options = {"verbose": 0, "callbacks": [Watch()]}
        model.fit(batches, steps_per_epoch=STEPS, epochs=1, **options)
        epoch = model.get_metrics_result()
    found = {
        f"{name}/step/{key}": np.array([step[key] for step in seen]) for key in seen[0]
    }
    found |= {f"{name}/epoch/{key}": np.array(epoch[key]) for key in epoch}
    for i, variable in enumerate(model.variables):
        value = keras.ops.convert_to_numpy(variable)
        found[f"{name}/variable/{i:03d}"] = value
    return found


def main(kind, count, path, group, worker="0", *ports):
    distribution = devices(kind, int(count), int(worker), ports)
    import numpy as np

    found = {}
    for name in GROUPS[group]:
        found |= train(name, distribution)
    if distribution.is_chief:
        np.savez(path, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
