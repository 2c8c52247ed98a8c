"""Image operations against BYOL's recorded results, PIL, TensorFlow and NumPy."""

import colorsys

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from keras_kssl.augment import image_ops

HEIGHT, WIDTH = 31, 45


def to_numpy(x):
    return ops.convert_to_numpy(x)


def random_images(batch=3, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((batch, HEIGHT, WIDTH, channels), dtype=np.float32)


def smooth_uint8(seed=0):
    noise = Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (8, 11, 3), dtype=np.uint8)
    )
    return np.asarray(noise.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def as_batch(image):
    return image[None].astype("float32") / 255.0


def compiled(function, *arrays):
    """Runs compiled on JAX, whose eager mode compiles every operation by itself."""
    if keras.backend.backend() == "jax":
        import jax

        function = jax.jit(function)
    return to_numpy(function(*arrays))


def crop(images, boxes, size, interpolation="bicubic", antialias=False):
    return compiled(
        lambda images, boxes: image_ops.crop_and_resize(
            images, boxes, size, interpolation, antialias
        ),
        images,
        boxes,
    )


def blur(images, sigma, radius, padding="zeros"):
    return compiled(
        lambda images, sigma: image_ops.gaussian_blur(images, sigma, radius, padding),
        images,
        sigma,
    )


def full(*values):
    return np.asarray(values, "float32")


BYOL_OPERATIONS = {
    "brightness": image_ops.adjust_brightness,
    "contrast": image_ops.adjust_contrast,
    "saturation": image_ops.adjust_saturation,
    "hue": image_ops.adjust_hue,
    "blur": lambda x, sigma: image_ops.gaussian_blur(x, sigma, 48 // 20),
    "blur_r11": lambda x, sigma: image_ops.gaussian_blur(x, sigma, 224 // 20),
    "solarize": lambda x, threshold: image_ops.solarize(x, threshold),
}


def test_operations_reproduce_the_recorded_results_of_byol(golden):
    arrays = golden("augment_byol_ops")
    image = arrays.pop("image")[None]
    gray = arrays.pop("grayscale")
    np.testing.assert_allclose(to_numpy(image_ops.grayscale(image))[0], gray, atol=1e-5)
    for name, expected in arrays.items():
        operation, value = name.rsplit("_", 1)
        actual = compiled(BYOL_OPERATIONS[operation], image, full(float(value)))
        np.testing.assert_allclose(actual[0], expected, atol=1e-5, err_msg=name)


def test_hue_and_saturation_agree_with_colorsys():
    images = random_images(2)
    factors, deltas = full(0.5, 1.7), full(-0.3, 0.45)
    actual = to_numpy(image_ops.turn_colors(images, factors, deltas))
    for image, factor, delta, result in zip(
        images, factors, deltas, actual, strict=True
    ):
        for pixel, mine in zip(
            image.reshape(-1, 3)[:200], result.reshape(-1, 3), strict=False
        ):
            h, s, v = colorsys.rgb_to_hsv(*pixel.tolist())
            expected = colorsys.hsv_to_rgb((h + delta) % 1.0, min(s * factor, 1.0), v)
            np.testing.assert_allclose(mine, expected, atol=1e-5)


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.4])
@pytest.mark.parametrize(
    ("operation", "enhancer"),
    [
        (image_ops.scale_brightness, ImageEnhance.Brightness),
        (image_ops.adjust_gray_contrast, ImageEnhance.Contrast),
        (image_ops.blend_saturation, ImageEnhance.Color),
    ],
)
def test_torchvision_jitter_agrees_with_pil(operation, enhancer, factor):
    image = smooth_uint8()
    expected = np.asarray(enhancer(Image.fromarray(image)).enhance(factor))
    actual = to_numpy(image_ops.clip(operation(as_batch(image), full(factor))))[0]
    # PIL truncates the result and rounds the gray values: two steps of 1/255.
    np.testing.assert_allclose(actual, expected / 255.0, atol=2 / 255)


def test_solarize_agrees_with_pil_on_every_value():
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = np.asarray(ImageOps.solarize(Image.fromarray(values), 128))
    actual = to_numpy(image_ops.solarize(as_batch(values[..., None])))[0, ..., 0]
    np.testing.assert_allclose(actual, expected / 255.0, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_blur_with_repeated_edges_is_near_pil_up_to_the_border(sigma):
    image = smooth_uint8()
    blurred = Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma))
    actual = blur(as_batch(image), full(sigma), 6, "edge")
    difference = np.abs(actual[0] - np.asarray(blurred) / 255.0)
    # PIL approximates the Gaussian by three box filters and extends the edge anew for
    # each: up to 9 / 255 in a corner. Zeros around differ by 40 / 255 and more.
    assert difference.mean() < 1 / 255
    assert difference[7:-7, 7:-7].max() < 4 / 255
    assert difference.max() < 9 / 255


@pytest.mark.parametrize("padding", ["zeros", "edge"])
@pytest.mark.parametrize(("height", "width", "radius"), [(31, 45, 4), (1, 2, 3)])
def test_blur_is_the_sum_over_taps(padding, height, width, radius):
    images = random_images(2)[:, :height, :width]
    sigmas = full(0.7, 1.9)
    actual = blur(images, sigmas, radius, padding)
    taps = np.arange(-radius, radius + 1)
    mode = {"zeros": "constant", "edge": "edge"}[padding]
    for image, sigma, mine in zip(images, sigmas, actual, strict=True):
        weights = np.exp(-(taps**2) / (2.0 * float(sigma) ** 2))
        weights /= weights.sum()
        padded = np.pad(image, [(radius, radius)] * 2 + [(0, 0)], mode=mode)
        expected = sum(
            weights[i] * weights[j] * padded[i : i + height, j : j + width]
            for i in range(2 * radius + 1)
            for j in range(2 * radius + 1)
        )
        np.testing.assert_allclose(mine, expected, atol=1e-6)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(17, 60), (64, 12)])
def test_antialiased_crop_agrees_with_pil(interpolation, size):
    image = np.random.default_rng(1).integers(64, 192, (31, 45, 3), dtype=np.uint8)
    top, left, height, width = 3, 5, 23, 33
    expected = (
        Image.fromarray(image)
        .crop((left, top, left + width, top + height))
        .resize(size[::-1], Image.Resampling[interpolation.upper()])
    )
    actual = crop(
        as_batch(image), full([top, left, height, width]), size, interpolation, True
    )
    # PIL rounds to 8 bits after the columns and after the rows; it clips there too,
    # which values well inside the range keep out of the comparison.
    np.testing.assert_allclose(
        to_numpy(image_ops.clip(actual))[0], np.asarray(expected) / 255, atol=2 / 255
    )


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(17, 60), (64, 12)])
def test_plain_crop_agrees_with_tensorflow(interpolation, size):
    tf = pytest.importorskip("tensorflow")
    images = random_images()
    boxes = full([0, 0, 31, 45], [4, 7, 13, 29], [30, 2, 1, 43])
    actual = crop(images, boxes, size, interpolation, False)
    for image, box, mine in zip(images, boxes.astype(int), actual, strict=True):
        top, left, height, width = box
        part = image[top : top + height, left : left + width]
        expected = tf.image.resize(part, size, interpolation).numpy()
        # TensorFlow looks bicubic weights up in a table of 1024 steps.
        np.testing.assert_allclose(mine, expected, atol=2e-3)


def test_antialias_matters_only_where_the_box_shrinks():
    images, boxes = random_images(1), full([4, 6, 20, 20])
    plain, filtered = (
        crop(images, boxes, 24, antialias=antialias) for antialias in (False, True)
    )
    np.testing.assert_array_equal(plain, filtered)
    plain, filtered = (
        crop(images, boxes, 9, antialias=antialias) for antialias in (False, True)
    )
    assert np.abs(plain - filtered).max() > 0.1


def test_a_fractional_box_shifts_a_ramp_by_its_fraction():
    ramp = np.broadcast_to(
        np.arange(WIDTH, dtype="float32")[None, None, :, None], (1, HEIGHT, WIDTH, 1)
    )
    actual = crop(ramp, full([2.5, 3.25, 20.0, 20.0]), (20, 20))
    # Away from the ends of the box, where the kernel is cut off.
    np.testing.assert_allclose(
        actual[0, 0, 3:-3, 0], np.arange(20)[3:-3] + 3.25, atol=1e-4
    )


@pytest.mark.parametrize(
    ("height", "width", "size", "fraction"),
    [(31, 45, 14, 0.875), (45, 31, 20, 0.8), (31, 31, 31, 1.0), (20, 33, 28, 0.875)],
)
def test_center_crop_agrees_with_resizing_and_cutting_in_pil(
    height, width, size, fraction
):
    rng = np.random.default_rng(2)
    image = rng.integers(64, 192, (height, width, 3), dtype=np.uint8)
    resized = round(size / fraction)
    new_height = int(resized * height / min(height, width))
    new_width = int(resized * width / min(height, width))
    top, left = round((new_height - size) / 2), round((new_width - size) / 2)
    expected = (
        Image.fromarray(image)
        .resize((new_width, new_height), Image.Resampling.BICUBIC)
        .crop((left, top, left + size, top + size))
    )
    actual = compiled(
        lambda images: image_ops.clip(image_ops.center_crop(images, size, fraction)),
        as_batch(image),
    )
    assert tuple(actual.shape) == (1, size, size, 3)
    np.testing.assert_allclose(actual[0], np.asarray(expected) / 255, atol=2 / 255)


IDENTITIES = {
    "crop_and_resize": lambda x: image_ops.crop_and_resize(
        x, full([0, 0, HEIGHT, WIDTH]), (HEIGHT, WIDTH)
    ),
    "flip twice": lambda x: image_ops.flip(image_ops.flip(x)),
    "adjust_brightness": lambda x: image_ops.adjust_brightness(x, full(0, 0, 0)),
    "scale_brightness": lambda x: image_ops.scale_brightness(x, full(1, 1, 1)),
    "adjust_contrast": lambda x: image_ops.adjust_contrast(x, full(1, 1, 1)),
    "adjust_gray_contrast": lambda x: image_ops.adjust_gray_contrast(x, full(1, 1, 1)),
    "gaussian_blur": lambda x: image_ops.gaussian_blur(x, full(0, 0, 0), 3),
    "solarize": lambda x: image_ops.solarize(x, 1.1),
    "adjust_saturation": lambda x: image_ops.adjust_saturation(x, full(1, 1, 1)),
    "blend_saturation": lambda x: image_ops.blend_saturation(x, full(1, 1, 1)),
    "adjust_hue": lambda x: image_ops.adjust_hue(x, full(0, 0, 0)),
}
COLOR = ("adjust_saturation", "blend_saturation", "adjust_hue")


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("name", IDENTITIES)
def test_neutral_parameters_return_the_image(name, channels):
    if name in COLOR and channels != 3:
        pytest.skip("for RGB only")
    images = random_images(channels=channels)
    images[:, :5, :5] = 0.0
    images[:, 5:9, :5] = 1.0
    np.testing.assert_allclose(compiled(IDENTITIES[name], images), images, atol=2e-6)


ON_PLANES = {
    "flip": image_ops.flip,
    "adjust_contrast": lambda x, **axis: image_ops.adjust_contrast(x, 0.7, **axis),
    "adjust_gray_contrast": lambda x, **axis: image_ops.adjust_gray_contrast(
        x, full(0.3, 1.4, 0.9), **axis
    ),
    "gaussian_blur": lambda x, **axis: image_ops.gaussian_blur(
        x, full(0.4, 1.5, 0.0), 3, **axis
    ),
    "adjust_saturation": lambda x, **axis: image_ops.adjust_saturation(
        x, full(0.4, 1.5, 0.0), **axis
    ),
    "blend_saturation": lambda x, **axis: image_ops.blend_saturation(x, 1.2, **axis),
    "adjust_hue": lambda x, **axis: image_ops.adjust_hue(
        x, full(0.3, -0.1, 0.0), **axis
    ),
    "grayscale": image_ops.grayscale,
    "gray_or_mean": image_ops.gray_or_mean,
    "means": image_ops.means,
}


@pytest.mark.parametrize("name", ON_PLANES)
def test_planes_are_changed_as_images_are(name):
    images = random_images()
    expected = compiled(ON_PLANES[name], images)
    actual = compiled(
        lambda x: ON_PLANES[name](x, channel_axis=1), np.moveaxis(images, -1, 1)
    )
    np.testing.assert_allclose(np.moveaxis(actual, 1, -1), expected, atol=1e-6)


def test_flip_mirrors_columns_and_not_rows():
    images = random_images()
    np.testing.assert_array_equal(to_numpy(image_ops.flip(images)), images[:, :, ::-1])


def test_gray_contrast_without_three_channels_is_about_the_mean_of_all():
    images = random_images(channels=5)
    mean = images.mean((1, 2, 3), keepdims=True)
    np.testing.assert_allclose(
        to_numpy(image_ops.adjust_gray_contrast(images, full(0.5, 0.5, 0.5))),
        mean + 0.5 * (images - mean),
        atol=1e-5,
    )


@pytest.mark.parametrize(
    "operation",
    [
        image_ops.grayscale,
        lambda x: image_ops.adjust_saturation(x, 1.2),
        lambda x: image_ops.blend_saturation(x, 1.2),
        lambda x: image_ops.adjust_hue(x, 0.1),
    ],
)
@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_operations_on_color_refuse_other_images(operation, channels):
    with pytest.raises(ValueError, match=r"must be RGB.*Received"):
        operation(random_images(channels=channels))


def test_errors_name_the_argument():
    images = random_images()
    with pytest.raises(ValueError, match=r"`interpolation`.*Did you mean 'bicubic'"):
        image_ops.crop_and_resize(images, full([0, 0, 9, 9]), 4, "bicubik")
    with pytest.raises(ValueError, match="`boxes` must have 2 axes"):
        image_ops.crop_and_resize(images, full(0, 0, 9, 9), 4)
    with pytest.raises(ValueError, match="`padding`"):
        image_ops.gaussian_blur(images, full(1, 1, 1), 3, "wrap")
    with pytest.raises(ValueError, match="`images` must have 4 axes"):
        image_ops.flip(images[0])
    with pytest.raises(ValueError, match="`channel_axis` must be one of -1, 1"):
        image_ops.flip(images, channel_axis=3)
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\). Received.*31"):
        image_ops.grayscale(images, channel_axis=1)


def test_float16_policy_does_not_lower_precision():
    images, boxes = random_images(), full(*[[1, 2, 20, 30]] * 3)
    expected = to_numpy(image_ops.crop_and_resize(images, boxes, 11))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        actual = image_ops.crop_and_resize(images, boxes, 11)
    finally:
        keras.config.set_dtype_policy(before)
    assert keras.backend.standardize_dtype(actual.dtype) == "float32"
    np.testing.assert_array_equal(to_numpy(actual), expected)
