"""What a SavedModel has besides its call: photos, feature maps, XLA."""

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image

from keras_kssl import data, evaluation, export
from keras_kssl.models.resnet import ResNet
from tests.photos import broken_files, encoded, odd_files, picture, write_folder

pytestmark = [
    # Keras calls NumPy on its variables in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation"),
    pytest.mark.skipif(
        keras.config.backend() != "tensorflow",
        reason="SavedModels are written on the TensorFlow backend",
    ),
]

SIZE = 24


def load(path):
    import tensorflow as tf

    return tf.saved_model.load(path)


@pytest.fixture(scope="module")
def resnet():
    return ResNet(10, width=0.125, stem="cifar", seed=0)


@pytest.fixture(scope="module")
def path(resnet, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "encoder"
    return export.saved_model(resnet, path, size=SIZE)


@pytest.fixture(scope="module")
def module(path):
    return load(path)


def module_of_pixels(folder, channels=3, size=SIZE):
    """A SavedModel whose features are the images that it is given."""
    images = keras.Input((None, None, channels))
    encoder = keras.Model(images, layers.Rescaling(1.0)(images))
    return load(export.saved_model(encoder, folder / "pixels", size=size))


def of_bytes(module, *contents):
    import tensorflow as tf

    serve = module.signatures["serving_bytes"]
    return serve(encoded=tf.constant(contents))["features"].numpy()


def test_the_signatures_are_those_that_are_documented(module):
    import tensorflow as tf

    expected = {
        "serving_default": ("inputs", tf.float32, [None, None, None, 3]),
        "feature_maps": ("inputs", tf.float32, [None, None, None, 3]),
        "serving_bytes": ("encoded", tf.string, [None]),
    }
    assert set(module.signatures) == set(expected)
    for name, signature in module.signatures.items():
        argument, dtype, shape = expected[name]
        (spec,) = signature.structured_input_signature[1].items()
        assert spec[0] == argument
        assert (spec[1].dtype, spec[1].shape.as_list()) == (dtype, shape)


# Photos


def photos():
    """Photos of the formats that TensorFlow decodes, without one to be turned."""
    files = {**odd_files((61, 45)), "other.jpg": encoded(picture(40, 91, seed=3))}
    # One that is shrunk to a quarter while it is decoded, and one to an eighth.
    files["large.jpg"] = encoded(picture(131, 173, seed=4), quality=90)
    files["larger.jpg"] = encoded(picture(301, 247, seed=5), quality=90)
    ends = (".jpg", ".JPEG", ".png")
    return {k: v for k, v in files.items() if k.endswith(ends) and k != "turned.jpg"}


def test_photos_become_the_images_that_evaluation_sees(tmp_path):
    files = photos()
    assert len(files) >= 14
    folder = write_folder(tmp_path / "photos", files)
    source = data.open_source(f"folder:{folder}").at_size(SIZE)
    expected, positions = source.read(np.arange(len(files)))
    names = [source.source.name_of(i) for i in positions]
    assert sorted(names) == sorted(files)
    found = of_bytes(module_of_pixels(tmp_path), *(files[name] for name in names))
    assert found.shape == expected.shape
    # PIL rounds the result to 8 bits, and before it what it resizes along one axis.
    difference = np.abs(found - expected / 255.0).max(axis=(1, 2, 3)) * 255
    assert dict(zip(names, difference, strict=True)) == pytest.approx(
        dict.fromkeys(names, 0.0), abs=1.5
    )
    assert np.abs(found - expected / 255.0).mean() < 0.3 / 255


def test_features_of_photos_are_those_that_extract_writes(resnet, module, tmp_path):
    files = photos()
    folder = write_folder(tmp_path / "photos", files)
    out = evaluation.extract(
        resnet, f"folder:{folder}", tmp_path / "features", size=SIZE
    )
    names = (out / "names.txt").read_text().splitlines()
    expected = np.load(out / "features.npy")
    found = of_bytes(module, *(files[name] for name in names))
    # 1/255 in the pixels, by rounding; the features of two photos differ by more.
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.01 * scale)
    assert np.abs(expected[0] - expected[1]).max() > 0.05 * scale


def test_photos_for_a_gray_encoder_are_as_pil_makes_them_gray(tmp_path):
    rgb = picture(SIZE * 8 // 7 + 1, 45)
    content = encoded(rgb, "PNG")
    found = of_bytes(module_of_pixels(tmp_path, 1), content)
    in_color = of_bytes(module_of_pixels(tmp_path / "color"), content)
    pixels = Image.fromarray(np.rint(in_color[0] * 255).astype(np.uint8))
    expected = np.asarray(pixels.convert("L"))[np.newaxis, ..., np.newaxis]
    np.testing.assert_allclose(found * 255, expected, rtol=0, atol=1.01)


def test_sixteen_bits_of_a_gray_photo_are_kept(tmp_path):
    deep = np.full((SIZE, SIZE), 257, np.uint16)
    found = of_bytes(module_of_pixels(tmp_path), encoded(deep + 100, "PNG"))
    np.testing.assert_allclose(found, 357 / 65535, rtol=1e-5)


@pytest.mark.parametrize("name", ["empty.jpg", "text.jpg", "half.jpg", "half.png"])
def test_a_broken_photo_fails_the_batch(module, name):
    import tensorflow as tf

    good = encoded(picture(30, 40))
    with pytest.raises(tf.errors.InvalidArgumentError):
        of_bytes(module, good, broken_files()[name])


def test_a_file_of_another_format_is_named_by_its_position(module):
    import tensorflow as tf

    rgb = picture(30, 40)
    contents = [encoded(rgb), encoded(rgb, "WEBP"), encoded(rgb, "PNG"), b"text"]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[1 3\]"):
        of_bytes(module, *contents)


def linear_encoder(*shape):
    return keras.Sequential(
        [keras.Input(shape), layers.GlobalAveragePooling2D(), layers.Dense(2)]
    )


@pytest.mark.parametrize(
    ("shape", "size", "has_bytes"),
    [
        ((8, 8, 3), None, True),
        ((8, 9, 3), None, False),
        ((None, None, 3), None, False),
        ((None, None, 1), 8, True),
        ((None, None, 5), 8, False),
        ((8, 8, 5), None, False),
    ],
)
def test_photos_are_taken_where_size_and_channels_allow(
    tmp_path, shape, size, has_bytes
):
    path = export.saved_model(linear_encoder(*shape), tmp_path / "encoder", size=size)
    signatures = load(path).signatures
    assert ("serving_bytes" in signatures) == has_bytes
    # It has no feature maps either.
    assert "feature_maps" not in signatures
    assert "serving_default" in signatures


@pytest.mark.parametrize("size", [0, 9])
def test_a_size_that_the_encoder_does_not_take_is_refused(tmp_path, size):
    with pytest.raises(ValueError, match="`size` must be"):
        export.saved_model(linear_encoder(8, 8, 3), tmp_path / "encoder", size=size)
    assert list(tmp_path.iterdir()) == []


# Feature maps


def test_feature_maps_of_a_resnet_are_the_outputs_of_its_stages(resnet, module):
    images = np.random.default_rng(0).random((2, 31, 45, 3), dtype=np.float32)
    found = module.feature_maps(images)
    stages = [f"stage{stage}" for stage in (1, 2, 3, 4)]
    assert set(found) == {*stages, "features"}
    for stage in stages:
        output = resnet.get_layer(f"{stage}_output").output
        expected = keras.Model(resnet.input, output)(images)
        scale = float(keras.ops.max(expected))
        np.testing.assert_allclose(found[stage], expected, rtol=0, atol=1e-4 * scale)
    np.testing.assert_allclose(found["features"], module(images), rtol=0, atol=1e-5)
    by_signature = module.signatures["feature_maps"](inputs=images)
    np.testing.assert_allclose(by_signature["stage2"], found["stage2"], atol=1e-6)


def test_feature_maps_are_fine_tuned_with_their_statistics(path):
    import tensorflow as tf

    module = load(path)
    images = np.random.default_rng(0).random((2, 16, 16, 3), dtype=np.float32)
    frozen = [v for v in module.variables if not v.trainable and v.dtype.is_floating]
    before = [v.numpy() for v in frozen]
    module.feature_maps(images)
    for value, variable in zip(before, frozen, strict=True):
        np.testing.assert_array_equal(value, variable)
    with tf.GradientTape() as tape:
        maps = module.feature_maps(images, training=True)
        loss = tf.reduce_sum(maps["stage4"] ** 2)
    gradients = tape.gradient(loss, module.trainable_variables)
    assert all(gradient is not None for gradient in gradients)
    for value, variable in zip(before, frozen, strict=True):
        assert not np.array_equal(value, variable.numpy())


# XLA


@pytest.mark.parametrize("training", [False, True])
def test_features_compiled_by_xla_are_the_same(path, training):
    import tensorflow as tf

    images = np.random.default_rng(0).random((4, 16, 16, 3), dtype=np.float32)
    plain, to_compile = load(path), load(path)
    expected = plain(images, training=training)

    @tf.function(jit_compile=True)
    def compiled(images):
        return to_compile(images, training=training)

    scale = np.abs(expected).max()
    np.testing.assert_allclose(compiled(images), expected, rtol=0, atol=1e-3 * scale)
    for left, right in zip(plain.variables, to_compile.variables, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-5)


def test_gradients_compiled_by_xla_are_the_same(path):
    import tensorflow as tf

    module = load(path)
    images = np.random.default_rng(0).random((4, 16, 16, 3), dtype=np.float32)

    def gradient(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(module(images, training=True) ** 2)
        return tape.gradient(loss, module.trainable_variables)

    expected = gradient(images)
    found = tf.function(gradient, jit_compile=True)(images)
    for left, right in zip(found, expected, strict=True):
        scale = np.abs(right).max()
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-3 * scale + 1e-6)
