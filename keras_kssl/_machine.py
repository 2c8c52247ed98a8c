"""What this process may use and has used of the machine: cores and memory."""

import contextlib
import os
import pathlib
import sys


def num_cores():
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory():
    """The most bytes of memory that this process has held so far; `None` if unknown.

    On Linux the kernel's own mark of this program: what `getrusage` says there counts
    what the process held before it became this program too.
    """
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
