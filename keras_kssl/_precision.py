"""Products of matrices in the precision of their arrays."""

import keras
from keras import ops


def matmul(a, b):
    """`ops.matmul` whose sums and factors keep all digits of float32.

    JAX rounds the factors to 11 bits on GPUs (TF32) and to 8 on TPUs unless it is told
    otherwise, in which a kernel matrix loses half of its digits. The gradient's
    products are as precise. TensorFlow does as its process-wide switch says,
    `tf.config.experimental.enable_tensor_float_32_execution`.
    """
    if keras.backend.backend() != "jax":
        return ops.matmul(a, b)
    import jax

    with jax.default_matmul_precision("highest"):
        return ops.matmul(a, b)
