"""Encoders as files that others can use: a reusable SavedModel, and `.keras`.

Both are written to a temporary folder beside the destination, loaded again, compared
with the encoder, and only then moved into place: what stands at the path works.
"""

from keras_kssl.export.keras_format import keras_file
from keras_kssl.export.reusable import saved_model

__all__ = ["keras_file", "saved_model"]
