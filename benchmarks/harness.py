"""Timing of variants of one piece of work, taking turns, each in a process of its own.

A suite is a module of this package with

    CASES       list of `Case`
    VARIANTS    dict from a name to `(environment, build)`: variables of the
                environment, such as {"KERAS_BACKEND": "jax"}, and a function from a
                case's parameters to an action, a function without arguments that
                returns when its work is done

and, where it is not the processor that works, `machine_rates`, a function like the one
here. A variant that has no place on this machine raises `Unavailable` with the reason.

The processes of a case are all started before the first round, so that a machine that
slows down slows all of them; ratios are taken within a case. Peak memory is that of the
process, import and compilation included, unless an action says another in its `said`, a
dictionary of what stands beside its times.
"""

import contextlib
import dataclasses
import datetime
import importlib
import json
import os
import pathlib
import platform
import random
import statistics
import subprocess
import sys
import time
from importlib import metadata

HISTORY = pathlib.Path(__file__).parent / "history"
# Threads that have nothing to do leave the cores to others; memory in large pages, as
# `kssl` asks for it.
_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
_PACKAGES = ("keras_kssl", "keras", "tensorflow", "jax", "torch", "numpy")


class Unavailable(Exception):
    """A variant that cannot run here, and why."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of a table.

    Args:
        name: what the row is called.
        parameters: keyword arguments of every variant's `build`.
        variants: names of the variants that take part.
        flops, bytes: what has to be computed and moved at least, per action; 0 for
            not known.
        items: what an action works through, such as images; 0 for none.
    """

    name: str
    parameters: dict
    variants: tuple
    flops: float = 0.0
    bytes: float = 0.0
    items: int = 0


class _Worker:
    """A process that holds one variant of one case."""

    def __init__(self, suite, variant, case):
        module = importlib.import_module(suite)
        environment, _ = module.VARIANTS[variant]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", suite, variant, case.name],
            env={**os.environ, **_ENVIRONMENT, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.answer = {}

    def ask(self, order):
        """What the process answers; from the first failure on nothing but that."""
        if "failure" not in self.answer:
            # A process that the system has killed hears nothing, and says nothing.
            with contextlib.suppress(BrokenPipeError):
                if order:
                    self.process.stdin.write(order + "\n")
                    self.process.stdin.flush()
            line = self.process.stdout.readline()
            if line:
                self.answer = json.loads(line)
            else:
                self.answer = {"failure": f"ended with code {self.process.wait()}"}
        return self.answer

    def end(self):
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=60)


def run(suite, names=None, rounds=7, variants=None):
    """Times the cases of a suite and returns their results as plain data.

    Args:
        suite: name of the module, such as "benchmarks.objective".
        names: parts of the names of the cases to take; default all.
        rounds: turns of each variant. Default 7.
        variants: those that take part, of the ones of each case; default all.
    """
    module = importlib.import_module(suite)
    cases = [
        dataclasses.replace(
            case,
            variants=[v for v in case.variants if not variants or v in variants],
        )
        for case in module.CASES
        if not names or any(name in case.name for name in names)
    ]
    cases = [case for case in cases if case.variants]
    if not cases:
        asked = " or ".join([*(names or ()), *(variants or ())])
        raise SystemExit(f"{suite}: no case or variant is called {asked}.")
    measure = getattr(module, "machine_rates", machine_rates)
    before, results = measure(), []
    for case in cases:
        results.append(_run_case(suite, case, rounds))
        print(_line(results[-1]), flush=True)
    # Other work may have disturbed one of the two.
    rates = {name: max(rate, before[name]) for name, rate in measure().items()}
    for case, result in zip(cases, results, strict=True):
        result["least_seconds"] = max(
            case.flops / rates["flops_per_second"],
            case.bytes / rates["bytes_per_second"],
        )
    return {
        "suite": suite.rpartition(".")[2],
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "rates": rates,
        "rounds": rounds,
        "cases": results,
    }


def _run_case(suite, case, rounds):
    workers = {}
    for variant in case.variants:
        workers[variant] = _Worker(suite, variant, case)
        # One after the other: compilations side by side would take memory and time.
        workers[variant].ask("")
    turns = {variant: [] for variant in workers}
    for number in range(rounds):
        # Always another order, so that none always follows the same one.
        for variant in random.Random(number).sample(list(workers), len(workers)):
            answer = workers[variant].ask("go")
            turns[variant].append(answer.get("seconds"))
    found = {}
    for variant, worker in workers.items():
        answer = worker.ask("end")
        worker.end()
        if "failure" in answer:
            found[variant] = {"failure": answer["failure"]}
            continue
        seconds = turns[variant]
        found[variant] = {
            "seconds": statistics.median(seconds),
            "fastest": min(seconds),
            "slowest": max(seconds),
            "peak_mb": answer["peak_mb"],
            **answer["said"],
        }
    return {
        "case": case.name,
        "parameters": case.parameters,
        "items": case.items,
        "variants": found,
    }


def _line(result):
    parts = [result["case"]]
    for variant, found in result["variants"].items():
        if "failure" in found:
            parts.append(f"{variant}: {found['failure']}")
            continue
        seconds = found["seconds"]
        text = f"{variant} {1e3 * seconds:.1f} ms"
        if result["items"]:
            text += f" ({result['items'] / seconds:.1f}/s)"
        parts.append(f"{text} {found['peak_mb']:.0f} MB")
    return " | ".join(parts)


def machine_rates():
    """What the machine does in float32: operations, and bytes read and written."""
    import numpy as np

    a = np.ones((2048, 2048), "float32")
    source = np.ones(2**26, "float32")
    target = np.empty_like(source)

    def fastest(action):
        times = []
        for _ in range(5):
            began = time.perf_counter()
            action()
            times.append(time.perf_counter() - began)
        return min(times)

    return {
        "flops_per_second": 2 * 2048**3 / fastest(lambda: a @ a),
        "bytes_per_second": 2
        * source.nbytes
        / fastest(lambda: np.copyto(target, source)),
    }


def _machine():
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    cpu = platform.processor()
    information = pathlib.Path("/proc/cpuinfo")
    if information.is_file():
        names = [
            line.partition(":")[2].strip()
            for line in information.read_text().splitlines()
            if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "gpus": _gpus(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": versions,
    }


def _gpus():
    """Names and drivers of NVIDIA's devices; none where their tool is not installed."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        run = subprocess.run(query, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return []
    return run.stdout.splitlines()


def write(result):
    """Adds a result to the history and returns its path."""
    HISTORY.mkdir(exist_ok=True)
    stamp = result["date"].replace(":", "").replace("+0000", "Z")
    path = HISTORY / f"{result['suite']}_{stamp}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def table(result):
    """The result as a table in Markdown; ratios are to the last variant that ran."""
    lines = []
    for row in result["cases"]:
        ran = {k: v for k, v in row["variants"].items() if "failure" not in v}
        if not ran:
            continue
        last = list(ran)[-1]
        for variant, found in row["variants"].items():
            if "failure" in found:
                lines.append(
                    f"| {row['case']} | {variant} | {found['failure']} | | | | |"
                )
                continue
            seconds = found["seconds"]
            rate = f"{row['items'] / seconds:.1f}" if row["items"] else ""
            ratio = seconds / ran[last]["seconds"]
            bound = row["least_seconds"]
            share = f"{100 * bound / seconds:.0f} %" if bound else ""
            cells = (
                row["case"],
                variant,
                f"{1e3 * seconds:.1f}",
                rate,
                f"{ratio:.2f}",
                f"{found['peak_mb']:.0f}",
                share,
            )
            lines.append("| " + " | ".join(cells) + " |")
    head = (
        "| case | variant | ms | per second | time against the last | peak MB | "
        "of the machine's rate |"
    )
    return "\n".join([head, "|" + "---|" * 7, *lines])
