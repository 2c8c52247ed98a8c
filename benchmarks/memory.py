"""Memory of SFRIK's value and gradients: python -m benchmarks.memory

Two views of 16384 embeddings of 8192 numbers, unless `--batch` and `--dim` say another.
First what XLA plans for our form and the plain one on JAX, of which nothing runs. Then
one step of each of ours, in a process of its own: the most that it held beyond what it
held before the views were there, compilation included (Linux).
"""

import argparse
import os
import pathlib
import subprocess
import sys
import time

from benchmarks.objective import VARIANTS

GB = 1e9
COEFFICIENTS = (1.0, 40.0, 40.0)
OURS = ("ours jax", "ours tf", "ours tf xla")


def plans(batch, dim):
    import jax

    from benchmarks import plain_jax
    from keras_kssl import objectives

    objective = objectives.SFRIK(coefficients=COEFFICIENTS)
    ours = jax.value_and_grad(lambda *views: objective(views), argnums=(0, 1))
    views = [jax.ShapeDtypeStruct((batch, dim), "float32")] * 2
    for name, step in (
        ("ours", jax.jit(ours)),
        ("plain", plain_jax.sfrik_step(COEFFICIENTS)),
    ):
        needs = step.lower(*views).compile().memory_analysis()
        given, made, others = (
            needs.argument_size_in_bytes / GB,
            needs.output_size_in_bytes / GB,
            needs.temp_size_in_bytes / GB,
        )
        print(
            f"JAX's plan, {name}: {given + made + others:.2f} GB: views {given:.2f}, "
            f"gradients {made:.2f}, others {others:.2f}",
            flush=True,
        )


def step(variant, batch, dim):
    _, build = VARIANTS[variant]
    small = build("sfrik", 8, 8, COEFFICIENTS)
    # Brings in the libraries and what they keep.
    small()
    before = memory("VmRSS")
    action = build("sfrik", batch, dim, COEFFICIENTS)
    # Until its next operation TensorFlow holds what views were made from.
    small()
    # From here on the most that is held is counted anew.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    began = time.perf_counter()
    loss = float(action())
    seconds = time.perf_counter() - began
    print(
        f"{variant}: {memory('VmHWM') - before:.2f} GB, loss {loss:.6f}, "
        f"{seconds:.0f} s with compilation",
        flush=True,
    )


def memory(field):
    """A size from /proc/self/status, in GB."""
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024 / GB
    raise OSError(f"/proc/self/status has no line {field}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16384)
    parser.add_argument("--dim", type=int, default=8192)
    parser.add_argument("--only", choices=("plans", *OURS), help="here and now")
    options = parser.parse_args()
    if options.only == "plans":
        plans(options.batch, options.dim)
    elif options.only:
        step(options.only, options.batch, options.dim)
    else:
        for part in ("plans", *OURS):
            environment = VARIANTS["ours jax" if part == "plans" else part][0]
            arguments = ["--only", part, *sys.argv[1:]]
            subprocess.run(
                [sys.executable, "-m", "benchmarks.memory", *arguments],
                env={**os.environ, **environment},
                check=True,
            )


if __name__ == "__main__":
    main()
