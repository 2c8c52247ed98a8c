"""The arrays of a file of weights, by their place in it."""

import pathlib
from collections.abc import Mapping

import numpy as np

from keras_kssl._checks import message
from keras_kssl.convert import npy, pth, safetensors
from keras_kssl.convert.failures import Unreadable, explained

_READERS = {
    ".pth": pth.read,
    ".pt": pth.read,
    ".tar": pth.read,  # as in checkpoint.pth.tar, which is no tar file
    ".safetensors": safetensors.read,
    ".npy": npy.read,
}
_CONTAINERS = (Mapping, list, tuple)
# A container may be in several places, and in itself: without bounds, small files would
# have places without end.
_DEEPEST = 32
_MOST_ENTRIES = 1_000_000


def arrays_of(caller, source, suffixes):
    """All arrays in a file or a dictionary, by their place, a tuple of keys.

    The place of an array in a file of one state dict is `("conv1.weight",)`, in a
    checkpoint for example `("state_dict", "conv1.weight")`.

    Args:
        caller: who asks, for messages; it calls its argument `source`.
        source: path of a local file, whose suffix tells the format; or a dictionary.
        suffixes: those that `caller` takes.

    Raises:
        ValueError: for other suffixes, damaged files, and files of other things than
            arrays and plain values, of which nothing is run.
    """
    rule = "a whole file, or a dictionary, of weights and plain values"
    if isinstance(source, Mapping):
        with explained(caller, f"a {type(source).__name__}", rule):
            return _flat(source)
    path = pathlib.Path(source).expanduser()
    if path.suffix not in suffixes:
        endings = f"a file ending in {', '.join(suffixes)}"
        raise ValueError(message(caller, "source", endings, str(path)))
    if not path.is_file():
        there = "a file that is there"
        raise FileNotFoundError(message(caller, "source", there, str(path)))
    with explained(caller, str(path), rule):
        return _flat(_READERS[path.suffix](path))


def _flat(tree):
    found, entries, rest = {}, 0, [((), tree)]
    while rest:
        place, node = rest.pop()
        if not isinstance(node, _CONTAINERS):
            found[place] = _array(node)
            continue
        entries += len(node)
        if len(place) > _DEEPEST or entries > _MOST_ENTRIES:
            raise Unreadable(
                f"Its containers are nested over {_DEEPEST} levels deep, or have over "
                f"{_MOST_ENTRIES} entries."
            )
        pairs = node.items() if isinstance(node, Mapping) else enumerate(node)
        rest += [
            ((*place, str(key)), value)
            for key, value in pairs
            if isinstance(value, _CONTAINERS) or _is_array(value)
        ][::-1]
    return found


def _is_array(node):
    return getattr(node, "shape", None) is not None


def _array(node):
    if hasattr(node, "detach"):  # a PyTorch tensor, which may be on an accelerator
        node = node.detach().cpu()
        if "bfloat16" in str(node.dtype):  # which PyTorch does not hand to NumPy
            node = node.float()
    return np.asarray(node)
