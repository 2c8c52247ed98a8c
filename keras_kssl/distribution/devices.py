"""What kind of devices there are."""

import keras


def has_accelerator():
    """Whether Keras sees a GPU or a TPU."""
    devices = keras.distribution.list_devices()
    return any(not name.startswith("cpu") for name in devices)


def compiling_pays():
    """Whether a training step is to be compiled by XLA."""
    if keras.backend.backend() == "jax":
        return True
    # XLA's convolutions on a CPU are several times slower than TensorFlow's own.
    return has_accelerator()
