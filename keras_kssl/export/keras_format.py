"""An encoder as a `.keras` file."""

import os

import keras

from keras_kssl._checks import check_that
from keras_kssl._files import local_path, staged
from keras_kssl.export.comparison import compare, record
from keras_kssl.export.inputs import check_encoder, image_shapes, random_images


def keras_file(encoder, path, overwrite=False):
    """Writes an encoder as a `.keras` file, on any backend.

    The file holds the architecture and the weights, and loads on every Keras backend
    with `keras.saving.load_model`: a `models.ResNet` after `import keras_kssl.models`,
    or by `zoo.load`, which does that. Classes of one's own need
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
    check_encoder(caller, encoder, kinds=keras.Model)
    local = local_path(caller, path)
    check_that(
        local.suffix == ".keras", caller, "path", "a file name ending in .keras", path
    )
    _, size = image_shapes(caller, encoder, None)
    with staged(caller, path, overwrite, os.path.isfile) as (temporary, final):
        images = random_images(size)
        expected = record(caller, encoder, images)
        encoder.save(temporary)
        try:
            reloaded = keras.saving.load_model(temporary, compile=False)
        except Exception as error:  # whatever the user's own classes raise
            raise RuntimeError(
                f"{caller}: the file written must load again. Received: {error} "
                "Give every class of your own get_config() and "
                "@keras.saving.register_keras_serializable()."
            ) from error
        found = record(caller, reloaded, images, random_state_of=encoder)
        compare(caller, encoder, expected, found)
    return final
