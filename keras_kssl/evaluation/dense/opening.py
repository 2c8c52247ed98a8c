"""Dense sets from what users call them: a text, arrays, or a pair of sets."""

import difflib
import os

from keras_kssl._checks import check_choice, message
from keras_kssl.evaluation.dense.archives import open_npz
from keras_kssl.evaluation.dense.files import open_folder
from keras_kssl.evaluation.dense.sets import TARGETS, TASKS, DenseSet
from keras_kssl.evaluation.dense.voc import open_voc

_KINDS = {
    "voc": "voc:DIR[:SPLIT]",
    "folder": "folder:DIR",
    "npz": "npz:FILE.npz",
}
_OPENERS = {"voc": open_voc, "folder": open_folder, "npz": open_npz}


def open_set(source, task):
    """Opens what users call a dense set.

    Args:
        source: one of

            - `"voc:DIR"` or `"voc:DIR:SPLIT"`: a folder with `JPEGImages`,
              `ImageSets/Segmentation` or `ImageSets/Main` (a list SPLIT.txt, "train" by
              default), and `SegmentationClass` (masks) or `Annotations` (objects), such
              as VOCdevkit/VOC2012. Segmentation also finds masks in
              `SegmentationClassAug`. The classes are those of VOC, or the objects that
              a file `classes.txt` in DIR names, one a line;
            - `"folder:DIR"`: photos in DIR/images and, of the same names, for
              segmentation masks (PNG with a palette or gray, or NPY) in DIR/masks, with
              the classes from number 0 on in DIR/classes.txt, one a line; for depth NPY
              files of metres or 16-bit PNG files of millimetres in DIR/depths, such as
              NYU v2 unpacked;
            - `"npz:FILE.npz"`: `images` (n, H, W, C), or `jpeg` and `offsets` as in
              `data.open_source`, with `masks` (n, H, W); `depths` (n, H, W); or `boxes`
              (N, 4), `box_labels` (N,) and, where some are, `difficult` (N,) of all
              images one after another, with `box_offsets` (n + 1,): image i has those
              from `box_offsets[i]` to `box_offsets[i + 1]`. `class_names`, if there are
              any;
            - a tuple (images, targets) as in `DenseSet`;
            - a `DenseSet`, which is returned.
        task: "segmentation", "detection" or "depth".

    Returns:
        A `DenseSet`.

    Raises:
        FileNotFoundError: for a file or a folder that is not there.
        ValueError, TypeError: for what cannot be read as a set for the task.
    """
    check_choice("open_set", "task", task, TASKS)
    if isinstance(source, str | os.PathLike):
        return _open_text(os.fspath(source), task)
    if isinstance(source, tuple) and len(source) == 2:
        return DenseSet(task, *source)
    if isinstance(source, DenseSet):
        if source.task != task:
            rule = f"a set for {task}"
            raise ValueError(message("open_set", "source", rule, source))
        return source
    rule = "a text such as 'voc:DIR', a tuple (images, targets) or a set"
    raise TypeError(message("open_set", "source", rule, source))


def open_pair(caller, train, test, task):
    """The training and the test set of a task, whose classes must agree."""
    train, test = open_set(train, task), open_set(test, task)
    if train.channels != test.channels:
        raise ValueError(
            f"{caller}: `test` must have images of as many channels as `train`, "
            f"{train.channels}. Received: {test.channels}."
        )
    names, known = test.class_names, train.class_names
    are_named = names is not None and known is not None
    if test.num_classes is not None and (
        test.num_classes > train.num_classes or (are_named and names != known)
    ):
        raise ValueError(
            f"{caller}: `test` must have the classes of `train`, {_classes(train)}. "
            f"Received: {_classes(test)}."
        )
    for argument, opened in (("train", train), ("test", test)):
        if not any(opened.counts(index) for index in range(len(opened))):
            raise ValueError(
                f"{caller}: `{argument}` must have {TARGETS[task]} with something "
                f"that counts. Received: {opened!r}, all void, unknown or difficult."
            )
    return train, test


def _classes(dense_set):
    if dense_set.class_names is None:
        return f"{dense_set.num_classes} without names"
    return ", ".join(dense_set.class_names[:25])


def _open_text(text, task):
    kind, _, rest = text.partition(":")
    if kind in _KINDS and rest:
        return _OPENERS[kind](rest, task)
    near = difflib.get_close_matches(kind, _KINDS, n=1)
    remedy = ""
    if text.endswith(".npz"):
        remedy = f"Did you mean {'npz:' + text!r}?"
    elif near:
        remedy = f"Did you mean {_KINDS[near[0]]!r}?"
    rule = "one of the known kinds, " + " or ".join(_KINDS.values())
    raise ValueError(message("open_set", "source", rule, text, remedy))
