"""Pictures inside a page, and places for them on a map."""

import base64
import dataclasses
import io

import numpy as np
from PIL import Image

from keras_kssl.preview import visible

MAP_WIDTH = 860
# The largest with which all find a place is taken, or the last.
_SIDES = (44, 40, 36, 32, 28)
_BORDER = 2
_THUMBNAILS = 150
_LOWEST, _HIGHEST = 0.6, 0.9


@dataclasses.dataclass(frozen=True)
class Map:
    """Images on a plane, in pixels: (0, 0) is the top left corner.

    Attributes:
        places: (n, 2) where the images are.
        shown: positions of those that have thumbnails, which do not overlap.
        side: of the thumbnails.
    """

    width: int
    height: int
    places: np.ndarray
    shown: list[int]
    side: int


def picture(image, side):
    """An image as a data URI.

    Args:
        image: floats in [0, 1], (H, W, C).
        side: pixels that the longer side has at most.
    """
    pixels = (visible(image) * 255).round().astype("uint8")
    thumbnail = Image.fromarray(pixels)
    thumbnail.thumbnail((side, side))
    file = io.BytesIO()
    thumbnail.save(file, "JPEG", quality=88)
    return data_uri(file.getvalue(), "jpeg")


def data_uri(content, kind):
    """Bytes of an image file inside a page."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def lay_out(points, seed=0):
    """The `Map` of points (n, 2), n at least 2, to one scale in both directions."""
    points = np.asarray(points, np.float64)
    low, extent = points.min(axis=0), np.ptp(points, axis=0)
    margin = _SIDES[0] / 2 + _BORDER
    inner = MAP_WIDTH - 2 * margin
    height = np.clip(extent[1] / max(extent[0], 1e-12), _LOWEST, _HIGHEST) * inner
    scale = min(inner / max(extent[0], 1e-12), height / max(extent[1], 1e-12))
    centred = (points - low - extent / 2) * scale
    places = centred + np.array([inner, height]) / 2 + margin
    wanted = min(_THUMBNAILS, len(places))
    for side in _SIDES:
        shown = without_overlap(places, side + 2 * _BORDER, wanted, seed)
        if len(shown) == wanted:
            break
    return Map(MAP_WIDTH, round(height + 2 * margin), places.round(1), shown, side)


def without_overlap(places, side, count, seed):
    """Positions of up to `count` squares about their places that do not overlap.

    One after the other in random order: a square that would touch an earlier one is
    left out.
    """
    chosen = []
    for position in np.random.default_rng(seed).permutation(len(places)):
        if len(chosen) == count:
            break
        apart = np.abs(places[chosen] - places[position]).max(axis=1, initial=0)
        if (apart >= side).all():
            chosen.append(int(position))
    return chosen
