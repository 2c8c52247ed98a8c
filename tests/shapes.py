"""Tiny sets of coloured shapes on gray clutter, for the dense tasks."""

import numpy as np

NAMES = ["disk", "square"]


def shapes(count, size=32, seed=0, most=1):
    """Images with 1 to `most` shapes each, and what there is to know about them.

    Disks are reddish, squares bluish. The ground is the darker the farther away it is,
    and farther at the bottom; shapes are one metre away.

    Returns:
        Images uint8 (n, size, size, 3); masks (n, size, size), 0 for the ground, 1 for
        disks, 2 for squares; a list of objects; depths (n, size, size).
    """
    generator = np.random.default_rng(seed)
    parts = [_picture(generator, size, most) for _ in range(count)]
    images, masks, objects, depths = zip(*parts, strict=True)
    return np.stack(images), np.stack(masks), list(objects), np.stack(depths)


def _picture(generator, size, most):
    rows, columns = np.mgrid[:size, :size] + 0.5
    depth = 2.0 + 3.0 * generator.uniform() + 1.5 * rows / size
    mask = np.zeros((size, size), np.uint8)
    boxes, labels = [], []
    for _ in range(generator.integers(1, most + 1)):
        radius = generator.uniform(0.18, 0.28) * size
        middle = generator.uniform(radius, size - radius, 2)
        label = int(generator.integers(2))
        away = np.abs(np.stack([rows - middle[0], columns - middle[1]]))
        inside = (np.hypot(*away) if label == 0 else away.max(axis=0)) < radius
        if mask[inside].any():
            continue
        mask[inside] = label + 1
        depth[inside] = 1.0
        boxes.append(box_of(inside))
        labels.append(label)
    image = (1.0 - depth[..., np.newaxis] / 8.0) * np.ones(3)
    image[mask == 1] = (0.8, 0.3, 0.2)
    image[mask == 2] = (0.2, 0.3, 0.8)
    image += generator.normal(0.0, 0.06, image.shape)
    objects = {"boxes": np.array(boxes), "labels": np.array(labels)}
    return np.uint8(255 * np.clip(image, 0.0, 1.0)), mask, objects, depth


def box_of(inside):
    """Edges of the pixels that are true."""
    across, down = (np.flatnonzero(inside.any(axis=axis)) for axis in (0, 1))
    return across[0], down[0], across[-1] + 1, down[-1] + 1
