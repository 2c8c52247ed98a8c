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

from keras_kssl.distribution.choosing import KINDS, choose
from keras_kssl.distribution.devices import (
    has_accelerator,
    peak_device_memory,
)
from keras_kssl.distribution.sharing import WORKER_TIMEOUT, Distribution, Watchdog

__all__ = [
    "KINDS",
    "WORKER_TIMEOUT",
    "Distribution",
    "Watchdog",
    "choose",
    "has_accelerator",
    "peak_device_memory",
]
