"""Patches: squares cut out of a view at random places near those of a 3 x 3 grid.

The view is made and changed as a whole, so that its patches share crop, mirroring and
colours; OBoW makes its small crops so.
"""

import collections.abc

from keras import ops

from keras_kssl._checks import check_integer, check_that, message
from keras_kssl.augment import image_ops

_GRID = 3
_CELLS = _GRID * _GRID
# Uniform numbers that the patches of one view of one image take, by use.
PATCH_NUMBERS = {"cells": _CELLS, "patch_tops": _CELLS, "patch_lefts": _CELLS}


def check_patches(view_size, patches):
    """Checks (count, side, jitter) for a view of `view_size` pixels; returns it."""
    rule = "None or three integers (count, side, jitter)"
    if not isinstance(patches, collections.abc.Sequence) or len(patches) != 3:
        raise TypeError(message("View", "patches", rule, patches))
    count, side, jitter = (check_integer("View", "patches", part) for part in patches)
    rule = f"of 1 to {_CELLS} patches whose sides and jitter fit into the view"
    fits = side >= 1 and jitter >= 0 and side + jitter <= view_size
    check_that(1 <= count <= _CELLS and fits, "View", "patches", rule, patches)
    return count, side, jitter


def draw_patches(view, drawn):
    """Places of the patches of a view in its pixels, int32 (B, count, 2): top, left.

    Formula: in each direction the places of row or column i = 0, 1, 2 of the grid are
    uniform on i g, ..., i g + jitter, with g = floor((size - side - jitter) / 2); the
    patches have `count` of the nine cells, no two of them the same.

    Args:
        view: a `View` with patches.
        drawn: uniform numbers in [0, 1), (B, 9), for each of `PATCH_NUMBERS`.
    """
    count, side, jitter = view.patches
    step = (view.size - side - jitter) // (_GRID - 1)
    cells = ops.cast(ops.argsort(drawn["cells"], axis=-1)[:, :count], "int32")
    places = []
    for cell, name in ((cells // _GRID, "patch_tops"), (cells % _GRID, "patch_lefts")):
        # The product may round up to jitter + 1.
        moved = ops.minimum(ops.floor(drawn[name][:, :count] * (jitter + 1)), jitter)
        places.append(cell * step + ops.cast(moved, "int32"))
    return ops.stack(places, axis=-1)


def cut_patches(view, images, parameters):
    """The views (B, side, side, C) that one view gives: itself, or its patches."""
    if view.patches is None:
        return [images]
    places = parameters["patches"]
    count, side, _ = view.patches
    return [
        image_ops.cut_square(images, places[:, i, 0], places[:, i, 1], side)
        for i in range(count)
    ]
