"""Files from Hugging Face and Kaggle, through their own clients."""

import importlib

from keras_kssl.zoo import addresses, cache

_HUGGING_FACE = (3, "hf://USER/REPO/FILE or hf://USER/REPO@REVISION/FILE")
_KAGGLE = (5, "kaggle://OWNER/MODEL/FRAMEWORK/VARIATION/FILE, or with /VERSION/FILE")


def fetch(address):
    """The local file of an hf:// or a kaggle:// address.

    Credentials, if a file needs any, are those that the clients find.

    Raises:
        ImportError: where the client is not installed.
        ValueError: for an address of another form.
        FileNotFoundError: where KSSL_OFFLINE is set and the file is not in the cache.
        ConnectionError: for whatever the client says.
    """
    is_kaggle = addresses.scheme_of(address) == "kaggle"
    return (_from_kaggle if is_kaggle else _from_hugging_face)(address)


def _from_hugging_face(address):
    user, repository, *file = addresses.hub_parts(address, _HUGGING_FACE)
    repository, _, revision = repository.partition("@")
    hub = _client("huggingface_hub", "huggingface", address)
    with _explained(address):
        return hub.hf_hub_download(
            f"{user}/{repository}",
            "/".join(file),
            revision=revision or None,
            cache_dir=str(cache.folder() / "huggingface"),
            local_files_only=cache.is_offline(),
        )


def _from_kaggle(address):
    parts = addresses.hub_parts(address, _KAGGLE)
    length = 5 if len(parts) > 5 and parts[4].isdigit() else 4
    handle, file = "/".join(parts[:length]), "/".join(parts[length:])
    kept = cache.folder() / "kaggle" / handle
    if cache.is_offline():
        # The client asks the network for versions, whatever is there.
        is_whole = any(kept.glob(f".complete/**/{file}.complete"))
        if not (is_whole and (kept / file).is_file()):
            raise _not_here(address)
        return str(kept / file)
    hub = _client("kagglehub", "kaggle", address)
    with _explained(address):
        return hub.model_download(handle, path=file, output_dir=str(kept))


def _client(package, extra, address):
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ImportError(
            f"zoo.load: {address} needs the package {package}. "
            f"Install it: pip install 'keras_kssl[{extra}]'"
        ) from None


class _explained:
    """Turns what a client raises, each kind its own, into one of ours."""

    def __init__(self, address):
        self.address = address

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if error is None or not isinstance(error, Exception):
            return
        if cache.is_offline():
            raise _not_here(self.address) from error
        text = " ".join(str(error).split()) or type(error).__name__
        raise ConnectionError(
            f"zoo.load: {self.address} cannot be fetched ({text}). Download the file "
            "by a browser and give its path."
        ) from error


def _not_here(address):
    return FileNotFoundError(
        f"zoo.load: {address} is not on this machine and KSSL_OFFLINE is set. Unset "
        "it, or download the file elsewhere and give its path."
    )
