"""Kernel self-supervised learning of image encoders: SSL-HSIC and SFRIK in Keras 3."""

import importlib
import sys

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "augment",
    "callbacks",
    "convert",
    "data",
    "distribution",
    "evaluation",
    "export",
    "kernels",
    "models",
    "objectives",
    "optimizers",
    "pretraining",
    "recipes",
    "report",
    "statistics",
    "sweeping",
    "zoo",
]


def __getattr__(name):
    # Submodules load when first used, so that the command line answers --help
    # without waiting for a deep-learning framework.
    if name in __all__:
        return importlib.import_module(f"keras_kssl.{name}")
    raise AttributeError(f"module 'keras_kssl' has no attribute {name!r}")


# Keras refuses a file with an encoder of ours in it until the class is there.
if "keras" in sys.modules:
    importlib.import_module("keras_kssl.models")
