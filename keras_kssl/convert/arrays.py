"""The arrays of a file of weights, by their place in it."""

import pathlib

import numpy as np

from keras_kssl._checks import message
from keras_kssl.convert import npy, pth, safetensors
from keras_kssl.convert.failures import explained

_READERS = {
    ".pth": pth.read,
    ".pt": pth.read,
    ".tar": pth.read,  # as in checkpoint.pth.tar, which is no tar file
    ".safetensors": safetensors.read,
    ".npy": npy.read,
}


def read_arrays(caller, path, suffixes):
    """All arrays of a file: dictionary from their place, a tuple of keys, to arrays.

    The place of an array in a file of one state dict is `("conv1.weight",)`, in a
    checkpoint for example `("state_dict", "conv1.weight")`.

    Args:
        caller: who asks, for messages.
        path: local file; its suffix tells the format.
        suffixes: those that `caller` takes.

    Raises:
        ValueError: for other suffixes, damaged files, and files of other things than
            arrays and plain values, of which nothing is run.
    """
    path = pathlib.Path(path).expanduser()
    rule = f"a file ending in {', '.join(suffixes)}"
    if path.suffix not in suffixes:
        raise ValueError(message(caller, "path", rule, str(path)))
    if not path.is_file():
        raise FileNotFoundError(
            message(caller, "path", "a file that is there", str(path))
        )
    with explained(caller, path, "a whole file of weights and plain values"):
        return flat(_READERS[path.suffix](path))


def flat(tree):
    """The arrays in nested dictionaries, lists and tuples, by their place."""
    found, seen, rest = {}, set(), [((), tree)]
    while rest:
        place, node = rest.pop()
        if isinstance(node, dict | list | tuple):
            # A container in two places, or in itself, is taken once.
            if id(node) not in seen:
                seen.add(id(node))
                pairs = node.items() if isinstance(node, dict) else enumerate(node)
                rest += [((*place, str(key)), value) for key, value in pairs][::-1]
        elif getattr(node, "shape", None) is not None:
            found[place] = np.asarray(node)
    return found
