"""Encoders as files that others can use: SavedModel, `.keras`, ONNX, KerasHub preset.

All are written to a temporary folder beside the destination, loaded again, compared
with the encoder, and only then moved into place: what stands at the path works.
"""

from keras_kssl.export.formats import FORMATS
from keras_kssl.export.hub_preset import keras_hub
from keras_kssl.export.keras_format import keras_file
from keras_kssl.export.onnx_format import onnx
from keras_kssl.export.reusable import saved_model

__all__ = ["FORMATS", "keras_file", "keras_hub", "onnx", "saved_model"]
