"""What can be exported, and the images that it takes."""

import numbers

import keras
import numpy as np

from keras_kssl._checks import check_that, message


def check_backend(caller, what):
    """Refuses every backend but TensorFlow, and calls under a strategy's scope."""
    backend = keras.config.backend()
    if backend != "tensorflow":
        raise RuntimeError(
            message(
                caller,
                "KERAS_BACKEND",
                f"'tensorflow', the backend that writes {what}",
                backend,
                "Save the encoder with export.keras_file(encoder, 'encoder.keras'), "
                "then load and export it under KERAS_BACKEND=tensorflow.",
            )
        )
    import tensorflow as tf

    if tf.distribute.has_strategy():
        raise RuntimeError(
            f"{caller}: must be called outside strategy.scope(). Received: a call "
            f"under {type(tf.distribute.get_strategy()).__name__}. The encoder itself "
            "may have been made under the strategy."
        )


def check_encoder(caller, encoder, kinds=keras.Layer):
    if not isinstance(encoder, kinds):
        kind = "a keras.Model" if kinds is keras.Model else "a Keras model or layer"
        raise TypeError(message(caller, "encoder", kind, encoder))


def image_shapes(caller, encoder, input_shape):
    """The image shapes to trace with, the most open first, and one to test with."""
    if input_shape is not None:
        rule = "(height, width, channels), with None for an unknown height or width"
        try:
            height, width, channels = input_shape
        except (TypeError, ValueError):
            raise ValueError(
                message(caller, "input_shape", rule, input_shape)
            ) from None
        for length in (height, width, channels):
            known = isinstance(length, numbers.Integral) and length >= 1
            check_that(
                known or (length is None and channels is not None),
                caller,
                "input_shape",
                rule,
                input_shape,
            )
        return [(height, width, channels)], (height or 64, width or 96, channels)

    built = getattr(encoder, "input_shape", None)
    if built is None and encoder.built:
        built = (encoder.get_build_config() or {}).get("input_shape")
    if built is None:
        remedy = "Call it once on a batch of images"
        if caller != "keras_file":
            remedy += " or give input_shape=(height, width, channels)"
        raise ValueError(f"{caller}: `encoder` must be built. {remedy}.")
    if not isinstance(built, list | tuple) or not all(
        axis is None or isinstance(axis, numbers.Integral) for axis in built
    ):
        raise ValueError(
            f"{caller}: `encoder` must have one input. Received: inputs {built}."
        )
    check_that(
        len(built) == 4 and built[3] is not None,
        caller,
        "encoder",
        "an encoder of images (batch, height, width, channels)",
        tuple(built),
    )
    batch, height, width, channels = built
    size = (height or 64, width or 96, channels)
    if batch is None:  # declared by the encoder, rather than taken from a batch
        return [(height, width, channels)], size
    return [(None, None, channels), (height, width, channels)], size


def random_images(size):
    return np.random.default_rng(0).random((4, *size), dtype=np.float32)


def random_photos():
    """A JPEG large enough to be shrunk while it is decoded, and a PNG, encoded."""
    import tensorflow as tf

    pixels = np.random.default_rng(0).integers(0, 256, (96, 150, 3), dtype=np.uint8)
    return tf.stack([tf.io.encode_jpeg(pixels), tf.io.encode_png(pixels[:31, :45])])
