"""Dense sets: images with a target for every pixel, or for their objects."""

import numpy as np

from keras_kssl._checks import check_choice, check_that
from keras_kssl.evaluation.dense import targets as checks
from keras_kssl.evaluation.dense.metrics import VOID

TASKS = ("segmentation", "detection", "depth")
# What the targets of a task are called.
TARGETS = {"segmentation": "masks", "detection": "objects", "depth": "depths"}


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
                f"{name}: `{TARGETS[task]}` must be given for {task}. Received: none."
            )
        if len(images) != len(targets) or len(images) == 0:
            raise ValueError(
                f"{name}: there must be images, and one entry of `{TARGETS[task]}` "
                f"for each. Received: {len(images)} images, {len(targets)} "
                f"{TARGETS[task]}."
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
