"""ONNX files in ONNX Runtime and presets in KerasHub, where these are installed."""

import importlib.util
import sys

import keras
import numpy as np
import pytest
from keras import layers

from keras_kssl import export
from keras_kssl.models.resnet import ResNet

# Keras calls NumPy on its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

ON_TENSORFLOW = keras.config.backend() == "tensorflow"


def is_installed(*packages):
    return all(importlib.util.find_spec(package) for package in packages)


needs_onnx = pytest.mark.skipif(
    not ON_TENSORFLOW or not is_installed("tf2onnx", "onnxruntime"),
    reason="tf2onnx and onnxruntime are not installed, or no TensorFlow backend",
)
needs_keras_hub = pytest.mark.skipif(
    not is_installed("keras_hub"), reason="keras_hub is not installed"
)


def small(channels=3, dtype="float32"):
    images = keras.Input((None, None, channels))
    x = layers.Conv2D(6, 3, strides=2, padding="same", dtype=dtype)(images)
    x = layers.BatchNormalization(dtype=dtype)(x)
    x = layers.Activation("silu", dtype=dtype)(x)
    return keras.Model(images, layers.GlobalAveragePooling2D(dtype=dtype)(x))


def resnet18(seed=0):
    return ResNet(18, seed=seed)


def mobilenet():
    return keras.applications.MobileNetV3Small(
        weights=None, include_top=False, include_preprocessing=False, alpha=0.35
    )


def some_images(*shape):
    return np.random.default_rng(1).random(shape, dtype=np.float32)


def run(path, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["features"], {"inputs": images})[0]


def names_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# ONNX


@needs_onnx
@pytest.mark.parametrize(
    ("make", "channels"),
    [
        (small, 3),
        (lambda: small(1), 1),
        (lambda: small(5), 5),
        (lambda: ResNet(10, width=0.125, stem="cifar", seed=0), 3),
        pytest.param(resnet18, 3, marks=pytest.mark.slow),
        pytest.param(mobilenet, 3, marks=pytest.mark.slow),
    ],
)
def test_onnx_runtime_gives_the_features_for_images_of_any_number_and_size(
    tmp_path, make, channels
):
    encoder = make()
    path = export.onnx(encoder, tmp_path / "encoder.onnx")
    for shape in ((1, 32, 32), (3, 64, 45)):
        images = some_images(*shape, channels)
        expected = keras.ops.convert_to_numpy(encoder(images, training=False))
        scale = np.abs(expected).max()
        found = run(path, images)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * scale)


@needs_onnx
def test_axes_of_the_onnx_file_are_named_and_fixed_where_asked(tmp_path):
    import onnxruntime

    path = export.onnx(small(), tmp_path / "encoder.onnx", input_shape=(16, None, 3))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 16, "width", 3]
    assert session.get_outputs()[0].shape == ["batch", 6]


@needs_onnx
def test_an_encoder_in_half_precision_becomes_a_file_in_full_precision(tmp_path):
    encoder = small(dtype="mixed_float16")
    images = some_images(2, 16, 16, 3)
    before = keras.ops.convert_to_numpy(encoder(images))
    found = run(export.onnx(encoder, tmp_path / "encoder.onnx"), images)
    full = keras.models.clone_model(small())
    full.set_weights(encoder.get_weights())
    expected = keras.ops.convert_to_numpy(full(images))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    # The encoder itself computes as before.
    assert encoder.layers[1].compute_dtype == "float16"
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(encoder(images)), before)


@needs_onnx
def test_an_onnx_file_that_computes_something_else_is_not_left(tmp_path, monkeypatch):
    import onnxruntime

    original = onnxruntime.InferenceSession.run

    def spoiled(*arguments):
        return [1.001 * output for output in original(*arguments)]

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", spoiled)
    with pytest.raises(RuntimeError, match="relative difference"):
        export.onnx(small(), tmp_path / "a" / "encoder.onnx")
    assert names_in(tmp_path) == []


@needs_onnx
def test_what_onnx_has_not_is_refused_in_a_sentence(tmp_path):
    class Erfinv(keras.layers.Layer):
        def call(self, x):
            return keras.ops.mean(keras.ops.erfinv(x - 0.5), axis=(1, 2))

    encoder = keras.Sequential([keras.Input((None, None, 3)), Erfinv()])
    with pytest.raises(RuntimeError, match="operations that ONNX has"):
        export.onnx(encoder, tmp_path / "encoder.onnx")
    assert names_in(tmp_path) == []


@needs_onnx
def test_an_onnx_file_is_replaced_only_when_asked(tmp_path):
    path = tmp_path / "encoder.onnx"
    export.onnx(small(), path)
    first = path.read_bytes()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        export.onnx(small(5), path)
    assert path.read_bytes() == first
    export.onnx(small(5), path, overwrite=True)
    assert path.read_bytes() != first
    with pytest.raises(ValueError, match=r"ending in \.onnx"):
        export.onnx(small(), tmp_path / "encoder.pb")


def test_without_its_packages_onnx_names_the_line_that_installs_them(
    tmp_path, monkeypatch
):
    if not ON_TENSORFLOW:
        with pytest.raises(RuntimeError, match="KERAS_BACKEND=tensorflow"):
            export.onnx(small(), tmp_path / "encoder.onnx")
        return
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'keras_kssl\[onnx\]'"):
        export.onnx(small(), tmp_path / "encoder.onnx")
    assert names_in(tmp_path) == []


# Presets of KerasHub


@needs_keras_hub
def test_keras_hub_loads_a_preset_that_takes_pixels_to_the_encoders_features(tmp_path):
    import keras_hub

    encoder = resnet18()
    path = export.keras_hub(encoder, tmp_path / "preset", size=32)
    backbone = keras_hub.models.Backbone.from_preset(path)
    converter = keras_hub.layers.ImageConverter.from_preset(path)
    images = some_images(2, 32, 32, 3)
    maps = backbone(converter(255 * images), training=False)
    found = keras.ops.convert_to_numpy(keras.ops.mean(maps, axis=(1, 2)))
    expected = keras.ops.convert_to_numpy(encoder(images, training=False))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * scale)
    # The side to which images are brought.
    large = some_images(1, 50, 70, 3)
    assert tuple(converter(large).shape) == (1, 32, 32, 3)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        export.keras_hub(encoder, path)
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileExistsError, match="not written by"):
        export.keras_hub(encoder, tmp_path / "mine", overwrite=True)


@needs_keras_hub
def test_a_preset_that_computes_something_else_is_not_left(tmp_path, monkeypatch):
    import keras_hub

    other = export.keras_hub(resnet18(), tmp_path / "other")
    original = keras_hub.models.Backbone.from_preset
    monkeypatch.setattr(
        keras_hub.models.Backbone, "from_preset", lambda _: original(other)
    )
    before = names_in(tmp_path)
    with pytest.raises(RuntimeError, match="relative difference"):
        export.keras_hub(resnet18(seed=1), tmp_path / "preset")
    assert names_in(tmp_path) == before


@needs_keras_hub
def test_keras_hub_has_no_narrow_resnets(tmp_path):
    with pytest.raises(ValueError, match="width 1"):
        export.keras_hub(ResNet(10, width=0.25), tmp_path / "preset")
    with pytest.raises(TypeError, match="ResNet"):
        export.keras_hub(small(), tmp_path / "preset")
    assert names_in(tmp_path) == []
