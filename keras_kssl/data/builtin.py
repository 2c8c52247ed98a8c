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
        _pages(scans, _SPLITS.index(split), copy) for copy in range(_IMAGES_PER_SCAN)
    ]
    labels = np.tile(labels[rows], _IMAGES_PER_SCAN).astype("int32")
    return np.concatenate(images), labels


def _pages(scans, split, copy):
    """An image of each scan: nine times, about the centres of a grid of 3 by 3."""
    # A generator for each image, so that it does not depend on the others.
    rngs = [np.random.default_rng([split, index, copy]) for index in range(len(scans))]
    # Ink, whether light or dark, two shifts, angle and size of each place.
    drawn = np.stack([rng.random((9, 6)) for rng in rngs]).transpose(1, 2, 0)
    noise = np.stack([rng.normal(0.0, 0.04, (_SIZE, _SIZE, 3)) for rng in rngs])
    centres = [(i + 0.5) * _SIZE / 3.0 for i in range(3)]
    pictures = [Image.fromarray(scan) for scan in scans]
    pages = np.full((len(scans), _SIZE, _SIZE), 0.5)
    for place, (ink, side, down, right, angle, size) in enumerate(drawn):
        row, column = divmod(place, 3)
        down = centres[row] + (6.0 * down - 3.0)
        right = centres[column] + (6.0 * right - 3.0)
        matrices = _placing(down, right, angle - 0.5, 8.0 + 4.0 * size)
        ink = np.where(side < 0.5, 1.0 - 0.25 * ink, 0.25 * ink)[:, None, None]
        pages += _coverage(pictures, matrices) * (ink - pages)
    colored = pages[..., None] + noise
    return (np.clip(colored, 0.0, 1.0) * 255.0).round().astype("uint8")


def _placing(row, column, angle, size):
    """Where in a scan of 8 x 8 each pixel comes from, as PIL wants it, (n, 6)."""
    scale = 8.0 / size
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    return np.stack(
        [
            *(cos, sin, 4.0 - cos * column - sin * row),
            *(-sin, cos, 4.0 + sin * column - cos * row),
        ],
        axis=1,
    )


def _coverage(pictures, matrices):
    """How much ink each pixel takes, (n, size, size) in [0, 1]."""
    placed = [
        picture.transform(
            (_SIZE, _SIZE), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
        ).tobytes()
        for picture, matrix in zip(pictures, matrices.tolist(), strict=True)
    ]
    inks = np.frombuffer(b"".join(placed), "uint8").reshape(-1, _SIZE, _SIZE)
    return inks / 255.0
