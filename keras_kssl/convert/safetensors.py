"""Files of the safetensors format: a JSON header, then the bytes of the arrays."""

import json
import math
import os
import struct

import ml_dtypes
import numpy as np

from keras_kssl.convert.failures import Unreadable

_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U64": np.uint64,
    "U32": np.uint32,
    "U16": np.uint16,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_DTYPES = {name: np.dtype(kind) for name, kind in _DTYPES.items()}
# The format's own limit.
_LARGEST_HEADER = 100_000_000


def read(path):
    """Dictionary from names to NumPy arrays, read-only views of the file's bytes.

    Raises:
        Unreadable: where the file breaks a rule of the format: every byte belongs to
            one array, and every array has the bytes that its type and shape need.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= min(size - 8, _LARGEST_HEADER):
            raise Unreadable("It does not start with a safetensors header.")
        header = _header(file.read(length))
        content = file.read()
    arrays, ranges = {}, []
    for name, entry in header.items():
        dtype, shape, begin, end = _checked(name, entry, len(content))
        count = math.prod(shape)
        # The words of the file are little-endian, those of the array the machine's.
        words = np.frombuffer(content, f"<u{dtype.itemsize}", count, begin)
        words = words.astype(f"u{dtype.itemsize}", copy=False)
        arrays[name] = words.view(dtype).reshape(shape)
        ranges.append((begin, end))
    covered = 0
    for begin, end in sorted(ranges):
        if begin != covered:
            raise Unreadable("Its arrays overlap, or leave bytes between them.")
        covered = end
    if covered != len(content):
        raise Unreadable("Its arrays do not take all of its bytes.")
    return arrays


def _header(raw):
    def without_repetition(pairs):
        if len(dict(pairs)) != len(pairs):
            raise ValueError("a name twice")
        return dict(pairs)

    try:
        header = json.loads(raw, object_pairs_hook=without_repetition)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"Its header is no JSON object: {error}.") from error
    if not isinstance(header, dict):
        raise Unreadable("Its header is no JSON object.")
    header.pop("__metadata__", None)
    return header


def _checked(name, entry, length):
    if not isinstance(entry, dict) or entry.keys() != {
        "dtype",
        "shape",
        "data_offsets",
    }:
        raise Unreadable(f"Its header says of {name!r:.100} other than it should.")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _DTYPES:
        raise Unreadable(
            f"Array {name!r:.100} has the type {kind!r:.20}.",
            f"Read are {', '.join(_DTYPES)}.",
        )
    dtype = _DTYPES[kind]
    if not (_are_counts(shape) and len(shape) <= 32):
        raise Unreadable(f"Array {name!r:.100} has no shape.")
    if not (_are_counts(offsets) and len(offsets) == 2 and offsets[1] <= length):
        raise Unreadable(f"Array {name!r:.100} lies outside of the file.")
    begin, end = offsets
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise Unreadable(
            f"Array {name!r:.100} of shape {tuple(shape)} and type {kind} has "
            f"{end - begin} bytes."
        )
    return dtype, tuple(shape), begin, end


def _are_counts(numbers):
    return isinstance(numbers, list) and all(
        isinstance(number, int) and not isinstance(number, bool) and number >= 0
        for number in numbers
    )


def write(arrays, path):
    """Writes NumPy arrays; `safetensors` and this library's `read` open the file.

    Args:
        arrays: dictionary from names to arrays of the format's types.
        path: file to write.
    """
    kinds = {dtype: name for name, dtype in _DTYPES.items()}
    # The widest first, so that each array starts at a multiple of its word.
    names = sorted(arrays, key=lambda name: -arrays[name].itemsize)
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name in names:
        array, begin = arrays[name], end
        end += array.nbytes
        header[name] = {
            "dtype": kinds[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            array = np.ascontiguousarray(arrays[name])
            words = array.view(f"u{array.itemsize}").astype(f"<u{array.itemsize}")
            file.write(words.tobytes())
