"""Workers of one training: where settings say they are, and waiting for them."""

import json
import os
import re
import socket
import time

from keras_kssl._checks import check_that

JAX_ADDRESSES = "KERAS_DISTRIBUTION_JOB_ADDRESSES"
JAX_COUNT = "KERAS_DISTRIBUTION_NUM_PROCESSES"
JAX_NUMBER = "KERAS_DISTRIBUTION_PROCESS_ID"


def cluster_of(text):
    """Addresses of all workers and the number of this one, from TF_CONFIG."""
    example = (
        '{"cluster": {"worker": ["host0:2222", "host1:2222"]}, '
        '"task": {"type": "worker", "index": 0}}'
    )

    def check(condition, rule):
        check_that(
            condition,
            "distribution",
            "TF_CONFIG",
            rule,
            text,
            f"Set it on every worker, such as {example}.",
        )

    check(bool(text), "set for several workers")
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        groups = [
            (name, cluster[name]) for name in ("chief", "worker") if name in cluster
        ]
        kind, index = task["type"], int(task["index"])
    except (ValueError, KeyError, TypeError):
        check(False, "JSON with `cluster` and `task`")
    check(
        bool(groups)
        and all(
            isinstance(hosts, list) and all(map(_is_address, hosts))
            for _, hosts in groups
        ),
        "a cluster of workers, each HOST:PORT",
    )
    tasks = [(name, i) for name, hosts in groups for i in range(len(hosts))]
    check((kind, index) in tasks, "of a task that is in the cluster")
    addresses = [host for _, hosts in groups for host in hosts]
    check(len(set(addresses)) == len(addresses), "of workers with different addresses")
    return addresses, tasks.index((kind, index))


def jax_processes():
    """Addresses of all processes (or `None`), their number, the number of this one."""
    text = os.environ.get(JAX_ADDRESSES)
    if not text:
        return None, len(jax_slurm_tasks()), 0
    names = (JAX_ADDRESSES, JAX_COUNT, JAX_NUMBER)
    values = [os.environ.get(name) for name in names]
    addresses = [address.strip() for address in text.split(",")]
    is_whole = all(map(_is_address, addresses))
    try:
        count, number = int(values[1] or len(addresses)), int(values[2])
    except (TypeError, ValueError):
        is_whole = False
    if not is_whole or not 0 <= number < count or len(addresses) not in (1, count):
        raise ValueError(
            "distribution: several JAX processes need three variables: "
            f"{JAX_ADDRESSES} (HOST:PORT of the first, or of all, with commas), "
            f"{JAX_COUNT}, and {JAX_NUMBER} from 0. Received: "
            + ", ".join(f"{n}={v!r}" for n, v in zip(names, values, strict=True))
            + "."
        )
    return addresses, count, number


def jax_slurm_tasks():
    """Tasks of a Slurm job step, which JAX finds by itself."""
    return range(int(os.environ.get("SLURM_STEP_NUM_TASKS", "1") or 1))


def meet(addresses, worker, timeout):
    """Waits until every worker can be reached, which TensorFlow would do for ever.

    Each listens at its address until it has reached all others. TensorFlow's server
    takes the port over and answers those who still look for it.
    """
    missing = [address for i, address in enumerate(addresses) if i != worker]
    port = int(addresses[worker].rpartition(":")[2])
    end = time.monotonic() + timeout
    try:
        listener = socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise ValueError(
            f"distribution: the port of this worker must be free. Received: "
            f"{addresses[worker]} ({error.strerror}). Is another run still going on?"
        ) from None
    with listener:
        while missing := [address for address in missing if not answers(address)]:
            if time.monotonic() > end:
                raise TimeoutError(
                    f"distribution: all {len(addresses)} workers must start within "
                    f"{timeout:g} seconds. Received: no answer from "
                    f"{', '.join(missing)}. Start them too, or look at their addresses."
                )
            time.sleep(0.2)


def _is_address(text):
    return isinstance(text, str) and bool(re.fullmatch(r".+:\d{1,5}", text))


def answers(address):
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2.0):
            return True
    except (OSError, ValueError):
        return False
