"""Reads a PyTorch state dict without PyTorch, and puts it into one of our ResNets.

A .pth file is a zip archive: data.pkl, a pickle of tensors that refer to storages by
key, and one raw little-endian file per storage. The unpickler knows the few names that
such a pickle needs and refuses all others: reading a file runs none of its code.
"""

import collections
import pathlib
import pickle
import re
import zipfile

import numpy as np

_STORAGE_DTYPES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "LongStorage": "<i8"}


def read_state_dict(path):
    """Dictionary from PyTorch's weight names to NumPy arrays."""
    with zipfile.ZipFile(path) as archive:
        (pickle_name,) = (n for n in archive.namelist() if n.endswith("/data.pkl"))
        folder = pathlib.PurePosixPath(pickle_name).parent
        with archive.open(pickle_name) as file:
            return dict(_Unpickler(file, archive, folder).load())


class _Unpickler(pickle.Unpickler):
    def __init__(self, file, archive, folder):
        super().__init__(file)
        self.archive = archive
        self.folder = folder

    def find_class(self, module, name):
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch" and name in _STORAGE_DTYPES:
            return name
        raise pickle.UnpicklingError(f"not a plain state dict: {module}.{name}")

    def persistent_load(self, pid):
        _, storage, key, _, _ = pid
        raw = self.archive.read(str(self.folder / "data" / key))
        return np.frombuffer(raw, _STORAGE_DTYPES[storage])


def _rebuild_tensor(storage, offset, size, stride, *_):
    strides = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides).copy()


def load_torch_weights(encoder, state):
    """Assigns a torchvision-style state dict to a ResNet with basic blocks."""
    for name, value in state.items():
        if not name.endswith("num_batches_tracked"):
            find_variable(encoder, name).assign(to_keras_layout(value))


def find_variable(encoder, torch_name):
    """The variable of `encoder` that holds the PyTorch weight `torch_name`."""
    torch_layer, kind = torch_name.rsplit(".", 1)
    layer = encoder.get_layer(keras_layer_name(torch_layer))
    attribute = {
        "weight": "gamma" if hasattr(layer, "gamma") else "kernel",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    }[kind]
    return getattr(layer, attribute)


def keras_layer_name(torch_layer):
    """ "layer2.0.downsample.1" -> "stage2_block1_shortcut_bn"."""
    inner = re.fullmatch(r"layer(\d)\.(\d+)\.(.+)", torch_layer)
    if inner is None:
        return {"conv1": "stem_conv", "bn1": "stem_bn"}[torch_layer]
    stage, block, part = inner.groups()
    shortcuts = {"downsample.0": "shortcut_conv", "downsample.1": "shortcut_bn"}
    return f"stage{stage}_block{int(block) + 1}_{shortcuts.get(part, part)}"


def to_keras_layout(value):
    """Convolution kernels from (out, in, height, width) to (height, width, in, out)."""
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
