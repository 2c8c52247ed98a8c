"""What kind of devices there are."""

import keras


def has_accelerator():
    """Whether Keras sees a GPU or a TPU."""
    devices = keras.distribution.list_devices()
    return any(not name.startswith("cpu") for name in devices)


def peak_device_memory():
    """The most bytes that the fullest GPU or TPU has held; `None` if none says so."""
    if keras.backend.backend() == "jax":
        import jax

        stats = [device.memory_stats() or {} for device in jax.local_devices()]
        key = "peak_bytes_in_use"
        return max((s[key] for s in stats if key in s), default=None)
    import tensorflow as tf

    names = [f"GPU:{i}" for i in range(len(tf.config.list_logical_devices("GPU")))]
    peaks = [tf.config.experimental.get_memory_info(name)["peak"] for name in names]
    return max(peaks, default=None)
