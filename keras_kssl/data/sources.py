"""Where images come from: arrays in memory, .npz files, built-in data."""

import concurrent.futures
import difflib
import io
import os
import pathlib
import zipfile
import zlib

import numpy as np
from PIL import Image

from keras_kssl._checks import check_integer, check_rank, check_that, message

_KINDS = {
    "npz": "npz:FILE.npz",
    "builtin": "builtin:NAME[:SPLIT]",
}
_BROKEN_ARCHIVE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError)


class ArraySource:
    """Images of one size held in memory, with or without labels.

    A source gives any of its examples by position: it has a length, `image_shape`,
    `labels`, `num_classes`, `class_names` and `batch(indices)`.

    Args:
        images: array (n, H, W, C), uint8 in 0 ... 255 or float in [0, 1]. Kept as it
            is, not copied; float16 and float64 become float32.
        labels: integers (n,), or `None`. A label below 0 stands for "not known".
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
            self.labels = _check_labels(name, labels, len(self.images))
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
    def num_classes(self):
        """Number of class names, else the largest label + 1; `None` without labels."""
        if self.labels is None:
            return None
        if self.class_names is not None:
            return len(self.class_names)
        return int(self.labels.max()) + 1

    def batch(self, indices):
        """Images (b, H, W, C) in the source's dtype and int32 labels (b,) or `None`."""
        labels = None if self.labels is None else self.labels[indices]
        return self.images[indices], labels

    def take(self, count):
        """A source of the first `count` images, or of all where there are fewer."""
        count = check_integer(f"{self.name}.take", "count", count, minimum=1)
        labels = None if self.labels is None else self.labels[:count]
        return ArraySource(self.images[:count], labels, self.class_names, self.name)


def open_source(source, limit=None):
    """Opens what users call a source of images.

    Args:
        source: one of

            - `"npz:FILE.npz"`: arrays `images` (n, H, W, C) and, if there are any,
              `labels` (n,) and `class_names`; or in place of `images` encoded files of
              one size: `jpeg`, uint8, all files end to end, and `offsets` (n + 1,),
              integers, so that file i is `jpeg[offsets[i]:offsets[i + 1]]`. They are
              decoded to RGB in memory, H W 3 bytes each;
            - `"builtin:NAME"` or `"builtin:NAME:SPLIT"`, split "train" by default;
            - an array of images, or a tuple (images, labels);
            - a source, which is returned.
        limit: integer, takes the first `limit` images alone; `None` (default) takes
            all.

    Returns:
        A source such as `ArraySource`.

    Raises:
        FileNotFoundError: for a file that is not there.
        ValueError, TypeError: for what cannot be read as images and labels.

    Example:

    >>> import numpy as np
    >>> open_source(np.zeros((3, 31, 45, 1), "uint8"), limit=2)
    <arrays: 2 images (31, 45, 1), no labels>
    """
    if limit is not None:
        check_integer("open_source", "limit", limit, minimum=1)
    if isinstance(source, str | os.PathLike):
        opened = _open_text(os.fspath(source), limit)
    elif isinstance(source, tuple) and len(source) == 2:
        opened = ArraySource(*source)
    elif hasattr(source, "batch") and hasattr(source, "image_shape"):
        opened = source
    elif hasattr(source, "__array__"):
        opened = ArraySource(source)
    else:
        rule = "a text such as 'npz:FILE.npz', an array, (images, labels) or a source"
        raise TypeError(message("open_source", "source", rule, source))
    return opened if limit is None else opened.take(limit)


def unit_images(images):
    """Float32 images in [0, 1] from float ones, or from uint8 ones in 0 ... 255."""
    if images.dtype == np.uint8:
        return np.divide(images, 255, dtype=np.float32)
    return images.astype(np.float32, copy=False)


def _open_text(text, limit):
    kind, _, rest = text.partition(":")
    if kind == "npz" and rest:
        return _open_npz(rest, limit)
    if kind == "builtin" and rest:
        from keras_kssl.data.builtin import load_builtin

        name, _, split = rest.partition(":")
        return load_builtin(name, split or "train")
    near = difflib.get_close_matches(kind, _KINDS, n=1)
    remedy = ""
    if near:
        remedy = f"Did you mean {_KINDS[near[0]]!r}?"
    elif text.endswith(".npz"):
        remedy = f"Did you mean {'npz:' + text!r}?"
    rule = "one of the known kinds, " + " or ".join(_KINDS.values())
    raise ValueError(message("open_source", "source", rule, text, remedy))


def _open_npz(path, limit):
    name = f"npz:{path}"
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(
            f"open_source: there is no file {path!r}. Received: source={name!r}."
        )
    with open(path, "rb") as file:
        try:
            archive = np.load(file, allow_pickle=False)
            keys = archive.files
        except (*_BROKEN_ARCHIVE, AttributeError) as error:
            raise ValueError(
                f"open_source: {path!r} is no readable .npz file. Received: "
                f"source={name!r}. Write it with numpy.savez, or copy it again."
            ) from error
        arrays = {
            key: _read_array(archive, path, key)
            for key in ("images", "jpeg", "offsets", "labels", "class_names")
            if key in keys
        }
    labels = arrays.get("labels")
    if "images" in arrays:
        images = arrays["images"]
    elif "jpeg" in arrays and "offsets" in arrays:
        images, labels = _decode_all(
            name, arrays["jpeg"], arrays["offsets"], labels, limit
        )
    else:
        raise ValueError(
            f"open_source: {path!r} must have an array `images`, or `jpeg` and "
            f"`offsets`. Received: source={name!r} with the arrays "
            f"{', '.join(keys) or '(none)'}."
        )
    return ArraySource(images, labels, arrays.get("class_names"), name=name)


def _read_array(archive, path, key):
    try:
        return archive[key]
    except _BROKEN_ARCHIVE as error:
        raise ValueError(
            f"open_source: array `{key}` of {path!r} cannot be read ({error}). Copy "
            "the file again if it is cut off; arrays of Python objects are not read, "
            "since reading them runs code from the file."
        ) from error


def _decode_all(name, jpeg, offsets, labels, limit):
    check_that(
        jpeg.dtype == np.uint8 and jpeg.ndim == 1,
        name,
        "jpeg",
        "uint8 of one axis",
        (jpeg.dtype.name, jpeg.shape),
    )
    rule = "non-decreasing integers (n + 1,) from 0 to the length of `jpeg`"
    check_that(
        offsets.ndim == 1
        and np.issubdtype(offsets.dtype, np.integer)
        and len(offsets) >= 1
        and offsets[0] >= 0
        and np.all(offsets[1:] >= offsets[:-1])
        and offsets[-1] <= len(jpeg),
        name,
        "offsets",
        rule,
        offsets,
        f"Length of `jpeg`: {len(jpeg)}.",
    )
    if labels is not None:
        _check_labels(name, labels, len(offsets) - 1)
    count = len(offsets) - 1
    if limit is not None:
        count = min(count, limit)
        labels = None if labels is None else labels[:count]
    check_that(count > 0, name, "offsets", "those of at least one image", offsets)

    def decode(index):
        return _decode(name, index, jpeg[offsets[index] : offsets[index + 1]])

    first = decode(0)
    images = np.empty((count, *first.shape), np.uint8)

    def decode_into_place(index):
        image = decode(index)
        if image.shape != first.shape:
            raise ValueError(
                f"{name}: all images must have one size. Received: image {index} of "
                f"{image.shape[:2]} pixels, image 0 of {first.shape[:2]}. Resize them "
                "before they are written to the file."
            )
        images[index] = image

    # Parts keep the cost of handing over work below that of decoding small images.
    parts = [range(i, min(i + 256, count)) for i in range(0, count, 256)]
    with concurrent.futures.ThreadPoolExecutor() as threads:
        for _ in threads.map(lambda part: [*map(decode_into_place, part)], parts):
            pass
    return images, labels


def _decode(name, index, encoded):
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{name}: image {index} cannot be decoded ({error}). Write the file again "
            "without it."
        ) from error


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


def _check_labels(name, labels, count):
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(
            f"{name}: `labels` must be integers. Received: labels of dtype "
            f"{labels.dtype}. Number the classes from 0."
        )
    if labels.shape != (count,):
        raise ValueError(
            f"{name}: `labels` must have one label per image, shape ({count},). "
            f"Received: labels of shape {labels.shape}."
        )
    return labels.astype(np.int32)
