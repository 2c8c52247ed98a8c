"""An encoder as a reusable TensorFlow SavedModel.

A plain `encoder.export()` writes a SavedModel without a callable root, which
`tensorflow_hub.KerasLayer` refuses; `saved_model` follows the reusable SavedModel
interface instead.
"""

import os

import keras
import numpy as np

from keras_kssl._checks import message
from keras_kssl._files import staged
from keras_kssl.export.comparison import compare, flat, record, to_numpy
from keras_kssl.export.inputs import check_encoder, image_shapes, random_images


def saved_model(encoder, path, input_shape=None, overwrite=False):
    """Writes an encoder as a TensorFlow SavedModel that can be called and fine-tuned.

    The file needs neither Keras 3 nor this library to be used. It holds

    - the module itself, `module(inputs, training=False)` -> features; with
      `training=True` batch normalisation uses and updates its statistics,
    - `module.variables`, `module.trainable_variables` and
      `module.regularization_losses` (weight regularizers, each a function of no
      arguments),
    - the endpoints `serve` and `serve_training`, the same two functions of `inputs`
      alone, for `keras.layers.TFSMLayer`,
    - the signature `serving_default`, `inputs` -> `{"features": ...}`.

    Inputs are float32 images (batch, height, width, channels) in the range that the
    encoder takes, [0, 1] in this library; features are float32, whatever the
    encoder's precision. An encoder in mixed precision keeps its variables as they
    are and computes in half precision inside; fine-tuning a float16 one needs loss
    scaling on the user's side. Synchronised batch normalisation becomes local.

    The batch size is left open. Height and width are as the encoder declares them;
    an encoder without a declared input gets them open if it can be traced so, and
    otherwise the size that it was built with.

    Cost: two traces of the encoder and a few forward passes over four images, all on
    the CPU. The encoder's weights and statistics do not change.

    Args:
        encoder: Built Keras model or layer from one batch of images to one tensor of
            features: vectors (batch, features) or maps (batch, ..., features).
        path: Local folder to write; `~` is expanded, missing parents are made.
        input_shape: (height, width, channels), None for an unknown height or width.
            Defaults to what the encoder declares or was built with. Required for an
            encoder that is not built yet, which this builds.
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
    >>> module = tf.saved_model.load(keras_kssl.export.saved_model(encoder, path))
    >>> module(tf.fill((1, 31, 45, 3), 0.5)).numpy().tolist()
    [[1.5, 1.5]]

    Fine-tuned in Keras 3, in Keras 2 (`tf_keras`), and in plain TensorFlow:

        keras.layers.TFSMLayer(path, "serve", call_training_endpoint="serve_training")
        tensorflow_hub.KerasLayer(path, trainable=True)
        tf.saved_model.load(path)(images, training=True)

    TFSMLayer of Keras 3.15 names variables in a way that `fit` refuses with every
    optimizer that keeps one value per weight (Adam, SGD with momentum), whatever wrote
    the SavedModel; plain SGD works. In Keras 3, `keras_file` is the better way.

    References:
        [Reusable SavedModels](https://www.tensorflow.org/hub/reusable_saved_models).
        `regularization_losses` leaves out losses that depend on the inputs.
    """
    caller = "saved_model"
    backend = keras.config.backend()
    if backend != "tensorflow":
        raise RuntimeError(
            message(
                caller,
                "KERAS_BACKEND",
                "'tensorflow', the backend that writes SavedModels",
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
    check_encoder(caller, encoder)
    shapes, size = image_shapes(caller, encoder, input_shape)
    with staged(caller, path, overwrite, _is_saved_model) as (temporary, final):
        if not encoder.built:
            encoder(np.zeros((1, *size), "float32"))
        _check_trainable(caller, encoder)
        images = random_images(size)
        with tf.device("/CPU:0"):
            expected = record(caller, encoder, images)
        module, signature = _reusable_module(caller, encoder, shapes)
        tf.saved_model.save(
            module,
            temporary,
            signatures={"serving_default": signature},
            options=tf.saved_model.SaveOptions(experimental_custom_gradients=True),
        )
        with tf.device("/CPU:0"):
            reloaded = tf.saved_model.load(temporary)
            found = {"inference": to_numpy(reloaded(images, training=False))}
            before = flat(reloaded.variables)
            found["training"] = to_numpy(reloaded(images, training=True))
            found["statistics"] = flat(reloaded.variables) - before
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


def _reusable_module(caller, encoder, shapes):
    """The object to save and its signature, traced with the first shape possible."""
    import tensorflow as tf

    # Plain copies, because an encoder made under a distribution strategy has one
    # variable per device, and the module should fit on any.
    trainable = {id(variable) for variable in encoder.trainable_variables}
    copies = [
        tf.Variable(v.value, trainable=id(v) in trainable, dtype=v.dtype, name=v.path)
        for v in encoder.variables
    ]
    pairs = list(zip(encoder.variables, copies, strict=True))

    module = tf.train.Checkpoint()
    module.variables = copies
    module.trainable_variables = [copy for copy in copies if copy.trainable]
    module.regularization_losses = [
        _regularization_loss(v.regularizer, copy)
        for v, copy in pairs
        if copy.trainable and v.regularizer
    ]

    def features(inputs, training=False):
        with keras.StatelessScope(state_mapping=pairs) as scope:
            outputs = encoder(inputs, training=training)
        for variable, copy in pairs:
            if training and not copy.trainable:
                copy.assign(scope.get_current_value(variable))
        return tf.cast(outputs, tf.float32)

    for shape in shapes:
        images = tf.TensorSpec((None, *shape), tf.float32, name="inputs")
        call = tf.function(features, autograph=False)
        try:
            traces = [
                call.get_concrete_function(images, training=training)
                for training in (False, True)
            ]
        except Exception:  # whatever the encoder raises for open sizes
            if shape is shapes[-1]:
                raise
            continue
        if traces[0].output_shapes[-1] is not None:
            break

    known = {id(variable) for variable in module.variables}
    used = [variable for trace in traces for variable in trace.variables]
    unknown = {variable.name for variable in used if id(variable) not in known}
    if unknown:
        raise ValueError(
            f"{caller}: `encoder` must own every variable that it uses. Received: "
            f"one that also uses {sorted(unknown)}. Set its layers as attributes, "
            "and give random operations a keras.random.SeedGenerator that is one."
        )

    module.__call__ = call
    module.serve = tf.function(
        lambda inputs: call(inputs, training=False), [images], autograph=False
    )
    module.serve_training = tf.function(
        lambda inputs: call(inputs, training=True), [images], autograph=False
    )
    signature = tf.function(
        lambda inputs: {"features": call(inputs, training=False)},
        [images],
        autograph=False,
    )
    return module, signature


def _regularization_loss(regularizer, variable):
    import tensorflow as tf

    return tf.function(
        lambda: tf.convert_to_tensor(regularizer(tf.convert_to_tensor(variable))),
        input_signature=[],
        autograph=False,
    )


def _is_saved_model(path):
    return os.path.isfile(os.path.join(path, "saved_model.pb"))
