"""What `kssl evaluate` leaves in a JSON file."""

import dataclasses

_FORMAT = 1
# What marks a JSON file as an evaluation, of today's or of another format.
_MARKS = ("results", "accuracies")


@dataclasses.dataclass(frozen=True)
class Score:
    """One score of a protocol, over seeds."""

    name: str
    mean: float
    std: float
    values: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Result:
    """What one protocol has measured, and how.

    `metric` is how images are counted, "" where they are not; `changed` names the
    settings that are not the protocol's own; `seeds` is empty where nothing is random.
    """

    title: str
    metric: str
    settings: dict
    seeds: tuple
    scores: tuple[Score, ...]
    chosen: dict
    changed: tuple[str, ...]
    seconds: float


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A file that `kssl evaluate` has written."""

    file: str
    train: str
    test: str
    date: str
    versions: dict
    results: tuple[Result, ...]


def is_evaluation(value):
    """Whether the content of a JSON file is an evaluation, of any format."""
    return isinstance(value, dict) and not value.keys().isdisjoint(_MARKS)


def parse_evaluation(name, value):
    """The `Evaluation` that a JSON file holds.

    Args:
        name: of the file.
        value: its content.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: for another format.
    """
    if value["format"] != _FORMAT:
        raise ValueError("another format")
    return Evaluation(
        file=name,
        train=str(value["train"]),
        test=str(value["test"]),
        date=str(value["date"]),
        versions=dict(value.get("versions") or {}),
        results=tuple(_result(result) for result in value["results"]),
    )


def _result(value):
    scores = tuple(
        Score(
            str(name),
            float(score["mean"]),
            float(score["std"]),
            tuple(float(one) for one in score["values"]),
        )
        for name, score in value["scores"].items()
    )
    return Result(
        title=str(value["title"]),
        metric=str(value.get("metric") or ""),
        settings=dict(value["settings"]),
        seeds=tuple(value["seeds"]),
        scores=scores,
        chosen=dict(value.get("chosen") or {}),
        changed=tuple(str(name) for name in value.get("changed", ())),
        seconds=float(value["seconds"]),
    )
