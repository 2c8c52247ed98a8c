"""What a dense set may hold: images, masks, depths and boxes, checked one by one.

Each check takes what the message is to call the thing, such as "npz:a.npz, image 3",
and returns the array in the one form that everything else works with.
"""

import numpy as np

from keras_kssl.evaluation.dense.metrics import VOID

# Boxes drawn by hand end up to so many pixels outside of the image; they are cut off.
_BEYOND = 1.0


def check_image(where, image):
    """An image (H, W, C): uint8, or float32 in [0, 1]."""
    image = np.asarray(image)
    if image.ndim != 3 or image.size == 0:
        raise ValueError(
            f"{where}: images must have 3 axes, (height, width, channels). Received: "
            f"shape {image.shape}."
        )
    if image.dtype == np.uint8:
        return image
    if not np.issubdtype(image.dtype, np.floating):
        raise TypeError(
            f"{where}: images must be uint8 in 0 ... 255 or float in [0, 1]. Received: "
            f"dtype {image.dtype}. Divide them by their largest possible value."
        )
    smallest, largest = float(image.min()), float(image.max())
    if not 0.0 <= smallest <= largest <= 1.0:
        raise ValueError(
            f"{where}: images must lie in [0, 1] where they are float. Received: "
            f"values from {smallest:g} to {largest:g}. Divide by 255 what was 0 ... "
            "255, and replace NaN."
        )
    return image.astype(np.float32, copy=False)


def check_mask(where, shape, mask, num_classes):
    """A mask (H, W) of class numbers as uint8, 255 where there is none."""
    mask = np.asarray(mask)
    if not np.issubdtype(mask.dtype, np.integer):
        raise TypeError(
            f"{where}: masks must be integers, the class of every pixel. Received: "
            f"dtype {mask.dtype}."
        )
    _check_size(where, "masks", shape, mask)
    wrong = mask[(mask != VOID) & ((mask < 0) | (mask >= num_classes))]
    if wrong.size:
        numbers = np.unique(wrong)[:10].tolist()
        raise ValueError(
            f"{where}: masks must hold class numbers from 0 to {num_classes - 1}, or "
            f"{VOID} where no class is known. Received: {numbers} in {wrong.size} "
            "pixels."
        )
    return mask.astype(np.uint8, copy=False)


def check_depth(where, shape, depth):
    """A depth map (H, W) in metres, float32, 0 where it is not known."""
    depth = np.asarray(depth)
    if not np.issubdtype(depth.dtype, np.floating):
        raise TypeError(
            f"{where}: depths must be floats in metres. Received: dtype {depth.dtype}. "
            "Divide millimetres by 1000.0."
        )
    _check_size(where, "depths", shape, depth)
    depth = depth.astype(np.float32, copy=False)
    broken = depth.size - int(np.isfinite(depth).sum())
    if broken or depth.min() < 0:
        found = f"NaN or infinity in {broken} pixels" if broken else f"{depth.min():g}"
        raise ValueError(
            f"{where}: depths must be finite and at least 0, with 0 for not known. "
            f"Received: {found}."
        )
    return depth


def check_objects(where, shape, objects, num_classes):
    """Objects of an image: `boxes` (k, 4), `labels` (k,) and `difficult` (k,)."""
    is_known = isinstance(objects, dict) and {"boxes", "labels"} <= set(objects)
    if not is_known:
        found = sorted(objects) if isinstance(objects, dict) else type(objects).__name__
        raise TypeError(
            f"{where}: objects must be a dictionary with `boxes` and `labels`, and "
            f"`difficult` where some are. Received: {found}."
        )
    boxes = np.asarray(objects["boxes"], np.float32)
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(
            f"{where}: boxes must have shape (k, 4): left, top, right and bottom edge. "
            f"Received: shape {boxes.shape}."
        )
    labels = np.asarray(objects["labels"])
    labels = labels if labels.size else labels.astype(np.int64)
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(
            f"{where}: labels of boxes must be integers. Received: dtype "
            f"{labels.dtype}."
        )
    difficult = np.asarray(objects.get("difficult", np.zeros(len(boxes))), bool)
    for name, array in (("labels", labels), ("difficult", difficult)):
        if array.shape != (len(boxes),):
            raise ValueError(
                f"{where}: `{name}` must have one entry for each of the {len(boxes)} "
                f"boxes. Received: shape {array.shape}."
            )
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if wrong.size:
        raise ValueError(
            f"{where}: labels of boxes must be class numbers from 0 to "
            f"{num_classes - 1}. Received: {np.unique(wrong)[:10].tolist()}."
        )
    height, width = shape[:2]
    limit = np.array([width, height, width, height], np.float32)
    inside = np.all((boxes >= -_BEYOND) & (boxes <= limit + _BEYOND), axis=1)
    clipped = np.clip(boxes, 0.0, limit)
    good = inside & np.all(clipped[:, 2:] > clipped[:, :2], axis=1)
    if not good.all():
        raise ValueError(
            f"{where}: boxes must be left, top, right and bottom edge in pixels, left "
            f"before right, top above bottom, within {width} x {height} pixels. "
            f"Received: {boxes[~good][0].tolist()}."
        )
    return {
        "boxes": clipped,
        "labels": labels.astype(np.int64, copy=False),
        "difficult": difficult,
    }


def count_classes(arrays, void=None):
    """One more than the largest class number in arrays, `void` left out.

    What is no integer does not count: its own check will say so.
    """
    count = 0
    for array in map(np.asarray, arrays):
        if np.issubdtype(array.dtype, np.integer):
            known = array if void is None else array[array != void]
            count = max(count, int(known.max()) + 1 if known.size else 0)
    return count


def _check_size(where, kind, shape, array):
    if array.shape != tuple(shape[:2]):
        raise ValueError(
            f"{where}: {kind} must have the size of their image, {shape[0]} x "
            f"{shape[1]} pixels. Received: shape {array.shape}."
        )
