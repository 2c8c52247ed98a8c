"""Views cut out of decoded images on the host: what depends on an image's size."""

import functools
import math

import numpy as np
from PIL import Image
from scipy import sparse

from keras_kssl.augment.boxes import BOX_NUMBERS, by_use, draw_boxes
from keras_kssl.augment.image_ops import KERNELS, REACH

NUMBERS_PER_VIEW = sum(BOX_NUMBERS.values())
# Weights of axes that are kept, of up to 32 kB each: crops of photos have few lengths,
# those of large images too many.
_MOST_KEPT, _LONGEST_KEPT = 1024, 1024
# Columns times channels that are made floats at a time.
_STRIP = 512
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
    the box take no part. The weights, few for each point, are sparse matrices, whose
    products let other threads run: 0.7 ms for 250 x 250 pixels to 224 x 224 on a core
    at 2.5 GHz, half of what PIL takes, and size W C floats in memory. The centre
    is by PIL, number for number what torchvision gives to published encoders; it is
    that of `augment.image_ops.center_crop` but for rounding and cutting off after each
    axis.

    Args:
        image: array (H, W, C), uint8 or float32.
        box: top, left, height and width in pixels, or `None` for the centre.
        view: `augment.View`, of which size, interpolation and antialias count; the
            centre is antialiased always.

    Returns:
        Array (size, size, C) of the image's dtype, rounded or cut off to its range.
    """
    if box is None:
        return _centre(image, view)
    top, left, height, width = box
    rows, columns = (_weights_of(length, view) for length in (height, width))
    return _resampled(image[top : top + height, left : left + width], rows, columns)


def _centre(image, view):
    """The central square, with sides rounded as torchvision's."""
    shorter, resized = min(image.shape[:2]), round(view.size / view.center_fraction)
    ends = []
    for side in image.shape[:2]:
        length = resized * side // shorter
        start = round((length - view.size) / 2)
        ends.append((start * side / length, (start + view.size) * side / length))
    (top, bottom), (left, right) = ends
    how = (view.size, view.size), _PIL_FILTERS[view.interpolation]
    box = left, top, right, bottom
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.asarray(Image.fromarray(image).resize(*how, box))
    channels = [
        np.asarray(Image.fromarray(np.float32(image[..., i])).resize(*how, box))
        for i in range(image.shape[2])
    ]
    return _in_range(np.stack(channels, axis=-1), image.dtype)


def _weights_of(length, view):
    make = _weights if length <= _LONGEST_KEPT else _weights.__wrapped__
    return make(length, view.size, view.interpolation, view.antialias)


@functools.lru_cache(_MOST_KEPT)
def _weights(length, size, interpolation, antialias):
    """What `size` points of an axis of `length` pixels are made of.

    Returns:
        `image_ops.resampling_weights` as a sparse matrix (size, length).
    """
    step = length / size
    scale = max(step, 1.0) if antialias else 1.0
    reach = REACH[interpolation] * scale
    centres = (np.arange(size) + 0.5) * step
    count = min(length, math.ceil(2 * reach))
    first = np.floor(centres - reach + 0.5).clip(0, length - count).astype(np.int32)
    pixels = first[:, np.newaxis] + np.arange(count, dtype=np.int32)
    distances = np.abs(pixels + 0.5 - centres[:, np.newaxis]) / scale
    weights = KERNELS[interpolation](distances, np)
    weights /= weights.sum(axis=1, keepdims=True)
    ends = np.arange(0, pixels.size + 1, count, dtype=np.int32)
    parts = weights.astype(np.float32).ravel(), pixels.ravel(), ends
    return sparse.csr_array(parts, shape=(size, length))


def _resampled(image, rows, columns):
    """An image by `_weights` of its rows and columns, in its dtype and its range."""
    height, width, channels = image.shape
    image = image.reshape(height, width * channels)
    # Turned in between, so that both products add long rows.
    turned = np.empty((width * channels, rows.shape[0]), np.float32)
    for start in range(0, len(turned), _STRIP):
        strip = image[:, start : start + _STRIP].astype(np.float32)
        turned[start : start + _STRIP] = (rows @ strip).T
    made = columns @ turned.reshape(width, -1)
    made = _in_range(made, image.dtype).reshape(-1, rows.shape[0])
    return np.ascontiguousarray(made.T).reshape(rows.shape[0], -1, channels)


def _in_range(array, dtype):
    """Values that overshoot cut off, in place, and rounded for uint8."""
    if dtype == np.uint8:
        array.clip(0.0, 255.0, out=array)
        return np.rint(array, out=array).astype(np.uint8)
    return array.clip(0.0, 1.0, out=array)
