"""Files of `torch.save`, read and written without PyTorch.

Since PyTorch 1.6 such a file is a zip archive: data.pkl, a pickle of tensors that name
their storages by key, and one raw file per storage. Before, it was a row of pickles
with the storages behind them.
"""

import dataclasses
import io
import math
import mmap
import os
import pathlib
import pickle
import struct
import zipfile
import zlib

import ml_dtypes
import numpy as np

from keras_kssl.convert import pickles
from keras_kssl.convert.failures import Unreadable

_STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_STORAGES = {name: np.dtype(kind) for name, kind in _STORAGES.items()}
_MOST_AXES = 32
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_ZIP_DAMAGE = (
    zipfile.BadZipFile,
    EOFError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    ValueError,
    struct.error,
    zlib.error,
)


def read(path):
    """What `torch.save` was given: containers and numbers, tensors as NumPy arrays.

    Arrays that share a storage in the file share memory, read-only. bfloat16 comes as
    `ml_dtypes.bfloat16`, every byte order as that of this machine. The reading takes no
    more memory than a small multiple of the file's size, whatever it claims.

    Raises:
        Unreadable: for anything but tensors and plain values, and for damaged files.
    """
    with open(path, "rb") as file:
        if file.read(4) == b"PK\x03\x04":
            return _read_zip(path)
        if not os.path.getsize(path):
            raise Unreadable("It is empty.")
        # A mapped file ends where it ends, whatever lengths the pickles claim.
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
            return _read_legacy(stream)


def _read_zip(path):
    try:
        with zipfile.ZipFile(path) as archive:
            folder = _checked_folder(archive, os.path.getsize(path))
            names = frozenset(archive.namelist())
            order = f"{folder}/byteorder"
            is_big = order in names and archive.read(order).strip() == b"big"
            storages = {}

            def resolve(pid):
                dtype, key, count = _storage_of(pid)
                name = f"{folder}/data/{key}"
                if name not in names:
                    raise Unreadable(f"Its archive has no storage {key!r:.20}.")
                if key not in storages:
                    storages[key] = _storage(archive.read(name), dtype, count, is_big)
                return _of_dtype(storages[key], dtype)

            data = io.BytesIO(archive.read(f"{folder}/data.pkl"))
            return pickles.load(data, _meaning_of, resolve)
    except _ZIP_DAMAGE as error:
        raise Unreadable(f"Its archive cannot be read: {error!s:.200}.") from error


def _checked_folder(archive, size):
    """The folder of data.pkl, after every entry has been found plausible."""
    entries = archive.infolist()
    for entry in entries:
        parts = pathlib.PurePosixPath(entry.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts:
            raise Unreadable(
                "Its archive has an entry that points out of it, "
                f"{entry.filename!r:.100}.",
                "Do not trust it.",
            )
        if entry.compress_type != zipfile.ZIP_STORED:
            raise Unreadable(
                "Its archive is compressed, which torch.save never does.",
                "Unpack it if it is the archive of such a file.",
            )
    if sum(entry.file_size for entry in entries) > size:
        raise Unreadable("The parts of its archive are larger than the file.")
    folders = [
        entry.filename.removesuffix("/data.pkl")
        for entry in entries
        if entry.filename.endswith("/data.pkl")
    ]
    if len(folders) != 1:
        raise Unreadable(
            "It is a zip archive without the one data.pkl of torch.save.",
            "Unpack it if it is the archive of such a file.",
        )
    return folders[0]


def _read_legacy(file):
    not_torch = Unreadable(
        "It is not a file of torch.save, or older than PyTorch 0.2.",
        "If it is older, load it in PyTorch and save the state dict again.",
    )
    try:
        magic = pickles.load(file, _meaning_of)
    except Unreadable as error:
        raise not_torch from error
    if magic != _LEGACY_MAGIC:
        raise not_torch
    pickles.load(file, _meaning_of)  # the version of the format
    system = pickles.load(file, _meaning_of)
    is_big = isinstance(system, dict) and system.get("little_endian") is False

    # The storages lie behind the pickle that refers to them: pass over it first.
    start, dtypes, storages = file.tell(), {}, {}

    def note(pid):
        dtype, key, _ = _storage_of(pid)
        dtypes[key] = dtype

    pickles.load(file, lambda name: _SKIPPED.get(name, _NAMES.get(name)), note)
    keys = pickles.load(file, _meaning_of)
    for key in keys if isinstance(keys, list) else ():
        head = file.read(8)
        if not isinstance(key, str) or key not in dtypes or len(head) < 8:
            raise Unreadable("Its storages are not those of its tensors.")
        (count,) = struct.unpack("<q", head)
        length = count * dtypes[key].itemsize
        raw = file.read(length) if 0 <= length <= len(file) else b""
        storages[key] = _storage(raw, dtypes[key], count, is_big)
    file.seek(start)

    def resolve(pid):
        dtype, key, _ = _storage_of(pid)
        return _of_dtype(storages[key], dtype)

    return pickles.load(file, _meaning_of, resolve)


def _storage_of(pid):
    """The type, key and length of the storage that a persistent id stands for."""
    kind, dtype, key, _, count, *view = pid
    if (
        kind != "storage"
        or not isinstance(dtype, np.dtype)
        or not isinstance(key, str)
        or not isinstance(count, int)
        or view not in ([], [None])
    ):
        raise Unreadable("Its pickle refers to something else than storages.")
    return dtype, key, count


@dataclasses.dataclass(frozen=True)
class _Storage:
    """The numbers of a storage. A tensor, which may skip or repeat some, is none."""

    numbers: np.ndarray


def _storage(raw, dtype, count, is_big):
    if len(raw) != count * dtype.itemsize:
        raise Unreadable(f"A storage of {count} numbers has {len(raw)} bytes.")
    words = np.frombuffer(raw, f"{'>' if is_big else '<'}u{dtype.itemsize}")
    return _Storage(words.astype(f"u{dtype.itemsize}", copy=False).view(dtype))


def _of_dtype(storage, dtype):
    if storage.numbers.dtype != dtype:
        raise Unreadable("Its tensors disagree about the type of a storage.")
    return storage


def _tensor(storage, offset, size, stride, *_):
    """A view of a storage, once all that it covers is known to be there."""
    numbers = storage.numbers
    if not len(size) == len(stride) <= _MOST_AXES or not all(
        isinstance(number, int) and number >= 0 for number in (offset, *size, *stride)
    ):
        raise ValueError("not a shape")
    count = 1
    for length in size:
        count *= length
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    # As many numbers as the storage has: a stride of 0 could repeat one for ever.
    if count > len(numbers) or (count and last >= len(numbers)):
        raise Unreadable(
            f"A tensor of shape {tuple(size)} does not fit into its storage of "
            f"{len(numbers)} numbers."
        )
    if not count:
        return np.empty(size, numbers.dtype)
    steps = [step * numbers.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(
        numbers[offset:], size, steps, writeable=False
    )


_NAMES = {
    **pickles.ORDERED_DICT,
    "torch._utils._rebuild_tensor": pickles.Call(_tensor),
    "torch._utils._rebuild_tensor_v2": pickles.Call(_tensor),
    "torch._utils._rebuild_parameter": pickles.Call(lambda data, *_: data),
    **{f"torch.{name}": dtype for name, dtype in _STORAGES.items()},
}
_SKIPPED = {
    name: pickles.Call(lambda *_: None)
    for name in _NAMES
    if name.startswith("torch._utils.")
}


def _meaning_of(name):
    return _NAMES.get(name)


def write(arrays, path):
    """Writes a state dict as `torch.save` does; `torch.load` opens it, weights only.

    Args:
        arrays: dictionary from names to NumPy arrays of the types that PyTorch has.
        path: file to write.
    """
    folder = pathlib.PurePath(path).stem
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:

        def add(name, content):
            # A date of its own would make two files of the same weights differ.
            entry = zipfile.ZipInfo(f"{folder}/{name}", (1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, content)

        add("data.pkl", _pickle_of(arrays))
        add("byteorder", "little")
        for key, array in enumerate(arrays.values()):
            words = np.ascontiguousarray(array).view(f"u{array.itemsize}")
            add(f"data/{key}", words.astype(f"<u{array.itemsize}").tobytes())
        add("version", "3\n")


def _pickle_of(arrays):
    """The pickle of an ordered dictionary of tensors, one storage each."""
    ordered = b"ccollections\nOrderedDict\n)R"
    kinds = {dtype: name for name, dtype in _STORAGES.items()}
    parts = [pickle.PROTO, b"\x02", ordered, pickle.MARK]
    for key, (name, array) in enumerate(arrays.items()):
        strides = [math.prod(array.shape[axis + 1 :]) for axis in range(array.ndim)]
        parts += [
            _text(name),
            b"ctorch._utils\n_rebuild_tensor_v2\n((",
            _text("storage"),
            f"ctorch\n{kinds[array.dtype]}\n".encode(),
            _text(str(key)) + _text("cpu") + _integer(array.size),
            pickle.TUPLE + pickle.BINPERSID + _integer(0),
            _integers(array.shape) + _integers(strides),
            pickle.NEWFALSE + ordered + pickle.TUPLE + pickle.REDUCE,
        ]
    return b"".join([*parts, pickle.SETITEMS, pickle.STOP])


def _text(text):
    raw = text.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(raw)) + raw


def _integer(number):
    return pickle.BININT + struct.pack("<i", number)


def _integers(numbers):
    return pickle.MARK + b"".join(map(_integer, numbers)) + pickle.TUPLE
