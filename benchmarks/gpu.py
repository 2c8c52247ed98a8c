"""A training step on a GPU: JAX in bfloat16 against PyTorch, compiled, of one method.

    python -m benchmarks gpu
    python -m benchmarks.gpu        # the largest batches that fit

ResNet-50 at 224, views on the device; "with views" makes them there from uint8 images
of 256 pixels in host memory, as training from arrays does. Memory is that of the
device. A variant of ResNet-50 compiles for one to two minutes. The small cases show on
any machine that the suite runs; without a GPU in float32.

The second command looks for the largest batch, a power of two, whose step fits, as it
is and in eight parts (gradient caching), each try in a process of its own.
"""

import functools
import json
import os
import subprocess
import sys

from benchmarks import step

# An epoch's end takes some milliseconds, which real ones share among more steps.
STEPS = 30
_LARGEST = 2**14
PROJECTORS = {"ssl_hsic": (4096, 256), "sfrik": (8192, 8192, 8192)}
_VARIANTS = ("ours jax", "ours jax with views", "torch", "torch compiled")
CASES = [
    *(
        step.case(method, 50, 224, batch, projector, _VARIANTS, STEPS)
        for method, projector in PROJECTORS.items()
        for batch in (64, 128)
    ),
    *(
        step.case(method, 18, 32, 4, (64, 64), _VARIANTS, STEPS)
        for method in PROJECTORS
    ),
]


def machine_rates():
    """What the device does in bfloat16: products of large matrices, and copies."""
    program = """
import json, time, jax, jax.numpy as np
def fastest(function, *arrays):
    jax.block_until_ready(function(*arrays))
    times = []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(function(*arrays))
        times.append(time.perf_counter() - began)
    return min(times)
has_gpu = jax.default_backend() == "gpu"
side = 8192 if has_gpu else 1024
a = np.ones((side, side), np.bfloat16)
# Large enough that a call's own time does not count.
b = np.ones(2**30 if has_gpu else 2**24, np.bfloat16)
print(json.dumps({
    "flops_per_second": 2 * side**3 / fastest(jax.jit(np.matmul), a, a),
    "bytes_per_second": 2 * b.nbytes / fastest(jax.jit(lambda x: x + 1), b),
}))
"""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout.splitlines()[-1])


class _Action:
    """Some steps, and what they took of the device's memory."""

    def __init__(self, run, peak_bytes):
        self._run = run
        self._peak_bytes = peak_bytes

    def __call__(self):
        self._run()

    @property
    def said(self):
        peak = self._peak_bytes()
        return {} if peak is None else {"peak_mb": peak / 2**20}


def _jax_peak():
    import jax

    statistics = jax.devices()[0].memory_stats()
    return statistics and statistics["peak_bytes_in_use"]


def _ours(has_views, method, depth, size, batch, projector, parts=1, num_steps=STEPS):
    import jax
    import keras
    import numpy as np

    import keras_kssl as kssl

    if jax.default_backend() == "gpu":
        keras.config.set_dtype_policy("mixed_bfloat16")
    model = step.model_of(method, depth, size, projector)
    model.micro_batches = parts
    if has_views:
        model.augment = kssl.augment.byol(size=size)
        side = size * 8 // 7
        shape = (batch, side, side, 3)
        data = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    else:
        data = tuple(jax.device_put(view) for view in step.views_of(size, batch))
    model.compile(kssl.optimizers.LARS(0.1), jit_compile=True)

    def endless():
        while True:
            yield (data,)

    return _Action(
        lambda: model.fit(
            endless(), steps_per_epoch=num_steps, verbose=0, shuffle=False
        ),
        _jax_peak,
    )


def _torch(is_compiled, **parameters):
    torch = step.pytorch()
    has_gpu = torch.cuda.is_available()
    device = "cuda" if has_gpu else "cpu"
    # The fastest kernels are sought, as XLA does.
    torch.backends.cudnn.benchmark = True
    action = step.torch_step(**parameters, is_compiled=is_compiled, device=device)

    def run():
        for _ in range(STEPS):
            with torch.autocast(device, torch.bfloat16, enabled=has_gpu):
                loss = action()
        loss.item()

    def peak():
        return torch.cuda.max_memory_allocated() if has_gpu else None

    return _Action(run, peak)


_JAX = {"KERAS_BACKEND": "jax", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
VARIANTS = {
    "ours jax": (_JAX, functools.partial(_ours, False)),
    "ours jax with views": (_JAX, functools.partial(_ours, True)),
    "torch": ({}, functools.partial(_torch, False)),
    "torch compiled": ({}, functools.partial(_torch, True)),
}


def largest(method, parts, first, depth=50, size=224):
    """Prints the batches that fit, the most memory that each took, and what ended it.

    A try takes a minute or more, since kernels are sought as in training. Without that
    1024 images had not ended one step after six minutes.

    Args:
        first: a batch that fits; tried first, and then twice as many, and so on.
    """
    environment = {
        **os.environ,
        **_JAX,
        # A step's arrays are one piece, for which memory that grows bit by bit has
        # no place in the end.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "true",
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95",
        # The last line of what a failure says is then its reason.
        "JAX_TRACEBACK_FILTERING": "off",
    }
    batch = first
    while batch <= _LARGEST:
        print(f"{method}, {parts} parts, batch {batch}: ", end="", flush=True)
        arguments = (False, method, depth, size, batch, PROJECTORS[method], parts, 2)
        program = (
            "from benchmarks import gpu\n"
            f"action = gpu._ours(*{arguments})\n"
            "action()\n"
            "print(action.said.get('peak_mb'))"
        )
        run = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
        )
        if run.returncode:
            # Memory that is lacking has several names.
            said = run.stderr.strip().splitlines() or [f"code {run.returncode}"]
            print(f"no: {said[-1][:200]}", flush=True)
            return
        print(f"{run.stdout.split()[-1]} MB", flush=True)
        batch *= 2


def main():
    for method in PROJECTORS:
        for parts in (1, 8):
            largest(method, parts, first=256 * parts)


if __name__ == "__main__":
    main()
