"""A suite for tests of the harness: variants that sleep, fail, vanish or use memory."""

import os
import signal
import threading
import time

from benchmarks.harness import Case, Unavailable

CASES = [
    Case(
        "sleep",
        {"seconds": 0.02},
        ("killed", "gone", "away", "large", "double", "single"),
    ),
    Case("other", {"seconds": 0.0}, ("single",)),
]


def _sleep(times):
    def build(seconds):
        print("libraries may print")
        return lambda: time.sleep(times * seconds)

    return build


def _away(seconds):
    raise Unavailable("the library is not installed")


def _gone(seconds):
    os._exit(3)


def _killed(seconds):
    """Ready, and gone while the others start."""
    kill = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGKILL))
    kill.start()
    return lambda: None


def _large(seconds):
    kept = bytearray(os.urandom(2**20) * 300)
    return lambda: time.sleep(seconds * (len(kept) > 0))


VARIANTS = {
    "single": ({}, _sleep(1)),
    "double": ({"KSSL_TEST": "1"}, _sleep(2)),
    "away": ({}, _away),
    "gone": ({}, _gone),
    "killed": ({}, _killed),
    "large": ({}, _large),
}
