"""An encoder as an ONNX file."""

import contextlib
import os
import pathlib

import numpy as np

from keras_kssl._checks import check_that
from keras_kssl._files import local_path, staged
from keras_kssl.export.comparison import FEATURES, compare, record, to_numpy
from keras_kssl.export.functions import Functions
from keras_kssl.export.inputs import (
    check_backend,
    check_encoder,
    image_shapes,
    random_images,
)

_AXES = ("batch", "height", "width")
_OF_OTHERS = "features of another batch"


def onnx(encoder, path, input_shape=None, overwrite=False):
    """Writes an encoder as an ONNX file, for inference by any runtime of ONNX.

    The graph has the input `inputs`, float32 images (batch, height, width, channels)
    in [0, 1], channels last, normalisation inside; and the output `features`, float32.
    Batch normalisation is folded into convolutions. Batch size, height and width are
    open where they are open in `saved_model`. Encoders in half precision are written
    in full precision, which runtimes on CPUs need; their weights are that already.

    Written by tf2onnx in operator set 15, run by ONNX Runtime and compared with the
    encoder before it is put in place. Both come with `pip install 'keras_kssl[onnx]'`.

    Args:
        encoder, input_shape: As in `saved_model`; frozen encoders too.
        path: Local file to write, ending in `.onnx`; `~` is expanded, missing parents
            are made.
        overwrite: Whether a file at `path` is replaced. Defaults to False.

    Returns:
        The path written, as a string.

    Raises:
        FileExistsError: There is something at `path`.
        ImportError: tf2onnx or ONNX Runtime is not installed.
        RuntimeError: The Keras backend is not TensorFlow, or the file does not run, or
            gives other features than the encoder; nothing is left at `path`.
        TypeError, ValueError: As for `saved_model`.

    Example:

        path = keras_kssl.export.onnx(encoder, "encoder.onnx")
        session = onnxruntime.InferenceSession(path)
        (features,) = session.run(["features"], {"inputs": images})
    """
    caller = "onnx"
    check_onnx(caller)
    check_encoder(caller, encoder)
    local = local_path(caller, path)
    check_that(
        local.suffix == ".onnx", caller, "path", "a file name ending in .onnx", path
    )
    shapes, size = image_shapes(caller, encoder, input_shape)
    if not encoder.built:
        encoder(np.zeros((1, *size), "float32"))
    with (
        staged(caller, path, overwrite, os.path.isfile) as (temporary, final),
        _in_full_precision(encoder),
    ):
        import tensorflow as tf

        images = random_images(size)
        with tf.device("/CPU:0"):
            expected = record(caller, encoder, images)
        functions = Functions(caller, encoder, shapes)
        # Another number of images, and another size where any is taken.
        height, width, _ = functions.images.shape[1:]
        others = images[:3, : height or size[0] // 2, : width or size[1] // 2]
        with tf.device("/CPU:0"):
            expected[_OF_OTHERS] = to_numpy(encoder(others, training=False))
        with _explained(caller):
            content = _converted(functions)
        pathlib.Path(temporary).write_bytes(content)
        with _explained(caller):
            found = {
                FEATURES: _run(temporary, images),
                _OF_OTHERS: _run(temporary, others),
            }
        compare(caller, encoder, expected, found)
    return final


def check_onnx(caller):
    """Raises where ONNX files cannot be written, before any work."""
    check_backend(caller, "ONNX files")
    try:
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{caller}: needs tf2onnx and ONNX Runtime. Install them: "
            "pip install 'keras_kssl[onnx]'."
        ) from error


@contextlib.contextmanager
def _explained(caller):
    try:
        yield
    except Exception as error:  # whatever either package raises
        raise RuntimeError(
            f"{caller}: the encoder must consist of operations that ONNX has. "
            f"Received: {error} Nothing was left at the path. Give input_shape with a "
            "fixed height and width if sizes are the trouble."
        ) from error


def _converted(functions):
    """The bytes of the file."""
    import tensorflow as tf
    import tf2onnx

    function = tf.function(
        lambda inputs: {"features": functions.features(inputs, training=False)},
        autograph=False,
    )
    model, _ = tf2onnx.convert.from_function(function, [functions.images])
    graph = model.graph
    for values, names in ((graph.input[0], _AXES), (graph.output[0], _AXES[:1])):
        axes = values.type.tensor_type.shape.dim
        for axis, name in zip(axes, names, strict=False):
            if not axis.HasField("dim_value"):
                axis.dim_param = name
    model.doc_string = "float32 images in [0, 1], channels last -> features"
    return model.SerializeToString()


def _run(path, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["features"], {"inputs": images})[0]


@contextlib.contextmanager
def _in_full_precision(encoder):
    """Lets layers in mixed precision compute in that of their variables."""
    mixed = [
        layer
        for layer in encoder._flatten_layers()
        if layer.compute_dtype != layer.variable_dtype
    ]
    policies = [layer.dtype_policy for layer in mixed]
    try:
        for layer in mixed:
            layer.dtype_policy = layer.variable_dtype
        yield
    finally:
        for layer, policy in zip(mixed, policies, strict=True):
            layer.dtype_policy = policy
