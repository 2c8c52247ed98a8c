"""The devices of this machine, or of those that its settings name."""

import os

import keras

from keras_kssl._checks import check_choice, check_number, check_that
from keras_kssl.distribution.sharing import WORKER_TIMEOUT, Distribution
from keras_kssl.distribution.workers import (
    JAX_ADDRESSES,
    cluster_of,
    jax_processes,
    jax_slurm_tasks,
    meet,
)

KINDS = ("auto", "none", "mirrored", "multi_worker", "tpu", "jax")
_ONE_DAY = 86_400


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
        is_asked = JAX_ADDRESSES in os.environ or len(jax_slurm_tasks()) > 1
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

    addresses, worker = cluster_of(os.environ.get("TF_CONFIG"))
    meet(addresses, worker, worker_timeout)
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

    addresses, count, number = jax_processes()
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
