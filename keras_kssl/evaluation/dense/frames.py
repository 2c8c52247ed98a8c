"""Frames: images of many sizes, and what belongs to them, laid out at one size.

A frame is what a model sees: (height, width) pixels, filled where no image lies with
middle gray, with masks 255 and depths 0, which do not count.
"""

import dataclasses

import numpy as np
from PIL import Image

from keras_kssl._checks import check_integer
from keras_kssl.data.arrays import unit_images
from keras_kssl.evaluation.dense.metrics import VOID

_GRAY = 0.5
_BILINEAR = Image.Resampling.BILINEAR
# Of an object that is cut off, less than this share of its area does not count.
_LEAST_VISIBLE = 0.5


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where an image lies in a frame; what lies outside is cut off."""

    height: int
    """Of the resized image, in pixels."""
    width: int
    top: int = 0
    """Of the resized image's corner, from the frame's; may be negative."""
    left: int = 0
    flip: bool = False
    """Whether the image is mirrored left and right, before it is placed."""


def frame_size(caller, size):
    """(height, width) of `size`, an integer or a pair of integers."""
    pair = size if isinstance(size, tuple | list) else (size, size)
    if len(pair) != 2:
        raise ValueError(
            f"{caller}: `size` must be one integer or (height, width). Received: "
            f"size={size!r}."
        )
    return tuple(check_integer(caller, "size", side, minimum=1) for side in pair)


def fitted(shape, frame):
    """The placement of a whole image, shrunk where it is larger than the frame."""
    scale = _fitting(shape, frame)
    return Placement(*_scaled(shape, scale))


def drawn(generator, shape, frame, scales=(1.0, 1.0)):
    """A random placement: mirrored or not, scaled, at a random place.

    The image is fitted, then scaled by a uniform number in `scales`. A side shorter
    than the frame's lies anywhere within the frame; of a longer one any part is seen.

    Args:
        generator: NumPy's random generator, of which four numbers are drawn.
        shape: (height, width, ...) of the image.
        frame: (height, width).
        scales: smallest and largest factor.
    """
    flip, scale, down, across = generator.random(4)
    scale = scales[0] + scale * (scales[1] - scales[0])
    height, width = _scaled(shape, _fitting(shape, frame) * scale)
    top = _round_down((frame[0] - height) * down)
    left = _round_down((frame[1] - width) * across)
    return Placement(height, width, top, left, bool(flip < 0.5))


def place_image(image, placement, frame):
    """An image (H, W, C) in a frame, float32 in [0, 1]."""
    if not _is_rgb(image):
        image = unit_images(image)
    resized = unit_images(resize(image, placement.height, placement.width))
    return _lay(resized, placement, frame, np.float32(_GRAY))


def place_mask(mask, placement, frame):
    """A mask (H, W) in a frame, uint8; classes of the nearest pixel."""
    return _lay(_nearest(mask, placement), placement, frame, np.uint8(VOID))


def place_depth(depth, placement, frame):
    """Depths (H, W) in a frame, float32; those of the nearest pixel."""
    return _lay(_nearest(depth, placement), placement, frame, np.float32(0.0))


def place_objects(objects, shape, placement, frame):
    """Objects in the coordinates of a frame, cut off at its edges.

    Those of which nothing is left are left out; those that lose more than half of their
    area become difficult.
    """
    boxes = objects["boxes"].astype(np.float64)
    if placement.flip:
        boxes = boxes[:, [2, 1, 0, 3]]
        boxes[:, [0, 2]] = shape[1] - boxes[:, [0, 2]]
    boxes = boxes * np.tile(_factors(shape, placement), 2)
    boxes += np.tile([placement.left, placement.top], 2)
    limit = np.array([frame[1], frame[0], frame[1], frame[0]])
    seen = np.clip(boxes, 0, limit)
    areas = [np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (seen, boxes)]
    kept = areas[0] > 0
    return {
        "boxes": seen[kept],
        "labels": objects["labels"][kept],
        "difficult": (objects["difficult"] | (areas[0] < _LEAST_VISIBLE * areas[1]))[
            kept
        ],
    }


def take_boxes_back(boxes, shape, placement):
    """Boxes of a frame in the coordinates of an image that was fitted into it."""
    boxes = boxes / np.tile(_factors(shape, placement), 2)
    return np.clip(boxes, 0, [shape[1], shape[0], shape[1], shape[0]])


def take_map_back(values, shape, placement):
    """Values (frame height, frame width, k) at the pixels of a fitted image."""
    return resize(values[: placement.height, : placement.width], *shape[:2])


def resize(array, height, width):
    """An array (H, W, k) at another size: bilinear, antialiased where it shrinks.

    The result is uint8 for uint8 of three channels, otherwise float32.
    """
    if array.shape[:2] == (height, width):
        return array
    if _is_rgb(array):
        resized = Image.fromarray(array).resize((width, height), _BILINEAR)
        return np.asarray(resized)
    planes = [
        Image.fromarray(np.ascontiguousarray(array[..., i], np.float32)).resize(
            (width, height), _BILINEAR
        )
        for i in range(array.shape[2])
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def _is_rgb(array):
    return array.dtype == np.uint8 and array.shape[2] == 3


def _nearest(array, placement):
    size = (placement.width, placement.height)
    if array.shape == size[::-1]:
        return array
    resized = Image.fromarray(np.ascontiguousarray(array))
    return np.asarray(resized.resize(size, Image.Resampling.NEAREST))


def _lay(array, placement, frame, filling):
    """An array that has been resized, mirrored and cut or filled to the frame."""
    if placement.flip:
        array = array[:, ::-1]
    laid = np.full((*frame, *array.shape[2:]), filling)
    top, left = placement.top, placement.left
    part = array[max(0, -top) : frame[0] - top, max(0, -left) : frame[1] - left]
    top, left = max(0, top), max(0, left)
    laid[top : top + part.shape[0], left : left + part.shape[1]] = part
    return laid


def _factors(shape, placement):
    """Horizontal and vertical factor by which an image was resized."""
    return np.array([placement.width / shape[1], placement.height / shape[0]])


def _fitting(shape, frame):
    return min(1.0, frame[0] / shape[0], frame[1] / shape[1])


def _scaled(shape, scale):
    return tuple(max(1, round(side * scale)) for side in shape[:2])


def _round_down(number):
    return int(np.floor(number))
