"""What users call a source of images: one line of text, or arrays."""

import difflib
import os

import numpy as np

from keras_kssl._checks import check_integer, check_that, message
from keras_kssl.data.arrays import ArraySource
from keras_kssl.data.encoded import MAX_BROKEN

_KINDS = {
    "folder": "folder:DIR",
    "files": "files:LIST",
    "npz": "npz:FILE.npz",
    "tfds": "tfds:NAME[:SPLIT]",
    "builtin": "builtin:NAME[:SPLIT]",
    "each": "each:START:STOP:SOURCE",
}


def open_source(source, limit=None, max_broken=MAX_BROKEN, per_class=None):
    """Opens what users call a source of images.

    Args:
        source: one of

            - `"folder:DIR"`: JPEG, PNG, WebP, BMP, GIF, TIFF and NPY files in a folder
              and the folders in it, of any sizes, in the order of their names. A file
              `labels.csv` in it (columns `file` and `label`) gives labels; otherwise,
              where two or more folders hold all images, the folders are the classes;
            - `"files:LIST"`: the files that LIST names, a text file with a name a line
              or a CSV file with columns `file` and, for labels, `label`; names are
              relative to the folder of LIST;
            - `"npz:FILE.npz"`: arrays `images` (n, H, W, C) and, if there are any,
              `labels` (n,) and `class_names`; or in place of `images` encoded files of
              one size: `jpeg`, uint8, all files end to end, and `offsets` (n + 1,),
              integers, so that file i is `jpeg[offsets[i]:offsets[i + 1]]`. They are
              decoded to RGB in memory, H W 3 bytes each;
            - `"tfds:NAME"` or `"tfds:NAME:SPLIT"`: a set of TensorFlow Datasets that
              was prepared on this machine, split "train" by default;
            - `"builtin:NAME"` or `"builtin:NAME:SPLIT"`, split "train" by default;
            - `"each:START:STOP:SOURCE"`: of each class of one of these the images from
              START to STOP, counted from 0 in the order of the source, STOP left out;
            - an array of images, or a tuple (images, labels);
            - a source, which is returned.
        limit: integer, takes the first `limit` images alone; `None` (default) takes
            all.
        max_broken: share of the images of a folder, a list or a TFDS set that may be
            unreadable; they are skipped. Default 0.1.
        per_class: integer, takes the first `per_class` images of each class alone, of
            those within `limit`, in the order of the source; `None` (default) takes
            all. As `each:` does, it reads all labels.

    Returns:
        A source: `ArraySource` for images of one size, `EncodedSource` for images that
        are decoded when they are needed.

    Raises:
        FileNotFoundError: for a file, a folder or a set that is not there.
        ValueError, TypeError: for what cannot be read as images and labels.
        ImportError: for a kind that takes a package that is not installed.

    Example:

    >>> import numpy as np
    >>> open_source(np.zeros((3, 31, 45, 1), "uint8"), limit=2)
    <arrays: 2 images (31, 45, 1), no labels>
    """
    if limit is not None:
        check_integer("open_source", "limit", limit, minimum=1)
    if isinstance(source, str | os.PathLike):
        opened = _open_text(os.fspath(source), limit, max_broken)
    elif isinstance(source, tuple) and len(source) == 2:
        opened = ArraySource(*source)
    elif hasattr(source, "image_shape"):
        opened = source
    elif hasattr(source, "__array__"):
        opened = ArraySource(source)
    else:
        rule = "a text such as 'folder:DIR', an array, (images, labels) or a source"
        raise TypeError(message("open_source", "source", rule, source))
    opened = opened if limit is None else opened.take(limit)
    if per_class is None:
        return opened
    check_integer("open_source", "per_class", per_class, minimum=1)
    return _of_each_class(opened, 0, per_class, "per_class", per_class)


def _of_each_class(source, start, stop, argument, value):
    """The images start ... stop - 1 of each class, in the order of the source."""
    labels = source.labels
    check_that(
        labels is not None and np.ndim(labels) == 1,
        "open_source",
        argument,
        "left out for images without one label each",
        value,
        f"They are those of {source!r}.",
    )
    order = np.argsort(labels, kind="stable")
    ordered = np.asarray(labels)[order]
    rank_in_class = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    # -1 stands for a label that is not known.
    is_wanted = (start <= rank_in_class) & (rank_in_class < stop) & (ordered >= 0)
    rule = "such that there are images in the range"
    check_that(is_wanted.any(), "open_source", argument, rule, value)
    return source.only(np.sort(order[is_wanted]))


def _open_each(rest, max_broken):
    text = f"each:{rest}"
    start, _, others = rest.partition(":")
    stop, _, inner = others.partition(":")
    rule = "each:START:STOP:SOURCE with 0 <= START < STOP"
    is_range = start.isdecimal() and stop.isdecimal() and int(start) < int(stop)
    check_that(is_range and inner, "open_source", "source", rule, text)
    source = open_source(inner, max_broken=max_broken)
    part = _of_each_class(source, int(start), int(stop), "source", text)
    part.name = text
    return part


def _open_text(text, limit, max_broken):
    kind, _, rest = text.partition(":")
    if kind in _KINDS and rest:
        return _open_kind(kind, rest, limit, max_broken)
    near = difflib.get_close_matches(kind, _KINDS, n=1)
    remedy = ""
    if near:
        remedy = f"Did you mean {_KINDS[near[0]]!r}?"
    elif text.endswith(".npz"):
        remedy = f"Did you mean {'npz:' + text!r}?"
    elif os.path.isdir(text):
        remedy = f"Did you mean {'folder:' + text!r}?"
    rule = "one of the known kinds, " + " or ".join(_KINDS.values())
    raise ValueError(message("open_source", "source", rule, text, remedy))


def _open_kind(kind, rest, limit, max_broken):
    if kind in ("folder", "files"):
        from keras_kssl.data import files

        opener = files.open_folder if kind == "folder" else files.open_list
        return opener(rest, limit, max_broken)
    if kind == "npz":
        from keras_kssl.data.npz import open_npz

        return open_npz(rest, limit)
    if kind == "tfds":
        from keras_kssl.data.tfds import open_tfds

        return open_tfds(rest, max_broken)
    if kind == "each":
        return _open_each(rest, max_broken)
    from keras_kssl.data.builtin import load_builtin

    name, _, split = rest.partition(":")
    return load_builtin(name, split or "train")
