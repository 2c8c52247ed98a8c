"""The example scripts run one after the other, on a tiny set."""

import importlib.util
import pathlib

import keras
import numpy as np
import pytest

from tests.photos import encoded, picture, write_folder

EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "examples"


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


def test_fine_tune_compares_with_random_weights(pretrained, images, capsys):
    source = f"npz:{images}"
    options = ["--train", source, "--test", source, "--labels", "16", "--epochs", "1"]
    example("fine_tune").main([str(pretrained / "encoder.keras"), *options])
    said = capsys.readouterr().out
    assert "random weights: accuracy" in said
    assert "pretrained weights: accuracy" in said


def test_serve_gives_the_encoders_features(pretrained, images, tmp_path):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("SavedModels are written and served by TensorFlow")
    path = tmp_path / "features.npy"
    arguments = [str(pretrained / "saved_model"), str(images), str(path)]
    example("serve").main([*arguments, "--batch-size", "20"])
    encoder = keras.saving.load_model(pretrained / "encoder.keras")
    pixels = np.load(images)["images"] / np.float32(255)
    expected = encoder.predict(pixels, batch_size=20, verbose=0)
    np.testing.assert_allclose(np.load(path), expected, rtol=1e-4, atol=1e-5)
