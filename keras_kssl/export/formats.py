"""The formats by name: what writes each, where it goes, and what it needs."""

import collections.abc
import dataclasses

from keras_kssl.convert import to_keras_hub
from keras_kssl.export.hub_preset import keras_hub
from keras_kssl.export.inputs import check_backend
from keras_kssl.export.keras_format import keras_file
from keras_kssl.export.onnx_format import check_onnx, onnx
from keras_kssl.export.reusable import saved_model


@dataclasses.dataclass(frozen=True)
class Format:
    """A way to write an encoder."""

    write: collections.abc.Callable
    """Function of (encoder, path, overwrite=...)."""
    place: str
    """Path in a folder of exports; empty for the folder itself."""
    check: collections.abc.Callable
    """Function of the encoder that raises where this cannot be written."""
    takes_size: bool
    """Whether `write` has an argument `size`."""

    def reason_against(self, encoder):
        """Why this cannot be written here, a text; `None` where it can."""
        try:
            self.check(encoder)
        except (ImportError, RuntimeError, TypeError, ValueError) as error:
            return str(error)
        return None


# The one that takes the whole folder comes first.
FORMATS = {
    "saved_model": Format(
        write=saved_model,
        place="",
        check=lambda encoder: check_backend("saved_model", "SavedModels"),
        takes_size=True,
    ),
    "keras": Format(
        write=keras_file,
        place="encoder.keras",
        check=lambda encoder: None,
        takes_size=False,
    ),
    "onnx": Format(
        write=onnx,
        place="encoder.onnx",
        check=lambda encoder: check_onnx("onnx"),
        takes_size=False,
    ),
    "keras_hub": Format(
        write=keras_hub,
        place="keras_hub",
        check=to_keras_hub,
        takes_size=True,
    ),
}
