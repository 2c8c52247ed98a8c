"""Choosing devices: what is wrong ends in one sentence, and nobody waits for ever."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
import typing

import keras
import numpy as np
import pytest

from keras_kssl import distribution, replicas
from keras_kssl.checkpoints import Checkpoints
from keras_kssl.cli import training
from keras_kssl.distribution import Distribution, Watchdog, workers
from tests.test_replicas import ROOT, free_ports

ON_JAX = keras.backend.backend() == "jax"
WORKERS = ["host0:2222", "host1:2222"]


def test_one_device_is_the_default():
    for kind in ("none", "auto"):
        chosen = distribution.choose(kind)
        assert (chosen.kind, chosen.num_replicas, chosen.num_workers) == ("none", 1, 1)
        assert chosen.is_chief
    assert chosen.describe(32).endswith(": batch 32")
    assert chosen.largest(3) == 3
    chosen.check_batch(7)
    chosen.check_same("step", 5)
    assert replicas.count() == replicas.num_replicas() == 1


def test_kinds_are_those_of_the_command_line():
    assert typing.get_args(training.Kind) == distribution.KINDS


def test_what_is_printed_names_replicas_batches_and_scopes():
    text = Distribution("mirrored", ("GPU:0", "GPU:1"), 2).describe(32)
    for words in ("2 replicas", "GPU:0, GPU:1", "global batch 32, 16 per replica"):
        assert words in text
    assert "batch normalisation, loss and augmentation are those of the global" in text
    text = Distribution("multi_worker", ("GPU:0",), 8, num_workers=4).describe(32)
    assert "in each of 4 workers" in text


def test_a_batch_that_does_not_divide_is_refused_with_one_that_does():
    with pytest.raises(ValueError, match=r"multiple of .* 6.*=16\. Such as 18"):
        Distribution("mirrored", (), 6).check_batch(16)


@pytest.mark.parametrize("kind", ["mirrored", "jax", "multi_worker", "tpu", "magic"])
def test_what_a_machine_does_not_have_is_refused(kind, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match=r"distribution: `(kind|TF_CONFIG)` must"):
        distribution.choose(kind)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("", "set for several workers"),
        ("{", "JSON with"),
        ("[]", "JSON with"),
        ({"cluster": {"worker": WORKERS}}, "JSON with"),
        ({"cluster": {}, "task": {"type": "worker", "index": 0}}, "a cluster of"),
        (
            {"cluster": {"worker": ["host0"]}, "task": {"type": "worker", "index": 0}},
            "each HOST:PORT",
        ),
        (
            {"cluster": {"worker": "host0:1"}, "task": {"type": "worker", "index": 0}},
            "each HOST:PORT",
        ),
        (
            {"cluster": {"worker": WORKERS}, "task": {"type": "worker", "index": 2}},
            "a task that is in the cluster",
        ),
        (
            {"cluster": {"worker": WORKERS}, "task": {"type": "chief", "index": 0}},
            "a task that is in the cluster",
        ),
        (
            {
                "cluster": {"worker": WORKERS[:1] * 2},
                "task": {"type": "worker", "index": 0},
            },
            "different addresses",
        ),
    ],
)
def test_a_wrong_cluster_is_refused(config, words):
    text = config if isinstance(config, str) else json.dumps(config)
    with pytest.raises(ValueError, match=f"`TF_CONFIG` must be .*{words}"):
        workers.cluster_of(text)


def test_the_chief_of_a_cluster_is_worker_0():
    cluster = {"worker": WORKERS, "chief": ["host9:1"]}
    for task, worker in ((("chief", 0), 0), (("worker", 0), 1), (("worker", 1), 2)):
        config = {"cluster": cluster, "task": {"type": task[0], "index": task[1]}}
        addresses, found = workers.cluster_of(json.dumps(config))
        assert (addresses[0], found) == ("host9:1", worker)


@pytest.mark.parametrize(
    ("addresses", "count", "number"),
    [
        ("host0", "2", "0"),
        ("host0:1", "2", None),
        ("host0:1", "2", "2"),
        ("host0:1", "x", "0"),
        ("host0:1,host1:1", "3", "0"),
    ],
)
def test_wrong_variables_for_jax_are_refused(addresses, count, number, monkeypatch):
    names = ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
    for name, value in zip(names, (addresses, count, number), strict=True):
        if value is None:
            monkeypatch.delenv(f"KERAS_DISTRIBUTION_{name}", raising=False)
        else:
            monkeypatch.setenv(f"KERAS_DISTRIBUTION_{name}", value)
    with pytest.raises(ValueError, match="need three variables"):
        workers.jax_processes()


def test_workers_that_all_come_meet_and_one_that_does_not_is_named():
    first, second = free_ports(2)
    addresses = [f"127.0.0.1:{first}", f"127.0.0.1:{second}"]
    with socket.create_server(("127.0.0.1", second)):
        workers.meet(addresses, 0, timeout=10.0)
    with pytest.raises(TimeoutError, match=f"no answer from 127.0.0.1:{second}"):
        workers.meet(addresses, 0, timeout=0.5)
    with (
        socket.create_server(("", first)),
        pytest.raises(ValueError, match="the port of this worker must be free"),
    ):
        workers.meet(addresses, 0, timeout=0.5)


def test_a_watchdog_waits_while_something_moves_and_then_ends_the_process(monkeypatch):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    two = Distribution("jax", (), 2, 2, worker_timeout=0.4)
    with Watchdog(two, "all wait") as watchdog:
        for _ in range(6):
            time.sleep(0.1)
            watchdog.beat()
        assert ended == []
        time.sleep(1.0)
    assert ended[0] == 1
    ended.clear()
    with Watchdog(Distribution(worker_timeout=0.1), "alone"):
        time.sleep(0.4)
    assert ended == []


class Runs:
    """The command line on two workers of this machine."""

    def __init__(self, out):
        self.out = out

    def start(self, *options):
        first, second = free_ports(2)
        command = [sys.executable, "-m", "keras_kssl.cli", "pretrain", "--data"]
        command += ["builtin:digits:train", "--limit", "128", "--width", "0.125"]
        command += ["--size", "16", "--projector", "32", "16", "--epochs", "4"]
        command += ["--batch-size", "16", "--checkpoint-seconds", "0.5"]
        command += ["--worker-timeout", "100", "--out", str(self.out), *options]
        processes = []
        for worker in range(2):
            task = {"type": "worker", "index": worker}
            cluster = {"worker": [f"127.0.0.1:{first}", f"127.0.0.1:{second}"]}
            environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
            if ON_JAX:
                names = "KERAS_DISTRIBUTION_"
                environment[names + "JOB_ADDRESSES"] = f"127.0.0.1:{first}"
                environment[names + "NUM_PROCESSES"] = "2"
                environment[names + "PROCESS_ID"] = str(worker)
            else:
                config = {"cluster": cluster, "task": task}
                environment["TF_CONFIG"] = json.dumps(config)
            silently = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
            processes.append(
                subprocess.Popen(
                    command, cwd=ROOT, env=environment, text=True, **silently
                )
            )
        return processes

    def state(self):
        path = Checkpoints(self.out / "checkpoints").paths()[0]
        with np.load(path) as archive:
            arrays = {k: archive[k] for k in archive if k not in ("facts", "paths")}
        with (self.out / "metrics.csv").open() as lines:
            return arrays, list(csv.DictReader(lines))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_lost_a_worker_goes_on_to_the_same_weights(number, tmp_path):
    whole, disturbed = Runs(tmp_path / "whole"), Runs(tmp_path / "disturbed")
    for process in whole.start():
        assert process.communicate(timeout=300)[1] is not None
        assert process.returncode == 0
    chief, other = disturbed.start()
    end = time.monotonic() + 120
    while not Checkpoints(disturbed.out / "checkpoints").paths():
        assert time.monotonic() < end
        time.sleep(0.1)
    other.send_signal(number)
    said = chief.communicate(timeout=60)[1]
    other.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert chief.returncode == 1
        assert "Another worker is gone" in said
    else:
        # One worker was told to stop: all stop after the same step.
        assert chief.returncode > 128
        assert "Stopped. The last checkpoint is of step" in said
    assert "--resume" in said
    for process in disturbed.start("--resume"):
        process.communicate(timeout=300)
        assert process.returncode == 0
    (arrays, metrics), (expected, expected_metrics) = disturbed.state(), whole.state()
    assert [k for k in arrays if not np.array_equal(arrays[k], expected[k])] == []
    assert len(metrics) == len(expected_metrics) == 4
    for line, expected_line in zip(metrics, expected_metrics, strict=True):
        # Second moments are added up by each worker, and by all in a checkpoint: the
        # rank of the epoch that was broken off may have its last digit rounded anew.
        ranks = [float(x.pop("effective_rank")) for x in (line, expected_line)]
        assert ranks[0] == pytest.approx(ranks[1], rel=1e-6)
        assert line == expected_line
