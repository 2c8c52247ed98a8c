"""NumPy archives of images with masks, depths or boxes."""

import itertools

import numpy as np

from keras_kssl._checks import check_that
from keras_kssl.data.npz import read_arrays
from keras_kssl.data.sources import open_source
from keras_kssl.evaluation.dense.sets import DenseSet

_TARGETS = {
    "segmentation": ("masks",),
    "depth": ("depths",),
    "detection": ("boxes", "box_labels", "box_offsets"),
}


def open_npz(path, task):
    """A set whose arrays are in one file; see `open_set`."""
    name = f"npz:{path}"
    needed = _TARGETS[task]
    arrays, _ = read_arrays(path, (*needed, "difficult"))
    missing = [key for key in needed if key not in arrays]
    if missing:
        raise ValueError(
            f"{name}: the file must have {_listed(needed)} for {task}. Received: a "
            f"file without {_listed(missing)}."
        )
    source = open_source(name)
    targets = arrays[needed[0]]
    if task == "detection":
        targets = _objects(name, arrays, len(source))
    return DenseSet(task, source.images, targets, source.class_names, name)


def _objects(name, arrays, count):
    """A dictionary for each image from the boxes of all images."""
    boxes, labels, offsets = (arrays[key] for key in _TARGETS["detection"])
    difficult = arrays.get("difficult", np.zeros(len(boxes), bool))
    check_that(
        np.issubdtype(offsets.dtype, np.integer)
        and offsets.shape == (count + 1,)
        and offsets[0] == 0
        and offsets[-1] == len(boxes)
        and np.all(offsets[1:] >= offsets[:-1]),
        name,
        "box_offsets",
        f"non-decreasing integers, {count + 1}, from 0 to the number of boxes, "
        f"{len(boxes)}",
        offsets,
    )
    for key, array in (("box_labels", labels), ("difficult", difficult)):
        rule = f"one for each of the {len(boxes)} boxes"
        check_that(array.shape == (len(boxes),), name, key, rule, array.shape)
    parts = [slice(*pair) for pair in itertools.pairwise(offsets)]
    return [
        {"boxes": boxes[p], "labels": labels[p], "difficult": difficult[p]}
        for p in parts
    ]


def _listed(names):
    return ", ".join(f"`{name}`" for name in names)
