"""Several runs side by side."""

import dataclasses

from keras_kssl.recipes import Recipe
from keras_kssl.report import charts, wording
from keras_kssl.report.parts import over_seeds, remarks
from keras_kssl.report.reading import Missing


def letters(records):
    """A short name for each run: A, B, C."""
    return [chr(ord("A") + i) for i in range(len(records))]


def differing_options(records):
    """Options that are not the same in all runs: (name, values) pairs."""
    rows = []
    for field in dataclasses.fields(Recipe):
        values = [getattr(record.recipe, field.name) for record in records]
        if any(value != values[0] for value in values):
            rows.append((field.name, [wording.value_text(value) for value in values]))
    return rows


def accuracies(records):
    """Accuracies that the runs have measured themselves: (stage, score, texts).

    A text is `None` where the run has no such accuracy.
    """
    found = [record.summary.get("accuracies") or {} for record in records]
    keys = dict.fromkeys(
        (stage, name)
        for stages in found
        for stage, scores in stages.items()
        for name in scores
    )
    if not keys:
        raise Missing(
            "None of the runs has measured an accuracy. Measure their encoders:",
            records[0].evaluate_command,
        )
    return [
        (
            wording.stage_name(stage),
            wording.score_name(name),
            [_accuracy(stages, stage, name) for stages in found],
        )
        for stage, name in keys
    ]


def _accuracy(stages, stage, name):
    value = stages.get(stage, {}).get(name)
    return value if value is None else wording.score_text(name, value)


def evaluations(records):
    """Scores of `kssl evaluate` in groups: title, remarks, texts by score.

    A group holds what was measured by one protocol with equal settings on the same
    images: the rest cannot be compared. A text is `None` where a run has no such score.
    """
    groups = {}
    for position, record in enumerate(records):
        for evaluation in record.evaluations:
            for result in evaluation.results:
                settings = repr(sorted(result.settings.items()))
                sets = (evaluation.test, evaluation.train)
                key = (result.title, *sets, settings, result.metric)
                group = groups.setdefault(key, _group(result, evaluation.test))
                for score in result.scores:
                    name = wording.score_name(score.name)
                    texts = group["rows"].setdefault(name, [None] * len(records))
                    texts[position] = over_seeds(score)
    if not groups:
        raise Missing(
            "No evaluation lies in the folders of the runs. Measure their encoders:",
            records[0].evaluate_command,
        )
    return list(groups.values())


def _group(result, test):
    return {"title": result.title, "remarks": [test, *remarks(result)], "rows": {}}


def curves(records):
    """A panel for each metric with the lines of all runs that have it."""
    # The loss first, then by name, as in the report of one run.
    names = {name for record in records for name in record.metrics}
    if not names:
        raise Missing("None of the runs has ended an epoch: there are no numbers yet.")
    panels = []
    for name in sorted(names, key=lambda name: (name != "loss", name)):
        lines = [
            charts.Line(letter, record.epochs, record.metrics[name], style)
            for style, (letter, record) in enumerate(
                zip(letters(records), records, strict=True)
            )
            if name in record.metrics
        ]
        panels.append(
            {
                "name": name,
                "meaning": wording.meaning(name),
                "runs": [
                    (line.name, line.style, wording.last_number(line.y))
                    for line in lines
                ],
                "chart": charts.chart(name, lines, "epoch"),
            }
        )
    return panels
