"""Fewer passes over memory, and less of it: rows or blocks in turn; fused kernels."""

import functools
import math

import keras
from keras import ops

from keras_kssl import replicas
from keras_kssl._machine import num_cores

# Numbers in the largest array from which on compiling, a few seconds, is worth it.
_FEWEST_NUMBERS = 2**17


def fused_by_rows(function):
    """`function`, of nested arrays with one row per image, for faster use in a step.

    Dozens of cheap operations on large arrays one after the other go from memory to
    memory each time. On a CPU each row instead goes through all of them in turn, in a
    loop of one program that XLA compiles: what is between two operations stays in the
    cache, and what `ops.cond` leaves out for a row is not computed.
    Where shapes are not known, there is a GPU or TPU, the step has several replicas or
    arrays are small, the function is simply called with all rows.

    Args:
        function: of arrays (B, ...) and nested ones, to a list of such; rows must not
            depend on each other.

    Returns:
        A function of the same arrays. In TensorFlow all of its calls with arrays of
        the same shapes share one program, which is traced and compiled once.
    """
    if keras.backend.backend() == "tensorflow":
        loop = _tensorflow_loop(function)
    else:
        loop = functools.partial(_jax_loop, function)

    def fused(*arguments):
        pays = _pays(keras.tree.flatten(arguments))
        return (loop if pays else function)(*arguments)

    return fused


def _tensorflow_loop(function):
    import tensorflow as tf

    of_row = tf.function(function, autograph=False)

    def at(place, arrays):
        return tf.nest.map_structure(lambda array: array[place], arrays)

    # A loop in the program, not copies: they would take minutes to compile.
    @tf.function(jit_compile=True, autograph=False)
    def of_part(*part):
        made = of_row.get_concrete_function(*at(0, part)).structured_outputs
        made = [tf.TensorSpec(array.shape, array.dtype) for array in made]
        return tf.map_fn(lambda row: of_row(*row), part, fn_output_signature=made)

    def all_rows(*arguments):
        batch = tf.nest.flatten(arguments)[0].shape[0]
        # The cores share the batch, as they would not share a loop in one program.
        parts = max(n for n in range(1, num_cores() + 1) if batch % n == 0)
        arguments = tf.nest.map_structure(
            lambda array: tf.reshape(array, (parts, -1, 1, *array.shape[1:])),
            arguments,
        )
        made = [of_part(*at(i, arguments)) for i in range(parts)]
        made = [tf.concat(arrays, axis=0) for arrays in zip(*made, strict=True)]
        return [tf.reshape(array, (-1, *array.shape[2:])) for array in made]

    return all_rows


def _jax_loop(function, *arguments):
    import jax

    arguments = jax.tree.map(lambda array: array[:, None], arguments)
    made = jax.lax.map(lambda row: function(*row), arguments)
    return [array[:, 0] for array in made]


def _pays(arrays):
    """Whether a loop over the rows is faster than the whole batch at a time."""
    if replicas.num_replicas() > 1 or not _is_compiled_for_one_cpu(arrays):
        return False
    shapes = [tuple(array.shape) for array in arrays]
    if any(side is None for shape in shapes for side in shape):
        return False
    return max(math.prod(shape) for shape in shapes) >= _FEWEST_NUMBERS


def _is_compiled_for_one_cpu(arrays):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        is_eager = tf.executing_eagerly()
        return not (is_eager or tf.config.list_physical_devices("GPU"))
    if keras.backend.backend() == "jax":
        import jax

        is_traced = any(isinstance(array, jax.core.Tracer) for array in arrays)
        return is_traced and jax.default_backend() == "cpu" and len(jax.devices()) == 1
    return False


def relu_by_output(x):
    """max(x, 0), whose slope, 1 where the output is above 0, is read off the output.

    As JAX has it the slope comes from `x`. Where that is a sum of branches, XLA keeps
    the branches instead and computes the sum again on the way back.
    """
    if keras.backend.backend() == "jax":
        return _jax_relu()(x)
    return ops.relu(x)


@functools.cache
def _jax_relu():
    import jax

    @jax.custom_jvp
    def relu(x):
        return jax.numpy.maximum(x, 0)

    def slope_times(tangent, output, _):
        # XLA would see through max(x, 0) > 0 and take x > 0 again.
        return jax.numpy.where(jax.lax.optimization_barrier(output) > 0, tangent, 0)

    relu.defjvps(slope_times)
    return relu


def max_pool(maps, padding):
    """Maximum over windows of 3 x 3 at a stride of 2.

    The gradient goes to the first of the largest of each window. JAX's own program
    for it is slow: it scatters on GPUs, and goes number by number on a CPU.

    Args:
        maps: array (B, H, W, C).
        padding: "valid" or "same".
    """
    # In programs for images of any size sizes are not numbers.
    has_windows = all(isinstance(size, int) and size > 2 for size in maps.shape[1:3])
    if keras.backend.backend() == "jax" and has_windows:
        return _jax_max_pool()(_padded(maps) if padding == "same" else maps)
    return ops.max_pool(maps, 3, 2, padding, data_format="channels_last")


def _padded(maps):
    """Maps with what "same" adds to a side: 1 after it if it is even, else 1 around."""
    sides = [(size % 2, 1) for size in maps.shape[1:3]]
    return ops.pad(maps, ((0, 0), *sides, (0, 0)), constant_values=-math.inf)


@functools.cache
def _jax_max_pool():
    import jax

    jnp = jax.numpy

    def windows(maps):
        """The first, second ... number of all windows, from left to right and down."""
        ends = [(size - 3) // 2 * 2 + 1 for size in maps.shape[1:3]]
        return [
            maps[:, i : i + ends[0] : 2, j : j + ends[1] : 2]
            for i in range(3)
            for j in range(3)
        ]

    @jax.custom_jvp
    def max_pool(maps):
        return functools.reduce(jnp.maximum, windows(maps))

    @max_pool.defjvp
    def max_pool_and_slope(maps, tangents):
        largest, *others = windows(*maps)
        place = jnp.zeros(largest.shape, "int8")
        for i, number in enumerate(others, 1):
            place = jnp.where(number > largest, i, place)
            largest = jnp.maximum(largest, number)
        # One byte for each window is kept, instead of what the numbers came from.
        place = jax.lax.optimization_barrier(place)
        slope = sum(
            jnp.where(place == i, tangent, 0)
            for i, tangent in enumerate(windows(*tangents))
        )
        return largest, slope

    # Called by itself it is one program, not dozens.
    return jax.jit(max_pool, inline=True)


def by_blocks(function, x, count):
    """A sum over rows and rows like them, by blocks of rows, few in memory at a time.

    Args:
        function: of rows (n, d), to a scalar, which is summed, and an array (n, d).
        x: array (N, d).
        count: number of blocks, a divisor of N.
    """
    if count == 1:
        return function(x)
    size, dim = x.shape[0] // count, x.shape[1]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # Stacked at the end: an array that is written to is copied each time.
        sums, made = tf.map_fn(
            lambda i: function(tf.slice(x, (i * size, 0), (size, dim))),
            tf.range(count),
            parallel_iterations=1,
            fn_output_signature=(x.dtype, tf.TensorSpec((size, dim), x.dtype)),
        )
        return tf.reduce_sum(sums), tf.reshape(made, x.shape)
    # Each block has rows from all over, of every device that has a share of the batch.
    # What goes from block to block has the shape of the result, to become it in place.
    by_block = (size, count, dim)

    def step(i, state):
        total, made = state
        value, rows = function(ops.take(ops.reshape(x, by_block), i, axis=1))
        made = ops.slice_update(ops.reshape(made, by_block), (0, i, 0), rows[:, None])
        return total + value, ops.reshape(made, x.shape)

    start = ops.zeros((), x.dtype), ops.zeros_like(x)
    return ops.fori_loop(0, count, step, start)


def fused_batch_norm(maps, scale, offset, statistics, epsilon):
    """Batch normalisation of maps (B, H, W, C) by TensorFlow's kernel, one each way.

    Args:
        maps: float32 or half precision; the other arrays are float32 (C,).
        statistics: mean and variance, or `None` for those of the batch.

    Returns:
        The maps normalised, and the mean and the (biased) variance (C,).
    """
    import tensorflow as tf

    is_training = statistics is None
    mean, variance = ((), ()) if is_training else statistics
    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=maps,
        scale=scale,
        offset=offset,
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        is_training=is_training,
    )
    if is_training:
        # The kernel gives the unbiased one.
        count = tf.cast(math.prod(ops.shape(maps)[:-1]), mean.dtype)
        variance = variance * (count - 1.0) / count
    return outputs, mean, variance


def squared_norm(x):
    """Sum of the squares of a float array; in TensorFlow they are not written down."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return 2.0 * tf.nn.l2_loss(x)
    return ops.sum(ops.square(x))


def has_fused_update(*variables):
    """Whether one kernel can move a variable and what an optimizer keeps beside it.

    So it is in TensorFlow, where all are float32 or all float64.
    """
    if keras.backend.backend() != "tensorflow":
        return False
    dtypes = {keras.backend.standardize_dtype(v.dtype) for v in variables}
    return dtypes in ({"float32"}, {"float64"})


def fused_momentum(variable, buffer, gradient, learning_rate, momentum, nesterov):
    """buffer = momentum buffer + gradient; variable -= learning_rate buffer, in place.

    One kernel of TensorFlow instead of five with arrays of their own between them. With
    `nesterov` the variable moves by learning_rate (gradient + momentum buffer).
    """
    import tensorflow as tf

    variable, buffer = _handles(variable, buffer)
    tf.raw_ops.ResourceApplyMomentum(
        var=variable,
        accum=buffer,
        lr=learning_rate,
        grad=gradient,
        momentum=momentum,
        use_nesterov=nesterov,
    )


def fused_adam(variable, momentum, velocity, gradient, learning_rate, decays, options):
    """Adam's update of a variable and of both moments, in place, by one kernel.

    Args:
        decays: beta_1 and beta_2 to the power of the steps, this one included.
        options: beta_1, beta_2 and epsilon.
    """
    import tensorflow as tf

    variable, momentum, velocity = _handles(variable, momentum, velocity)
    beta_1, beta_2, epsilon = options
    tf.raw_ops.ResourceApplyAdam(
        var=variable,
        m=momentum,
        v=velocity,
        beta1_power=decays[0],
        beta2_power=decays[1],
        lr=learning_rate,
        beta1=beta_1,
        beta2=beta_2,
        epsilon=epsilon,
        grad=gradient,
    )


def _handles(*variables):
    values = (v.value if isinstance(v, keras.Variable) else v for v in variables)
    return [value.handle for value in values]
