"""What a machine has: the facts to look at first when something does not work."""

import importlib.metadata
import os
import platform
import shutil

from keras_kssl import __version__

_PACKAGES = ("keras", "tensorflow", "jax", "numpy", "scikit-learn")


def report():
    """Lines of text: versions, backend, devices, memory, and remedies."""
    lines = [f"python {platform.python_version()} on {platform.platform()}"]
    lines.append(f"keras_kssl {__version__}")
    lines += [f"{name} {_version(name)}" for name in _PACKAGES]
    lines.append(f"CPU cores: {os.cpu_count()}, memory: {_memory()}")
    free = shutil.disk_usage(".").free / 1e9
    lines.append(f"free disk space here: {free:.0f} GB")
    import keras

    backend = keras.backend.backend()
    lines.append(
        f"Keras backend: {backend}; KERAS_BACKEND or ~/.keras/keras.json choose"
    )
    lines.append(f"devices: {', '.join(map(str, keras.distribution.list_devices()))}")
    if backend == "tensorflow":
        lines.append("everything works on this backend")
    else:
        lines.append(
            "training, evaluation and .keras files work on this backend; SavedModels "
            "are written with KERAS_BACKEND=tensorflow: kssl export RUN --out FOLDER"
        )
    return lines


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "is not installed"


def _memory():
    try:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):
        return "unknown"
    return f"{pages / 2**30:.1f} GiB"
