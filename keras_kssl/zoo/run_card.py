"""The card of a run: what its folder says of its encoder."""

import dataclasses
import math
import pathlib

from keras_kssl._files import sha256
from keras_kssl.report.reading import read
from keras_kssl.report.wording import score_name
from keras_kssl.zoo.card import Preset, Result, Weights
from keras_kssl.zoo.catalogue import presets

NOT_STATED = "not stated: ask whoever trained it, about the data too"
_SUBJECTS = {
    "trained": "encoder",
    "untrained": "untrained encoder",
    "raw_pixels": "raw pixels",
}


def card_of(source, name=None, licence=None, encoder=None, folder=None):
    """The card of an encoder that `zoo.load` has loaded; `None` for a mere file.

    Args:
        source: what `zoo.load` was given: a run folder, or the name of a preset, whose
            card stays what it is but for the name, the licence and the weights.
        name, licence, encoder, folder: as for `card_of_run`; the licence of a preset
            is by default its own.
    """
    preset = presets().get(str(source))
    if preset is not None:
        return dataclasses.replace(
            preset,
            name=name or (_name_of(folder) if folder else preset.name),
            licence=licence or preset.licence,
            weights=None if folder is None else _weights_in(pathlib.Path(folder)),
        )
    path = pathlib.Path(source).expanduser()
    if not (path / "recipe.json").is_file():
        return None
    return card_of_run(path, name, licence, encoder, folder)


def card_of_run(path, name=None, licence=None, encoder=None, folder=None):
    """The card of a run's encoder, from the files of its folder.

    What the run's own judges and `kssl evaluate` have measured stands in it; where
    nothing was measured, it says so.

    Args:
        path: run folder.
        name: name of the card. Default: that of `folder`, or else of the run folder.
        licence: terms of the weights and the data. Default: that they are not stated.
        encoder: the run's encoder, for the number of parameters and features; `None`
            leaves them open.
        folder: folder that the encoder was written to; `None` for none.

    Returns:
        A `Preset`.

    Raises:
        FileNotFoundError: for a folder that holds no run.
        ValueError, TypeError: where its recipe cannot be read.
    """
    record = read(path)
    recipe, summary = record.recipe, record.summary
    limits = list(record.notes)
    results = [*_evaluations(record), *_own_judgement(recipe, summary)]
    if not results:
        limits.append(
            "Nothing was measured. Measure it, and write the card again: "
            f"{record.evaluate_command}"
        )
    else:
        limits.append(
            "Whether the test images were also used to choose settings, this card "
            "cannot know."
        )
    if not summary:
        limits.append("The run has not ended.")
    version = record.versions.get("keras_kssl", "")
    size = {}
    if encoder is not None:
        size["parameters"] = sum(
            math.prod(variable.shape) for variable in encoder.trainable_variables
        )
        size["num_features"] = int(encoder.output_shape[-1])
    return Preset(
        name=name or _name_of(folder or path),
        description=f"{recipe.encoder} trained for {recipe.epochs} epochs by "
        f"{recipe.method} on {record.data.get('name', recipe.data)}.",
        recipe=recipe,
        data=_data(record),
        licence=licence or NOT_STATED,
        source=(f"A run of keras_kssl {version}".strip(),),
        weights=None if folder is None else _weights_in(pathlib.Path(folder)),
        results=tuple(results),
        limits=tuple(limits),
        trained=_training(summary, record.versions),
        **size,
    )


def _weights_in(folder):
    """The `Weights` that lie in a folder: encoder.keras, or else a SavedModel."""
    file = folder / "encoder.keras"
    if file.is_file():
        return Weights(file.name, file.stat().st_size, sha256(file))
    if (folder / "saved_model.pb").is_file():
        parts = [folder / "saved_model.pb", *folder.glob("variables/*")]
        return Weights("saved_model.pb", sum(part.stat().st_size for part in parts))
    return None


def _own_judgement(recipe, summary):
    """Results of the run's own judges, those of the trained encoder first."""
    accuracies = summary.get("accuracies") or {}
    data = f"{recipe.eval_train or recipe.data}, tested on {recipe.eval_test}"
    for stage, subject in _SUBJECTS.items():
        for name, value in accuracies.get(stage, {}).items():
            yield Result(
                protocol=f"{score_name(name)} at the end of the run",
                data=data,
                score="top-1",
                mean=float(value),
                subject=subject,
                date=_day(summary.get("date", "")),
            )


def _evaluations(record):
    """Results of `kssl evaluate`."""
    for evaluation in record.evaluations:
        for result in evaluation.results:
            changed = [f"{n}={result.settings.get(n)}" for n in result.changed]
            words = [result.title, *changed]
            for score in result.scores:
                names = (score_name(score.name), result.metric.replace("_", "-"))
                yield Result(
                    protocol=", ".join(words),
                    data=f"{evaluation.train}, tested on {evaluation.test}",
                    score=" ".join(filter(None, names)),
                    mean=score.mean,
                    std=score.std if len(score.values) > 1 else None,
                    seeds=max(1, len(result.seeds)),
                    date=_day(evaluation.date),
                )


def _data(record):
    facts, recipe = record.data, record.recipe
    text = f"{facts.get('name', recipe.data)}"
    if "images" in facts:
        text += f", {facts['images']:,} images"
    if "content" in facts:
        text += f", fingerprint {facts['content']}"
    return f"{text}."


def _training(summary, versions):
    facts = {"date": summary.get("date"), "seconds": summary.get("seconds")}
    facts["replicas"] = summary.get("replicas")
    facts["machine"] = versions.get("platform")
    facts["versions"] = {n: v for n, v in versions.items() if n != "platform"}
    return {name: value for name, value in facts.items() if value}


def _name_of(folder):
    """A folder's name, of the characters that names of cards may have."""
    name = pathlib.Path(folder).expanduser().resolve().name
    return "".join(c if c.isalnum() or c in "_-." else "_" for c in name) or "run"


def _day(date):
    return date[:10]
