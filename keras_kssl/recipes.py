"""Recipes: a whole pretraining run as plain data, for Python, files and flags alike.

This file loads no deep-learning framework, so that the command line answers at once.
"""

import dataclasses
import json
import pathlib
from typing import Literal

from keras_kssl._checks import check_choice, check_integer, check_number, check_that

Method = Literal["ssl_hsic", "sfrik"]
Encoder = Literal[
    "resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"
]

# What each method's authors used; see the docstrings of the models. Learning rates are
# per 256 images of the batch, for LARS.
_METHOD_DEFAULTS = {
    "ssl_hsic": {
        "augment": "byol",
        "base_learning_rate": 0.4,
        "final_fraction": 0.0,
        "average_decay": 0.999,
        "projector": (4096, 256),
    },
    "sfrik": {
        "augment": "vicreg",
        "base_learning_rate": 1.2,
        "final_fraction": 0.001,
        "average_decay": 0.0,
        "projector": (8192, 8192, 8192),
    },
}
_ADAM_LEARNING_RATE = 2e-3


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What to pretrain on what and how; None stands for the method's own default."""

    method: Method = "ssl_hsic"
    """How to train: ssl_hsic (with target network) or sfrik."""
    data: str = "builtin:digits"
    """Images to train on, without need of labels: npz:FILE.npz or builtin:NAME."""
    limit: int | None = None
    """Use the first so many images only."""
    eval_train: str | None = None
    """Labelled images that the judges (kNN, linear probe) learn from."""
    eval_test: str | None = None
    """Labelled images on which accuracy is measured, before and after."""

    encoder: Encoder = "resnet18"
    """Architecture of the encoder."""
    width: float = 1.0
    """Factor on all channel counts of the encoder."""
    stem: Literal["auto", "imagenet", "cifar"] = "auto"
    """First layers: imagenet (shrinks by 4), cifar (keeps the size, for small images);
    auto takes cifar for views below 64 pixels."""
    projector: tuple[int, ...] | None = None
    """Widths of the projector's layers, the last one that of the embeddings."""

    augment: Literal["byol", "vicreg", "simclr", "auh"] | None = None
    """Policy that makes two views of an image."""
    size: int | None = None
    """Side of the views in pixels; default: the shorter side of the images."""
    crop_min: float = 0.08
    """Smallest crop, as a share of the image's area."""
    crop_max: float = 1.0
    """Largest crop, likewise."""
    flip: float = 0.5
    """Probability of mirroring left and right; 0 where a mirror image means something
    else, as in writing."""

    epochs: int = 100
    """Passes over the images."""
    batch_size: int = 256
    """Images per step; the objectives compare all images of a batch."""
    optimizer: Literal["lars", "adam"] = "lars"
    """LARS as in the papers; Adam suits small encoders and short runs."""
    learning_rate: float | None = None
    """Peak learning rate, used as it is. Default: the method's, times batch size / 256,
    for lars; 0.002 for adam."""
    warmup_epochs: float | None = None
    """Epochs over which the learning rate rises. Default: 10, or a tenth of a shorter
    run."""
    final_fraction: float | None = None
    """Last learning rate as a share of the peak, reached along a cosine."""
    weight_decay: float = 1e-6
    """Weight decay of lars; adam has none."""

    regularizer_weight: float = 3.0
    """ssl_hsic: weight of sqrt(HSIC(Z, Z))."""
    target: bool = True
    """ssl_hsic: whether there is a target network and a predictor."""
    target_decay: float = 0.99
    """ssl_hsic: decay of the target network at the start; it rises to 1 by a cosine."""
    normalize_output: bool = True
    """ssl_hsic: batch normalisation of the heads' outputs."""
    estimator: Literal["auto", "gram", "random_features"] = "auto"
    """ssl_hsic: exact Gram matrix or random features; auto takes the cheaper."""
    num_features: int = 512
    """ssl_hsic: random features per draw."""

    invariance_weight: float = 4000.0
    """sfrik: weight of the distance between views."""
    weight_per_pair: bool = False
    """sfrik: whether that weight is per pair instead of per coordinate."""
    coefficients: tuple[float, ...] = (1.0, 40.0, 40.0)
    """sfrik: Legendre coefficients of the kernel."""

    average_decay: float | None = None
    """Decay of the average of the encoder's weights that is evaluated and exported;
    0 for the weights themselves."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Arithmetic of encoder and heads; the objectives always use float32."""
    jit_compile: bool | None = None
    """Whether to compile the step by XLA. Default: on JAX yes; on TensorFlow where
    there is a GPU or TPU."""
    seed: int = 0
    """The one seed: weights, order, augmentation, random features, judges."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
            choices = getattr(field.type, "__args__", None)
            if getattr(field.type, "__origin__", None) is Literal:
                check_choice("recipe", field.name, value, choices)
        self._check()

    def _check(self):
        if self.augment is not None:
            choices = ("byol", "vicreg", "simclr", "auh")
            check_choice("recipe", "augment", self.augment, choices)
        for name, minimum in (
            ("limit", 2),
            ("size", 1),
            ("epochs", 1),
            ("num_features", 1),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if value is not None or name in ("epochs", "num_features", "seed"):
                check_integer("recipe", name, value, minimum=minimum)
        check_integer("recipe", "batch_size", self.batch_size)
        check_that(
            self.batch_size >= 2,
            "recipe",
            "batch_size",
            "at least 2",
            self.batch_size,
            "The objectives compare the images of a batch with each other.",
        )
        for name, minimum, maximum in (
            ("width", 0.0, float("inf")),
            ("crop_max", 0.0, 1.0),
            ("crop_min", 0.0, self.crop_max),
            ("learning_rate", 0.0, float("inf")),
        ):
            value = getattr(self, name)
            if value is not None:
                check_number("recipe", name, value, minimum, maximum)
                check_that(value > 0, "recipe", name, "above 0", value)
        for name, maximum in (
            ("warmup_epochs", self.epochs),
            ("final_fraction", 1.0),
            ("flip", 1.0),
            ("weight_decay", float("inf")),
            ("regularizer_weight", float("inf")),
            ("target_decay", 1.0),
            ("invariance_weight", float("inf")),
            ("average_decay", 1.0),
        ):
            if getattr(self, name) is not None:
                check_number("recipe", name, getattr(self, name), 0.0, maximum)
        if self.projector is not None:
            rule = "one width or more, each at least 2"
            check_that(
                len(self.projector) > 0 and min(self.projector) >= 2,
                "recipe",
                "projector",
                rule,
                self.projector,
            )
        check_that(
            (self.eval_train is None) or self.eval_test is not None,
            "recipe",
            "eval_test",
            "given where `eval_train` is",
            self.eval_test,
        )

    def resolved(self):
        """The same recipe with every default that the method sets written out."""
        defaults = dict(_METHOD_DEFAULTS[self.method])
        scaled = defaults.pop("base_learning_rate") * self.batch_size / 256
        defaults["learning_rate"] = (
            scaled if self.optimizer == "lars" else _ADAM_LEARNING_RATE
        )
        defaults["warmup_epochs"] = min(10.0, self.epochs / 10)
        chosen = {
            name: value
            for name, value in defaults.items()
            if getattr(self, name) is None
        }
        return dataclasses.replace(self, **chosen)

    def to_json(self):
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text):
        """A recipe from what `to_json` returned; unknown names are refused."""
        values = json.loads(text)
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            check_choice("recipe", "option", name, known)
        return cls(**values)

    @classmethod
    def read(cls, path):
        return cls.from_json(pathlib.Path(path).read_text())


def quickstart(method, seed=0):
    """The recipe of `kssl quickstart`: minutes on two CPU cores."""
    return Recipe(
        method=method,
        data="builtin:digits:train",
        eval_test="builtin:digits:test",
        encoder="resnet10",
        width=0.25,
        projector=(512, 128) if method == "ssl_hsic" else (512, 512, 512),
        augment="auh",
        size=20,
        crop_min=0.2,
        crop_max=0.5,
        flip=0.0,
        epochs=26,
        batch_size=64,
        optimizer="adam",
        target=False,
        invariance_weight=8.0,
        weight_per_pair=True,
        average_decay=0.99,
        seed=seed,
    )
