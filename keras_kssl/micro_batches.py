"""A function of a batch computed part by part, without keeping what is in between.

Gradient caching: the outputs of all parts are computed first and nothing else is kept;
their gradients go back part by part, each of which is computed anew. The memory for
intermediate results is that of one part, the time that of one more forward pass. The
gradient is the one of the whole, whatever is computed from all outputs together, where
rows do not depend on each other inside the function.
"""

import keras
from keras import ops

from keras_kssl import replicas


def map_parts(function, parameters, state, batch, count, widths):
    """Outputs of a function of a batch, part by part, and the state after the last.

    Part i has the rows i, i + count, i + 2 count, ...: on N replicas or devices, each
    of which has its own stretch of the batch, the parts are the same.

    Args:
        function: of `(parameters, state, part)`, lists of arrays, to
            `(outputs, state)`, lists too, the outputs float32 (b, width) for a part of
            b rows; without side effects.
        parameters: arrays, by which outputs are differentiated.
        state: arrays that each part takes from the one before, such as running
            statistics; not differentiated.
        batch: arrays (B, ...), B known; not differentiated.
        count: number of parts, a divisor of B.
        widths: of the outputs.

    Returns:
        `(outputs, state)`, rows in the order of the batch.

    >>> def function(parameters, state, part):
    ...     return [parameters[0] * part[0]], [state[0] + 1.0]
    >>> rows = ops.reshape(ops.arange(4.0), (4, 1))
    >>> (found,), (last,) = map_parts(function, [2.0], [0.0], [rows], 2, [1])
    >>> [float(x) for x in found[:, 0]], float(last)
    ([0.0, 2.0, 4.0, 6.0], 2.0)
    """
    rows = batch[0].shape[0] // count
    batch = [
        ops.reshape(ops.stop_gradient(array), (rows, count, *array.shape[1:]))
        for array in batch
    ]
    # Copies: on TensorFlow a variable would be read anew for the gradient.
    parameters = [ops.copy(array) for array in parameters]
    state = [ops.stop_gradient(ops.copy(array)) for array in state]
    if keras.backend.backend() == "jax":
        outputs, state = _by_jax(function, parameters, state, batch, count)
    else:
        shapes = [(rows, width) for width in widths]
        found = _by_tensorflow(function, parameters, state, batch, count, shapes)
        outputs, state = found[: len(widths)], found[len(widths) :]
    outputs = [
        ops.reshape(ops.moveaxis(array, 0, 1), (rows * count, width))
        for array, width in zip(outputs, widths, strict=True)
    ]
    return outputs, list(state)


def _by_jax(function, parameters, state, batch, count):
    import jax

    def step(state, i):
        part = [jax.lax.dynamic_index_in_dim(x, i, 1, keepdims=False) for x in batch]
        outputs, state = jax.checkpoint(function)(parameters, state, part)
        return jax.lax.stop_gradient(state), outputs

    state, outputs = jax.lax.scan(step, state, jax.numpy.arange(count))
    return outputs, state


def _by_tensorflow(function, parameters, state, batch, count, shapes):
    import tensorflow as tf

    def run_part(i, parameters, state):
        part = [tf.gather(array, i, axis=1) for array in batch]
        return function(parameters, state, part)

    @tf.custom_gradient
    def run(*parameters):
        def forward(i, found, state):
            outputs, state = run_part(i, parameters, state)
            found = [a.write(i, x) for a, x in zip(found, outputs, strict=True)]
            return found, state

        def gradient(*upstream):
            def backward(i, sums, state):
                with tf.GradientTape() as tape:
                    tape.watch(parameters)
                    outputs, state = run_part(i, parameters, state)
                more = tape.gradient(
                    outputs,
                    parameters,
                    output_gradients=[array[i] for array in upstream[: len(shapes)]],
                    unconnected_gradients=tf.UnconnectedGradients.ZERO,
                )
                return [a + b for a, b in zip(sums, more, strict=True)], state

            zeros = [tf.zeros_like(parameter) for parameter in parameters]
            sums, _ = _loop(backward, (zeros, state), count)
            return sums

        arrays = [
            tf.TensorArray(tf.float32, count, element_shape=shape) for shape in shapes
        ]
        found, last = _loop(forward, (arrays, state), count)
        return (*(array.stack() for array in found), *last), gradient

    return run(*parameters)


def _loop(step, carry, count):
    """`carry` after `step(i, *carry)` for i = 0 ... count - 1, one after another."""
    import tensorflow as tf

    if replicas.count() == 1:
        # In a graph, its iterations share their memory.
        _, *carry = tf.while_loop(
            lambda i, *carry: i < count,
            lambda i, *carry: (i + 1, *step(i, *carry)),
            (tf.constant(0), *carry),
            parallel_iterations=1,
            maximum_iterations=count,
        )
        return carry
    # Replicas cannot exchange anything inside a loop of a graph.
    for i in range(count):
        # One after another also where a part waits for nothing of the one before.
        before = [getattr(x, "flow", x) for x in tf.nest.flatten(carry)]
        with tf.control_dependencies(before):
            carry = step(tf.constant(i), *carry)
    return carry
