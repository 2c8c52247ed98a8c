"""The parts of a report, each as plain data for the page, or `Missing`."""

import dataclasses
import itertools
import pathlib
import tempfile

import numpy as np

from keras_kssl import data, pictures, preview
from keras_kssl.pretraining.building import build_policy
from keras_kssl.recipes import Facts, Recipe
from keras_kssl.report import charts, images, wording
from keras_kssl.report.neighbours import choose_queries, find_neighbours
from keras_kssl.report.reading import Missing
from keras_kssl.report.spectrum import spectrum_of

_QUERIES = 8
_NEIGHBOURS = 6
_GALLERY_SIDE = 112
_MAP_SIDE = 64
_FEWEST_FOR_A_MAP = 4
_LISTED_BROKEN = 200
_LARGEST_LEGEND = 20
_COLOURS = (
    "#4e79a7",
    "#f28e2b",
    "#e15759",
    "#76b7b2",
    "#59a14f",
    "#d4ab1e",
    "#b07aa1",
    "#ff9da7",
    "#9c755f",
    "#8a817c",
)
_UNKNOWN = "#9aa0a6"
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
            "meaning": wording.METRICS.get(name.removeprefix("val_"), ""),
            "last": wording.number(values[-1]),
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
        }
        for evaluation in record.evaluations
    ]


def _group(result):
    """Scores and settings of one protocol."""
    settings = [
        *result.settings.items(),
        *((f"{name}, chosen", value) for name, value in result.chosen.items()),
        ("seeds", list(result.seeds)),
    ]
    rows = [
        {
            "score": wording.score_name(score.name),
            "text": over_seeds(score),
            "each": ", ".join(
                wording.score_text(score.name, value) for value in score.values
            ),
            "seeds": len(result.seeds),
        }
        for score in result.scores
    ]
    return {
        "title": result.title,
        "time": wording.duration(result.seconds),
        "rows": rows,
        "settings": [(name, wording.value_text(value)) for name, value in settings],
    }


def over_seeds(score):
    """A score with its deviation over seeds where there are several."""
    std = score.std if len(score.values) > 1 else None
    return wording.score_text(score.name, score.mean, std)


def feature_map(sample, features):
    """Test features in two dimensions, with the images in their places."""
    if len(sample) < _FEWEST_FOR_A_MAP:
        raise Missing(f"A map takes {_FEWEST_FOR_A_MAP} images or more.")
    layout = images.lay_out(pictures.map_features(features))
    colours = _colours(sample)
    points = [
        {"x": x, "y": y, "name": _describe(sample, i), "colour": colours[i]}
        for i, (x, y) in enumerate(layout.places.tolist())
    ]
    for i in layout.shown:
        points[i]["picture"] = images.picture(sample.images[i], _MAP_SIDE)
    legend = {}
    if len(sample.classes) <= _LARGEST_LEGEND:
        legend = {sample.class_of(i): colours[i] for i in _first_of_classes(sample)}
    return {
        "layout": layout,
        "dots": [point for point in points if "picture" not in point],
        "thumbnails": [point for point in points if "picture" in point],
        "legend": legend,
        "has_classes": bool(sample.classes),
    }


def _colours(sample):
    """A colour for each image, that of its class."""
    count = len(sample.classes)
    if count == 0:
        return [_UNKNOWN] * len(sample)
    palette = _COLOURS
    if count > len(_COLOURS):
        palette = [
            f"hsl({360 * i // count} 55% {(45, 62)[i % 2]}%)" for i in range(count)
        ]
    of_class = dict(zip(sample.classes, palette, strict=False))
    return [of_class.get(int(label), _UNKNOWN) for label in sample.labels]


def _first_of_classes(sample):
    return [int(np.argmax(sample.labels == label)) for label in sample.classes]


def _describe(sample, position):
    name = sample.class_of(position)
    file = sample.names[position]
    return file if name is None else f"{name}: {file}"


def gallery(sample, features):
    """Queries with their nearest neighbours, and how many are of the query's class."""
    queries = choose_queries(len(sample), sample.labels, _QUERIES)
    rows, right, judged = [], 0, 0
    for found in find_neighbours(features, queries, _NEIGHBOURS):
        own = sample.class_of(found.query)
        near = []
        for position, similarity in zip(
            found.positions.tolist(), found.similarities.tolist(), strict=True
        ):
            name = sample.class_of(position)
            is_right = None if None in (own, name) else own == name
            judged += is_right is not None
            right += bool(is_right)
            near.append(
                {
                    "picture": images.picture(sample.images[position], _GALLERY_SIDE),
                    "name": _describe(sample, position),
                    "class": name,
                    "is_right": is_right,
                    "similarity": f"{similarity:.2f}",
                }
            )
        query = {
            "picture": images.picture(sample.images[found.query], _GALLERY_SIDE),
            "name": _describe(sample, found.query),
            "class": own,
        }
        rows.append({"query": query, "neighbours": near})
    return {"rows": rows, "right": right, "judged": judged}


def spectra(encoders):
    """Spectra of features overlaid, and their effective ranks in a table.

    Args:
        encoders: name, style of the line and features (n, d) of each.
    """
    lines, rows = [], []
    for name, style, features in encoders:
        spectrum = spectrum_of(features)
        shares = spectrum.shares
        directions = list(range(1, len(shares) + 1))
        lines.append(charts.Line(name, directions, shares.tolist(), style))
        rows.append(
            {
                "name": name,
                "style": style,
                "effective_rank": f"{spectrum.effective_rank:.1f}",
                "width": spectrum.width,
                "half": spectrum.directions_for(0.5),
                "most": spectrum.directions_for(0.9),
                "variance": wording.number(spectrum.eigenvalues.sum()),
            }
        )
    chart = charts.chart(
        "share of variance over direction", lines, "direction", True, 460, 300
    )
    return {"chart": chart, "rows": rows}


def views(record):
    """What augmentation made, as a data URI: the run's own picture, or a new one."""
    path = record.path / "pictures" / "views.png"
    if path.is_file():
        return images.data_uri(path.read_bytes(), "png")
    recipe = record.recipe
    try:
        source = data.open_source(recipe.data, recipe.limit, max_broken=1.0)
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
