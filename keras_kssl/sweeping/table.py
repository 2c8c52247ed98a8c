"""What has come of a sweep: a table, the runs behind it, and a picture."""

import csv
import dataclasses
import io
import json

import numpy as np

from keras_kssl import pictures
from keras_kssl._files import write_whole
from keras_kssl.evaluation.protocols import summary_of
from keras_kssl.recipes import Recipe
from keras_kssl.report.wording import score_name

# The score of a protocol with several that stands in the table.
_HEADLINES = ("knn_20",)
_FACTS = ("seconds_per_step", "peak_memory", "peak_device_memory", "minutes")


@dataclasses.dataclass
class Line:
    """One row of the table.

    Attributes:
        name: what people call it.
        rate: learning rate of its runs, as people read it.
        tried: validation score for each learning rate that was tried.
        runs: what each run has found: its `seed`, `folder`, `scores` by protocol and
            name, and facts by the names in `_FACTS`, `None` where not known.
        failed: sentences on what is missing.
    """

    name: str
    rate: str = ""
    tried: dict = dataclasses.field(default_factory=dict)
    runs: list = dataclasses.field(default_factory=list)
    failed: list = dataclasses.field(default_factory=list)

    def add(self, seed, folder, results):
        """Adds what a folder holds of a run, or of a baseline."""
        scores = {
            result["protocol"]: {k: s["mean"] for k, s in result["scores"].items()}
            for result in results
        }
        run = {"seed": seed, "folder": str(folder), "scores": scores}
        self.runs.append(run | _facts(folder))

    def values(self, protocol, name=None):
        """A score of all runs that have it; by default the one that stands for it."""
        found = [run["scores"].get(protocol) for run in self.runs]
        found = [scores for scores in found if scores]
        return [scores[name or headline(scores)] for scores in found]

    def facts(self, name):
        return [run[name] for run in self.runs if run[name] is not None]


def headline(scores):
    """Name of the score that stands for a protocol: k = 20 of kNN, else the last."""
    return next((name for name in _HEADLINES if name in scores), list(scores)[-1])


def resolved_rate(folder):
    """The peak learning rate of a run that has begun, as people read it."""
    return f"{Recipe.read(folder / 'recipe.json').learning_rate:g}"


def seconds_of(folder):
    """Time that a run took that has ended; `None` for others."""
    path = folder / "summary.json"
    return json.loads(path.read_text())["seconds"] if path.is_file() else None


def describe(lines, plan):
    """Markdown: the table, how rates were chosen, and what failed."""
    names = {p: _title(lines, p) for p in plan.protocols}
    titles = ["row", "learning rate", "tried", "seeds", *names.values()]
    titles += ["s / step", "memory, MB", "minutes"]
    if any(line.facts("peak_device_memory") for line in lines):
        titles.insert(-1, "device, MB")
    text = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for line in lines:
        cells = [line.name.replace("|", "\\|"), line.rate]
        cells.append(str(len(line.tried)) if line.tried else "")
        cells.append(", ".join(str(run["seed"]) for run in line.runs))
        cells += [_cell(line.values(p), 100, 1) for p in plan.protocols]
        cells.append(_cell(line.facts("seconds_per_step"), 1, 3))
        cells.append(_largest(line.facts("peak_memory")))
        if "device, MB" in titles:
            cells.append(_largest(line.facts("peak_device_memory")))
        cells.append(_cell(line.facts("minutes"), 1, 1))
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join([*text, "", *_notes(lines, plan)]) + "\n"


def write(lines, plan, out):
    """Writes table.md, table.csv and runs.csv."""
    write_whole(out / "table.md", describe(lines, plan))
    write_whole(out / "table.csv", _table_csv(lines))
    write_whole(out / "runs.csv", _runs_csv(lines))


def draw(lines, plan, out):
    """Draws scores.png, where there are any scores."""
    scores = {}
    for protocol in plan.protocols:
        panel = {line.name: line.values(protocol) for line in lines}
        panel = {n: 100 * np.array(values) for n, values in panel.items() if values}
        if panel:
            scores[f"{_title(lines, protocol)}, %"] = panel
    if scores:
        choices = {
            line.name: [(rate, 100 * score) for rate, score in line.tried.items()]
            for line in lines
            if len(line.tried) > 1
        }
        pictures.draw_scores(scores, choices, out / "scores.png")


def _facts(folder):
    """Time and memory of a run; nothing of a baseline, which has no training."""
    path = folder / "summary.json"
    if not path.is_file():
        return dict.fromkeys(_FACTS)
    summary = json.loads(path.read_text(encoding="utf-8"))
    rate = summary["images_per_second"]
    batch_size = Recipe.read(folder / "recipe.json").batch_size
    return {
        "seconds_per_step": batch_size / rate if rate else None,
        "peak_memory": summary["peak_memory"],
        "peak_device_memory": summary["peak_device_memory"],
        "minutes": summary["seconds"] / 60,
    }


def _title(lines, protocol):
    for line in lines:
        for run in line.runs:
            if run["scores"].get(protocol):
                return score_name(headline(run["scores"][protocol]))
    return protocol


def _cell(values, factor, digits):
    if not values:
        return ""
    summary = summary_of([factor * value for value in values])
    deviation = f" ± {summary['std']:.{digits}f}" * (len(values) > 1)
    return f"{summary['mean']:.{digits}f}{deviation}"


def _largest(values):
    return f"{max(values) / 1e6:.0f}" if values else ""


def _notes(lines, plan):
    notes = [
        "Accuracies in per cent, of the last step, on the test images; mean and "
        "standard deviation over the seeds of pretraining. Memory is the most that a "
        "process has held, of all seeds the largest; minutes are those of pretraining.",
    ]
    if any(line.tried for line in lines):
        where = plan.validation or "a tenth of the judges' training images, held out"
        notes.append(
            f"Learning rates were chosen by {plan.choose_by} on {where}, with seed "
            f"{plan.tuning_seed}; no test image had a part in it:"
        )
        for line in lines:
            scores = [f"{rate:g}: {100 * s:.1f}" for rate, s in line.tried.items()]
            notes += [f"- {line.name}: {', '.join(scores)}"] * bool(scores)
    for line in lines:
        notes += [f"{line.name} failed: {sentence}" for sentence in line.failed]
    return notes


def _score_keys(lines):
    """All protocols and scores, in the order in which they were first found."""
    return list(
        dict.fromkeys(
            (protocol, name)
            for line in lines
            for run in line.runs
            for protocol, scores in run["scores"].items()
            for name in scores
        )
    )


def _table_csv(lines):
    keys = _score_keys(lines)
    columns = [part for _, name in keys for part in (name, f"{name}_std")]
    rows = [["row", "learning_rate", "tried", "seeds", *columns, *_FACTS, "failed"]]
    for line in lines:
        row = [line.name, line.rate, len(line.tried)]
        row.append(" ".join(str(run["seed"]) for run in line.runs))
        for protocol, name in keys:
            values = line.values(protocol, name)
            summary = summary_of(values) if values else {"mean": "", "std": ""}
            row += [summary["mean"], summary["std"]]
        for name in _FACTS:
            values = line.facts(name)
            middle = max if "memory" in name else np.mean
            row.append(middle(values) if values else "")
        rows.append([*row, " ".join(line.failed)])
    return _csv(rows)


def _runs_csv(lines):
    keys = _score_keys(lines)
    names = [name for _, name in keys]
    rows = [["row", "learning_rate", "seed", *names, *_FACTS, "folder"]]
    for line in lines:
        for run in line.runs:
            scores = [run["scores"].get(p, {}).get(name, "") for p, name in keys]
            facts = ["" if run[name] is None else run[name] for name in _FACTS]
            rows.append(
                [line.name, line.rate, run["seed"], *scores, *facts, run["folder"]]
            )
    return _csv(rows)


def _csv(rows):
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
