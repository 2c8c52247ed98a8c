"""Devices that share each batch of a training, and what their workers agree on."""

import contextlib
import functools
import os
import sys
import threading
import time

import numpy as np

from keras_kssl._checks import check_that
from keras_kssl.distribution.workers import answers

WORKER_TIMEOUT = 600.0


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
        silent = [address for address in others if not answers(address)]
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
