"""Built-in image sets: real images that come with an installed package."""

import functools

import numpy as np
from PIL import Image

from keras_kssl._checks import check_choice
from keras_kssl.data.sources import ArraySource

BUILTIN_NAMES = ("digits",)
_SPLITS = ("train", "test")

_SIZE = 32
_PLACEMENTS = {"train": 4, "test": 4}
# Writers of the first digits differ from those of the last ones.
_NUM_TRAIN_DIGITS = 1297


def load_builtin(name, split="train"):
    """One split of a built-in set as a source.

    "digits": the handwritten digits of scikit-learn (1,797 scans of 8 x 8 pixels by 43
    writers), each placed four times into a colour image of 32 x 32 pixels, at random
    size, place, angle and colour, light on dark or dark on light, among fragments of
    other digits. The first 1,297 scans make the training split (5,188 images), the
    others, mostly by other writers, the test split (2,000 images). Pixels say little
    about the class; shape does. The images are the same at each call.

    Args:
        name: "digits".
        split: "train" or "test".

    Returns:
        `ArraySource` with uint8 images (n, 32, 32, 3) and labels 0 ... 9.

    >>> load_builtin("digits", "test").images.shape
    (2000, 32, 32, 3)
    """
    check_choice("load_builtin", "name", name, BUILTIN_NAMES)
    check_choice("load_builtin", "split", split, _SPLITS)
    images, labels = _cluttered_digits(split)
    class_names = [str(digit) for digit in range(10)]
    return ArraySource(
        images, labels, class_names=class_names, name=f"builtin:{name}:{split}"
    )


@functools.cache
def _cluttered_digits(split):
    from sklearn.datasets import load_digits

    scans, labels = load_digits(return_X_y=True)
    rows = slice(0, _NUM_TRAIN_DIGITS)
    if split == "test":
        rows = slice(_NUM_TRAIN_DIGITS, None)
    scans = (scans[rows] * (255.0 / 16.0)).astype("uint8").reshape(-1, 8, 8)
    placements = _PLACEMENTS[split]
    images = [
        _place(scans, index, np.random.default_rng([_SPLITS.index(split), index, copy]))
        for copy in range(placements)
        for index in range(len(scans))
    ]
    return np.stack(images), np.tile(labels[rows], placements).astype("int32")


def _place(scans, index, rng):
    """One image: a background of two colours, fragments, and the digit on top."""
    ink, paper = _two_colours(rng)
    image = _gradient(paper, rng)
    for _ in range(6):
        other = scans[rng.integers(len(scans))].copy()
        # A fragment is a quarter of a digit: strokes without the shape.
        top, left = rng.integers(0, 5, size=2)
        fragment = np.zeros_like(other)
        fragment[top : top + 4, left : left + 4] = other[top : top + 4, left : left + 4]
        mask = _transformed(fragment, rng, smallest=14, largest=22, anywhere=True)
        colour = 0.5 * ink + 0.5 * rng.random(3)
        image += mask * (colour - image)
    mask = _transformed(scans[index], rng, smallest=17, largest=24, anywhere=False)
    image += mask * (ink - image)
    image += rng.normal(0.0, 0.02, image.shape)
    return (np.clip(image, 0.0, 1.0) * 255.0).round().astype("uint8")


def _two_colours(rng):
    """Colours of ink and paper that differ in lightness, either one the lighter."""
    dark, light = 0.45 * rng.random(3), 0.55 + 0.45 * rng.random(3)
    return (dark, light) if rng.random() < 0.5 else (light, dark)


def _gradient(colour, rng):
    angle = rng.uniform(0.0, 2.0 * np.pi)
    axis = np.linspace(-1.0, 1.0, _SIZE)
    ramp = np.cos(angle) * axis[:, None] + np.sin(angle) * axis[None, :]
    return colour + 0.1 * ramp[:, :, None] * rng.normal(size=3)


def _transformed(scan, rng, smallest, largest, anywhere):
    """Coverage (32, 32, 1) in [0, 1] of a scan at random size, angle and place."""
    size = rng.uniform(smallest, largest)
    angle = rng.uniform(-0.3, 0.3)
    margin = 0.0 if anywhere else size / 2.0 - 1.0
    row, column = rng.uniform(margin, _SIZE - margin, size=2)
    scale = 8.0 / size
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    # PIL wants, for each pixel of the result, where it comes from.
    matrix = (cos, sin, 4.0 - cos * column - sin * row)
    matrix += (-sin, cos, 4.0 + sin * column - cos * row)
    # A frame of empty pixels keeps the interpolation from smearing the border.
    placed = Image.fromarray(scan).transform(
        (_SIZE, _SIZE), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
    )
    return np.asarray(placed, dtype="float64")[:, :, None] / 255.0
