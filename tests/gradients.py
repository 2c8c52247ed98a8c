"""Values and gradients of functions on the backend in use."""

import keras
import numpy as np


def value_and_gradients(function, *arrays):
    """A scalar function's value and its gradient by each array, as NumPy arrays."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tensors = [tf.constant(array) for array in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = function(*tensors)
        gradients = tape.gradient(value, tensors)
    else:
        import jax

        tensors = [jax.numpy.asarray(array) for array in arrays]
        arguments = tuple(range(len(tensors)))
        value, gradients = jax.value_and_grad(function, arguments)(*tensors)
    return np.asarray(value), [np.asarray(gradient) for gradient in gradients]
