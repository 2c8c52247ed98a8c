"""Random boxes: where a view is cut out of an image."""

import math

_TRIES = 10
# Uniform numbers that one box takes, by use.
BOX_NUMBERS = {"area": _TRIES, "aspect": _TRIES, "top": 1, "left": 1}


def by_use(counts, numbers):
    """Columns of `numbers`, (B, sum of counts), by name: (B, count), or (B,) for 1."""
    columns, start = {}, 0
    for name, count in counts.items():
        columns[name] = (
            numbers[:, start] if count == 1 else numbers[:, start : start + count]
        )
        start += count
    return columns


def draw_boxes(view, drawn, height, width, xp):
    """Random boxes (B, 4): area and log aspect uniform, place uniform, whole pixels.

    In the style "torchvision" ten candidates are drawn at once and the first that fits
    is taken, which has the law of trying one after another.

    Args:
        view: a `View`.
        drawn: uniform numbers in [0, 1) for each of `BOX_NUMBERS`.
        height, width: of the images.
        xp: `keras.ops`, or `numpy` for boxes of images that are cut on the host.

    Returns:
        Top, left, height and width in pixels.
    """
    low, high = view.crop_scale
    area = height * width * (low + (high - low) * drawn["area"])
    low, high = (math.log(ratio) for ratio in view.crop_ratio)
    ratio = xp.exp(low + (high - low) * drawn["aspect"])
    widths, heights = (
        xp.round(xp.sqrt(area * ratio)),
        xp.round(xp.sqrt(area / ratio)),
    )
    if view.style == "byol":
        box_height = xp.clip(heights[:, 0], 1.0, height)
        box_width = xp.clip(widths[:, 0], 1.0, width)
    else:
        fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
        first = fits & (xp.cumsum(xp.where(fits, 1, 0), axis=1) == 1)
        any_fits = xp.any(fits, axis=1)
        fallback_height, fallback_width = _central_box(view, height, width)
        box_height, box_width = (
            xp.where(any_fits, xp.sum(xp.where(first, sides, 0.0), axis=1), fallback)
            for sides, fallback in (
                (heights, fallback_height),
                (widths, fallback_width),
            )
        )
    # The product may round up to the number of places: minimum keeps the box inside.
    top, left = (
        xp.minimum(xp.floor(place * (places + 1.0)), places)
        for place, places in (
            (drawn["top"], height - box_height),
            (drawn["left"], width - box_width),
        )
    )
    if view.style == "torchvision":
        top = xp.where(any_fits, top, (height - fallback_height) // 2)
        left = xp.where(any_fits, left, (width - fallback_width) // 2)
    return xp.stack([top, left, box_height, box_width], axis=1)


def _central_box(view, height, width):
    """Largest box of an allowed aspect, as torchvision falls back on it."""
    low, high = view.crop_ratio
    if width / height < low:
        return max(1, round(width / low)), width
    if width / height > high:
        return height, max(1, round(height * high))
    return height, width
