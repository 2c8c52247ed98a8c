"""Memory of a training step on a GPU by its batch, as XLA plans it, without the GPU.

    pip install "jax[cuda13]"
    JAX_PLATFORMS=cpu JAX_SKIP_CUDA_CONSTRAINTS_CHECK=1 python -m benchmarks.gpu_plan

The step of the `gpu` suite, compiled for an NVIDIA H200 but not run: what goes in, what
comes out and all that is between, in GB (10^9 bytes), as it is and in eight parts
(gradient caching). Kernels are not tried, of which some need space to work in. A row
takes a minute of one core.
"""

import os
import sys

# Of the GPU, as XLA describes it; its memory in bytes, and a second's worth of it.
_TARGET = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  device_memory_size: 150000000000
  memory_bandwidth: 4800000000000
  l2_cache_size: 62914560
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 12 }
device_description_str: "NVIDIA H200"
"""
BATCHES = {1: (64, 128, 256, 512, 1024, 2048), 8: (1024, 2048, 4096, 8192, 16384)}


def planned_bytes(method, batch, parts, depth=50, size=224):
    """What a step needs at once, its arguments and results included."""
    import jax
    import keras
    import numpy as np
    from jax.experimental import topologies

    import keras_kssl as kssl
    from benchmarks import gpu, step

    keras.config.set_dtype_policy("mixed_bfloat16")
    model = step.model_of(method, depth, size, gpu.PROJECTORS[method])
    model.micro_batches = parts
    model.compile(kssl.optimizers.LARS(0.1), jit_compile=True)
    model._symbolic_build(data_batch=(step.views_of(size, 2),))
    state = model._get_jax_state(
        trainable_variables=True,
        non_trainable_variables=True,
        optimizer_variables=True,
        metrics_variables=True,
    )
    topology = topologies.get_topology_desc(
        "", platform="cuda", target_config=_TARGET, topology="1x1x1"
    )
    place = jax.sharding.SingleDeviceSharding(topology.devices[0])

    def described(shape, dtype):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    state = jax.tree.map(lambda array: described(array.shape, array.dtype), state)
    view = described((batch, size, size, 3), np.float32)
    traced = jax.jit(model.train_step, donate_argnums=0).trace(state, ((view, view),))
    plan = traced.lower(lowering_platforms=("cuda",)).compile().memory_analysis()
    return (
        plan.argument_size_in_bytes
        + plan.output_size_in_bytes
        - plan.alias_size_in_bytes
        + plan.temp_size_in_bytes
    )


def main():
    from benchmarks import gpu

    for method in gpu.PROJECTORS:
        for parts, batches in BATCHES.items():
            for batch in batches:
                planned = planned_bytes(method, batch, parts) / 1e9
                print(f"{method}, {parts} parts, {batch}: {planned:.1f}", flush=True)


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "jax"
    # Without a GPU no kernel can be tried.
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_autotune_level=0"
    sys.exit(main())
