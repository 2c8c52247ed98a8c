"""Encoded photos to images, as TensorFlow operations that a SavedModel can hold.

They do what `data.FixedSize` does with a photo by PIL: decode it, a large JPEG at a
half, a quarter or an eighth of its size; lay transparent pixels on white; bring the
shorter side to 256/224 of the size by an antialiased bicubic filter; cut the centre
out. Only operations that TensorFlow 2.15 has.
"""

from keras_kssl.augment.views import CENTER_FRACTION

# Channels of the encoders that photos can be made into images for.
PHOTO_CHANNELS = (1, 3)
_JPEG_START = b"\xff\xd8\xff"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_LARGEST_16_BIT = 65535.0
# Rec. 601 luma, as PIL's mode "L".
_LUMA = (0.299, 0.587, 0.114)


def images_of(encoded, size, channels):
    """Decodes photos and brings them to one size.

    JPEGs are decoded to the numbers that PIL gives. What differs is that PIL rounds to
    8 bits twice while it resizes: pixels differ by 1/255 here and there, by 1.5/255 at
    most.

    Args:
        encoded: string tensor (n,), each the content of a JPEG or PNG file.
        size: side of the images in pixels.
        channels: 3, or 1 for gray.

    Returns:
        float32 tensor (n, size, size, channels) in [0, 1].

    Raises:
        tf.errors.InvalidArgumentError: where it runs, for the whole batch, if one of
            them is no JPEG or PNG or is broken, cut-off files among them.
    """
    import tensorflow as tf

    is_jpeg = _starts_with(encoded, _JPEG_START)
    is_photo = tf.logical_or(is_jpeg, _starts_with(encoded, _PNG_START))
    others = tf.where(tf.logical_not(is_photo))[:, 0]
    said = [
        "`encoded` must hold the content of JPEG or PNG files. Received: something "
        "else at positions",
        others,
        "Convert other formats first.",
    ]
    with tf.control_dependencies([tf.debugging.Assert(tf.size(others) == 0, said)]):
        encoded = tf.identity(encoded)

    def image_of(one):
        content, is_jpeg = one
        return _centre(_decoded(content, is_jpeg, size), size)

    images = tf.map_fn(
        image_of,
        (encoded, is_jpeg),
        fn_output_signature=tf.TensorSpec((size, size, 3), tf.float32),
    )
    if channels == 1:
        images = tf.reduce_sum(images * tf.constant(_LUMA), axis=-1, keepdims=True)
    return images


def _starts_with(encoded, start):
    import tensorflow as tf

    return tf.equal(tf.strings.substr(encoded, 0, len(start)), start)


def _decoded(content, is_jpeg, size):
    """A photo as float32 (height, width, 3) in [0, 1], shrunk while that loses none."""
    import tensorflow as tf

    def png():
        # 16 bits per channel keep all that either kind of PNG holds.
        pixels = tf.io.decode_png(content, channels=4, dtype=tf.uint16)
        pixels = tf.cast(pixels, tf.float32) / _LARGEST_16_BIT
        colors, opacity = pixels[..., :3], pixels[..., 3:]
        # Of less than 8 bits, TensorFlow sets what is opaque to the largest number of
        # those bits, as if 8 had been asked for.
        bits = tf.io.decode_raw(tf.strings.substr(content, 24, 1), tf.uint8)[0]
        opaque = (2.0 ** tf.cast(bits, tf.float32) - 1.0) / 255.0
        is_opaque = tf.reduce_all(tf.abs(opacity - opaque) < 0.5 / _LARGEST_16_BIT)
        opacity = tf.where(is_opaque, 1.0, opacity)
        return colors * opacity + (1.0 - opacity)

    def jpeg(shrink):
        # The faster default rounds otherwise than PIL does.
        pixels = tf.io.decode_jpeg(
            content, channels=3, ratio=shrink, dct_method="INTEGER_ACCURATE"
        )
        return tf.cast(pixels, tf.float32) / 255.0

    def halvings():
        sides = tf.io.extract_jpeg_shape(content)[:2]
        kept = CENTER_FRACTION * tf.cast(tf.reduce_min(sides), tf.float64) / size
        return tf.reduce_sum(tf.cast(kept >= [2.0, 4.0, 8.0], tf.int32))

    shrinks = (1, 2, 4, 8)
    branches = [png, *[lambda s=shrink: jpeg(s) for shrink in shrinks]]
    chosen = tf.cond(is_jpeg, lambda: 1 + halvings(), lambda: tf.constant(0))
    photo = tf.switch_case(chosen, branches)
    return tf.ensure_shape(photo, (None, None, 3))


def _centre(photo, size):
    """The central square of a photo, resized, with sides rounded as torchvision's."""
    import tensorflow as tf

    sides = tf.shape(photo)[:2]
    resized = round(size / CENTER_FRACTION)
    lengths = resized * sides // tf.reduce_min(sides)
    starts = tf.round(tf.cast(lengths - size, tf.float32) / 2.0)
    scales = tf.cast(lengths / sides, tf.float32)

    def resampled(images, size, scale, start):
        found = tf.raw_ops.ScaleAndTranslate(
            images=images,
            size=size,
            scale=scale,
            translation=tf.negative(start),
            kernel_type="keyscubic",
            antialias=True,
        )
        return tf.clip_by_value(found, 0.0, 1.0)

    # One axis after the other, since PIL cuts off what overshoots after each.
    wide = resampled(
        photo[tf.newaxis], (sides[0], size), (1.0, scales[1]), (0.0, starts[1])
    )
    return resampled(wide, (size, size), (scales[0], 1.0), (starts[0], 0.0))[0]
