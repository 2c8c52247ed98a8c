"""Image operations on batches, with one parameter per image.

Images are float32 arrays of shape (B, H, W, C), with values in [0, 1]; parameters are
arrays of shape (B,), or scalars where one value serves the batch. An operation applies
what it is given and draws nothing (keras_kssl.augment.policies draws), never clips (a
policy clips after each), and costs a few passes over the images. Nothing gathers or
loops over images, so that everything compiles on CPU, GPU and TPU. Operations on colour
need three channels, red, green, blue.

What asks where the channels are has `channel_axis`: -1 (default), or 1 for planes, (B,
C, H, W), which a chain of operations goes through several times faster: a compiler can
work on a whole row at a time, and the rows that a blur adds up stay in a small cache.
"""

from keras import ops

from keras_kssl._checks import check_choice, check_integer, check_rank, check_that
from keras_kssl._precision import matmul

# ITU-R BT.601 luma as TensorFlow and torchvision round it; PIL has 0.299.
GRAY_WEIGHTS = (0.2989, 0.5870, 0.1140)


def per_image(parameter, images):
    """Shapes parameters (B,) to go with images, (B, 1, 1, 1); keeps scalars."""
    parameter = ops.convert_to_tensor(parameter)
    if len(parameter.shape) == 0:
        return parameter
    return ops.reshape(parameter, (-1,) + (1,) * (len(images.shape) - 1))


def choose(mask, chosen, otherwise):
    """Takes image i of `chosen` where mask[i] is true, else of `otherwise`."""
    return ops.where(per_image(mask, otherwise), chosen, otherwise)


def clip(images):
    """Clips to [0, 1]."""
    return ops.clip(images, 0.0, 1.0)


def flip(images, channel_axis=-1):
    """Mirrors left and right."""
    check_rank("flip", "images", images, 4, "(B, H, W, C)")
    return ops.flip(images, axis=_sides(channel_axis)[1])


def crop_and_resize(images, boxes, size, interpolation="bicubic", antialias=False):
    """Cuts one box out of each image and resamples it to `size`.

    Formula: y = R x Cᵀ per channel, with R (height, H) and C (width, W) the weights of
    `resampling_weights` for the rows and columns of the image's box: two batched
    matrix products of height H W C + height W width C multiplications per image.

    Only pixels that the box overlaps take part, as if the box had been cut out first.
    Bicubic results may leave [0, 1] by about a tenth.

    Args:
        images: (B, H, W, C).
        boxes: (B, 4) or (1, 4): top, left, height and width in pixels; may be
            fractional. Boxes are not checked against the image.
        size: (height, width) of the result, or one integer for both.
        interpolation: "bicubic" (Keys, a = -1/2) or "bilinear".
        antialias: whether the filter widens when it shrinks the box, as PIL and
            torchvision do; without, it is `tf.image.resize`.

    Returns:
        Array of shape (B, height, width, C).
    """
    caller = "crop_and_resize"
    _, source_height, source_width, _ = check_rank(
        caller, "images", images, 4, "(B, H, W, C)"
    )
    check_rank(caller, "boxes", boxes, 2, "(B, 4)")
    height, width = size if isinstance(size, tuple | list) else (size, size)
    boxes = ops.convert_to_tensor(boxes)
    rows = resampling_weights(
        boxes[:, 0], boxes[:, 2], height, source_height, interpolation, antialias
    )
    columns = resampling_weights(
        boxes[:, 1], boxes[:, 3], width, source_width, interpolation, antialias
    )
    return resample(images, rows, columns)


def center_crop(images, size, fraction, interpolation="bicubic", antialias=True):
    """Resizes the shorter side to size / fraction, then cuts out the centre square.

    Sides are rounded as torchvision's Resize and CenterCrop round them. Pixels beyond
    the square take part in the resampling of its edge, unlike in `crop_and_resize`.

    Args:
        images: (B, H, W, C).
        size: side of the result in pixels.
        fraction: side of the square over the shorter side, in (0, 1].
        interpolation, antialias: as in `crop_and_resize`.

    Returns:
        Array of shape (B, size, size, C).
    """
    _, height, width, _ = check_rank("center_crop", "images", images, 4, "(B, H, W, C)")
    shorter, resized = min(height, width), round(size / fraction)
    weights = []
    for side in (height, width):
        length = resized * side // shorter
        start = round((length - size) / 2)
        rows = resampling_weights([0.0], [side], length, side, interpolation, antialias)
        weights.append(rows[:, start : start + size])
    return resample(images, *weights)


def cut_square(images, top, left, size):
    """Cuts a square out of each image, pixel by pixel.

    Products with matrices of zeros and ones, at the cost of `crop_and_resize`: spatial
    gathers run out of memory on TPUs.

    Args:
        images: (B, H, W, C).
        top, left: (B,) integers; the square must lie inside the image.
        size: side of the square in pixels.

    Returns:
        Array of shape (B, size, size, C).
    """
    _, height, width, _ = check_rank("cut_square", "images", images, 4, "(B, H, W, C)")
    pixels = ops.arange(size, dtype="int32")[None, :, None]
    rows, columns = (
        ops.cast(
            ops.reshape(start, (-1, 1, 1)) + pixels
            == ops.arange(side, dtype="int32")[None, None],
            "float32",
        )
        for start, side in ((top, height), (left, width))
    )
    return resample(images, rows, columns)


def resampling_weights(start, length, size, source_size, interpolation, antialias):
    """Matrices that resample an interval of an axis to `size` points.

    Formula: w_oi ∝ k((i + 1/2 - c_o) / s), rows summing to 1, where c_o = start +
    (o + 1/2) length / size is the centre of output point o, k the kernel, and s =
    max(length / size, 1) with antialias, else 1; w_oi = 0 for pixels i outside.

    Args:
        start, length: (B,), the intervals in pixels of the source.
        size, source_size: numbers of points.
        interpolation, antialias: as in `crop_and_resize`.

    Returns:
        float32 array of shape (B, size, source_size).
    """
    check_choice("crop_and_resize", "interpolation", interpolation, KERNELS)
    check_integer("crop_and_resize", "size", size, minimum=1)
    start = ops.reshape(ops.cast(start, "float32"), (-1, 1, 1))
    length = ops.reshape(ops.cast(length, "float32"), (-1, 1, 1))
    step = length / size
    outputs = ops.arange(size, dtype="float32")[None, :, None] + 0.5
    pixels = ops.arange(source_size, dtype="float32")[None, None, :]
    distance = ops.abs(pixels + 0.5 - (start + outputs * step))
    if antialias:
        distance = distance / ops.maximum(step, 1.0)
    weights = KERNELS[interpolation](distance, ops)
    inside = ops.logical_and(pixels + 1.0 > start, pixels < start + length)
    weights = ops.where(inside, weights, 0.0)
    return weights / ops.sum(weights, axis=-1, keepdims=True)


def resample(images, rows, columns):
    """Applies matrices (B, h, H) to the rows and (B, w, W) to the columns."""
    _, height, width, channels = images.shape
    resized = rows.shape[1]
    images = ops.reshape(images, (-1, height, width * channels))
    images = ops.reshape(matmul(rows, images), (-1, resized, width, channels))
    images = ops.reshape(
        ops.transpose(images, (0, 2, 1, 3)), (-1, width, resized * channels)
    )
    images = matmul(columns, images)
    images = ops.reshape(images, (-1, columns.shape[1], resized, channels))
    return ops.transpose(images, (0, 2, 1, 3))


def _bilinear(distance, xp):
    return xp.maximum(1.0 - distance, 0.0)


def _bicubic(distance, xp):
    near = (1.5 * distance - 2.5) * distance * distance + 1.0
    far = ((2.5 - 0.5 * distance) * distance - 4.0) * distance + 2.0
    return xp.where(distance < 1.0, near, xp.where(distance < 2.0, far, 0.0))


# Functions of distances in pixels, at least 0, and of `keras.ops` or `numpy`. From the
# distance `REACH` on they are 0.
KERNELS = {"bicubic": _bicubic, "bilinear": _bilinear}
REACH = {"bicubic": 2, "bilinear": 1}


def adjust_brightness(images, delta):
    """Adds `delta`, in [-1, 1]: x + delta (BYOL, TensorFlow)."""
    return images + per_image(delta, images)


def scale_brightness(images, factor):
    """Multiplies by `factor`, at least 0: factor x (PIL, torchvision)."""
    return images * per_image(factor, images)


def adjust_contrast(images, factor, channel_axis=-1):
    """Scales about the mean of each channel: m + factor (x - m) (BYOL, TensorFlow)."""
    return blend(means(images, channel_axis), images, factor)


def adjust_gray_contrast(images, factor, channel_axis=-1):
    """Scales about the mean of the gray image (PIL, torchvision).

    Where there are not three channels, the mean over all of them stands for gray.
    """
    gray = gray_or_mean(images, channel_axis)
    return blend(means(gray, channel_axis), images, factor)


def blend_saturation(images, factor, channel_axis=-1):
    """Scales about the gray image: g + factor (x - g) (PIL, torchvision); RGB only."""
    return blend(grayscale(images, channel_axis), images, factor)


def adjust_saturation(images, factor, channel_axis=-1):
    """Multiplies S of HSV by `factor`, at most to 1 (BYOL, TensorFlow); RGB only."""
    return turn_colors(images, factor, 0.0, channel_axis)


def adjust_hue(images, delta, channel_axis=-1):
    """Turns H of HSV by `delta`, in [-1/2, 1/2] of a full turn; RGB only."""
    return turn_colors(images, 1.0, delta, channel_axis)


def turn_colors(images, factor, delta, channel_axis=-1):
    """Multiplies S and turns H of HSV in one closed form; RGB only.

    Formula: with v = max(r, g, b), c = v - min(r, g, b) and h the hue in sixths of a
    turn, r, g and b are v - min(factor c, v) clip(d_t - 1, 0, 1) for t = 0, 2, 4, where
    d_t is the distance of h + 6 delta from t on a circle of length 6. It is 3 - | |h +
    s| - 3|, with s = 6 delta - t taken to [-5, 1), as h is in [-1, 5].

    Args:
        images: of three channels.
        factor: (B,) or scalar, at least 0; 1 keeps S.
        delta: (B,) or scalar, parts of a full turn; 0 keeps H.
        channel_axis: see above.
    """
    check_rgb("turn_colors", images, channel_axis)
    red, green, blue = _planes(images, channel_axis)
    value = _larger(red, _larger(green, blue))
    chroma = value - _smaller(red, _smaller(green, blue))
    hue = ops.where(
        value == green, blue - red + 2.0 * chroma, red - green + 4.0 * chroma
    )
    hue = ops.where(value == red, green - blue, hue)
    hue = hue / ops.where(chroma == 0.0, 1.0, chroma)
    shape = [1, 1, 1, 1]
    shape[channel_axis] = 3
    targets = ops.reshape(ops.convert_to_tensor([0.0, 2.0, 4.0]), shape)
    turns = 6.0 * per_image(delta, images) - targets
    turns = turns - 6.0 * ops.floor((turns + 5.0) / 6.0)
    share = ops.clip(2.0 - ops.abs(ops.abs(hue + turns) - 3.0), 0.0, 1.0)
    return value - _smaller(chroma * per_image(factor, images), value) * share


# Compiled for CPUs, `ops.maximum` takes several times as long: it looks after NaN and
# the signs of zeros, too.
def _larger(x, y):
    return ops.where(x > y, x, y)


def _smaller(x, y):
    return ops.where(x < y, x, y)


def blend(start, images, factor):
    """Linear between `start` (factor 0) and `images` (factor 1), and beyond."""
    factor = per_image(factor, images)
    return images * factor + start * (1.0 - factor)


def grayscale(images, channel_axis=-1):
    """Gray image, 0.2989 r + 0.5870 g + 0.1140 b, in all three channels; RGB only."""
    check_rgb("grayscale", images, channel_axis)
    gray = gray_or_mean(images, channel_axis)
    return ops.broadcast_to(gray, ops.shape(images))


def gray_or_mean(images, channel_axis=-1):
    """Gray image of three channels; the mean of any other number of them.

    Returns:
        Array like `images` of one channel.
    """
    channels = _planes(images, channel_axis)
    weights = (
        GRAY_WEIGHTS if len(channels) == 3 else [1 / len(channels)] * len(channels)
    )
    return sum(
        weight * channel for weight, channel in zip(weights, channels, strict=True)
    )


def means(images, channel_axis=-1):
    """Mean over height and width, with axes of length 1 in their place."""
    return ops.mean(images, axis=_sides(channel_axis), keepdims=True)


def gaussian_blur(images, sigma, radius, padding="zeros", channel_axis=-1):
    """Convolves with a Gaussian cut off at `radius`, rows and columns apart.

    Formula: weights w_t ∝ exp(-t² / (2 sigma²)) for t = -radius ... radius, summing to
    1: 2 radius + 1 shifted images, weighed and added, along each axis.

    Args:
        images: (B, H, W, C).
        sigma: (B,), in pixels; 0 leaves the image as it is.
        radius: in pixels, at least 0.
        padding: "zeros", which darkens the border (BYOL), or "edge", which repeats the
            outermost pixels (PIL).
        channel_axis: see above.
    """
    caller = "gaussian_blur"
    check_rank(caller, "images", images, 4, "(B, H, W, C)")
    check_choice(caller, "padding", padding, ("zeros", "edge"))
    radius = check_integer(caller, "radius", radius, minimum=0)
    # Below 0.01 every weight but the middle one underflows to 0.
    sigma = ops.maximum(ops.reshape(ops.cast(sigma, "float32"), (-1, 1)), 0.01)
    distances = ops.arange(-radius, radius + 1, dtype="float32")
    weights = ops.exp(-0.5 * ops.square(distances / sigma))
    weights = weights / ops.sum(weights, axis=-1, keepdims=True)
    weights = [per_image(weights[:, i], images) for i in range(2 * radius + 1)]
    for axis in _sides(channel_axis):
        padded = _padded(images, radius, axis, padding)
        size = images.shape[axis]
        images = weights[radius] * images
        for i in range(radius):
            near = _stretch(padded, axis, i, size)
            far = _stretch(padded, axis, 2 * radius - i, size)
            images = images + weights[i] * (near + far)
    return images


def _stretch(images, axis, start, size):
    stretch = [slice(None)] * 4
    stretch[axis] = slice(start, start + size)
    return images[tuple(stretch)]


def _padded(images, radius, axis, padding):
    """Images with `radius` pixels more on both ends of an axis."""
    first = _stretch(images, axis, 0, 1)
    last = _stretch(images, axis, images.shape[axis] - 1, 1)
    if padding == "zeros":
        # Not zeros that XLA knows of: it would test at each shifted pixel whether it
        # lies beyond the border instead of making this array once.
        first, last = 0.0 * first, 0.0 * last
    repeats = [1, 1, 1, 1]
    repeats[axis] = radius
    return ops.concatenate(
        [ops.tile(first, repeats), images, ops.tile(last, repeats)], axis=axis
    )


def solarize(images, threshold=0.5):
    """Inverts what reaches the threshold: x where x < threshold, else 1 - x."""
    return ops.where(images < threshold, images, 1.0 - images)


def check_rgb(caller, images, channel_axis=-1):
    """Checks that there are three channels."""
    check_choice(caller, "channel_axis", channel_axis, (-1, 1))
    layout = "(B, H, W, 3)" if channel_axis == -1 else "(B, 3, H, W)"
    shape = check_rank(caller, "images", images, 4, layout)
    check_that(
        shape[channel_axis] == 3,
        caller,
        "images",
        f"RGB, with 3 channels: {layout}",
        tuple(shape),
        "This operation is about colour: leave it out for other images.",
    )


def _planes(images, channel_axis):
    """The channels as arrays of one channel each."""
    return ops.split(images, images.shape[channel_axis], axis=channel_axis)


def _sides(channel_axis):
    """Axes of rows and columns."""
    check_choice("image_ops", "channel_axis", channel_axis, (-1, 1))
    return (1, 2) if channel_axis == -1 else (2, 3)
