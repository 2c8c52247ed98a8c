"""The example scripts run one after the other, on a tiny set."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_kssl import export
from keras_kssl.models import ResNet
from tests.photos import encoded, picture, write_folder

pytestmark = pytest.mark.any_backend

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "examples"
needs_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="SavedModels are written and served by TensorFlow",
)


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "images.npz"
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (48, 16, 16, 3), dtype=np.uint8)
    np.savez(path, images=pixels, labels=np.arange(48) % 4)
    return path


@pytest.fixture(scope="module")
def pretrained(images, tmp_path_factory):
    """Folder that examples/pretrain.py has written to."""
    out = tmp_path_factory.mktemp("runs") / "example"
    source = f"npz:{images}"
    options = ["--data", source, "--test", source, "--width", "0.125", "--epochs", "1"]
    example("pretrain").main([*options, "--batch-size", "16", "--out", str(out)])
    return out


def test_pretrain_leaves_an_encoder_that_loads(pretrained):
    encoder = keras.saving.load_model(pretrained / "encoder.keras")
    assert encoder.count_params() > 0
    on_tensorflow = keras.backend.backend() == "tensorflow"
    assert (pretrained / "saved_model").is_dir() == on_tensorflow


@pytest.mark.slow
def test_examples_take_folders_of_photos(tmp_path, capsys):
    files = {
        f"{i % 4}/{i}.jpg": encoded(picture(20 + i % 7, 30 - i % 5, i))
        for i in range(48)
    }
    folder = f"folder:{write_folder(tmp_path / 'photos', files)}"
    sources = ["--train", folder, "--test", folder, "--size", "16", "--epochs", "1"]
    options = ["--data", folder, "--test", folder, "--width", "0.125", "--epochs", "1"]
    options += ["--batch-size", "16"]
    with pytest.raises(SystemExit):
        example("pretrain").main(options)
    assert "--size is needed" in capsys.readouterr().err
    options += ["--size", "16", "--out", str(tmp_path / "run")]
    example("pretrain").main(options)
    encoder = str(tmp_path / "run" / "encoder.keras")
    example("evaluate").main([encoder, *sources])
    example("fine_tune").main([encoder, *sources, "--labels", "48"])
    assert capsys.readouterr().out.count("accuracy") == 3


def test_evaluate_compares_the_encoder_with_pixels(pretrained, images, capsys):
    source = f"npz:{images}"
    options = ["--train", source, "--test", source, "--epochs", "1"]
    example("evaluate").main([str(pretrained / "encoder.keras"), *options])
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0].strip() for line in lines] == [
        "raw pixels",
        "encoder",
    ]


@pytest.mark.slow
def test_fine_tune_in_a_process_of_its_own_compares_with_random_weights(
    pretrained, images
):
    source = f"npz:{images}"
    options = ["--train", source, "--test", source, "--labels", "16", "--epochs", "1"]
    # Here, all of the library has been imported long since.
    done = subprocess.run(
        [sys.executable, EXAMPLES / "fine_tune.py", str(pretrained), *options],
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "random weights: accuracy" in done.stdout
    assert "pretrained weights: accuracy" in done.stdout


def test_a_file_loads_in_keras_once_the_library_is_imported(pretrained):
    code = (
        "import sys, keras, keras_kssl; "
        "print(keras.saving.load_model(sys.argv[1]).num_features)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(pretrained / "encoder.keras")],
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_features_go_into_scikit_learn(pretrained, capsys):
    options = [str(pretrained), "--limit", "100"]
    example("features_to_scikit_learn").main(options)
    said = capsys.readouterr().out
    assert "chosen: {'logisticregression__C': " in said
    assert "accuracy" in said


@needs_tensorflow
def test_tensorflow_hub_fine_tunes_the_whole_encoder(pretrained, images):
    for package in ("tensorflow_hub", "tf_keras"):
        pytest.importorskip(package)
    script = [str(EXAMPLES / "fine_tune_hub.py"), str(pretrained / "saved_model")]
    done = subprocess.run(
        [sys.executable, *script, str(images), "--epochs", "2"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    count = len(keras.saving.load_model(pretrained / "encoder.keras").variables)
    assert f"{count} of {count} variables of the encoder have moved" in done.stdout
    assert "on 9 images held out" in done.stdout


def test_keras_hub_fine_tunes_the_whole_encoder(images, tmp_path, capsys):
    pytest.importorskip("keras_hub")
    path = export.keras_file(ResNet(18, seed=0), tmp_path / "encoder.keras")
    source = f"npz:{images}"
    options = ["--train", source, "--test", source, "--size", "32", "--epochs", "1"]
    # A weight that has not moved would give a warning, and with it a failure.
    example("fine_tune_keras_hub").main([path, *options, "--batch-size", "16"])
    assert "from 48 labelled images" in capsys.readouterr().out


@needs_tensorflow
def test_serve_gives_the_encoders_features(pretrained, images, tmp_path):
    path = tmp_path / "features.npy"
    arguments = [str(pretrained / "saved_model"), str(images), str(path)]
    example("serve").main([*arguments, "--batch-size", "20"])
    encoder = keras.saving.load_model(pretrained / "encoder.keras")
    pixels = np.load(images)["images"] / np.float32(255)
    expected = encoder.predict(pixels, batch_size=20, verbose=0)
    np.testing.assert_allclose(np.load(path), expected, rtol=1e-4, atol=1e-5)


@needs_tensorflow
def test_serve_takes_photos_as_they_are(pretrained, tmp_path):
    import tensorflow as tf

    files = {
        "b.jpg": encoded(picture(20, 31)),
        "c.PNG": encoded(picture(40, 31, 1), "PNG"),
        "a/a.jpeg": encoded(picture(20, 33, 2)),
    }
    files["notes.txt"] = b"no photo"
    folder = write_folder(tmp_path / "photos", files)
    path = tmp_path / "features.npy"
    arguments = [str(pretrained / "saved_model"), str(folder), str(path)]
    example("serve").main([*arguments, "--batch-size", "2"])
    module = tf.saved_model.load(pretrained / "saved_model")
    contents = [files[name] for name in sorted(files) if name != "notes.txt"]
    expected = module.signatures["serving_bytes"](encoded=tf.constant(contents))
    np.testing.assert_allclose(np.load(path), expected["features"], rtol=1e-5)
