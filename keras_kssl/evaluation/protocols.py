"""Protocols by name: settings that are the same wherever the name stands."""

import collections
import dataclasses
import time
from collections.abc import Callable

import numpy as np

from keras_kssl._checks import check_choice, check_integer, check_that, message
from keras_kssl.data import labels_like, open_source
from keras_kssl.evaluation import trained
from keras_kssl.evaluation.features import check_classes_seen, extract_features
from keras_kssl.evaluation.few_shot import few_shot_accuracy
from keras_kssl.evaluation.knn import knn_accuracy
from keras_kssl.evaluation.linear import LEARNING_RATES, linear_accuracy
from keras_kssl.evaluation.logistic import STRENGTHS, logistic_accuracy
from keras_kssl.evaluation.metrics import METRICS
from keras_kssl.progress import ProgressBar

SEEDS = (0, 1, 2)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A way to judge an encoder.

    Attributes:
        title: what people read.
        settings: values by name; None for one that is left out.
        run: function of the task, the settings and a seed that returns `scores` by
            name, numbers or lists of them, and what was `chosen`.
        is_random: whether the seed makes a difference.
    """

    title: str
    settings: dict
    run: Callable
    is_random: bool = True


class Task:
    """An encoder with labelled images to learn from and to be tested on.

    Features are extracted when they are first asked for, once.

    Args:
        encoder: Keras model from images to vectors or feature maps.
        train, test, validation: labelled data, anything `data.open_source` takes.
        metric: as in `evaluation.score_predictions`.
        size: side of the images that the encoder sees. Default: that of images of one
            size, or what the encoder was built for.
        batch_size: images per call of the encoder. Default 256.

    Raises:
        ValueError: for data without labels, and for classes of the test images that
            the training images lack.
    """

    def __init__(
        self,
        encoder,
        train,
        test,
        validation=None,
        metric="top_1",
        size=None,
        batch_size=256,
    ):
        caller = "evaluate"
        check_choice(caller, "metric", metric, METRICS)
        self.encoder, self.metric, self.batch_size = encoder, metric, batch_size
        check_integer(caller, "batch_size", batch_size, minimum=1)
        self.train = _labelled(caller, "train", train)
        self.test = _labelled(caller, "test", test)
        self.validation = None
        if validation is not None:
            self.validation = _labelled(caller, "validation", validation)
        self.num_classes = self.train.num_classes
        for source in (self.test, self.validation):
            if source is not None:
                labels = labels_like(source, self.train, caller=caller)
                if labels.ndim == 1:
                    check_classes_seen(caller, self.train.labels, labels)
        is_multi_label = self.train.labels.ndim == 2
        rule = "map_11 for images of several classes, and for no others"
        check_that(
            is_multi_label == (metric == "map_11"), caller, "metric", rule, metric
        )
        self.size = self._find_size(caller, size)
        self.protocol = None
        self._features = {}

    def features(self):
        """Features and labels: train_x, train_y, test_x, test_y."""
        return *self._of("train"), *self._of("test")

    def validation_features(self):
        """Features and labels of the validation images, or `None` without them."""
        return None if self.validation is None else self._of("validation")

    def numbers(self, source, labels):
        """Labels of a source in the class numbers of the training images."""
        return labels_like(source, self.train, labels, "evaluate")

    def callbacks(self, batch_size):
        """Callbacks that show people how far a training is."""
        return [ProgressBar(batch_size, say=lambda line: None)]

    def _of(self, name):
        if name not in self._features:
            source = getattr(self, name)
            x, y = extract_features(self.encoder, source, self.batch_size, self.size)
            self._features[name] = x, self.numbers(source, y)
        return self._features[name]

    def _find_size(self, caller, size):
        height, width, _ = self.train.image_shape
        if height is not None:
            check_that(
                height == width,
                caller,
                "train",
                "square images, or files of many sizes",
                self.train,
            )
            return height
        shape = getattr(self.encoder, "input_shape", None) or (None, None)
        size = size or shape[1]
        remedy = "Take the size of the views that it was trained on."
        rule = "given for images of many sizes and an encoder that takes any"
        check_that(size is not None, caller, "size", rule, size, remedy)
        return check_integer(caller, "size", size, minimum=1)


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
    `finetune-1`, `finetune-10`, `finetune-100`; see docs/protocols.md. Hyper-parameters
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
    parts = []
    for name, score in result["scores"].items():
        deviation = f" ± {100 * score['std']:.1f}" if len(score["values"]) > 1 else ""
        parts.append(f"{name} {100 * score['mean']:.1f}%{deviation}")
    chosen = ", ".join(
        f"{name} {_short(values)}" for name, values in result["chosen"].items()
    )
    seeds = f"; seeds {_short(result['seeds'])}" if result["seeds"] else ""
    metric = result["metric"].replace("_", "-")
    return (
        f"{result['protocol']}, {metric}, {settings}: {', '.join(parts)}{seeds}"
        f"{'; chosen: ' * bool(chosen)}{chosen}; {result['seconds']:.1f} s"
    )


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
    for setting, value in changes.items():
        check_choice(f"evaluate {name}", "setting", setting, settings)
        pinned = settings[setting]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if isinstance(pinned, int):
            check_integer(f"evaluate {name}", setting, value, minimum=1)
        elif isinstance(pinned, float | tuple) and not is_number:
            numbers = isinstance(value, list | tuple) and isinstance(pinned, tuple)
            if not numbers:
                rule = "a number" + " or several" * isinstance(pinned, tuple)
                raise TypeError(message(f"evaluate {name}", setting, rule, value))
        settings[setting] = value
    return settings


def _short(value):
    if isinstance(value, list | tuple):
        if len(value) > 8:
            return f"{len(value)} from {value[0]:.3g} to {value[-1]:.3g}"
        return "/".join(_short(part) for part in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _labelled(caller, argument, data):
    source = open_source(data)
    if source.labels is None:
        raise ValueError(
            f"{caller}: `{argument}` must have labels. Received: "
            f"{argument}={source!r}. Pass (images, labels), class folders, or a file "
            "with labels."
        )
    if source.labels.ndim == 2:
        return source
    unknown = int(np.sum(source.labels < 0))
    check_that(
        unknown == 0,
        caller,
        argument,
        "of known labels",
        source,
        f"{unknown} are not known. Leave those images out.",
    )
    return source


def _knn(task, settings, seed):
    del seed
    found = knn_accuracy(*task.features(), **settings, metric=task.metric)
    return {"scores": found}


def _linear(task, settings, seed):
    found = linear_accuracy(*task.features(), seed=seed, metric=task.metric, **settings)
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
}
