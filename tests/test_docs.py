"""The documentation runs: examples in docstrings, and blocks of the README."""

import doctest
import importlib
import pathlib
import pkgutil
import re
import shlex

import keras
import numpy as np
import pytest

import keras_kssl
from keras_kssl import cli
from keras_kssl.cli import running

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
GUIDES = [README, *sorted((ROOT / "docs").glob("*.md"))]
MODULES = [
    info.name for info in pkgutil.walk_packages(keras_kssl.__path__, "keras_kssl.")
]
# Modules with examples that call TensorFlow itself.
NEED_TENSORFLOW = ("keras_kssl.export.reusable",)
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(*languages):
    text = "".join(guide.read_text() for guide in GUIDES if guide.is_file())
    return [body for language, body in FENCE.findall(text) if language in languages]


def kssl_commands():
    """Arguments of every `kssl ...` line in shell blocks."""
    for body in blocks("sh", "bash", "shell", "console"):
        for line in body.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|;", line):
                if "kssl" not in part:
                    continue
                words = shlex.split(part.removeprefix("$ "), comments=True)
                while words and re.fullmatch(r"\w+=\S*", words[0]):
                    words = words[1:]
                if words and pathlib.PurePath(words[0]).name == "kssl":
                    yield words[1:]


@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_give_what_they_print(module):
    if keras.backend.backend() != "tensorflow" and module in NEED_TENSORFLOW:
        pytest.skip("the examples call TensorFlow itself")
    result = doctest.testmod(
        importlib.import_module(module),
        optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS,
    )
    assert result.failed == 0


@pytest.mark.any_backend
def test_the_library_has_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [
        test
        for module in MODULES
        for test in finder.find(importlib.import_module(module))
        if test.examples
    ]
    assert len(found) >= 20


COMMANDS = running.COMMANDS


def assert_parses(words, monkeypatch):
    """Fails unless the command line takes these words; runs nothing."""
    ran = []
    for command in COMMANDS:
        monkeypatch.setattr(command, "run", lambda self: ran.append(self))
    try:
        code = cli.main(words)
    except SystemExit as stop:
        code = stop.code
    assert code == 0, f"kssl {shlex.join(words)}"
    assert len(ran) == 1 or "--help" in words


@pytest.mark.any_backend
def test_a_wrong_command_line_would_be_found(monkeypatch):
    with pytest.raises(AssertionError, match="kssl pretrain --epoch 3"):
        assert_parses(["pretrain", "--epoch", "3"], monkeypatch)


@pytest.mark.any_backend
@pytest.mark.parametrize("command", COMMANDS)
def test_examples_in_the_help_can_be_typed(command, monkeypatch):
    _, found, text = command.__doc__.partition("Example: kssl ")
    assert found
    assert_parses(shlex.split(text), monkeypatch)


@pytest.mark.any_backend
@pytest.mark.skipif(not README.is_file(), reason="there is no README here")
def test_command_lines_of_the_readme_can_be_typed(monkeypatch):
    commands = list(kssl_commands())
    assert commands
    for words in commands:
        assert_parses(words, monkeypatch)


def python_block(mark):
    (code,) = [code for code in blocks("python") if mark in code]
    return compile(code, "README.md", "exec")


@pytest.mark.skipif(not README.is_file(), reason="there is no README here")
def test_training_of_the_readme_prints_the_shape_of_features(capsys):
    exec(python_block("extract_features"), {"__name__": "readme"})
    assert capsys.readouterr().out.splitlines()[-1] == "(64, 128)"


@pytest.mark.skipif(not README.is_file(), reason="there is no README here")
def test_the_guide_to_several_devices_trains_on_one():
    names = {"kssl": keras_kssl}
    exec(python_block("distribution.choose"), names)
    assert names["model"].num_steps == 2


@pytest.mark.skipif(not README.is_file(), reason="there is no README here")
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow reads SavedModels"
)
def test_loading_in_the_readme_finds_the_features_of_the_encoder(tmp_path, monkeypatch):
    import tensorflow

    encoder = keras_kssl.models.ResNet(depth=10, width=0.125, stem="cifar", seed=0)
    keras_kssl.export.keras_file(encoder, tmp_path / "runs" / "a" / "encoder.keras")
    path = tmp_path / "runs" / "a" / "saved_model"
    keras_kssl.export.saved_model(encoder, path, size=16)
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).random((2, 16, 16, 3), dtype="float32")
    names = {
        "keras_kssl": keras_kssl,
        "tensorflow": tensorflow,
        "images": images,
    }
    exec(python_block("tensorflow.saved_model.load"), names)
    for loaded in (names["features"], names["encoder"](images)):
        np.testing.assert_allclose(loaded, encoder(images), rtol=1e-4, atol=1e-5)
    photo = tensorflow.io.encode_png(tensorflow.zeros((31, 45, 3), "uint8"))
    found = names["photos"](encoded=photo[None])["features"]
    np.testing.assert_allclose(
        found, encoder(np.zeros((1, 16, 16, 3))), rtol=1e-4, atol=1e-5
    )
    assert names["maps"]["stage4"].shape == (2, 2, 2, 64)


@pytest.mark.skipif(not README.is_file(), reason="there is no README here")
@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow reads SavedModels"
)
def test_the_layer_of_the_guide_to_saved_models_trains_with_adam(tmp_path, capsys):
    import tensorflow as tf

    small = keras.Sequential(
        [
            keras.Input((5, 7, 3)),
            keras.layers.Conv2D(4, 3, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.GlobalAveragePooling2D(),
        ]
    )
    names = {"keras": keras, "tf": tf}
    exec(python_block("class Encoder"), names)
    encoder = names["Encoder"](keras_kssl.export.saved_model(small, tmp_path / "a"))
    images = np.random.default_rng(0).random((8, 5, 7, 3), dtype="float32")
    np.testing.assert_allclose(encoder(images), small(images), rtol=1e-4, atol=1e-5)
    model = keras.Sequential([encoder, keras.layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=False)

    def check(fit):
        """Runs the guide's look at what has moved, with `fit` in its gap."""
        code = next(code for code in blocks("python") if "# ... fit" in code)
        code = code.replace("# ... fit for one epoch ...", "fit()")
        exec(code, {"encoder": encoder, "fit": fit})
        return capsys.readouterr().out

    assert "0 of 5" in check(lambda: model.fit(images, np.ones((8, 1)), verbose=0))
    assert "5 of 5" in check(lambda: model.predict(images, verbose=0))
