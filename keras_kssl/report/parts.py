"""Parts of a report that its files tell: plain data for the page, or `Missing`."""

import dataclasses
import itertools
import pathlib
import tempfile

from keras_kssl import data, preview
from keras_kssl.pretraining.building import build_policy
from keras_kssl.recipes import Facts, Recipe
from keras_kssl.report import charts, images, wording
from keras_kssl.report.reading import Missing

_LISTED_BROKEN = 200
# Options that are measured where images are not RGB.
_FROM_CHANNELS = ("mean", "std")


def facts(record):
    """Names and values of what was trained, on what, when and how long."""
    recipe, summary = record.recipe, record.summary
    count = record.data.get("images")
    ended = len(record.epochs)
    rate = summary.get("images_per_second")
    found = [
        ("Data", recipe.data + (f", {count:,} images" if count else "")),
        ("Tested on", recipe.eval_test),
        ("Encoder", _encoder(recipe)),
        ("Views", f"{recipe.size} x {recipe.size}, {recipe.augment}"),
        ("Epochs", f"{ended} of {recipe.epochs}, batch {recipe.batch_size}"),
        ("Optimizer", f"{recipe.optimizer}, learning rate {recipe.learning_rate:g}"),
        ("Seed", str(recipe.seed)),
        ("Ended", wording.date_text(str(summary.get("date", "not recorded")))),
        (
            "Time",
            wording.duration(summary["seconds"]) if "seconds" in summary else None,
        ),
        ("Speed", f"{rate:.0f} images/s" if rate else None),
    ]
    return [(name, value) for name, value in found if value is not None]


def _encoder(recipe):
    width = "" if recipe.width == 1.0 else f" at {recipe.width:g} of the width"
    return f"{recipe.encoder}{width}, {recipe.stem} stem"


def status(record):
    """`Missing` for a run that has not ended; `None` for one that has."""
    if record.summary:
        return None
    words = f" Its log ends: “{record.last_words}”" if record.last_words else ""
    return Missing(
        f"This run has not ended: {len(record.epochs)} of {record.recipe.epochs} "
        f"epochs are done.{words} It goes on with:",
        record.resume_command,
    )


def accuracies(record):
    """Columns and rows of the accuracies that the run has measured itself."""
    found = record.summary.get("accuracies")
    if not record.summary:
        raise Missing("Accuracies are measured when the run ends.")
    if not found:
        raise Missing(
            "No accuracy was measured: the run had no labelled test images "
            "(--eval-test). Measure its encoder:",
            record.evaluate_command,
        )
    names = list(dict.fromkeys(itertools.chain.from_iterable(found.values())))
    rows = [
        (
            wording.stage_name(stage),
            [wording.score_text(n, scores[n]) if n in scores else "" for n in names],
        )
        for stage, scores in found.items()
    ]
    return {"columns": [wording.score_name(name) for name in names], "rows": rows}


def curves(record):
    """A panel for each metric: its name, meaning, last value and chart."""
    if not record.metrics:
        raise Missing(
            "No epoch has ended yet: metrics.csv holds no numbers.",
            None if record.summary else record.resume_command,
        )
    return [
        {
            "name": name,
            "meaning": wording.meaning(name),
            "last": wording.last_number(values),
            "chart": charts.chart(
                name, [charts.Line(name, record.epochs, values)], "epoch"
            ),
        }
        for name, values in record.metrics.items()
    ]


def evaluations(record):
    """Tables of the protocols that `kssl evaluate` has run."""
    if not record.evaluations:
        raise Missing(
            "No evaluation lies in the run's folder. Measure the encoder:",
            record.evaluate_command,
        )
    return [
        {
            "file": evaluation.file,
            "train": evaluation.train,
            "test": evaluation.test,
            "date": wording.date_text(evaluation.date),
            "groups": [_group(result) for result in evaluation.results],
            "versions": list(evaluation.versions.items()),
        }
        for evaluation in record.evaluations
    ]


def _group(result):
    """Scores and settings of one protocol."""
    settings = [
        *result.settings.items(),
        *((f"{name}, chosen", value) for name, value in result.chosen.items()),
        *([("metric", result.metric)] if result.metric else []),
        ("seeds", list(result.seeds)),
    ]
    rows = [
        {
            "score": wording.score_name(score.name),
            "text": over_seeds(score),
            "each": ", ".join(
                wording.score_text(score.name, value) for value in score.values
            ),
            "seeds": len(result.seeds) or None,
        }
        for score in result.scores
    ]
    return {
        "title": result.title,
        "remarks": [*remarks(result), wording.duration(result.seconds)],
        "rows": rows,
        "settings": [(name, wording.value_text(value)) for name, value in settings],
    }


def remarks(result):
    """What sets a result apart from the protocol as it is."""
    found = []
    if result.metric not in ("", "top_1"):
        found.append(wording.score_name(result.metric))
    if result.changed:
        found.append(f"with other {', '.join(result.changed)}")
    return found


def over_seeds(score):
    """A score with its deviation over seeds where there are several."""
    std = score.std if len(score.values) > 1 else None
    return wording.score_text(score.name, score.mean, std)


def views(record):
    """What augmentation made, as a data URI: the run's own picture, or a new one."""
    path = record.path / "pictures" / "views.png"
    if path.is_file():
        return images.data_uri(path.read_bytes(), "png")
    recipe = record.recipe
    try:
        source = data.open_source(
            recipe.data, recipe.limit, max_broken=1.0, per_class=recipe.per_class
        )
        with tempfile.TemporaryDirectory() as folder:
            drawn = pathlib.Path(folder) / "views.png"
            preview.draw(source, build_policy(recipe), drawn, seed=recipe.seed)
            return images.data_uri(drawn.read_bytes(), "png")
    except (OSError, ValueError, TypeError, ImportError) as error:
        raise Missing(
            f"pictures/views.png is not there, and it cannot be drawn anew: {error}"
        ) from None


def broken(record):
    """The first broken files, and how many more there are."""
    listed = record.broken[:_LISTED_BROKEN]
    return {"listed": listed, "more": len(record.broken) - len(listed)}


def options(recipe):
    """Options of a recipe in three groups: (name, value) pairs by group.

    Recipes of runs have every default written out, so that of options whose default
    depends on data, method or machine nobody can tell whether they were given.
    """
    asked = Recipe(method=recipe.method)
    resolved = asked.resolved(Facts(count=1000, shorter_side=64, has_accelerator=False))
    filled_in = {
        name
        for name, value in dataclasses.asdict(asked).items()
        if getattr(resolved, name) != value
    } | set(_FROM_CHANNELS)
    groups = {"chosen": [], "resolved": [], "default": []}
    for field in dataclasses.fields(Recipe):
        value = getattr(recipe, field.name)
        if value == field.default:
            group = "default"
        else:
            group = "resolved" if field.name in filled_in else "chosen"
        groups[group].append((field.name, wording.value_text(value)))
    return groups
