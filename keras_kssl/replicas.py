"""How many devices share one global batch: the only file that asks tf.distribute."""

import keras


def num_replicas():
    """Replicas that the current TensorFlow strategy keeps in step; otherwise 1.

    On the JAX backend a batch that is sharded over devices is still one array, so
    there is one replica whatever the number of devices.
    """
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync
