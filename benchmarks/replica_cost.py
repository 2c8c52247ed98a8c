"""Cost per device of the objectives, as the compiler counts it, on N devices.

KERAS_BACKEND=jax XLA_FLAGS=--xla_force_host_platform_device_count=8 \
    python benchmarks/replica_cost.py

For each objective the value and its gradient by the embeddings are compiled for a
global batch on 1, 2, 4 and 8 devices: floating-point operations of one device from the
compiler's cost analysis, and bytes that one device sends, from the collectives of the
compiled program (the sizes of their results).
"""

import argparse
import math
import re

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from keras_kssl import objectives, statistics

# The compiler counts what is done in a loop once: all rows in one block.
statistics._BLOCK_ELEMENTS = 2**62
BYTES = {"f32": 4, "s32": 4, "u32": 4, "pred": 1, "f64": 8}
NAMES = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
COLLECTIVE = re.compile(rf" = (.*?) (?:{NAMES})(?:-start)?\(")
RESULT = re.compile(r"(\w+)\[([\d,]*)\]")


def objectives_of(batch):
    gram = {"estimator": "gram", "learn_scale": False, "seed": 0}
    features = {"estimator": "random_features", "learn_scale": False, "seed": 0}
    return {
        "HSIC, random features": objectives.HSIC(**features),
        "HSIC, Gram matrix": objectives.HSIC(**gram),
        "SFRIK, L = 2": objectives.SFRIK(coefficients=(1.0, 40.0)),
        "SFRIK, L = 3": objectives.SFRIK(coefficients=(1.0, 40.0, 40.0)),
    }


def cost(objective, batch, dim, devices):
    """(operations, bytes exchanged) of one device."""
    mesh = Mesh(np.array(jax.devices()[:devices]), ("batch",))
    rows = NamedSharding(mesh, PartitionSpec("batch"))
    views = [jax.ShapeDtypeStruct((batch, dim), np.float32, sharding=rows)] * 2

    def loss(z_1, z_2):
        return objective.terms([z_1, z_2], training=False)["loss"]

    compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*views).compile()
    exchanged = 0
    for results in COLLECTIVE.findall(compiled.as_text()):
        for kind, shape in RESULT.findall(results):
            sides = [int(side) for side in shape.split(",") if side]
            exchanged += BYTES[kind] * math.prod(sides)
    return compiled.cost_analysis()["flops"], exchanged


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--dim", type=int, default=256)
    options = parser.parse_args()
    counts = [n for n in (1, 2, 4, 8) if n <= len(jax.devices())]
    print(f"two views of dimension {options.dim}; {len(jax.devices())} devices")
    for batch in options.batches:
        for name, objective in objectives_of(batch).items():
            found = [cost(objective, batch, options.dim, n) for n in counts]
            flops = " ".join(f"{f / 1e9:9.3f}" for f, _ in found)
            sent = " ".join(f"{b / 1e6:7.2f}" for _, b in found)
            print(f"{batch:5d} {name:22s} Gflop {flops}   MB {sent}")


if __name__ == "__main__":
    main()
