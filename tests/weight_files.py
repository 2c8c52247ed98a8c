"""Files of weights as other projects write them, made without those projects.

The standard library's pickle writes them; stand-ins of the projects' modules give it
the names that the real ones would.
"""

import collections
import functools
import io
import pickle
import struct
import sys
import types
import zipfile
from unittest import mock

import numpy as np

_MODULES = {}


class _Named:
    """A function or class of another project, of which a pickle holds the name."""

    def __init__(self, module, name):
        self.__module__ = module
        self.__qualname__ = name

    def __call__(self, *_):
        raise RuntimeError("stands in for a name only")

    def __reduce__(self):
        return self.__qualname__


@functools.cache
def named(name):
    """What a pickle takes for the thing of that dotted name."""
    module, _, attribute = name.rpartition(".")
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        package = ".".join(parts[:count])
        _MODULES.setdefault(package, types.ModuleType(package))
    value = _Named(module, attribute)
    setattr(_MODULES[module], attribute, value)
    return value


class Calling:
    """Pickled as a call of a function and, where given, a state set afterwards."""

    def __init__(self, function, arguments, *state):
        self.parts = (function, arguments, *state)

    def __reduce__(self):
        return self.parts


class Storage:
    """Numbers of a file, pickled as a reference to them."""

    def __init__(self, array, key, kind):
        self.array = array.ravel()
        self.key = key
        self.kind = named(f"torch.{kind}")


def tensor(storage, shape, strides, offset=0):
    hooks = Calling(collections.OrderedDict, ())
    arguments = (storage, offset, tuple(shape), tuple(strides), False, hooks)
    return Calling(named("torch._utils._rebuild_tensor_v2"), arguments)


def parameter(data):
    hooks = Calling(collections.OrderedDict, ())
    return Calling(named("torch._utils._rebuild_parameter"), (data, True, hooks))


class _Pickler(pickle.Pickler):
    def __init__(self, file, protocol, view=()):
        super().__init__(file, protocol)
        self.storages = {}
        self.view = view

    def persistent_id(self, value):
        if not isinstance(value, Storage):
            return None
        self.storages[value.key] = value.array
        return ("storage", value.kind, value.key, "cpu", value.array.size, *self.view)


def dumped(value, protocol=2, view=()):
    """The pickle of a value, and the storages that it refers to."""
    file = io.BytesIO()
    pickler = _Pickler(file, protocol, view)
    with mock.patch.dict(sys.modules, _MODULES):
        pickler.dump(value)
    return file.getvalue(), pickler.storages


def write_zip(path, value, order="little", **more):
    """Writes what `torch.save` writes since PyTorch 1.6; `more` are other entries."""
    data, storages = dumped(value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/byteorder", order)
        for key, array in storages.items():
            archive.writestr(f"archive/data/{key}", _raw(array, order))
        archive.writestr("archive/version", "3\n")
        for name, content in more.items():
            archive.writestr(f"archive/{name}", content)


def write_legacy(path, value, order="little"):
    """Writes what `torch.save` wrote before PyTorch 1.6."""
    system = {"protocol_version": 1001, "little_endian": order == "little"}
    data, storages = dumped(value, view=(None,))
    with open(path, "wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, system):
            pickle.dump(part, file, protocol=2)
        file.write(data)
        pickle.dump(sorted(storages), file, protocol=2)
        for key in sorted(storages):
            file.write(struct.pack("<q", storages[key].size))
            file.write(_raw(storages[key], order))


def _raw(array, order):
    words = array.view(f"u{array.itemsize}")
    return words.astype(f"{'>' if order == 'big' else '<'}u{array.itemsize}").tobytes()


def write_npy(path, value, protocol=4):
    """Writes what `numpy.save` writes for a value that is no array."""
    box = np.empty((), object)
    box[()] = value
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    data, _ = dumped(box, protocol)
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header))
    path.write_bytes(start + header + data)
