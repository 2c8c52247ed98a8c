"""The process of one variant: python -m benchmarks.worker SUITE VARIANT CASE."""

import importlib
import json
import os
import pathlib
import sys
import time

from benchmarks.harness import Unavailable

# A turn repeats an action until it has lasted so many seconds.
_SHORTEST_TURN = 0.2


def work(suite, variant, name):
    """Builds, then takes a turn for every line that comes, then says what it used."""
    # Libraries that print must not speak between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values):
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    module = importlib.import_module(suite)
    (case,) = (case for case in module.CASES if case.name == name)
    try:
        action = module.VARIANTS[variant][1](**case.parameters)
        action()
        began = time.perf_counter()
        action()
        calls = max(1, round(_SHORTEST_TURN / (time.perf_counter() - began)))
    except Unavailable as reason:
        answer(failure=str(reason))
        return
    except MemoryError:
        answer(failure="out of memory")
        return
    answer(ready=True)
    for line in sys.stdin:
        if line.strip() == "end":
            answer(peak_mb=_peak_mb(), said=getattr(action, "said", {}))
            return
        began = time.perf_counter()
        for _ in range(calls):
            action()
        answer(seconds=(time.perf_counter() - began) / calls)


def _peak_mb():
    """Largest resident memory since the program was loaded, in MB (2**20 bytes)."""
    # What getrusage knows begins with the memory of the process that this came from.
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no line VmHWM")


if __name__ == "__main__":
    work(*sys.argv[1:])
