"""What a run folder holds, as far as it is there."""

import csv
import dataclasses
import json
import math
import pathlib
import shlex

from keras_kssl._checks import check_that
from keras_kssl._files import local_path
from keras_kssl.recipes import Recipe
from keras_kssl.report.evaluations import (
    Evaluation,
    is_evaluation,
    parse_evaluation,
)

# JSON files of a run that hold no evaluation.
_OWN_FILES = {"recipe.json", "summary.json", "data.json", "versions.json", "files.json"}


class Missing(Exception):
    """A part of a report cannot be made; the message says why.

    Args:
        reason: a sentence.
        command: what to type to get the part, if a command does.
    """

    def __init__(self, reason, command=None):
        super().__init__(reason)
        self.command = command


@dataclasses.dataclass(frozen=True)
class Record:
    """The files of a run, read.

    Attributes:
        path: the run folder.
        recipe: its resolved recipe.
        metrics: columns of metrics.csv by name, the loss first; NaN where there is no
            number. `epochs` holds the number of each row, from 1.
        summary: summary.json; empty for a run that has not ended.
        data: data.json, `versions`: versions.json; empty where they are not there.
        broken: lines of broken_images.txt.
        evaluations: what `kssl evaluate` has left in the folder.
        last_words: last line of log.txt, or "".
        notes: sentences on files that cannot be read.
    """

    path: pathlib.Path
    recipe: Recipe
    epochs: list[int]
    metrics: dict[str, list[float]]
    summary: dict
    data: dict
    versions: dict
    broken: list[str]
    evaluations: list[Evaluation]
    last_words: str
    notes: list[str]

    @property
    def resume_command(self):
        """What to type for the run to go on."""
        return f"kssl pretrain --resume --out {shlex.quote(str(self.path))}"

    @property
    def evaluate_command(self):
        """What to type to measure the run's encoder."""
        run, out = (
            shlex.quote(str(path))
            for path in (self.path, self.path / "evaluation.json")
        )
        return f"kssl evaluate {run} --train SOURCE --test SOURCE --out {out}"

    @property
    def repeat_command(self):
        """What to type to run the recipe again."""
        recipe = shlex.quote(str(self.path / "recipe.json"))
        return f"kssl pretrain --recipe-file {recipe} --out NEW_FOLDER"


def read(path):
    """The `Record` of a run folder.

    Raises:
        FileNotFoundError: for a folder that holds no run.
        ValueError, TypeError: where its recipe cannot be read, or is no run's.
    """
    path = local_path("report", path)
    if not (path / "recipe.json").is_file():
        raise FileNotFoundError(
            "report: `runs` must be run folders, as kssl pretrain leaves them. "
            f"Received: {str(path)!r}, which holds no recipe.json. Start a run: "
            f"kssl pretrain --data folder:DIR --out {shlex.quote(str(path))}"
        )
    recipe = Recipe.read(path / "recipe.json")
    _check_resolved(recipe, path)
    notes = []
    epochs, metrics = _metrics(_text(path / "metrics.csv", notes))
    return Record(
        path=path,
        recipe=recipe,
        epochs=epochs,
        metrics=metrics,
        summary=_dictionary(path / "summary.json", notes),
        data=_dictionary(path / "data.json", notes),
        versions=_dictionary(path / "versions.json", notes),
        broken=_lines(_text(path / "broken_images.txt", notes)),
        evaluations=_evaluations(path, notes),
        last_words=(_lines(_text(path / "log.txt", notes)) or [""])[-1],
        notes=notes,
    )


def _check_resolved(recipe, path):
    names = ("data", "encoder", "augment", "size", "epochs", "batch_size", "optimizer")
    names += ("learning_rate", "crop_min")
    is_open = [name for name in names if getattr(recipe, name) is None]
    check_that(
        not is_open,
        "report",
        "runs",
        "run folders with the recipe as kssl pretrain has resolved it",
        str(path),
        f"Its recipe.json leaves open: {', '.join(is_open)}.",
    )


def _text(path, notes):
    """A file's text; empty for a file that is not there or cannot be read."""
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError) as error:
        notes.append(f"{path.name} cannot be read ({error}).")
        return ""


def _lines(text):
    return [line for line in text.splitlines() if line.strip()]


def _dictionary(path, notes):
    value = _json(path, notes)
    if value is None:
        return {}
    if not isinstance(value, dict):
        notes.append(f"{path.name} holds no JSON object and is left out.")
        return {}
    return value


def _json(path, notes):
    text = _text(path, notes)
    try:
        return json.loads(text) if text else None
    except ValueError as error:
        notes.append(f"{path.name} is no JSON ({error}) and is left out.")
        return None


def _metrics(text):
    """Numbers of the epochs, and the columns that hold any finite number."""
    rows = list(csv.reader(text.splitlines()))
    if not rows:
        return [], {}
    names = rows[0]
    # A process that was killed may have left half of a row.
    rows = [
        dict(zip(names, row, strict=True)) for row in rows if len(row) == len(names)
    ]
    rows = [row for row in rows if row.get("epoch", "").isdigit()]
    columns = {
        name: [_number(row[name]) for row in rows] for name in names if name != "epoch"
    }
    # Keras writes NA for validation metrics where nothing was validated.
    kept = [name for name in columns if any(map(math.isfinite, columns[name]))]
    kept.sort(key=lambda name: (name != "loss", name))
    epochs = [int(row["epoch"]) + 1 for row in rows]
    return epochs, {name: columns[name] for name in kept}


def _number(text):
    try:
        return float(text)
    except ValueError:
        return math.nan


def _evaluations(folder, notes):
    found = []
    for path in sorted(folder.glob("*.json")):
        if path.name in _OWN_FILES:
            continue
        value = _json(path, notes)
        if not is_evaluation(value):
            continue
        try:
            found.append(parse_evaluation(path.name, value))
        except (KeyError, TypeError, ValueError, AttributeError):
            notes.append(
                f"{path.name} is no evaluation of the format that kssl evaluate "
                "writes, and is left out."
            )
    return found
