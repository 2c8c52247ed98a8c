"""Protocols by name: settings that are the same wherever the name stands."""

import collections
import dataclasses
import time
from collections.abc import Callable

import numpy as np

from keras_kssl._checks import (
    check_choice,
    check_integer,
    check_number,
    check_that,
    message,
)
from keras_kssl.evaluation import dense, trained
from keras_kssl.evaluation.few_shot import few_shot_accuracy
from keras_kssl.evaluation.knn import knn_accuracy
from keras_kssl.evaluation.linear import LEARNING_RATES, linear_accuracy
from keras_kssl.evaluation.logistic import STRENGTHS, logistic_accuracy
from keras_kssl.evaluation.task import DenseTask, Task

SEEDS = (0, 1, 2)
# Scores in the line that people read; the classes of a dense task may be many.
_SHOWN = 6


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A way to judge an encoder.

    Attributes:
        title: what people read.
        settings: values by name; None for one that is left out.
        run: function of the task, the settings and a seed that returns `scores` by
            name, numbers or lists of them, and what was `chosen`.
        is_random: whether the seed makes a difference.
        is_dense: whether it takes `evaluation.dense` sets.
    """

    title: str
    settings: dict
    run: Callable
    is_random: bool = True
    is_dense: bool = False


def evaluate(
    encoder,
    train,
    test,
    protocols=("knn", "linear"),
    validation=None,
    seeds=SEEDS,
    changes=None,
    metric="top_1",
    size=None,
    batch_size=256,
    say=print,
    record=lambda result: None,
):
    """Judges an encoder by protocols, on data that chose nothing.

    Protocols: `knn`, `linear`, `linear-sfrik`, `linear-hsic`, `logreg`, `few-shot`,
    `finetune-1`, `finetune-10`, `finetune-100`, and on dense sets `segmentation`,
    `detection`, `depth`; see docs/protocols.md. Hyper-parameters
    are chosen on the validation images, or on a part of the training images.

    Args:
        encoder, train, test, validation, metric, size, batch_size: as in `Task`.
        protocols: names; each runs once for each seed, if that makes a difference.
        seeds: integers of at least 0. Default 0, 1, 2.
        changes: settings other than the pinned ones, such as
            `{"finetune-100": {"steps": 500}}`; results name them.
        say: function that prints a line.
        record: function that is given each result as soon as it is there.

    Returns:
        A list with a dictionary for each protocol: `protocol`, `title`, `settings`,
        `changed` (names of settings), `metric`, `seeds`, `scores` (by name: `mean`,
        `std` and `values`), `chosen` (by name: a list) and `seconds`.

    Example:

    >>> import keras_kssl as kssl
    >>> images = kssl.data.open_source("builtin:digits:train", limit=60)
    >>> encoder = kssl.models.ResNet(10, width=0.125, stem="cifar", seed=0)
    >>> changes = {"knn": {"k": 1}}
    >>> (result,) = evaluate(encoder, images, images, ["knn"], changes=changes)
    knn, top-1, k=1 (changed), temperature=0.07: knn_1 100.0%; ... s
    >>> result["scores"]["knn_1"]["mean"]
    1.0
    """
    changes = changes or {}
    plan = [(name, settings_of(name, changes.get(name, {}))) for name in protocols]
    for name in changes:
        check_choice("evaluate", "changes", name, [name for name, _ in plan])
    check_that(len(plan) > 0, "evaluate", "protocols", "one or more", protocols)
    seeds = [check_integer("evaluate", "seeds", s, minimum=0) for s in np.ravel(seeds)]
    check_that(len(seeds) > 0, "evaluate", "seeds", "one or more", seeds)
    are_dense = [PROTOCOLS[name].is_dense for name, _ in plan]
    rule = "either of classification or dense: they take other data"
    check_that(len(set(are_dense)) == 1, "evaluate", "protocols", rule, protocols)
    if are_dense[0]:
        task = DenseTask(encoder, train, test)
    else:
        task = Task(encoder, train, test, validation, metric, size, batch_size)
    results = []
    for name, settings in plan:
        result = _run(task, name, settings, seeds)
        result["changed"] = sorted(changes.get(name, {}))
        results.append(result)
        record(result)
        say(describe_result(result))
    return results


def describe_result(result):
    """One line that people read: settings, then mean and deviation of the scores."""
    settings = ", ".join(
        f"{name}={_short(value)}" + " (changed)" * (name in result["changed"])
        for name, value in result["settings"].items()
        if value is not None
    )
    parts = [_score(*item) for item in list(result["scores"].items())[:_SHOWN]]
    more = len(result["scores"]) - len(parts)
    parts += [f"{more} more"] * bool(more)
    chosen = ", ".join(
        f"{name} {_short(values)}" for name, values in result["chosen"].items()
    )
    seeds = f"; seeds {_short(result['seeds'])}" if result["seeds"] else ""
    metric = f", {result['metric'].replace('_', '-')}" if result["metric"] else ""
    return (
        f"{result['protocol']}{metric}, {settings}: {', '.join(parts)}{seeds}"
        f"{'; chosen: ' * bool(chosen)}{chosen}; {result['seconds']:.1f} s"
    )


def _score(name, score):
    """A share in per cent, an error (`rms`, `rel`) as it is."""
    factor, unit = (1.0, "") if name in ("rms", "rel") else (100.0, "%")
    digits = 1 if unit else 3
    deviation = f" ± {factor * score['std']:.{digits}f}" * (len(score["values"]) > 1)
    return f"{name} {factor * score['mean']:.{digits}f}{unit}{deviation}"


def _run(task, name, settings, seeds):
    protocol = PROTOCOLS[name]
    used = seeds if protocol.is_random else seeds[:1]
    task.protocol = name
    scores, chosen = collections.defaultdict(list), collections.defaultdict(list)
    began = time.perf_counter()
    for seed in used:
        found = protocol.run(task, settings, seed)
        for key, value in found["scores"].items():
            scores[key] += np.ravel(value).tolist()
        for key, value in found.get("chosen", {}).items():
            chosen[key].append(value)
    return {
        "protocol": name,
        "title": protocol.title,
        "settings": settings,
        "metric": task.metric,
        "seeds": used if protocol.is_random else [],
        "scores": {key: summary_of(values) for key, values in scores.items()},
        "chosen": dict(chosen),
        "seconds": time.perf_counter() - began,
    }


def summary_of(values):
    """Mean, standard deviation (that of a sample; 0 of one value) and the values."""
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return {
        "mean": float(np.mean(values)),
        "std": float(deviation),
        "values": values,
    }


def settings_of(name, changes):
    """The settings of a protocol, with changes."""
    check_choice("evaluate", "protocols", name, PROTOCOLS)
    settings = dict(PROTOCOLS[name].settings)
    caller = f"evaluate {name}"
    for setting, value in changes.items():
        check_choice(caller, "setting", setting, settings)
        pinned = settings[setting]
        if isinstance(pinned, bool):
            if not isinstance(value, bool):
                raise TypeError(message(caller, setting, "true or false", value))
        elif isinstance(pinned, tuple):
            numbers = value if isinstance(value, list | tuple) else [value]
            check_that(len(numbers) > 0, caller, setting, "one or more", value)
            for number in numbers:
                _check_like(caller, setting, number, pinned[0])
        else:
            _check_like(caller, setting, value, pinned)
        settings[setting] = value
    return settings


def _check_like(caller, setting, value, pinned):
    """Checks a setting before features are extracted; its function knows its range."""
    if isinstance(pinned, int):
        check_integer(caller, setting, value, minimum=1)
    elif isinstance(pinned, float):
        check_number(caller, setting, value, minimum=0.0)


def _short(value):
    if isinstance(value, list | tuple):
        if len(value) > 8:
            return f"{len(value)} from {value[0]:.3g} to {value[-1]:.3g}"
        return "/".join(_short(part) for part in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _knn(task, settings, seed):
    del seed
    found = knn_accuracy(*task.features(), **settings, metric=task.metric)
    return {"scores": found}


def _linear(task, settings, seed):
    found = linear_accuracy(
        *task.features(),
        validation=task.validation_features(),
        seed=seed,
        metric=task.metric,
        **settings,
    )
    return {"scores": {"linear": found.pop("linear")}, "chosen": found}


def _logreg(task, settings, seed):
    found = logistic_accuracy(
        *task.features(),
        validation=task.validation_features(),
        seed=seed,
        metric=task.metric,
        **settings,
    )
    return {"scores": {"logreg": found.pop("logreg")}, "chosen": found}


def _few_shot(task, settings, seed):
    found = few_shot_accuracy(
        *task.features(), seed=seed, metric=task.metric, **settings
    )
    return {"scores": found}


def _dense(function, title, **settings):
    def run(task, settings, seed):
        found = function(task.encoder, task.train, task.test, seed=seed, **settings)
        return {"scores": found}

    return Protocol(title, {**settings, "frozen": False}, run, is_dense=True)


def _part(percent, encoder_learning_rate, head_learning_rate):
    settings = {
        "fraction": percent / 100,
        "files": None,
        "epochs": 20,
        "batch_size": 256,
        "encoder_learning_rate": encoder_learning_rate,
        "head_learning_rate": head_learning_rate,
    }
    title = f"fine-tuning on {percent}% of the labels"
    return Protocol(title, settings, trained.fine_tune_part)


PROTOCOLS = {
    "knn": Protocol(
        "weighted nearest neighbours",
        {"k": (10, 20, 100, 200), "temperature": 0.07},
        _knn,
        is_random=False,
    ),
    "linear": Protocol(
        "linear classifier on cached features, its learning rate chosen",
        {"epochs": 100, "learning_rates": LEARNING_RATES},
        _linear,
    ),
    "linear-sfrik": Protocol(
        "linear classifier on augmented images, as SFRIK",
        {
            "epochs": 100,
            "batch_size": 256,
            "learning_rate": 0.4,
            "weight_decay": 1e-6,
        },
        trained.linear_as_sfrik,
    ),
    "linear-hsic": Protocol(
        "linear classifier on augmented images, as SSL-HSIC",
        {
            "epochs": 90,
            "batch_size": 1024,
            "base_learning_rate": 0.5,
            "warmup_steps": 100,
            "average_decay": 0.999,
        },
        trained.linear_as_hsic,
    ),
    "logreg": Protocol(
        "logistic regression, its strength chosen",
        {"strengths": STRENGTHS},
        _logreg,
    ),
    "few-shot": Protocol(
        "logistic regression on a few images per class",
        {"shots": (1, 5, 10), "draws": 20},
        _few_shot,
    ),
    "finetune-1": _part(1, 0.004, 1.0),
    "finetune-10": _part(10, 0.02, 0.1),
    "finetune-100": Protocol(
        "fine-tuning on all labels, its learning rate and weight decay chosen",
        {
            "steps": 20_000,
            "batch_size": 256,
            "learning_rates": tuple(np.logspace(-4, -1, 7).tolist()),
            "weight_decays": (0.0, *np.logspace(-6, -3, 7).tolist()),
        },
        trained.fine_tune_whole,
    ),
    "segmentation": _dense(
        dense.segmentation,
        "semantic segmentation, fine-tuned",
        epochs=45,
        batch_size=16,
        learning_rate=0.01,
        size=513,
    ),
    "detection": _dense(
        dense.detection,
        "object detection by a small head, fine-tuned",
        epochs=50,
        batch_size=16,
        learning_rate=2e-4,
        size=512,
    ),
    "depth": _dense(
        dense.depth,
        "depth, fine-tuned",
        epochs=100,
        batch_size=16,
        learning_rate=0.01,
        size=(240, 320),
    ),
}
