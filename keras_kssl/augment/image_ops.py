"""Image operations on batches, with one parameter per image.

Images are float arrays of shape (B, H, W, C), channels last, with values in [0, 1];
parameters are arrays of shape (B,), or scalars where one value serves the batch. An
operation applies what it is given and draws nothing (keras_kssl.augment.policies
draws), never clips (a policy clips after each), and costs a few passes over the
images. Nothing gathers or loops over images, so that everything compiles on CPU, GPU
and TPU. Operations on colour need three channels, red, green, blue; those that treat
channels alike also take single channels, (B, H, W).
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


def flip(images):
    """Mirrors left and right."""
    check_rank("flip", "images", images, 4, "(B, H, W, C)")
    return ops.flip(images, axis=2)


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


def adjust_contrast(images, factor):
    """Scales about the mean of each channel: m + factor (x - m) (BYOL, TensorFlow)."""
    return blend(means(images), images, factor)


def adjust_gray_contrast(images, factor):
    """Scales about the mean of the gray image (PIL, torchvision).

    Where there are not three channels, the mean over all of them stands for gray.
    """
    return blend(means(gray_or_mean(split(images)))[..., None], images, factor)


def adjust_saturation(images, factor):
    """Multiplies S of HSV by `factor`, at most to 1 (BYOL, TensorFlow); RGB only."""
    return adjust_saturation_and_hue(images, factor, 0.0)


def blend_saturation(images, factor):
    """Scales about the gray image: g + factor (x - g) (PIL, torchvision); RGB only."""
    return blend(grayscale(images), images, factor)


def adjust_hue(images, delta):
    """Turns H of HSV by `delta`, in [-1/2, 1/2] of a full turn; RGB only."""
    return adjust_saturation_and_hue(images, 1.0, delta)


def adjust_saturation_and_hue(images, factor, delta):
    """Multiplies S and turns H of HSV, (B, H, W, 3); see `turn_colors`."""
    check_rgb("adjust_saturation_and_hue", images)
    return ops.stack(turn_colors(*split(images), factor, delta), axis=-1)


def turn_colors(red, green, blue, factor, delta):
    """Multiplies S and turns H of HSV in one closed form, on separate channels.

    Formula: with v = max(r, g, b), c = v - min(r, g, b), h the hue in sixths of a turn,
    c' = min(factor c, v), k_n = (n + h + 6 delta) mod 6:
    (r, g, b)' = v - c' clip(min(k_n, 4 - k_n), 0, 1) for n = 5, 3, 1.

    Args:
        red, green, blue: (B, H, W) each.
        factor: (B,) or scalar, at least 0; 1 keeps S.
        delta: (B,) or scalar, parts of a full turn; 0 keeps H.

    Returns:
        List of three arrays (B, H, W).
    """
    value = ops.maximum(red, ops.maximum(green, blue))
    chroma = value - ops.minimum(red, ops.minimum(green, blue))
    inverse = 1.0 / ops.where(chroma == 0.0, 1.0, chroma)
    hue = ops.where(
        value == red,
        (green - blue) * inverse,
        ops.where(
            value == green, (blue - red) * inverse + 2.0, (red - green) * inverse + 4.0
        ),
    )
    hue = hue + 6.0 * per_image(delta, red)
    chroma = ops.minimum(chroma * per_image(factor, red), value)
    channels = []
    for offset in (5.0, 3.0, 1.0):
        turn = hue + offset
        turn = turn - 6.0 * ops.floor(turn / 6.0)
        share = ops.clip(ops.minimum(turn, 4.0 - turn), 0.0, 1.0)
        channels.append(value - chroma * share)
    return channels


def blend(start, images, factor):
    """Linear between `start` (factor 0) and `images` (factor 1), and beyond."""
    factor = per_image(factor, images)
    return images * factor + start * (1.0 - factor)


def grayscale(images):
    """Gray image, 0.2989 r + 0.5870 g + 0.1140 b, in all three channels; RGB only."""
    check_rgb("grayscale", images)
    return ops.stack([gray_or_mean(split(images))] * 3, axis=-1)


def gray_or_mean(channels):
    """Gray image (B, H, W) of three channels; the mean of any other number of them."""
    weights = (
        GRAY_WEIGHTS if len(channels) == 3 else [1 / len(channels)] * len(channels)
    )
    return sum(
        weight * channel for weight, channel in zip(weights, channels, strict=True)
    )


def split(images):
    """Channels of images (B, H, W, C) as a list of arrays (B, H, W).

    Compiled chains of operations on colour run several times faster on CPU on separate
    channels: XLA would compute each pixel again for each channel that reads it.
    """
    return [images[..., channel] for channel in range(images.shape[-1])]


def means(images):
    """Mean over height and width, with axes of length 1 in their place."""
    return ops.mean(images, axis=(1, 2), keepdims=True)


def gaussian_blur(images, sigma, radius, padding="zeros"):
    """Convolves with a Gaussian cut off at `radius`, rows and columns apart.

    Formula: weights w_t ∝ exp(-t² / (2 sigma²)) for t = -radius ... radius, summing to
    1: 2 radius + 1 shifted images, weighed and added, along each axis.

    Args:
        images: (B, H, W, C).
        sigma: (B,), in pixels; 0 leaves the image as it is.
        radius: in pixels, at least 0.
        padding: "zeros", which darkens the border (BYOL), or "edge", which repeats the
            outermost pixels (PIL).
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
    _, height, width, channels = images.shape
    # Rows of all channels: an innermost axis that compilers can work on in vectors.
    rows = ops.reshape(images, (-1, height, width * channels))
    weights = [per_image(weights[:, i], rows) for i in range(2 * radius + 1)]
    for axis, step in ((1, 1), (2, channels)):
        padded = _padded(rows, radius, axis, step, padding)
        size = rows.shape[axis]
        rows = weights[radius] * rows
        for i in range(radius):
            near = _stretch(padded, axis, i * step, size)
            far = _stretch(padded, axis, (2 * radius - i) * step, size)
            rows = rows + weights[i] * (near + far)
    return ops.reshape(rows, (-1, height, width, channels))


def _stretch(rows, axis, start, size):
    end = start + size
    return rows[:, start:end] if axis == 1 else rows[:, :, start:end]


def _padded(rows, radius, axis, step, padding):
    """Rows with `radius` pixels of `step` numbers more on both ends of an axis."""
    first = _stretch(rows, axis, 0, step)
    last = _stretch(rows, axis, rows.shape[axis] - step, step)
    if padding == "zeros":
        # Not zeros that XLA knows of: it would test at each shifted pixel whether it
        # lies beyond the border instead of making this array once.
        first, last = 0.0 * first, 0.0 * last
    repeats = (1, radius, 1) if axis == 1 else (1, 1, radius)
    return ops.concatenate(
        [ops.tile(first, repeats), rows, ops.tile(last, repeats)], axis=axis
    )


def solarize(images, threshold=0.5):
    """Inverts what reaches the threshold: x where x < threshold, else 1 - x."""
    return ops.where(images < threshold, images, 1.0 - images)


def check_rgb(caller, images):
    shape = check_rank(caller, "images", images, 4, "(B, H, W, 3)")
    check_that(
        shape[-1] == 3,
        caller,
        "images",
        "RGB, with 3 channels last",
        tuple(shape),
        "This operation is about colour: leave it out for other images.",
    )
