"""Work on single rows of a batch that XLA compiles, where the whole step is not."""

import keras

from keras_kssl import replicas

# Numbers in the largest array from which on compiling, a few seconds, is worth it.
_FEWEST_NUMBERS = 2**20
# Of a part: what is between two operations stays in a processor's cache.
_NUMBERS_OF_A_PART = 2**19


def fused_by_rows(function, *arguments):
    """`function(*arguments)`, of nested arrays with one row per image.

    Graphs of TensorFlow run one operation after the other, each from memory to memory;
    for dozens of cheap ones on large arrays that takes several times as long as one
    program. Here XLA makes one of them, and some rows after others go through it.
    Where shapes are not known, the backend is another, there is a GPU, the step has
    several replicas or arrays are small, the function is simply called.

    Args:
        function: of arrays (B, ...) and nested ones, to a list of such; rows must not
            depend on each other.
    """
    rows = _rows_of_a_part(arguments)
    if rows is None:
        return function(*arguments)
    import tensorflow as tf

    def in_parts(array):
        return tf.reshape(array, (-1, rows, *array.shape[1:]))

    arguments = tf.nest.map_structure(in_parts, arguments)
    compiled = tf.function(function, jit_compile=True, autograph=False)
    first = tf.nest.map_structure(lambda array: array[0], arguments)
    signature = tf.nest.map_structure(
        lambda output: tf.TensorSpec(output.shape, output.dtype),
        compiled.get_concrete_function(*first).structured_outputs,
    )
    # A loop: copies of the program would take minutes to compile where all of the step
    # is compiled.
    made = tf.map_fn(
        lambda part: compiled(*part), arguments, fn_output_signature=signature
    )
    return [tf.reshape(array, (-1, *array.shape[2:])) for array in made]


def _rows_of_a_part(arguments):
    """Rows that go through the program at a time; `None` where it does not pay."""
    if keras.backend.backend() != "tensorflow" or replicas.num_replicas() > 1:
        return None
    import tensorflow as tf

    if tf.executing_eagerly() or tf.config.list_physical_devices("GPU"):
        return None
    shapes = [array.shape for array in tf.nest.flatten(arguments)]
    if not all(shape.is_fully_defined() for shape in shapes):
        return None
    largest = max(shapes, key=lambda shape: shape.num_elements())
    if largest.num_elements() < _FEWEST_NUMBERS:
        return None
    rows = max(1, _NUMBERS_OF_A_PART * largest[0] // largest.num_elements())
    # One size of parts, one program.
    while largest[0] % rows:
        rows -= 1
    return rows
