"""What all tests share: where the recorded reference numbers are, and the backend."""

import atexit
import os
import pathlib
import shutil
import tempfile

import keras
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = pathlib.Path(os.environ.get("KSSL_SHARED", ROOT.parent / "shared"))

# As `kssl` does: on some processors training then takes half the time.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# Most of the time that tests take on JAX goes into compiling the same steps again. The
# processes of one test run share what they have compiled; they inherit these settings.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="kssl_compiled")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], True)


def pytest_configure(config):
    """Programs as they are traced, but for the slow tests and processes of their own.

    To rewrite a program that runs a few times takes TensorFlow longer than to run it.
    """
    if keras.backend.backend() == "tensorflow" and is_quick(config):
        import tensorflow as tf

        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


def is_quick(config):
    """Whether tests that take long are left out."""
    return "not slow" in config.option.markexpr


@pytest.fixture(scope="session")
def golden():
    """Loads arrays recorded from the authors' code: golden("lars_torch")."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip("no recorded reference numbers: set KSSL_SHARED to their folder")

    def load(name):
        with np.load(folder / f"{name}.npz") as arrays:
            return dict(arrays)

    load.folder = folder
    return load
