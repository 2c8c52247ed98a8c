"""Memory and time of a training step by the number of micro-batches, and multi-crop.

One line for one setting, whose memory is that of the whole process:

    python benchmarks/micro_batches.py --parts 1 --compile
    python benchmarks/micro_batches.py --parts 8 --compile
    python benchmarks/micro_batches.py --policy multi_crop_swav --apart

On JAX also what XLA plans for a step's intermediate results.
"""

import argparse
import resource
import time


def peak():
    """Largest memory that the process has had so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def planned(model, images):
    """MiB that XLA plans for intermediate results of a compiled step, on JAX."""
    import jax

    state = [
        [v.value for v in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
    ]
    step = jax.jit(model.train_step).lower(tuple(state), (images,)).compile()
    return step.memory_analysis().temp_size_in_bytes / 2**20


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", type=int, default=1)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--depth", type=int, default=10)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--policy", default="vicreg")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--compile", action="store_true", help="by XLA")
    parser.add_argument(
        "--apart", action="store_true", help="each view on its own, whatever the policy"
    )
    options = parser.parse_args(arguments)
    import keras
    import numpy as np

    import keras_kssl as kssl

    keras.utils.set_random_seed(0)
    model = kssl.models.SFRIK(
        kssl.models.ResNet(options.depth, options.width, stem="cifar", seed=0),
        augment=getattr(kssl.augment, options.policy)(options.size),
        projector=kssl.models.MLPHead((512, 512), 512, seed=1),
        micro_batches=options.parts,
        seed=0,
    )
    if options.apart:
        model.each_view = lambda function, views: [function(view) for view in views]
    model.compile(kssl.optimizers.LARS(0.1), jit_compile=options.compile)
    model.optimizer.build(model.trainable_variables)
    shape = (options.batch, options.size, options.size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    start, began = peak(), time.perf_counter()
    losses = [float(model.train_on_batch(images)[0])]
    first, began = time.perf_counter() - began, time.perf_counter()
    for _ in range(options.steps):
        losses.append(float(model.train_on_batch(images)[0]))
    seconds = (time.perf_counter() - began) / options.steps
    found = {
        "backend": keras.backend.backend(),
        **vars(options),
        "first_step_s": round(first, 1),
        "step_s": round(seconds, 2),
        "peak_mib": round(peak()),
        "peak_before_mib": round(start),
        "loss": round(losses[0], 4),
    }
    if found["backend"] == "jax":
        found["planned_mib"] = round(planned(model, images))
    print(found)


if __name__ == "__main__":
    main()
