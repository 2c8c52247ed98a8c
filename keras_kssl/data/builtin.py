"""Built-in image sets: real images that come with an installed package."""

import functools

import numpy as np
from PIL import Image

from keras_kssl._checks import check_choice
from keras_kssl.data.arrays import ArraySource

BUILTIN_NAMES = ("digits",)
_SPLITS = ("train", "test")

_SIZE = 28
_NUM_TRAIN_SCANS = 1297
# Images made of each scan, each with other places, sizes, angles and inks.
_IMAGES_PER_SCAN = 4


def load_builtin(name, split="train"):
    """One split of a built-in set as a source.

    "digits": the handwritten digits of scikit-learn (1,797 scans of 8 x 8 pixels). Each
    image of 28 x 28 pixels is a page that shows one scan nine times on noisy gray
    paper, each time at another size and angle, shifted, and in ink lighter or darker
    than the paper. What the parts of a page share is a shape: pixels say little about
    the class. The first 1,297 scans make the training split (5,188 images), the other
    500 the test split (2,000 images). No label is used to make an image, and the images
    are the same at each call.

    Args:
        name: "digits".
        split: "train" or "test".

    Returns:
        `ArraySource` with uint8 images (n, 28, 28, 3) and labels 0 ... 9.

    >>> load_builtin("digits", "test").images.shape
    (2000, 28, 28, 3)
    """
    check_choice("load_builtin", "name", name, BUILTIN_NAMES)
    check_choice("load_builtin", "split", split, _SPLITS)
    images, labels = _written_digits(split)
    class_names = [str(digit) for digit in range(10)]
    return ArraySource(
        images, labels, class_names=class_names, name=f"builtin:{name}:{split}"
    )


@functools.cache
def _written_digits(split):
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)
    rows = slice(0, _NUM_TRAIN_SCANS)
    if split == "test":
        rows = slice(_NUM_TRAIN_SCANS, None)
    scans = (scans[rows] * (255.0 / 16.0)).astype("uint8").reshape(-1, 8, 8)
    images = [
        _page(scan, np.random.default_rng([_SPLITS.index(split), index, copy]))
        for copy in range(_IMAGES_PER_SCAN)
        for index, scan in enumerate(scans)
    ]
    labels = np.tile(labels[rows], _IMAGES_PER_SCAN).astype("int32")
    return np.stack(images), labels


def _page(scan, rng):
    """One image: the scan nine times, about the centres of a grid of three by three."""
    image = np.full((_SIZE, _SIZE), 0.5)
    centres = (np.arange(3) + 0.5) * _SIZE / 3.0
    for row in centres:
        for column in centres:
            ink = 0.25 * rng.random()
            if rng.random() < 0.5:
                ink = 1.0 - ink
            shift = rng.uniform(-3.0, 3.0, size=2)
            coverage = _coverage(scan, rng, row + shift[0], column + shift[1])
            image += coverage * (ink - image)
    colored = image[:, :, None] + rng.normal(0.0, 0.04, (_SIZE, _SIZE, 3))
    return (np.clip(colored, 0.0, 1.0) * 255.0).round().astype("uint8")


def _coverage(scan, rng, row, column):
    """How much ink each pixel takes, (size, size) in [0, 1]."""
    angle = rng.uniform(-0.5, 0.5)
    scale = len(scan) / rng.uniform(8.0, 12.0)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    centre = len(scan) / 2.0
    # PIL wants, for each pixel of the result, where it comes from.
    matrix = (cos, sin, centre - cos * column - sin * row)
    matrix += (-sin, cos, centre + sin * column - cos * row)
    placed = Image.fromarray(scan).transform(
        (_SIZE, _SIZE), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
    )
    return np.asarray(placed, dtype="float64") / 255.0
