"""Encoders as files that others can use: a reusable SavedModel, and `.keras`.

Both are written to a temporary folder beside the destination, loaded again, compared
with the encoder, and only then moved into place: what stands at the path works.

A plain `encoder.export()` writes a SavedModel without a callable root, which
`tensorflow_hub.KerasLayer` refuses; `saved_model` follows the reusable SavedModel
interface instead.
"""

import contextlib
import numbers
import os
import pathlib
import shutil
import tempfile

import keras
import numpy as np

from keras_kssl import _checks

# Largest difference from the encoder, as a share of its largest value: of features,
# and of what training mode gives. Compiled graphs fuse operations and round
# differently; the statistics of a few small images amplify that.
_TOLERANCES = {
    "float64": (3e-5, 1e-3),
    "float32": (3e-5, 1e-3),
    "float16": (1e-2, 0.1),
    "bfloat16": (5e-2, 0.4),
}


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
            _checks.message(
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
    _check_encoder(caller, encoder)
    shapes, size = _image_shapes(caller, encoder, input_shape)
    with _staged(caller, path, overwrite, _is_saved_model) as (temporary, final):
        if not encoder.built:
            encoder(np.zeros((1, *size), "float32"))
        _check_trainable(caller, encoder)
        images = _random_images(size)
        with tf.device("/CPU:0"):
            expected = _record(caller, encoder, images)
        module, signature = _reusable_module(caller, encoder, shapes)
        tf.saved_model.save(
            module,
            temporary,
            signatures={"serving_default": signature},
            options=tf.saved_model.SaveOptions(experimental_custom_gradients=True),
        )
        with tf.device("/CPU:0"):
            reloaded = tf.saved_model.load(temporary)
            found = {"inference": _to_numpy(reloaded(images, training=False))}
            before = _flat(reloaded.variables)
            found["training"] = _to_numpy(reloaded(images, training=True))
            found["statistics"] = _flat(reloaded.variables) - before
        _compare(caller, encoder, expected, found)
    return final


def keras_file(encoder, path, overwrite=False):
    """Writes an encoder as a `.keras` file, on any backend.

    The file holds the architecture and the weights, and loads on every Keras backend
    with `keras.saving.load_model`. Classes of one's own need
    `@keras.saving.register_keras_serializable`. The state of random generators
    (dropout) is not stored in this format.

    Args:
        encoder: Built Keras model from one batch of images to one tensor of
            features.
        path: Local file to write, ending in `.keras`; `~` is expanded, missing
            parents are made.
        overwrite: Whether a file at `path` is replaced. Defaults to False.

    Returns:
        The path written, as a string.

    Raises:
        FileExistsError: There is something at `path`.
        RuntimeError: The file does not load, or what it loads differs from the
            encoder; nothing is left at `path`.
        TypeError, ValueError: As for `saved_model`.

    Example:

    >>> import os, tempfile
    >>> import keras, keras_kssl
    >>> encoder = keras.Sequential(
    ...     [keras.Input((None, None, 3)), keras.layers.GlobalAveragePooling2D(),
    ...      keras.layers.Dense(2)])
    >>> path = os.path.join(tempfile.mkdtemp(), "encoder.keras")
    >>> path = keras_kssl.export.keras_file(encoder, path)
    >>> keras.saving.load_model(path).count_params()
    8
    """
    caller = "keras_file"
    _check_encoder(caller, encoder, kinds=keras.Model)
    local = _local_path(caller, path)
    _checks.check_that(
        local.suffix == ".keras", caller, "path", "a file name ending in .keras", path
    )
    _, size = _image_shapes(caller, encoder, None)
    with _staged(caller, path, overwrite, os.path.isfile) as (temporary, final):
        images = _random_images(size)
        expected = _record(caller, encoder, images)
        encoder.save(temporary)
        try:
            reloaded = keras.saving.load_model(temporary, compile=False)
        except Exception as error:  # whatever the user's own classes raise
            raise RuntimeError(
                f"{caller}: the file written must load again. Received: {error} "
                "Give every class of your own get_config() and "
                "@keras.saving.register_keras_serializable()."
            ) from error
        found = _record(caller, reloaded, images, random_state_of=encoder)
        _compare(caller, encoder, expected, found)
    return final


def _check_encoder(caller, encoder, kinds=keras.Layer):
    if not isinstance(encoder, kinds):
        kind = "a keras.Model" if kinds is keras.Model else "a Keras model or layer"
        raise TypeError(_checks.message(caller, "encoder", kind, encoder))


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


def _image_shapes(caller, encoder, input_shape):
    """The image shapes to trace with, the most open first, and one to test with."""
    if input_shape is not None:
        rule = "(height, width, channels), with None for an unknown height or width"
        try:
            height, width, channels = input_shape
        except (TypeError, ValueError):
            raise ValueError(
                _checks.message(caller, "input_shape", rule, input_shape)
            ) from None
        for length in (height, width, channels):
            known = isinstance(length, numbers.Integral) and length >= 1
            _checks.check_that(
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
        if caller == "saved_model":
            remedy += " or give input_shape=(height, width, channels)"
        raise ValueError(f"{caller}: `encoder` must be built. {remedy}.")
    if not isinstance(built, list | tuple) or not all(
        axis is None or isinstance(axis, numbers.Integral) for axis in built
    ):
        raise ValueError(
            f"{caller}: `encoder` must have one input. Received: inputs {built}."
        )
    _checks.check_that(
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


def _random_images(size):
    return np.random.default_rng(0).random((4, *size), dtype=np.float32)


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


def _record(caller, encoder, images, random_state_of=None):
    """Features in both modes, and what the training call changes in the variables.

    The encoder's variables are left as they are. Training mode is left out where the
    encoder does not repeat itself, because it draws numbers from elsewhere.
    """
    source = random_state_of or encoder
    random_state = [
        (mine, theirs.value)
        for mine, theirs in zip(encoder.variables, source.variables, strict=True)
        if not keras.backend.is_float_dtype(mine.dtype)
    ]

    def run(training):
        with keras.StatelessScope(state_mapping=random_state) as scope:
            features = encoder(images, training=training)
            _check_features(caller, features)
        updated = [scope.get_current_value(v) for v in encoder.variables]
        pairs = zip(encoder.variables, updated, strict=True)
        after = _flat([v.value if new is None else new for v, new in pairs])
        return _to_numpy(features), after

    record = {"inference": run(training=False)[0]}
    if not np.isfinite(record["inference"]).all():
        raise ValueError(
            f"{caller}: `encoder` must give finite features. Received: "
            f"{np.mean(~np.isfinite(record['inference'])):.0%} NaN or infinite on "
            "random images in [0, 1]. It may have diverged in training."
        )
    training, after = run(training=True)
    again, _ = run(training=True)
    if _difference(again, training) <= _tolerances(encoder)[1]:
        before = _flat([v.value for v in encoder.variables])
        record.update(training=training, statistics=after - before)
    return record


def _check_features(caller, features):
    is_tensor = keras.ops.is_tensor(features)
    if (
        not is_tensor
        or len(features.shape) < 2
        or not keras.backend.is_float_dtype(
            keras.backend.standardize_dtype(features.dtype)
        )
    ):
        received = (
            f"{keras.backend.standardize_dtype(features.dtype)} of shape "
            f"{tuple(features.shape)}"
            if is_tensor
            else f"a {type(features).__name__} of outputs"
        )
        raise ValueError(
            f"{caller}: `encoder` must give one tensor of floats, (batch, features) or "
            f"(batch, ..., features). Received: {received}. Pick one output with "
            "keras.Model(encoder.input, output)."
        )


def _to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor).astype("float32")


def _flat(variables):
    """All floating-point values in one vector, so that they share one scale."""
    arrays = [keras.ops.convert_to_numpy(variable) for variable in variables]
    floats = [array.ravel() for array in arrays if array.dtype.kind not in "biu"]
    return np.concatenate([np.zeros(1), *floats]).astype("float32")


def _difference(found, expected):
    """Largest absolute difference, as a share of the largest expected magnitude."""
    if found.shape != expected.shape:
        return np.inf
    if not expected.size or np.array_equal(found, expected):
        return 0.0
    scale = np.max(np.abs(expected)) or 1.0
    difference = np.max(np.abs(found - expected)) / scale
    return float(difference) if np.isfinite(difference) else np.inf


def _tolerances(layer):
    """The tolerances for the coarsest precision in which a layer computes."""
    inner = [_tolerances(each) for each in getattr(layer, "layers", ())]
    return max([_TOLERANCES[layer.compute_dtype], *inner])


def _compare(caller, encoder, expected, found):
    inference, training = _tolerances(encoder)
    for part, name, tolerance in (
        ("inference", "features", inference),
        ("training", "features with training=True", training),
        ("statistics", "the update of the statistics", training),
    ):
        if part not in expected or part not in found:
            continue
        difference = _difference(found[part], expected[part])
        if not difference <= tolerance:
            raise RuntimeError(
                f"{caller}: what was written must compute what the encoder computes. "
                f"Received: after loading, a relative difference of {difference:.2g} "
                f"in {name}, where {tolerance:.2g} is allowed. Nothing was left at the "
                "path."
            )


def _local_path(caller, path):
    if not isinstance(path, str | os.PathLike):
        raise TypeError(_checks.message(caller, "path", "a path", path))
    text = os.path.expanduser(os.fspath(path))
    _checks.check_that(
        text and "://" not in text,
        caller,
        "path",
        "a local path",
        path,
        "Export to a local folder and copy it from there.",
    )
    return pathlib.Path(text)


def _is_saved_model(path):
    return os.path.isfile(os.path.join(path, "saved_model.pb"))


@contextlib.contextmanager
def _staged(caller, path, overwrite, is_replaceable):
    """Yields a temporary path, moved to `path` if the block succeeds, and `path`.

    Whatever fails, nothing new is left behind and what stood at `path` stands there.
    """
    final = _local_path(caller, path)

    def check_free():
        if os.path.lexists(final) and not (overwrite and is_replaceable(final)):
            remedy = "Choose another path" + (
                ": what stands there was not written by this function."
                if overwrite
                else " or set overwrite=True."
            )
            raise FileExistsError(
                _checks.message(caller, "path", "free", str(path), remedy)
            )

    check_free()
    made = [folder for folder in final.parents if not folder.exists()]
    temporary = None
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent)
        # One level below, so that the result gets the usual permissions rather than
        # the private ones of a temporary folder.
        staged = os.path.join(temporary, final.name)
        yield staged, str(final)
        check_free()
        previous = os.path.join(temporary, "previous")
        if final.is_dir():  # a folder cannot be replaced in one move
            os.rename(final, previous)
        try:
            os.replace(staged, final)
        except OSError:
            if os.path.lexists(previous):
                os.rename(previous, final)
            raise
        made = []
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
