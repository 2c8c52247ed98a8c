"""Views cut out of decoded images on the host: what depends on an image's size."""

import math

import keras
import numpy as np
from PIL import Image

from keras_kssl.augment.boxes import BOX_NUMBERS, by_use, draw_boxes

NUMBERS_PER_VIEW = sum(BOX_NUMBERS.values())
_PIL_FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
}


def boxes_of_views(views, numbers, height, width):
    """A box for each view: top, left, height and width in pixels, integers.

    `None` stands for the centre, which `cut` finds itself.

    Args:
        views: the settings, `augment.View`.
        numbers: uniform numbers in [0, 1), (views, NUMBERS_PER_VIEW).
        height, width: of the image.
    """
    boxes = [None] * len(views)
    alike = {}
    for position, view in enumerate(views):
        if view.center_fraction is None:
            settings = (view.style, view.crop_scale, view.crop_ratio)
            alike.setdefault(settings, []).append(position)
    for positions in alike.values():
        drawn = by_use(BOX_NUMBERS, numbers[positions])
        found = draw_boxes(views[positions[0]], drawn, height, width, np)
        for position, box in zip(positions, found, strict=True):
            boxes[position] = tuple(int(number) for number in box)
    return boxes


def largest_shrink(views, boxes, height, width):
    """How often an image may be halved, as a factor, before a view lacks pixels."""
    ratios = []
    for view, box in zip(views, boxes, strict=True):
        if box is None:
            ratios.append(view.center_fraction * min(height, width) / view.size)
        else:
            ratios.append(min(box[2:]) / view.size)
    return 2 ** max(0, math.floor(math.log2(max(min(ratios), 1.0))))


def scale_box(box, before, after):
    """A box in an image that has shrunk from shape `before` to shape `after`."""
    if box is None or before == after:
        return box
    factors = np.tile(np.divide(after, before), 2)
    top, left, height, width = (max(0, round(x)) for x in np.multiply(box, factors))
    height, width = max(1, height), max(1, width)
    return min(top, after[0] - height), min(left, after[1] - width), height, width


def cut(image, box, view):
    """Cuts a view's box out of an image and resamples it to the view's size.

    Random boxes are resampled as by `augment.image_ops.crop_and_resize`: pixels outside
    the box take no part. The centre is that of `augment.image_ops.center_crop`.

    Args:
        image: array (H, W, C), uint8 or float32.
        box: top, left, height and width in pixels, or `None` for the centre.
        view: `augment.View`, of which size, interpolation and antialias count.

    Returns:
        Array (size, size, C) of the image's dtype, rounded or cut off to its range.
    """
    if box is None:
        return _by_pil(image, view, _centre(image.shape, view))
    top, left, height, width = box
    part = image[top : top + height, left : left + width]
    # Where nothing shrinks the two kinds of resampling are one.
    if view.antialias or max(height, width) <= view.size:
        return _by_pil(part, view)
    return _without_antialias(part, view)


def _centre(shape, view):
    """Left, top, right and bottom of the central square, as torchvision rounds it."""
    shorter, resized = min(shape[:2]), round(view.size / view.center_fraction)
    ends = []
    for side in shape[:2]:
        length = resized * side // shorter
        start = round((length - view.size) / 2)
        ends.append((start * side / length, (start + view.size) * side / length))
    (top, bottom), (left, right) = ends
    return left, top, right, bottom


def _by_pil(part, view, box=None):
    size, resample = (view.size, view.size), _PIL_FILTERS[view.interpolation]
    if part.dtype == np.uint8 and part.shape[2] == 3:
        return np.asarray(Image.fromarray(part).resize(size, resample, box))
    channels = [
        Image.fromarray(np.float32(part[..., i])).resize(size, resample, box)
        for i in range(part.shape[2])
    ]
    resized = np.stack([np.asarray(channel) for channel in channels], axis=-1)
    return _in_range(resized, part.dtype)


def _without_antialias(part, view):
    if keras.backend.backend() == "tensorflow":
        resized = _by_tensorflow(part, view)
    else:
        resized = part
        for axis in (0, 1):
            resized = _resample_axis(resized, axis, view)
    return _in_range(resized, part.dtype)


def _by_tensorflow(part, view):
    """Three times as fast as NumPy, and other threads run meanwhile."""
    import tensorflow as tf

    resize = {
        "bicubic": tf.raw_ops.ResizeBicubic,
        "bilinear": tf.raw_ops.ResizeBilinear,
    }[view.interpolation]
    with tf.device("CPU:0"):
        resized = resize(
            images=part[np.newaxis],
            size=(view.size, view.size),
            half_pixel_centers=True,
        )
    return resized[0].numpy()


def _resample_axis(array, axis, view):
    pixels, weights = _taps(array.shape[axis], view.size, view.interpolation)
    shape = [1] * array.ndim
    shape[axis] = view.size
    total = 0.0
    for pixel, weight in zip(pixels.T, weights.T, strict=True):
        total = total + np.take(array, pixel, axis=axis) * weight.reshape(shape)
    return total


def _taps(length, size, interpolation):
    """Pixels and weights (size, taps) that each of `size` points is made of."""
    centres = (np.arange(size) + 0.5) * (length / size) - 0.5
    reach = 2 if interpolation == "bicubic" else 1
    first = np.floor(centres).astype(int) - (reach - 1)
    pixels = first[:, np.newaxis] + np.arange(2 * reach)
    distance = np.abs(centres[:, np.newaxis] - pixels)
    if interpolation == "bicubic":
        near = (1.5 * distance - 2.5) * distance**2 + 1.0
        far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
        weights = np.where(distance <= 1.0, near, np.where(distance < 2.0, far, 0.0))
    else:
        weights = np.maximum(1.0 - distance, 0.0)
    weights = np.where((pixels >= 0) & (pixels < length), weights, 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.clip(pixels, 0, length - 1), weights.astype(np.float32)


def _in_range(array, dtype):
    """Values that overshoot cut off, and rounded for uint8."""
    if dtype == np.uint8:
        array = np.clip(array, 0.0, 255.0)
        return np.rint(array, out=array).astype(np.uint8)
    return np.clip(array, 0.0, 1.0).astype(np.float32)
