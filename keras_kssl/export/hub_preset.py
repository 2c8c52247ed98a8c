"""An encoder as a preset of KerasHub."""

import os

import keras

from keras_kssl._files import staged
from keras_kssl.convert import keras_hub_image_converter, to_keras_hub
from keras_kssl.export.comparison import FEATURES, compare, record, to_numpy
from keras_kssl.export.inputs import random_images

_OF_PIXELS = "features of pixels in [0, 255]"
# The files of a backbone's preset.
_FILES = ("config.json", "metadata.json", "model.weights.h5")


def keras_hub(encoder, path, size=None, overwrite=False):
    """Writes a ResNet as a preset of KerasHub: backbone and image converter.

    From the folder, on any backend, `keras_hub.models.Backbone.from_preset(path)` gives
    the backbone of `convert.to_keras_hub`, and `ImageClassifier`, `RetinaNet` and other
    tasks start from it, with images brought to what the encoder was trained on: the
    preset holds the encoder's normalisation.

    The preset is loaded again by KerasHub and compared with the encoder before it is
    put in place. Needs `pip install 'keras_kssl[hub]'`.

    Args:
        encoder: `models.ResNet` of width 1 with the "imagenet" stem.
        path: Local folder to write; `~` is expanded, missing parents are made.
        size: Side in pixels to which the image converter brings images. Default: they
            keep their size.
        overwrite: Whether a preset at `path` is replaced, as a whole folder. Anything
            else there is never touched. Defaults to False.

    Returns:
        The path written, as a string.

    Raises:
        FileExistsError: There is something at `path`.
        ImportError: KerasHub is not installed.
        RuntimeError: What KerasHub loads differs from the encoder; nothing is left at
            `path`.
        TypeError, ValueError: KerasHub has no such encoder; see `to_keras_hub`.

    Example:

        path = keras_kssl.export.keras_hub(encoder, "presets/mine", size=224)
        classifier = keras_hub.models.ImageClassifier.from_preset(path, num_classes=10)
    """
    caller = "keras_hub"
    backbone = to_keras_hub(encoder)
    converter = keras_hub_image_converter(encoder, size)
    import keras_hub

    with staged(caller, path, overwrite, _is_preset) as (temporary, final):
        images = random_images((size or 64, size or 96, encoder.input_channels))
        expected = record(caller, encoder, images)
        backbone.save_to_preset(temporary)
        converter.save_to_preset(temporary)
        loaded = keras_hub.models.Backbone.from_preset(temporary)
        prepared = keras_hub.layers.ImageConverter.from_preset(temporary)(images * 255)
        maps = loaded(prepared, training=False)
        features = keras.ops.mean(keras.ops.cast(maps, "float32"), axis=(1, 2))
        expected[_OF_PIXELS] = expected[FEATURES]
        compare(caller, encoder, expected, {_OF_PIXELS: to_numpy(features)})
    return final


def _is_preset(path):
    return all(os.path.isfile(os.path.join(path, name)) for name in _FILES)
