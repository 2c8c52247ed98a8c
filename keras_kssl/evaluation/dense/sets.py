"""Dense sets: images with a target for every pixel, or for their objects."""

import difflib
import os

import numpy as np

from keras_kssl._checks import check_choice, check_that, message
from keras_kssl.evaluation.dense import targets as checks
from keras_kssl.evaluation.dense.metrics import VOID

TASKS = ("segmentation", "detection", "depth")
_KINDS = {
    "voc": "voc:DIR[:SPLIT]",
    "folder": "folder:DIR",
    "npz": "npz:FILE.npz",
}
_TARGETS = {"segmentation": "masks", "detection": "objects", "depth": "depths"}


class DenseSet:
    """Images of any sizes, each with a target.

    Images and targets are sequences: arrays, lists, or objects with a length and
    `[position]` that read a file when they are asked.

    Args:
        task: "segmentation", "detection" or "depth".
        images: n images (H, W, C), uint8 or float in [0, 1], all of C channels.
        targets: n targets. Segmentation: masks (H, W) of integers, 255 where the class
            is not known. Depth: floats (H, W) in metres, 0 where it is not known.
            Detection: dictionaries with `boxes` (k, 4), left, top, right and bottom
            edge in pixels, `labels`, integers (k,) from 0, and where some are,
            `difficult`, booleans (k,): objects that do not count.
        class_names: a name for every class. Default: as many classes as the largest
            number in the targets says, without names.
        name: what messages call the set.
        names: what they call each image. Default: its position.
        check: whether to read and check everything at once. Default True.

    Attributes:
        num_classes: number of classes; `None` for depths.
        class_names: names of the classes, or `None`.

    Raises:
        ValueError, TypeError: for what does not fit, at once or, with `check=False`,
            when it is read.

    >>> images = np.zeros((2, 31, 45, 3), "uint8")
    >>> DenseSet("segmentation", images, np.full((2, 31, 45), 4))
    <arrays: 2 images, segmentation, 5 classes>
    """

    def __init__(
        self,
        task,
        images,
        targets,
        class_names=None,
        name="arrays",
        names=None,
        check=True,
    ):
        self.task = check_choice(name, "task", task, TASKS)
        self.name = name
        if targets is None:
            raise ValueError(
                f"{name}: `{_TARGETS[task]}` must be given for {task}. Received: none."
            )
        if len(images) != len(targets) or len(images) == 0:
            raise ValueError(
                f"{name}: there must be images, and one entry of `{_TARGETS[task]}` "
                f"for each. Received: {len(images)} images, {len(targets)} "
                f"{_TARGETS[task]}."
            )
        self._images, self._targets = images, targets
        self._names = names
        self.class_names = self.num_classes = None
        if task != "depth" and class_names is None:
            self.num_classes = self._count_classes()
        elif task != "depth":
            self.class_names = [str(class_name) for class_name in class_names]
            self.num_classes = len(self.class_names)
        first = checks.check_image(f"{name}, {self.name_of(0)}", images[0])
        self.channels = first.shape[2]
        if task == "segmentation":
            # Masks are kept in 8 bits.
            rule = f"at most {VOID}"
            check_that(
                self.num_classes <= VOID, name, "classes", rule, self.num_classes
            )
        if check:
            for index in range(len(self)):
                self.read(index)

    def __len__(self):
        return len(self._images)

    def __repr__(self):
        classes = "" if self.num_classes is None else f", {self.num_classes} classes"
        return f"<{self.name}: {len(self)} images, {self.task}{classes}>"

    def name_of(self, index):
        """What messages call one image."""
        return f"image {index}" if self._names is None else str(self._names[index])

    def read(self, index):
        """One image, uint8 or float32 (H, W, C), and its target, checked.

        Masks are uint8 (H, W), depths float32 (H, W), objects a dictionary of `boxes`,
        float32 (k, 4), `labels`, int64 (k,), and `difficult`, booleans (k,).
        """
        where = f"{self.name}, {self.name_of(index)}"
        image = checks.check_image(where, self._images[index])
        if image.shape[2] != self.channels:
            raise ValueError(
                f"{where}: all images must have {self.channels} channels, as the first "
                f"one has. Received: shape {image.shape}."
            )
        return image, self.checked(where, image.shape, self._targets[index])

    def checked(self, where, shape, target):
        """The target of an image of a shape, in the one form that `read` returns."""
        if self.task == "segmentation":
            return checks.check_mask(where, shape, target, self.num_classes)
        if self.task == "depth":
            return checks.check_depth(where, shape, target)
        return checks.check_objects(where, shape, target, self.num_classes)

    def counts(self, index):
        """Whether an image has pixels or objects that are learned from and scored."""
        target = self._targets[index]
        if self.task == "detection":
            return len(target["labels"]) > np.sum(target.get("difficult", 0))
        nothing = VOID if self.task == "segmentation" else 0
        return bool(np.any(np.asarray(target) != nothing))

    def named(self, prefix, scores):
        """Scores of the classes by their names, those that are NaN left out."""
        names = self.class_names or range(self.num_classes)
        pairs = zip(names, scores, strict=True)
        return {f"{prefix}_{n}": float(score) for n, score in pairs if score == score}

    def _count_classes(self):
        if self.task == "segmentation":
            return checks.count_classes(self._targets, VOID)
        dictionaries = [t for t in self._targets if isinstance(t, dict)]
        return checks.count_classes([d.get("labels", ()) for d in dictionaries])


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
                f"{caller}: `{argument}` must have {_TARGETS[task]} with something "
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
        from keras_kssl.evaluation.dense import archives, files, voc

        openers = {
            "voc": voc.open_voc,
            "folder": files.open_folder,
            "npz": archives.open_npz,
        }
        return openers[kind](rest, task)
    near = difflib.get_close_matches(kind, _KINDS, n=1)
    remedy = ""
    if text.endswith(".npz"):
        remedy = f"Did you mean {'npz:' + text!r}?"
    elif near:
        remedy = f"Did you mean {_KINDS[near[0]]!r}?"
    rule = "one of the known kinds, " + " or ".join(_KINDS.values())
    raise ValueError(message("open_set", "source", rule, text, remedy))
