"""Images of one size in memory."""

import hashlib

import numpy as np

from keras_kssl._checks import check_integer, check_rank, check_that


class ArraySource:
    """Images of one size held in memory, with or without labels.

    A source gives any of its examples by position: it has a length, `image_shape`,
    `labels`, `num_classes`, `class_names` and `read(indices)`, which returns the images
    that can be read and their positions: here all of them.

    Args:
        images: array (n, H, W, C), uint8 in 0 ... 255 or float in [0, 1]. Kept as it
            is, not copied; float16 and float64 become float32.
        labels: integers (n,), or `None`. A label below 0 stands for "not known". For
            images of several classes (n, classes): 1 where the image shows the class,
            0 where not, -1 where it is not said.
        class_names: a name for each class, or `None`.
        name: what error messages call the source.

    Raises:
        ValueError, TypeError: for another rank or kind of array, for no images, for
            NaN or values outside [0, 1], and for labels that do not fit.

    Example:

    >>> import numpy as np
    >>> source = ArraySource(np.zeros((3, 31, 45, 1), "uint8"), labels=[0, 2, 1])
    >>> len(source), source.image_shape, source.num_classes
    (3, (31, 45, 1), 3)
    """

    def __init__(self, images, labels=None, class_names=None, name="arrays"):
        self.name = name
        self.images = _check_images(name, images)
        self.labels = None
        self.class_names = None
        if labels is not None:
            self.labels = check_labels(name, labels, len(self.images))
        if class_names is not None:
            self.class_names = [str(class_name) for class_name in class_names]
            check_that(
                self.labels is None or self.labels.max() < len(self.class_names),
                name,
                "class_names",
                "a name for every label",
                self.class_names,
                "" if self.labels is None else f"Largest label: {self.labels.max()}.",
            )

    def __len__(self):
        return len(self.images)

    def __repr__(self):
        labels = "no labels" if self.labels is None else f"{self.num_classes} classes"
        return f"<{self.name}: {len(self)} images {self.image_shape}, {labels}>"

    @property
    def image_shape(self):
        """(H, W, C)."""
        return self.images.shape[1:]

    @property
    def dtype(self):
        """Of the images, "uint8" or "float32"."""
        return self.images.dtype.name

    @property
    def num_classes(self):
        """Number of class names, else the largest label + 1; `None` without labels."""
        if self.labels is None:
            return None
        if self.class_names is not None:
            return len(self.class_names)
        if self.labels.ndim == 2:
            return self.labels.shape[1]
        return int(self.labels.max()) + 1

    def read(self, indices):
        """Images (b, H, W, C) in the source's dtype, and their positions (b,)."""
        return self.images[indices], np.asarray(indices)

    def fingerprint(self):
        """Digits that differ for other images, in time linear in their size."""
        digest = hashlib.blake2b(digest_size=8)
        digest.update(f"{self.images.shape}{self.images.dtype}".encode())
        digest.update(np.ascontiguousarray(self.images).data)
        return digest.hexdigest()

    def take(self, count):
        """A source of the first `count` images, or of all where there are fewer."""
        count = check_integer(f"{self.name}.take", "count", count, minimum=1)
        return self._part(slice(count))

    def only(self, indices):
        """A source of the images at these positions, in this order; copies them."""
        return self._part(np.asarray(indices))

    def _part(self, rows):
        labels = None if self.labels is None else self.labels[rows]
        return ArraySource(self.images[rows], labels, self.class_names, self.name)


def unit_images(images):
    """Float32 images in [0, 1] from float ones, or from uint8 ones in 0 ... 255."""
    if images.dtype == np.uint8:
        return np.divide(images, 255, dtype=np.float32)
    return images.astype(np.float32, copy=False)


def _check_images(name, images):
    images = np.asarray(images)
    remedy = ""
    if images.ndim == 3:
        remedy = " For images of one channel, pass images[..., np.newaxis]."
    try:
        check_rank(name, "images", images, 4, "(n, height, width, channels)")
    except ValueError as error:
        raise ValueError(f"{error}{remedy}") from None
    if images.size == 0:
        raise ValueError(
            f"{name}: `images` must hold at least one image and no empty axis. "
            f"Received: images of shape {images.shape}."
        )
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise TypeError(
            f"{name}: `images` must be uint8 in 0 ... 255 or float in [0, 1]. "
            f"Received: images of dtype {images.dtype}. Divide them by their largest "
            "possible value."
        )
    smallest, largest = images.min(), images.max()
    if np.isnan(smallest):
        raise ValueError(
            f"{name}: `images` must be free of NaN. Received: NaN in "
            f"{np.isnan(images).any(axis=(1, 2, 3)).sum()} of {len(images)} images."
        )
    if smallest < 0.0 or largest > 1.0:
        raise ValueError(
            f"{name}: `images` must lie in [0, 1] where they are float. Received: "
            f"values from {smallest} to {largest}. Divide by 255 what was 0 ... 255, "
            "and undo any other normalisation."
        )
    return images.astype(np.float32, copy=False)


def check_labels(name, labels, count):
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(
            f"{name}: `labels` must be integers. Received: labels of dtype "
            f"{labels.dtype}. Number the classes from 0."
        )
    if labels.ndim == 2 and labels.shape[0] == count and labels.shape[1] > 1:
        check_that(
            np.isin(labels, (-1, 0, 1)).all(),
            name,
            "labels",
            "-1, 0 or 1 where there is one for each class",
            labels,
        )
        return labels.astype(np.int32)
    if labels.shape != (count,):
        raise ValueError(
            f"{name}: `labels` must have one label per image, shape ({count},). "
            f"Received: labels of shape {labels.shape}."
        )
    limits = np.iinfo(np.int32)
    if labels.size and not limits.min <= labels.min() <= labels.max() <= limits.max:
        raise ValueError(
            f"{name}: `labels` must fit into 32 bits. Received: labels from "
            f"{labels.min()} to {labels.max()}. Number the classes from 0."
        )
    return labels.astype(np.int32)
