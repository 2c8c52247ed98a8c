"""An encoder by name, from a file, or from the web."""

import os
import pathlib
import re

from keras_kssl._checks import check_that, message
from keras_kssl._files import sha256 as sha256_of
from keras_kssl.zoo import addresses, catalogue, download, hubs
from keras_kssl.zoo.card import NO_WEIGHTS

_TORCH = (".pth", ".pt", ".tar", ".safetensors")
_SUFFIXES = (".keras", *_TORCH)
_KNOWN = (
    "the name of a preset, a folder with encoder.keras in it, a file "
    f"({', '.join(_SUFFIXES)}), or an https://, hf:// or kaggle:// address of one"
)


def load(name, sha256=None, say=print):
    """Loads an encoder: a plain Keras model from images to features.

    Downloads are kept in the folder that KSSL_CACHE names, or else in
    ~/.cache/keras_kssl, and used again without a look at the network. KSSL_OFFLINE=1
    forbids all downloads; KSSL_MIRROR=https://HOST takes the place of scheme and host
    of https:// addresses. The clients of Hugging Face and Kaggle are the extras
    `huggingface` and `kaggle`.

    Args:
        name: one of

            - the name of a preset with weights, see `presets`;
            - a run folder, or another folder with an encoder.keras in it;
            - a local file: .keras; or .pth, .pt, .pth.tar, .safetensors with a ResNet
              of PyTorch, which is converted as by `convert.from_torch_resnet`;
            - the https:// address of such a file;
            - hf://USER/REPO/FILE or hf://USER/REPO@REVISION/FILE;
            - kaggle://OWNER/MODEL/FRAMEWORK/VARIATION/FILE, or with a version
              before FILE.
        sha256: hexadecimal SHA-256 that the file must have, for a file or an address.
            Default: that of the preset, where it is known.
        say: function that prints a line. Default: print.

    Returns:
        A Keras model that takes float images in [0, 1] of shape (batch, height, width,
        channels) and returns features (batch, num_features).

    Raises:
        ValueError: for an unknown name, an unfit address, a file with another digest
            or without an encoder in it.
        FileNotFoundError: for a path or an address where there is nothing.
        ConnectionError, PermissionError, OSError: where a download fails.
        ImportError: for a hub whose client is not installed.

    Example:

    >>> import os, tempfile
    >>> import keras_kssl as kssl
    >>> encoder = kssl.models.ResNet(depth=10, width=0.125, stem="cifar", seed=0)
    >>> path = os.path.join(tempfile.mkdtemp(), "encoder.keras")
    >>> path = kssl.export.keras_file(encoder, path)
    >>> kssl.zoo.load(path).num_features
    64
    """
    if not isinstance(name, str | os.PathLike):
        raise TypeError(message("zoo.load", "name", _KNOWN, name))
    # A path object makes one stroke of two; a drive has one letter.
    text = re.sub(r"^([A-Za-z][A-Za-z0-9+.-]+):/(?!/)", r"\1://", os.fspath(name))
    scheme = addresses.scheme_of(text)
    if scheme:
        return _read(_fetched(scheme, text, sha256, say), text)
    if text in catalogue.presets():
        check_that(
            sha256 is None,
            "zoo.load",
            "sha256",
            "left out for a preset",
            sha256,
            "Its own is used.",
        )
        return _load_preset(text, say)
    if not _looks_like_path(text):
        catalogue.preset(text, "zoo.load", _KNOWN)
    path = _local_file(text)
    if sha256 is not None:
        _check_digest(path, sha256)
    return _read(path, text)


def _load_preset(name, say):
    preset = catalogue.preset(name, "zoo.load")
    check_that(
        preset.weights is not None,
        "zoo.load",
        "name",
        "a preset with weights",
        name,
        f"It is a {NO_WEIGHTS}. Train it: kssl pretrain --preset {name} --data "
        "folder:DIR",
    )
    file, sha256 = preset.weights.file, preset.weights.sha256
    scheme = addresses.scheme_of(file)
    if scheme:
        return _read(_fetched(scheme, file, sha256, say), name)
    path = catalogue.shipped_folders()[name] / file
    _check_suffix(path.suffix, str(path))
    if sha256 is not None:
        _check_digest(path, sha256)
    return _read(path, name)


def _fetched(scheme, address, sha256, say):
    check_that(
        scheme in addresses.SCHEMES,
        "zoo.load",
        "name",
        "an address that begins with https://, hf:// or kaggle://",
        address,
    )
    suffix = pathlib.PurePath(address.partition("?")[0]).suffix
    _check_suffix(suffix, address)
    if scheme in ("https", "http"):
        return download.fetch(address, sha256, say)
    path = pathlib.Path(hubs.fetch(address))
    if sha256 is not None:
        _check_digest(path, sha256)
    return path


def _looks_like_path(text):
    if os.sep in text or text.startswith(("~", ".")):
        return True
    return os.path.exists(text) or pathlib.PurePath(text).suffix in _SUFFIXES


def _local_file(text):
    path = pathlib.Path(text).expanduser()
    if path.is_dir():
        folder, path = path, path / "encoder.keras"
        if not path.is_file():
            remedy = "Is the run finished?"
            if (folder / "saved_model.pb").is_file():
                remedy = (
                    "This is a SavedModel: tensorflow.saved_model.load takes it, with "
                    "or without this library."
                )
            raise FileNotFoundError(
                "zoo.load: `name` must be a finished run or another folder with "
                f"encoder.keras in it. Received: name={text!r}, which has none. "
                f"{remedy}"
            )
    if not path.is_file():
        raise FileNotFoundError(
            f"zoo.load: `name` must be {_KNOWN}. Received: name={text!r}, which is not "
            "there."
        )
    _check_suffix(path.suffix, text)
    return path


def _check_suffix(suffix, text):
    rule = f"a file that ends in {', '.join(_SUFFIXES)}"
    check_that(suffix in _SUFFIXES, "zoo.load", "name", rule, text)


def _check_digest(path, sha256):
    digest = sha256_of(path)
    check_that(
        digest == sha256.lower(),
        "zoo.load",
        "sha256",
        f"that of the file {str(path)!r}, which is {digest}",
        sha256,
    )


def _read(path, name):
    """The encoder in a file."""
    if path.suffix in _TORCH:
        from keras_kssl import convert

        return convert.from_torch_resnet(path)
    import keras

    import keras_kssl.models  # noqa: F401  (registers the encoders)

    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # whatever is wrong with the file
        text = "".join(filter(str.isprintable, " ".join(str(error).split())))[:300]
        raise ValueError(
            f"zoo.load: `name` must be a file that Keras loads. Received: "
            f"name={name!r}, read from {path} ({text}). Where it was downloaded, "
            "delete the file and try again."
        ) from error
    check_that(
        isinstance(model, keras.Model), "zoo.load", "name", "a Keras model's file", name
    )
    return model
