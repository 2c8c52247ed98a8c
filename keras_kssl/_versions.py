"""Versions of what numbers depend on."""

import platform

import keras
import numpy as np

import keras_kssl


def versions():
    """Names and versions, of the library, the backend and the machine."""
    found = {
        "keras_kssl": keras_kssl.__version__,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
    try:
        module = __import__(found["backend"])
        found[found["backend"]] = module.__version__
    except ImportError:
        pass
    return found
