"""Defaults of a recipe that follow from the data and the machine."""

import dataclasses
import math

from keras_kssl._checks import check_that
from keras_kssl.recipes.methods import (
    METHOD_DEFAULTS,
    MULTI_CROP,
    SHORT_RUN_DEFAULTS,
    published_crops,
)

_SHORT_RUN = 10_000
_ADAM_LEARNING_RATE = 2e-3
# SFRIK's published weight per pair, 4000 / 8192 at a batch of 2048, times that batch:
# the diagonal of its kernel matrix weighs 1 / batch, and the weight goes with it.
_SFRIK_PAIR_WEIGHT = 1000.0
_LARGEST_BATCH = 256
# Steps and epochs of a run by default, without and with an accelerator.
_STEPS = {False: 3_000, True: 50_000}
_EPOCHS = {False: (5, 100), True: (10, 800)}
_LARGEST_SIZE = {False: 96, True: 224}
_AUTO_CIFAR_STEM_BELOW = 64
# From here on their smallest crops have the 32 pixels that the other stem needs.
_AUTO_CIFAR_STEM_BELOW_WITH_SMALL_CROPS = 75
_MANY_IMAGES = 100_000
# Judgements in a run, each of which costs a pass over the labelled images.
_JUDGEMENTS = 10
_FEWEST_JUDGED_EPOCHS = 5


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the defaults of a recipe depend on: the data and the machine."""

    count: int
    """Number of images."""
    shorter_side: int
    """Median over the images of their shorter side, in pixels."""
    has_accelerator: bool
    """Whether there is a GPU or TPU."""


def chosen_defaults(recipe, facts):
    """Values of the options that a recipe leaves to data and machine, by name."""
    machine = facts.has_accelerator
    batch_size = recipe.batch_size or _default_batch_size(facts.count)
    steps = max(1, facts.count // batch_size)
    epochs = recipe.epochs or _clip(round(_STEPS[machine] / steps), *_EPOCHS[machine])
    is_short = epochs * steps < _SHORT_RUN
    size = recipe.size or min(facts.shorter_side, _LARGEST_SIZE[machine])
    rule = f"a divisor of the batch size, {batch_size}, with two images or more in "
    check_that(
        batch_size % recipe.micro_batches == 0
        and batch_size >= 2 * recipe.micro_batches,
        "recipe",
        "micro_batches",
        rule + "a part",
        recipe.micro_batches,
    )
    augment = recipe.augment or METHOD_DEFAULTS[recipe.method]["augment"]
    crop_min, crop_max = published_crops(augment)
    if is_short and augment not in MULTI_CROP:
        crop_min = 0.2
    crop_max = recipe.crop_max or crop_max
    large = "resnet50" if facts.count >= _MANY_IMAGES else "resnet18"
    base = recipe.base_learning_rate
    defaults = {
        "batch_size": batch_size,
        "epochs": epochs,
        "warmup_epochs": min(10.0, epochs / 10),
        "size": size,
        "encoder": large if machine else "resnet10",
        "optimizer": "adam" if is_short and base is None else "lars",
        "crop_min": min(crop_min, crop_max),
        "crop_max": crop_max,
        "target": not is_short,
        "eval_every": _judgement_interval(recipe, epochs),
        "invariance_weight": _SFRIK_PAIR_WEIGHT / batch_size,
        "weight_per_pair": recipe.invariance_weight is None,
        **METHOD_DEFAULTS[recipe.method],
        **(SHORT_RUN_DEFAULTS[recipe.method] if is_short else {}),
        **(_kernel_defaults(recipe) if recipe.method == "ssl_hsic" else {}),
    }
    usual = defaults.pop("base_learning_rate")
    scaled = (usual if base is None else base) * batch_size / 256
    optimizer = recipe.optimizer or defaults["optimizer"]
    defaults["learning_rate"] = scaled if optimizer == "lars" else _ADAM_LEARNING_RATE
    chosen = {
        name: value for name, value in defaults.items() if getattr(recipe, name) is None
    }
    if recipe.stem == "auto":
        is_small = size < (
            _AUTO_CIFAR_STEM_BELOW_WITH_SMALL_CROPS
            if augment in MULTI_CROP
            else _AUTO_CIFAR_STEM_BELOW
        )
        chosen["stem"] = "cifar" if is_small else "imagenet"
    return chosen


def _kernel_defaults(recipe):
    kernel = recipe.kernel or "imq"
    defaults = {"kernel": kernel, "learn_scale": kernel == "imq"}
    return defaults if kernel == "linear" else {**defaults, "kernel_scale": 1.0}


def _judgement_interval(recipe, epochs):
    if recipe.eval_test is None or epochs < _FEWEST_JUDGED_EPOCHS:
        return 0
    return math.ceil(epochs / _JUDGEMENTS)


def _default_batch_size(count):
    """The largest power of two that makes four steps of an epoch, from 2 to 256."""
    size = _LARGEST_BATCH
    while size > 2 and 4 * size > count:
        size //= 2
    return size


def _clip(value, low, high):
    return max(low, min(value, high))
