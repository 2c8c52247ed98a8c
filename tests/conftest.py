"""What all tests share: where the recorded reference numbers are, and the backend."""

import os
import pathlib

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHARED = pathlib.Path(os.environ.get("KSSL_SHARED", ROOT.parent / "shared"))


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
