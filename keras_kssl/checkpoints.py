"""Checkpoints: all that the next training step depends on, in one file.

A checkpoint is a NumPy archive. It holds every variable of a compiled model (encoder,
heads, target network, averages, kernel scale, random generators), of its optimizer
(with the loss scale) and of its metrics, so that training goes on as if it had never
stopped, in the middle of an epoch too: with the same data, bit for bit.

    checkpoints = Checkpoints("runs/a/checkpoints")
    checkpoints.write(model)
    step = checkpoints.restore(model)
"""

import json
import pathlib
import re
import warnings
import zipfile

import keras
import numpy as np

from keras_kssl._checks import check_integer
from keras_kssl._files import local_path, remove_partial, sha256, write_whole

_NAME = re.compile(r"step-(\d+)-([0-9a-f]{16})\.npz")
_DAMAGED = (ValueError, KeyError, EOFError, zipfile.BadZipFile)
# Numbers that Keras gives layers when there are several of a kind: others each time.
_COUNTER = re.compile(r"_\d+(?=[_/]|$)")


class Checkpoints:
    """The checkpoints in a folder, of one model, in the order of their steps.

    Files appear whole or not at all and carry a checksum in their names,
    `step-STEP-CHECKSUM.npz`, the first 16 digits of the SHA-256 of their content; a
    file that does not match it is passed over with a warning.

    Args:
        folder: where they are; made when the first one is written.
        keep: how many are kept, at least 1. Default 2: should the last one be damaged,
            there is one before it.
    """

    def __init__(self, folder, keep=2):
        self.folder = local_path("Checkpoints", folder)
        self.keep = check_integer("Checkpoints", "keep", keep, minimum=1)

    def write(self, model, is_chief=True, **facts):
        """Writes a checkpoint of a compiled `SelfSupervisedModel`; returns its path.

        Args:
            model: the model; its number of finished steps names the checkpoint.
            is_chief: False for workers that take part, as all must, and write nothing.
            **facts: numbers and texts to keep with it, returned by `restore`.

        Raises:
            FloatingPointError: where a weight is NaN or infinite. Nothing is written,
                so that the last checkpoint stays a good one.
            OSError: where the file cannot be written; older ones are still there.
        """
        variables = _variables(model)
        arrays = {key: keras.ops.convert_to_numpy(v) for key, v in variables.items()}
        facts = {**facts, "step": model.num_steps}
        _check_finite(arrays, variables, facts["step"])
        if not is_chief:
            return None
        arrays["facts"] = _as_bytes(facts)
        arrays["paths"] = _as_bytes({key: v.path for key, v in variables.items()})
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_partial(self.folder)
        written = self.folder / "written.npz"
        write_whole(written, lambda file: np.savez(file, **arrays))
        path = self.folder / f"step-{facts['step']:08d}-{sha256(written)[:16]}.npz"
        written.replace(path)
        self._forget_all_but(path)
        return path

    def restore(self, model, warn=warnings.warn):
        """Loads the newest good checkpoint into a compiled model.

        Args:
            model: the model.
            warn: function that is given a sentence on each damaged checkpoint.

        Returns:
            Dictionary of the facts it was written with and `step`, the number of
            finished steps; `None` where there is no checkpoint, and then the model is
            as it was.

        Raises:
            ValueError: for a checkpoint of another model, and where all are damaged.
            OSError: where a file cannot be read, which does not say that it is damaged.
        """
        paths = self.paths()
        for path in paths:
            try:
                arrays = _read(path)
            except _DAMAGED as error:
                warn(f"Checkpoint {path} is damaged and passed over: {error}")
                continue
            return _load(arrays, model, path)
        if paths:
            raise ValueError(
                f"Checkpoints.restore: one checkpoint in {self.folder} must be whole. "
                f"Received: {len(paths)}, all damaged. Copy them again from where they "
                "were, or start a new run."
            )
        return None

    def steps(self):
        """Steps of all checkpoints, the newest first."""
        return [_parts(path)[0] for path in self.paths()]

    def paths(self):
        """Paths of all checkpoints, the newest first."""
        found = [path for path in self.folder.glob("step-*.npz") if _parts(path)]
        return sorted(found, key=lambda path: _parts(path)[0], reverse=True)

    def _forget_all_but(self, newest):
        step, _ = _parts(newest)
        # After a damaged checkpoint was passed over, later ones than this may be there.
        others = [path for path in self.paths() if path != newest]
        older = [path for path in others if _parts(path)[0] < step]
        for path in set(others) - set(older[: self.keep - 1]):
            path.unlink(missing_ok=True)


def _variables(model):
    """Every variable that a training step reads or writes, by a key of its own."""
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    groups = {
        "model": model.variables,
        "optimizer": model.optimizer.variables,
        "metrics": model.metrics_variables,
    }
    return {
        f"{group}/{i:05d}": variable
        for group, variables in groups.items()
        for i, variable in enumerate(variables)
    }


def _check_finite(arrays, variables, step):
    # Metrics are left out: they say what a batch was like and are reset every epoch.
    for key, array in arrays.items():
        is_weight = array.dtype.kind == "f" and not key.startswith("metrics/")
        if is_weight and not np.isfinite(array).all():
            raise FloatingPointError(
                f"{variables[key].path} holds NaN or infinity after step {step}"
            )


def _as_bytes(facts):
    return np.frombuffer(json.dumps(facts).encode(), np.uint8)


def _read(path):
    _, checksum = _parts(path)
    found = sha256(path)[: len(checksum)]
    if found != checksum:
        raise ValueError(f"the SHA-256 of its content begins with {found}")
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def _load(arrays, model, path):
    facts, paths = (json.loads(arrays.pop(key).tobytes()) for key in ("facts", "paths"))
    variables = _variables(model)
    kinds = {
        key: (_kind_of_name(key, v.path), tuple(v.shape), str(v.dtype))
        for key, v in variables.items()
    }
    stored = {
        key: (_kind_of_name(key, paths[key]), array.shape, str(array.dtype))
        for key, array in arrays.items()
    }
    differing = [k for k in kinds | stored if kinds.get(k) != stored.get(k)]
    if differing:
        key = differing[0]
        raise ValueError(
            "Checkpoints.restore: `model` must be the one that was saved. Received: a "
            f"model with {len(variables)} variables, where {path} has {len(arrays)}; "
            f"the first that differs is {paths.get(key, 'missing')!r} in the file, "
            f"{variables[key].path if key in variables else 'missing'!r} in the model."
        )
    for key, variable in variables.items():
        variable.assign(arrays[key])
    return facts


def _kind_of_name(key, path):
    # An optimizer's variables are named after how it was built, and stand in the order
    # of those of the model.
    return "" if key.startswith("optimizer/") else _COUNTER.sub("", path)


def _parts(path):
    """(step, checksum) from a checkpoint's name; `None` for other files."""
    match = _NAME.fullmatch(pathlib.Path(path).name)
    return (int(match[1]), match[2]) if match else None
