"""Features of a set on disk: larger than memory, gone on with where it stopped."""

import functools
import hashlib
import json
import shutil

import keras
import numpy as np
from rich.console import Console
from rich.progress import Progress, TextColumn

from keras_kssl._checks import check_integer, check_that
from keras_kssl._files import (
    held_by_this_process,
    local_path,
    remove_partial,
    write_whole,
)
from keras_kssl.evaluation.features import at_one_size, feature_batches

_FORMAT = 1
_FACTS = "extraction.json"


def extract(encoder, data, out, batch_size=256, size=None, part_size=8192):
    """Writes the features of every image of a data set to a folder.

    The folder holds

    - `features.npy`: float32 (n, d), a row for each image that can be read, in order;
      `numpy.load(path, mmap_mode="r")` opens it whatever its size,
    - `labels.npy`: int32 (n,), -1 where it is not known; only for labelled sets,
    - `names.txt`: what each row is of, a line each: the file, or the position,
    - `extraction.json`: the source, the encoder's fingerprint, n, d, `complete`.

    Until all is done the rows lie in `parts/`, files that appear whole or not at all.
    The same call again goes on after the last of them. Memory: one part and one batch.

    Args:
        encoder: as in `extract_features`.
        data: anything `data.open_source` takes.
        out: the folder.
        batch_size, size: as in `extract_features`.
        part_size: images per part. Default 8192.

    Returns:
        Path of the folder.

    Raises:
        FileExistsError: where the folder holds something else, such as the features of
            another encoder. Functions are told apart by their code, not by what they
            refer to.
    """
    check_integer("extract", "batch_size", batch_size, minimum=1)
    check_integer("extract", "part_size", part_size, minimum=1)
    source = at_one_size("extract", encoder, data, size)
    out = local_path("extract", out)
    facts = {
        "format": _FORMAT,
        "source": source.name,
        "images": len(source),
        "content": source.fingerprint(),
        "labels": _labels_fingerprint(source),
        "image_shape": list(source.image_shape),
        "encoder": fingerprint(encoder),
        "part_size": part_size,
    }
    _check_folder(out, facts)
    out.mkdir(parents=True, exist_ok=True)
    with held_by_this_process(out, "extract"):
        if _found(out).get("complete"):
            shutil.rmtree(out / "parts", ignore_errors=True)
            return out
        write_whole(out / _FACTS, _as_json({**facts, "complete": False}))
        parts = _write_parts(encoder, source, batch_size, out / "parts", part_size)
        rows, width = _join(parts, source, out)
        write_whole(
            out / _FACTS,
            _as_json({**facts, "complete": True, "rows": rows, "width": width}),
        )
        shutil.rmtree(out / "parts")
    return out


def _check_folder(out, facts):
    found = _found(out)
    if not found:
        others = out.exists() and (
            not out.is_dir() or any(path.name != ".lock" for path in out.iterdir())
        )
        check_that(not others, "extract", "out", "a new or an empty folder", str(out))
        return
    changed = [name for name, value in facts.items() if found.get(name) != value]
    if changed:
        raise FileExistsError(
            "extract: `out` must be a new folder, or hold a part of the same features. "
            f"Received: out={str(out)!r}, where {', '.join(changed)} "
            f"{'is' if len(changed) == 1 else 'are'} of another extraction. Take "
            "another folder."
        )


def _found(out):
    """What is written down in a folder of features; empty for other folders."""
    path = out / _FACTS
    return json.loads(path.read_text()) if path.is_file() else {}


def _write_parts(encoder, source, batch_size, folder, part_size):
    """Files with the features of `part_size` images each; those there are kept."""
    folder.mkdir(exist_ok=True)
    remove_partial(folder)
    starts = range(0, len(source), part_size)
    paths = [folder / f"{start:012d}.npz" for start in starts]
    is_quiet = not Console().is_terminal
    with Progress(
        *Progress.get_default_columns(),
        TextColumn("{task.completed:.0f} images"),
        disable=is_quiet,
    ) as progress:
        task = progress.add_task("extracting", total=len(source))
        for start, path in zip(starts, paths, strict=True):
            stop = min(start + part_size, len(source))
            if not path.is_file():
                positions, features = [np.empty(0, int)], []
                for read, rows in feature_batches(
                    encoder, source, batch_size, start, stop
                ):
                    positions.append(read)
                    features.append(rows)
                    progress.advance(task, len(read))
                arrays = {"positions": np.concatenate(positions)}
                if features:
                    arrays["features"] = np.concatenate(features)
                write_whole(path, functools.partial(_save, arrays))
            progress.update(task, completed=stop)
    return paths


def _save(arrays, file):
    np.savez(file, **arrays)


def _join(parts, source, out):
    """Writes all parts as one array, and what belongs to its rows."""
    positions = np.concatenate([_array(path, "positions") for path in parts])
    check_that(len(positions) > 0, "extract", "data", "images that can be read", source)
    all_features = (_array(path, "features") for path in parts)
    width = next(part.shape[1] for part in all_features if part is not None)

    def write(file):
        shape = (len(positions), width)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for path in parts:
            features = _array(path, "features")
            if features is not None:
                file.write(np.ascontiguousarray(features, "<f4").data)

    write_whole(out / "features.npy", write)
    if source.labels is not None:
        write_whole(out / "labels.npy", lambda f: np.save(f, source.labels[positions]))
    encoded = getattr(source, "source", None)
    names = [str(i) if encoded is None else encoded.name_of(i) for i in positions]
    write_whole(out / "names.txt", "".join(f"{name}\n" for name in names))
    return len(positions), width


def _array(path, name):
    with np.load(path) as arrays:
        return arrays.get(name)


def fingerprint(encoder):
    """Digits that differ for other weights, and for functions of other code."""
    if not isinstance(encoder, keras.Layer):
        name = getattr(encoder, "__name__", type(encoder).__name__)
        code = getattr(encoder, "__code__", None)
        if code is None:
            return name
        values = [v for v in code.co_consts if isinstance(v, int | float | str | bytes)]
        parts = repr((code.co_code, code.co_names, values)).encode()
        return f"{name} {hashlib.blake2b(parts, digest_size=8).hexdigest()}"
    digest = hashlib.blake2b(digest_size=8)
    for weight in encoder.weights:
        digest.update(np.ascontiguousarray(keras.ops.convert_to_numpy(weight)).data)
    return digest.hexdigest()


def _labels_fingerprint(source):
    if source.labels is None:
        return None
    labels = np.ascontiguousarray(source.labels, np.int32)
    return hashlib.blake2b(labels.data, digest_size=8).hexdigest()


def _as_json(facts):
    return json.dumps(facts, indent=2) + "\n"
