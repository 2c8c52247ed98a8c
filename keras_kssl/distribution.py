"""How training is shared out over devices: one, several, several machines, TPUs.

The engines are those of the backends: `tf.distribute` strategies on TensorFlow,
`keras.distribution` on JAX. Whatever is chosen, a run is the run of one large device:
objectives, batch normalisation and augmentation see the global batch.

    distribution = kssl.distribution.choose("mirrored")
    distribution.check_batch(batch_size)
    with distribution.scope():
        model = kssl.models.SSLHSIC(...)
        model.compile(...)
        model.fit(...)
"""

import contextlib
import functools
import json
import os
import re
import socket
import sys
import threading
import time

import keras
import numpy as np

from keras_kssl._checks import check_choice, check_number, check_that

KINDS = ("auto", "none", "mirrored", "multi_worker", "tpu", "jax")
WORKER_TIMEOUT = 600.0
_ONE_DAY = 86_400
_JAX_ADDRESSES = "KERAS_DISTRIBUTION_JOB_ADDRESSES"
_JAX_COUNT = "KERAS_DISTRIBUTION_NUM_PROCESSES"
_JAX_NUMBER = "KERAS_DISTRIBUTION_PROCESS_ID"


class Distribution:
    """Devices that share each batch of a training.

    Attributes:
        kind: "none", "mirrored", "multi_worker", "tpu" or "jax".
        devices: names of the devices, of this worker where there are several.
        num_replicas: devices of all workers; a batch is shared out among them.
        num_workers, worker: number of processes, and that of this one, from 0.
        strategy: the `tf.distribute` strategy or the `keras.distribution` object;
            `None` for one device.
        worker_timeout: seconds for which workers wait for each other.
    """

    def __init__(
        self,
        kind="none",
        devices=(),
        num_replicas=1,
        num_workers=1,
        worker=0,
        strategy=None,
        addresses=(),
        worker_timeout=WORKER_TIMEOUT,
    ):
        self.kind = kind
        self.devices = tuple(devices)
        self.num_replicas = num_replicas
        self.num_workers = num_workers
        self.worker = worker
        self.strategy = strategy
        self.addresses = tuple(addresses)
        self.worker_timeout = worker_timeout

    def __repr__(self):
        return (
            f"<distribution {self.kind}: {self.num_replicas} replicas, worker "
            f"{self.worker + 1} of {self.num_workers}>"
        )

    @property
    def is_chief(self):
        """Whether this worker writes files and speaks to people."""
        return self.worker == 0

    def scope(self):
        """Context in which models are built, compiled and fitted."""
        return (
            contextlib.nullcontext() if self.strategy is None else self.strategy.scope()
        )

    def check_batch(self, batch_size):
        """Raises `ValueError` for a batch that cannot be shared out equally."""
        check_that(
            batch_size % self.num_replicas == 0,
            "distribution",
            "batch_size",
            f"a multiple of the number of replicas, {self.num_replicas}",
            batch_size,
            f"Such as {-(-batch_size // self.num_replicas) * self.num_replicas}.",
        )

    def describe(self, batch_size):
        """One line: devices, replicas, batches, and what statistics are taken over."""
        if self.num_replicas == 1:
            return f"1 device, {', '.join(self.devices)}: batch {batch_size}"
        workers = f" in each of {self.num_workers} workers" * (self.num_workers > 1)
        return (
            f"{self.num_replicas} replicas ({self.kind}), {', '.join(self.devices)}"
            f"{workers}: global batch {batch_size}, {batch_size // self.num_replicas} "
            "per replica; batch normalisation, loss and augmentation are those of the "
            f"global batch of {batch_size}"
        )

    def largest(self, number):
        """The largest over all workers of a number; all of them must ask for it."""
        return number if self.num_workers == 1 else self._largest(float(number))

    def check_same(self, name, number):
        """Raises `ValueError` on every worker where a number differs between them."""
        if self.num_workers == 1:
            return
        largest, smallest = self._largest(number), -self._largest(-number)
        if largest != smallest:
            raise ValueError(
                f"distribution: all workers must have the same {name}. Received: "
                f"{number} here, from {smallest:g} to {largest:g} over all workers. Do "
                "all see the same files, such as a run folder on a shared disk?"
            )

    def watch(self, message="the workers train together"):
        """A `Watchdog` that ends this process where others keep it waiting."""
        return Watchdog(self, message)

    def name_silent_workers(self):
        """A sentence on the other workers that cannot be reached; or nothing."""
        others = [a for i, a in enumerate(self.addresses) if i != self.worker]
        silent = [address for address in others if not _answers(address)]
        return f" Workers that do not answer: {', '.join(silent)}." if silent else ""

    def _largest(self, number):
        if self.kind == "jax":
            from jax.experimental import multihost_utils

            return float(np.max(multihost_utils.process_allgather(np.float32(number))))
        import tensorflow as tf

        values = self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(number, tf.float32)
        )
        gathered = self._gather(values)
        return float(np.max(self.strategy.experimental_local_results(gathered)[0]))

    @functools.cached_property
    def _gather(self):
        """Numbers of all replicas, on every replica; compiled once."""
        import tensorflow as tf

        def of_replica(value):
            context = tf.distribute.get_replica_context()
            return context.all_gather(value[tf.newaxis], axis=0)

        return tf.function(lambda v: self.strategy.run(of_replica, args=(v,)))


class Watchdog:
    """Ends this process with a sentence when nothing moved for too long.

    A worker that waits for another that is gone cannot be woken: it sits inside the
    backend. For one worker it does nothing.
    """

    def __init__(self, distribution, message):
        self.distribution = distribution
        self.message = message
        self._stopped = threading.Event()
        self.beat()

    def beat(self):
        """Something moved."""
        self._last = time.monotonic()

    def __enter__(self):
        self.beat()
        if self.distribution.num_workers > 1:
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *failure):
        self._stopped.set()

    def _watch(self):
        limit = self.distribution.worker_timeout
        while not self._stopped.wait(min(1.0, limit / 4)):
            if time.monotonic() - self._last > limit:
                print(
                    f"kssl: {self.message}, and nothing has moved for {limit:g} "
                    f"seconds.{self.distribution.name_silent_workers()} Start all "
                    "workers again, with --resume where the run had begun.",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(1)


def choose(kind="auto", worker_timeout=WORKER_TIMEOUT):
    """The `Distribution` of a kind on this machine, its workers connected.

    Args:
        kind: "none", one device; "mirrored", all GPUs of this machine (TensorFlow);
            "multi_worker", the machines named in TF_CONFIG (TensorFlow); "tpu"
            (TensorFlow); "jax", all devices of this process, or of all processes that
            KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and _PROCESS_ID name or
            that JAX finds on Slurm and on TPUs. "auto" (default) takes what the
            machine and its settings ask for.
        worker_timeout: seconds for which workers wait for each other. Default 600.

    Raises:
        ValueError: for a kind that this machine or backend does not have, and wrong
            settings.
        TimeoutError: where a worker never comes.
    """
    check_choice("distribution", "kind", kind, KINDS)
    check_number("distribution", "worker_timeout", worker_timeout, 0.0, exclusive=True)
    backend = keras.backend.backend()
    if kind == "auto":
        kind = _automatic(backend)
    if kind == "none":
        return Distribution(devices=keras.distribution.list_devices()[:1])
    of_backend = {"jax": ("jax",), "tensorflow": ("mirrored", "multi_worker", "tpu")}
    check_that(
        kind in of_backend[backend],
        "distribution",
        "kind",
        f"none, auto or {', '.join(of_backend[backend])} on the {backend} backend",
        kind,
        "The variable KERAS_BACKEND chooses the backend.",
    )
    make = {
        "jax": _jax,
        "mirrored": _mirrored,
        "multi_worker": _multi_worker,
        "tpu": _tpu,
    }[kind]
    return make(worker_timeout)


def _automatic(backend):
    if backend == "jax":
        is_asked = _JAX_ADDRESSES in os.environ or len(_jax_slurm_tasks()) > 1
        return (
            "jax" if is_asked or len(keras.distribution.list_devices()) > 1 else "none"
        )
    if os.environ.get("TF_CONFIG"):
        return "multi_worker"
    if os.environ.get("TPU_NAME"):
        return "tpu"
    import tensorflow as tf

    return "mirrored" if len(tf.config.list_logical_devices("GPU")) > 1 else "none"


def _mirrored(worker_timeout):
    import tensorflow as tf

    devices = [device.name for device in tf.config.list_logical_devices("GPU")]
    devices = devices or [
        device.name for device in tf.config.list_logical_devices("CPU")
    ]
    names = [device.removeprefix("/device:") for device in devices]
    check_that(
        len(devices) > 1,
        "distribution",
        "kind",
        "for a machine with two or more devices where it is mirrored",
        "mirrored",
        f"Found: {', '.join(names)}. Use none.",
    )
    strategy = tf.distribute.MirroredStrategy(devices)
    return Distribution("mirrored", names, len(devices), strategy=strategy)


def _multi_worker(worker_timeout):
    import tensorflow as tf

    addresses, worker = _cluster(os.environ.get("TF_CONFIG"))
    _meet(addresses, worker, worker_timeout)
    # Without a `timeout_seconds` of its own, for which TensorFlow would start a thread
    # with every exchange: the watchdog of a run keeps the time.
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    local = strategy.extended.worker_devices
    return Distribution(
        "multi_worker",
        [device.rpartition("/")[2].removeprefix("device:") for device in local],
        strategy.num_replicas_in_sync,
        len(addresses),
        worker,
        strategy,
        addresses,
        worker_timeout,
    )


def _meet(addresses, worker, timeout):
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
        while missing := [address for address in missing if not _answers(address)]:
            if time.monotonic() > end:
                raise TimeoutError(
                    f"distribution: all {len(addresses)} workers must start within "
                    f"{timeout:g} seconds. Received: no answer from "
                    f"{', '.join(missing)}. Start them too, or look at their addresses."
                )
            time.sleep(0.2)


def _cluster(text):
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


def _tpu(worker_timeout):
    import tensorflow as tf

    name = os.environ.get("TPU_NAME", "local")
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        if name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        strategy = tf.distribute.TPUStrategy(resolver)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            "distribution: `kind` must not be tpu where there is none. Received: "
            f"kind='tpu', TPU_NAME={name!r} ({reason}). On a TPU VM install "
            "tensorflow-tpu, and set TPU_NAME=local."
        ) from error
    count = strategy.num_replicas_in_sync
    return Distribution(
        "tpu", [f"TPU:{i}" for i in range(count)], count, strategy=strategy
    )


def _jax(worker_timeout):
    import jax

    addresses, count, number = _jax_processes()
    if addresses is not None or count > 1:
        waiting = Distribution(
            "jax",
            num_workers=count,
            worker=number,
            addresses=addresses or (),
            worker_timeout=worker_timeout,
        )
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        with waiting.watch("workers are to find each other"):
            jax.distributed.initialize(
                addresses[0] if addresses else None,
                count if addresses else None,
                number if addresses else None,
                # The watchdog speaks first.
                initialization_timeout=int(worker_timeout) + 60,
                # The chief judges and exports when the others are done.
                shutdown_timeout_seconds=_ONE_DAY,
            )
    devices = keras.distribution.list_devices()
    if len(devices) == 1:
        raise ValueError(
            "distribution: `kind` must not be jax for a single device. Received: "
            f"kind='jax'. Found: {devices[0]}. Use none; on a CPU the variable "
            "XLA_FLAGS=--xla_force_host_platform_device_count=8 makes eight of it."
        )
    strategy = keras.distribution.DataParallel(
        devices=devices, auto_shard_dataset=False
    )
    local = [f"{device.platform}:{device.id}" for device in jax.local_devices()]
    return Distribution(
        "jax",
        local,
        len(devices),
        jax.process_count(),
        jax.process_index(),
        strategy,
        addresses or (),
        worker_timeout,
    )


def _jax_processes():
    """Addresses of all processes (or `None`), their number, the number of this one."""
    text = os.environ.get(_JAX_ADDRESSES)
    if not text:
        return None, len(_jax_slurm_tasks()), 0
    names = (_JAX_ADDRESSES, _JAX_COUNT, _JAX_NUMBER)
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
            f"{_JAX_ADDRESSES} (HOST:PORT of the first, or of all, with commas), "
            f"{_JAX_COUNT}, and {_JAX_NUMBER} from 0. Received: "
            + ", ".join(f"{n}={v!r}" for n, v in zip(names, values, strict=True))
            + "."
        )
    return addresses, count, number


def _jax_slurm_tasks():
    """Tasks of a Slurm job step, which JAX finds by itself."""
    return range(int(os.environ.get("SLURM_STEP_NUM_TASKS", "1") or 1))


def _is_address(text):
    return isinstance(text, str) and bool(re.fullmatch(r".+:\d{1,5}", text))


def _answers(address):
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2.0):
            return True
    except (OSError, ValueError):
        return False
