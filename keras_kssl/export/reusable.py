"""An encoder as a reusable TensorFlow SavedModel.

A plain `encoder.export()` writes a SavedModel without a callable root, which
`tensorflow_hub.KerasLayer` refuses; `saved_model` follows the reusable SavedModel
interface instead.
"""

import os

import numpy as np

from keras_kssl._checks import check_integer, check_that
from keras_kssl._files import staged
from keras_kssl.export.comparison import (
    FEATURES,
    STATISTICS,
    TRAINING,
    compare,
    flat,
    record,
    to_numpy,
)
from keras_kssl.export.encoded import PHOTO_CHANNELS, images_of
from keras_kssl.export.functions import Functions
from keras_kssl.export.inputs import (
    check_backend,
    check_encoder,
    image_shapes,
    random_images,
    random_photos,
)


def saved_model(encoder, path, input_shape=None, size=None, overwrite=False):
    """Writes an encoder as a TensorFlow SavedModel that can be called and fine-tuned.

    The file needs neither Keras 3 nor this library to be used. It holds

    - the module itself, `module(inputs, training=False)` -> features; with
      `training=True` batch normalisation uses and updates its statistics,
    - `module.variables`, `module.trainable_variables` and
      `module.regularization_losses` (weight regularizers, each a function of no
      arguments),
    - the endpoints `serve` and `serve_training`, the same two functions of `inputs`
      alone, for `keras.layers.TFSMLayer`,
    - the endpoint `feature_maps(inputs, training=False)` -> `{"stage1": ..., "stage2":
      ..., "features": ...}`, for dense tasks: the maps of `evaluation.dense.
      feature_maps`, finest first, which of a `models.ResNet` are its four stages. Only
      for functional and sequential encoders,
    - the signatures `serving_default`, `inputs` -> `{"features": ...}`; `feature_maps`,
      `inputs` -> what the endpoint gives; and `serving_bytes`, `encoded` -> features of
      photos, see below.

    Inputs are float32 images (batch, height, width, channels) in the range that the
    encoder takes, [0, 1] in this library; features are float32, whatever the
    encoder's precision. An encoder in mixed precision keeps its variables as they
    are and computes in half precision inside; fine-tuning a float16 one needs loss
    scaling on the user's side. Synchronised batch normalisation becomes local.

    The batch size is left open. Height and width are as the encoder declares them;
    an encoder without a declared input gets them open if it can be traced so, and
    otherwise the size that it was built with. Called on images of a known shape, all
    of this compiles with XLA, except `serving_bytes`.

    `serving_bytes` takes a one-dimensional string tensor, the contents of JPEG and PNG
    files of any size, and does with them what `evaluation.extract` does: the shorter
    side is brought to 256/224 of `size`, the centre cut out. Pixels differ from its
    by at most 1.5/255, by the rounding of resized images. Photos are not turned as
    their EXIF tag says, which TensorFlow does not read; turn them before. A broken
    photo, or one of another format, fails the whole batch with InvalidArgumentError.

    Cost: four traces of the encoder and a few forward passes over four images, all on
    the CPU. The encoder's weights and statistics do not change.

    Args:
        encoder: Built Keras model or layer from one batch of images to one tensor of
            features: vectors (batch, features) or maps (batch, ..., features).
        path: Local folder to write; `~` is expanded, missing parents are made.
        input_shape: (height, width, channels), None for an unknown height or width.
            Defaults to what the encoder declares or was built with. Required for an
            encoder that is not built yet, which this builds.
        size: Side in pixels to which `serving_bytes` brings photos; take that of the
            views in training. Defaults to the side of the encoder's input where that
            is a square of a fixed size. Without a size, and for encoders of other than
            one or three channels, there is no `serving_bytes`.
        overwrite: Whether a SavedModel at `path` is replaced, as a whole folder.
            Anything else there is never touched. Defaults to False.

    Returns:
        The path written, as a string.

    Raises:
        FileExistsError: There is something at `path`.
        RuntimeError: The Keras backend is not TensorFlow, or the reloaded SavedModel
            differs from the encoder; nothing is left at `path`.
        TypeError, ValueError: The encoder cannot be exported: it is not built, is
            frozen, has several outputs, or gives features that are not finite.

    Example:

    >>> import os, tempfile
    >>> import keras, keras_kssl, tensorflow as tf
    >>> encoder = keras.Sequential(
    ...     [keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D(),
    ...      keras.layers.Dense(2, kernel_initializer="ones")])
    >>> path = os.path.join(tempfile.mkdtemp(), "encoder")
    >>> path = keras_kssl.export.saved_model(encoder, path, size=16)
    >>> module = tf.saved_model.load(path)
    >>> module(tf.fill((1, 31, 45, 3), 0.5)).numpy().tolist()
    [[1.5, 1.5]]
    >>> photo = tf.io.encode_png(tf.fill((31, 45, 3), tf.constant(51, tf.uint8)))
    >>> found = module.signatures["serving_bytes"](encoded=photo[tf.newaxis])
    >>> [round(value, 3) for value in found["features"][0].numpy().tolist()]
    [0.6, 0.6]

    Fine-tuned in Keras 3, in Keras 2 (`tf_keras`), and in plain TensorFlow:

        keras.layers.TFSMLayer(path, "serve", call_training_endpoint="serve_training")
        tensorflow_hub.KerasLayer(path, trainable=True)
        tf.saved_model.load(path)(images, training=True)

    TFSMLayer of Keras 3.15 names variables in a way that `fit` refuses with every
    optimizer that keeps one value per weight (Adam, SGD with momentum), whatever wrote
    the SavedModel; plain SGD works. docs/saved_models.md has a layer that any optimizer
    takes, and says which loaders train the head alone. With this library at hand,
    `keras_file` is the better way.

    References:
        [Reusable SavedModels](https://www.tensorflow.org/hub/reusable_saved_models).
        `regularization_losses` leaves out losses that depend on the inputs.
    """
    caller = "saved_model"
    check_backend(caller, "SavedModels")
    import tensorflow as tf

    check_encoder(caller, encoder)
    shapes, trial = image_shapes(caller, encoder, input_shape)
    with staged(caller, path, overwrite, _is_saved_model) as (temporary, final):
        if not encoder.built:
            encoder(np.zeros((1, *trial), "float32"))
        _check_trainable(caller, encoder)
        images = random_images(trial)
        with tf.device("/CPU:0"):
            expected = record(caller, encoder, images)
        functions = Functions(caller, encoder, shapes)
        size = _size_of_photos(caller, size, functions.images.shape)
        with tf.device("/CPU:0"):
            expected |= _recorded_besides(encoder, functions, images, size)
        module, signatures = _reusable_module(functions, size)
        tf.saved_model.save(
            module,
            temporary,
            signatures=signatures,
            options=tf.saved_model.SaveOptions(experimental_custom_gradients=True),
        )
        with tf.device("/CPU:0"):
            found = _computed_by(tf.saved_model.load(temporary), images, size)
        compare(caller, encoder, expected, found)
    return final


def _check_trainable(caller, encoder):
    """Refuses frozen encoders: loaded, they would train only what stands on top."""
    frozen = [
        v.path for v in encoder.variables if v.value.trainable and not v.trainable
    ]
    if frozen or (encoder.weights and not encoder.trainable_variables):
        raise ValueError(
            f"{caller}: `encoder` must be trainable throughout, so that others can "
            f"fine-tune it. Received: an encoder with frozen weights {frozen[:3]}. "
            "Set encoder.trainable = True before the export; whoever loads it can "
            "freeze it again."
        )


def _size_of_photos(caller, size, shape):
    """The side to which photos are brought, or `None` where they cannot be taken."""
    _, height, width, channels = shape
    if size is None:
        size = height if height == width else None
    else:
        check_integer(caller, "size", size, minimum=1)
        check_that(
            height in (None, size) and width in (None, size),
            caller,
            "size",
            f"the side of the images that the encoder takes, {height} x {width}",
            size,
        )
    return size if channels in PHOTO_CHANNELS else None


def _reusable_module(functions, size):
    """The object to save and its signatures."""
    import tensorflow as tf

    features, maps = functions.features, functions.maps
    module = tf.train.Checkpoint()
    module.variables = functions.variables
    module.trainable_variables = [v for v in functions.variables if v.trainable]
    module.regularization_losses = [
        _regularization_loss(variable.regularizer, copy)
        for variable, copy in functions.pairs
        if copy.trainable and variable.regularizer
    ]

    def signature(function, spec=functions.images):
        return tf.function(function, [spec], autograph=False)

    module.__call__ = features
    module.serve = signature(lambda inputs: features(inputs, training=False))
    module.serve_training = signature(lambda inputs: features(inputs, training=True))
    signatures = {
        "serving_default": signature(
            lambda inputs: {"features": features(inputs, training=False)}
        )
    }
    if maps is not None:
        module.feature_maps = maps
        signatures["feature_maps"] = signature(
            lambda inputs: maps(inputs, training=False)
        )
    if size is not None:
        channels = functions.images.shape[-1]

        def serving_bytes(encoded):
            images = images_of(encoded, size, channels)
            return {"features": features(images, training=False)}

        spec = tf.TensorSpec((None,), tf.string, name="encoded")
        signatures["serving_bytes"] = signature(serving_bytes, spec)
    return module, signatures


def _recorded_besides(encoder, functions, images, size):
    """What the encoder gives of maps and of photos, by the names of the record."""
    found = {}
    if functions.with_maps is not None:
        maps = functions.with_maps(images, training=False)
        found |= {_map_name(name): to_numpy(value) for name, value in maps.items()}
    if size is not None:
        channels = functions.images.shape[-1]
        photos = images_of(random_photos(), size, channels)
        found[_OF_PHOTOS] = to_numpy(encoder(photos, training=False))
    return found


def _computed_by(module, images, size):
    """The same of a loaded module, and what `record` holds of an encoder."""
    found = {FEATURES: to_numpy(module(images, training=False))}
    if "feature_maps" in module.signatures:
        maps = module.signatures["feature_maps"](inputs=images)
        found |= {_map_name(name): to_numpy(value) for name, value in maps.items()}
    if size is not None:
        of_photos = module.signatures["serving_bytes"](encoded=random_photos())
        found[_OF_PHOTOS] = to_numpy(of_photos["features"])
    before = flat(module.variables)
    found[TRAINING] = to_numpy(module(images, training=True))
    found[STATISTICS] = flat(module.variables) - before
    return found


_OF_PHOTOS = "features of encoded photos"


def _map_name(name):
    return f"{name} of feature_maps"


def _regularization_loss(regularizer, variable):
    import tensorflow as tf

    return tf.function(
        lambda: tf.convert_to_tensor(regularizer(tf.convert_to_tensor(variable))),
        input_signature=[],
        autograph=False,
    )


def _is_saved_model(path):
    return os.path.isfile(os.path.join(path, "saved_model.pb"))
