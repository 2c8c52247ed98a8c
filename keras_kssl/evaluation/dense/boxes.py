"""Boxes and cells: what a map of cells is to say of boxes, and what it said, in NumPy.

Cell (i, j) of a map looks out from the point (j * stride + 0.5, i * stride + 0.5), the
centre of a pixel, and says which class of object is there and how far its left, top,
right and bottom edge are, in strides.
"""

import numpy as np

from keras_kssl.evaluation.dense.metrics import box_iou

# In place of a class number.
BACKGROUND, IGNORED = -1, -2
# How far from the centre of an object, in strides, cells answer for it.
_RADIUS = 1.5
# Points on or beyond an edge, of objects smaller than a stride, are so far from it.
_LEAST_DISTANCE = 0.01
_LEAST_SCORE = 0.01
_MOST_CANDIDATES = 1000
_MOST_BOXES = 100
_SAME_OBJECT = 0.5


def cell_targets(objects, cells, stride):
    """What each cell is to say.

    Cells within a box and near its centre answer for it, the nearest cell at least; of
    several boxes for the smallest. Cells of difficult boxes alone do not count.

    Args:
        objects: dictionary of `boxes` (k, 4), `labels` (k,) and `difficult` (k,).
        cells: (h, w) of the map.
        stride: pixels from cell to cell.

    Returns:
        float32 (h, w, 5): class number, BACKGROUND or IGNORED; distances to the edges.
    """
    targets = np.zeros((*cells, 5), np.float32)
    targets[..., 0] = BACKGROUND
    points = cell_points(cells, stride)
    boxes = objects["boxes"].astype(np.float64)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    # Later ones write over earlier ones.
    for index in np.lexsort((-areas, ~objects["difficult"])):
        box = boxes[index]
        centre = (box[:2] + box[2:]) / 2.0
        near = np.abs(points - centre).max(axis=-1) <= _RADIUS * stride
        distances = np.concatenate([points - box[:2], box[2:] - points], axis=-1)
        chosen = near & (distances.min(axis=-1) > 0)
        if not chosen.any():
            away = np.square(points - centre).sum(axis=-1)
            chosen = away == away.min()
        if objects["difficult"][index]:
            targets[chosen, 0] = IGNORED
        else:
            targets[chosen, 0] = objects["labels"][index]
            far = np.maximum(distances[chosen] / stride, _LEAST_DISTANCE)
            targets[chosen, 1:] = far
    return targets


def cell_points(cells, stride):
    """Points (h, w, 2), across and down, from which cells look out."""
    down, across = (np.arange(count) * stride + 0.5 for count in cells)
    return np.stack(np.meshgrid(across, down), axis=-1)


def decode(scores, distances, stride, limit):
    """Objects that a map of cells tells of.

    Args:
        scores: (h, w, classes) in [0, 1].
        distances: (h, w, 4), to the edges, in strides.
        stride: pixels from cell to cell.
        limit: (height, width) of the image in the frame; boxes are cut off there.

    Returns:
        dictionary of `boxes` (k, 4), `labels` (k,) and `scores` (k,), best first, at
        most 100.
    """
    points = cell_points(scores.shape[:2], stride)
    far = distances.astype(np.float64) * stride
    boxes = np.concatenate([points - far[..., :2], points + far[..., 2:]], axis=-1)
    boxes = np.clip(boxes, 0, [limit[1], limit[0], limit[1], limit[0]])
    is_box = np.all(boxes[..., 2:] > boxes[..., :2], axis=-1)
    good = (scores > _LEAST_SCORE) & is_box[..., np.newaxis]
    rows, columns, labels = np.nonzero(good)
    values = scores[rows, columns, labels]
    best = np.argsort(-values, kind="stable")[:_MOST_CANDIDATES]
    found = {
        "boxes": boxes[rows, columns][best],
        "labels": labels[best],
        "scores": values[best],
    }
    kept = suppress(**found)[:_MOST_BOXES]
    return {name: array[kept] for name, array in found.items()}


def suppress(boxes, labels, scores, overlap=_SAME_OBJECT):
    """Non-maximum suppression: positions of the boxes that are kept, best first.

    A box is left out where a better one of its class that is kept overlaps it by more
    than `overlap` (`metrics.box_iou`).

    >>> boxes = np.array([[0, 0, 4, 4], [0, 0, 4, 3], [9, 9, 10, 10]])
    >>> suppress(boxes, np.zeros(3, int), np.array([0.5, 0.9, 0.1])).tolist()
    [1, 2]
    """
    left = np.argsort(-scores, kind="stable")
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        same = labels[left] == labels[best]
        left = left[~(same & (box_iou(boxes[best], boxes[left]) > overlap))]
    return np.array(kept, np.int64)
