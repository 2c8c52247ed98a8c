"""Nested dictionaries of arrays as `numpy.save` writes them, read as data.

`numpy.save` pickles what is no array, and `numpy.load(allow_pickle=True)` runs what
such a file asks for.
"""

import mmap
import re

import numpy as np

from keras_kssl.convert import pickles
from keras_kssl.convert.failures import Unreadable

# Read-only dictionaries of Haiku, by all names that they had; made from a dictionary.
_HAIKU_DICTIONARIES = ("FlatMapping", "FlatMap", "frozendict")
# Named tuples that hold states of optimizers. They become plain tuples.
_STATES = ("optax.", "byol.utils.optimizers.")


def read(path):
    """What `numpy.save(path, value)` was given, for a value of containers and arrays.

    Dictionaries, lists, tuples, texts, numbers and arrays of numbers are read, Haiku's
    read-only dictionaries as dictionaries and the named tuples of Optax's and BYOL's
    optimizers as tuples.

    Raises:
        Unreadable: for anything else, none of which is run, and for damaged files.
    """
    with open(path, "rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            shape, _, dtype = _HEADERS[version](file)
        except Exception as error:  # whatever the header makes of the parser
            raise Unreadable("It does not start as a file of numpy.save.") from error
        if shape != () or dtype != np.dtype(object):
            raise Unreadable(
                f"It holds an array of shape {shape} and type {dtype}.",
                "A checkpoint is a dictionary of arrays.",
            )
        # A mapped file ends where it ends, whatever lengths the pickle claims.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
            stream.seek(file.tell())
            value = pickles.load(stream, _meaning_of)
    items = value.items if isinstance(value, _Array) else []
    if not isinstance(items, list) or len(items) != 1:
        raise Unreadable("It holds no dictionary.")
    return items[0]


class _Array:
    """An array before and after the pickle has said what is in it."""

    def __init__(self, *_):
        self.items = []
        self.shape = self._array = None

    def set_state(self, state):
        _, shape, dtype, is_fortran, content = state
        if dtype.kind == "O":
            self.items = content
            return
        array = np.frombuffer(content, dtype.numpy())
        self._array = array.reshape(shape, order="F" if is_fortran else "C")
        self.shape = self._array.shape

    def __array__(self, dtype=None, copy=None):
        # Small files may name one array in a million places: all share its memory.
        return np.array(self._array, dtype, copy=copy or None)


class _Dtype:
    """The type of an array's numbers, its byte order told afterwards."""

    def __init__(self, code, *_):
        if not re.fullmatch(r"[biuf][1248]|O8", code):
            raise Unreadable(f"It has an array of type {code!r:.20}, not of numbers.")
        self.code = code
        self.kind = code[0]
        self.order = "<"

    def set_state(self, state):
        self.order = state[1]

    def numpy(self):
        return np.dtype(self.code).newbyteorder(self.order)


def _scalar(dtype, content):
    array = _Array()
    array.set_state((1, (), dtype, False, content))
    return array


def _dictionary(mapping):
    if not isinstance(mapping, dict):
        raise TypeError("no dictionary")
    return mapping


_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_NAMES = {
    **pickles.ORDERED_DICT,
    "numpy.dtype": pickles.Call(_Dtype),
    "numpy.ndarray": "ndarray",
}
for _package in ("numpy.core", "numpy._core"):
    _NAMES[f"{_package}.multiarray._reconstruct"] = pickles.Call(_Array)
    _NAMES[f"{_package}.multiarray.scalar"] = pickles.Call(_scalar)
for _name in _HAIKU_DICTIONARIES:
    _NAMES[f"haiku._src.data_structures.{_name}"] = pickles.Call(_dictionary)


def _meaning_of(name):
    if name.startswith(_STATES):
        return pickles.Call(lambda *fields: fields)
    return _NAMES.get(name)
