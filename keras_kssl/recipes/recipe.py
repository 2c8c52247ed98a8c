"""A whole pretraining run as plain data."""

import dataclasses
import json
import pathlib
from typing import Literal

from keras_kssl._checks import (
    check_choice,
    check_integer,
    check_number,
    check_that,
    message,
)
from keras_kssl.recipes import kinds
from keras_kssl.recipes.defaults import chosen_defaults
from keras_kssl.recipes.methods import (
    METHOD_OPTIONS,
    MULTI_CROP,
    REFUSED_ELSEWHERE,
    Method,
    Policy,
)

Encoder = Literal[
    "resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152"
]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What to pretrain on what and how.

    None stands for a default that depends on the method, the data or the machine;
    `resolved` writes them out.
    """

    method: Method = "ssl_hsic"
    """How to train: ssl_hsic or sfrik, or, for comparison, simclr, vicreg, auh
    (alignment and uniformity), barlow_twins or byol."""
    data: str | None = None
    """Images to train on, without need of labels: folder:DIR, files:LIST,
    npz:FILE.npz, tfds:NAME[:SPLIT], builtin:NAME[:SPLIT] or each:START:STOP:SOURCE."""
    limit: int | None = None
    """Use the first so many images only."""
    per_class: int | None = None
    """Use the first so many images of each class only, in the order of the source; the
    one option that needs labels."""
    max_broken: float = 0.1
    """Share of the images that may be unreadable; they are skipped and named."""
    eval_train: str | None = None
    """Labelled images that the judges (kNN, linear probe) learn from."""
    eval_test: str | None = None
    """Labelled images on which accuracy is measured, before and after."""
    eval_every: int | None = None
    """Epochs from one kNN judgement to the next while it trains; 0 for none. Default:
    about ten judgements in a run, none in runs of fewer than 5 epochs."""

    encoder: Encoder | None = None
    """Architecture of the encoder. Default: resnet10 on CPUs; otherwise resnet18, or
    resnet50 from 100,000 images on."""
    width: float = 1.0
    """Factor on all channel counts of the encoder."""
    stem: Literal["auto", "imagenet", "cifar"] = "auto"
    """First layers: imagenet (shrinks by 4), cifar (keeps the size, for small images);
    auto takes cifar for views below 64 pixels, 75 with small crops."""
    padding: Literal["symmetric", "same"] = "symmetric"
    """How strided convolutions pad: symmetric as in PyTorch and in its weights, same as
    in TensorFlow and in the authors' program of ssl_hsic."""
    projector: tuple[int, ...] | None = None
    """Widths of the projector's layers, the last one that of the embeddings. Default:
    the method's own; 512 and less for runs of fewer than 10,000 steps."""
    mean: tuple[float, ...] | None = None
    """Mean per channel that the encoder subtracts. Default: ImageNet's for RGB,
    otherwise measured on the data."""
    std: tuple[float, ...] | None = None
    """Standard deviation per channel that it divides by, likewise."""

    augment: Policy | None = None
    """Policy that makes views of an image: two of one size, or, by swav and obow, eight
    of several. Default: byol for ssl_hsic and byol, simclr for simclr, vicreg for the
    others."""
    size: int | None = None
    """Side of the views in pixels, of the largest where there are several sizes.
    Default: the images' shorter side, at most 224, on CPUs 96."""
    crop_min: float | None = None
    """Smallest crop, as a share of the image's area; of swav's two large views, and
    obow's two crops. Default: 0.08, and 0.2 for runs of fewer than 10,000 steps; 0.14
    for swav, 0.08 for obow."""
    crop_max: float | None = None
    """Largest crop, likewise. Default: 1; 0.6 for obow."""
    flip: float = 0.5
    """Probability of mirroring left and right; 0 where a mirror image means something
    else, as in writing."""

    epochs: int | None = None
    """Passes over the images. Default: about 3,000 steps on CPUs (5 to 100 epochs),
    otherwise 50,000 (10 to 800)."""
    batch_size: int | None = None
    """Images per step; the objectives compare all images of a batch. Default: 256, or
    the power of two that makes four steps of an epoch."""
    micro_batches: int = 1
    """Parts that a batch goes through the networks in, one after another, to save
    memory at the cost of one more forward pass. The gradient is that of the whole batch
    but for batch normalisation, whose statistics are those of each part."""
    optimizer: Literal["lars", "adam"] | None = None
    """Default: lars as in the papers; adam for runs of fewer than 10,000 steps, unless
    a base learning rate is given."""
    base_learning_rate: float | None = None
    """lars: learning rate for each 256 images of the batch, as the papers state it.
    Default: the method's, 0.4 for ssl_hsic, 1.2 for sfrik, 0.3 for simclr, 1.0 for auh,
    0.2 for the others."""
    learning_rate: float | None = None
    """Peak learning rate, used as it is. Default: the base learning rate times batch
    size / 256 for lars; 0.002 for adam."""
    warmup_epochs: float | None = None
    """Epochs over which the learning rate rises. Default: 10, or a tenth of a shorter
    run."""
    final_fraction: float | None = None
    """Last learning rate as a share of the peak, reached along a cosine."""
    weight_decay: float = 1e-6
    """Weight decay of lars; adam has none."""

    regularizer_weight: float = 3.0
    """ssl_hsic: weight of sqrt(HSIC(Z, Z))."""
    target: bool | None = None
    """ssl_hsic: whether there is a target network and a predictor. Default: in runs of
    10,000 steps and more."""
    target_decay: float = 0.99
    """ssl_hsic, byol: decay of the target network at the start; it rises to 1 by a
    cosine."""
    normalize_output: bool = True
    """ssl_hsic: batch normalisation of the heads' outputs."""
    estimator: Literal["auto", "gram", "random_features"] = "auto"
    """ssl_hsic: exact Gram matrix or random features; auto takes the cheaper."""
    num_features: int = 512
    """ssl_hsic: random features per draw."""
    kernel: Literal["imq", "gaussian", "linear"] | None = None
    """ssl_hsic: kernel between embeddings. Default: imq, the inverse multiquadric."""
    kernel_scale: float | None = None
    """ssl_hsic: scale of imq, at the start where it is learned, or bandwidth of
    gaussian. Default: 1."""
    learn_scale: bool | None = None
    """ssl_hsic: whether the scale of imq is learned along the way. Default: yes."""

    invariance_weight: float | None = None
    """sfrik, auh, vicreg: weight of the distance between views. Default for sfrik: 1000
    / batch size per pair, which is the published 4000 per coordinate at 8192
    coordinates and batch 2048; for auh 3000 / 8192 per pair; for vicreg 25."""
    weight_per_pair: bool | None = None
    """sfrik, auh: whether that weight is per pair instead of per coordinate. Default:
    per pair only where the weight is left to its default."""
    coefficients: tuple[float, ...] = (1.0, 40.0, 40.0)
    """sfrik: Legendre coefficients of the kernel; keras_kssl.kernels has those of the
    Gaussian and others by legendre_coefficients."""
    temperature: float | None = None
    """simclr: temperature of the softmax. Default: 0.1."""
    variance_weight: float | None = None
    """vicreg: weight of the hinge on standard deviations. Default: 25."""
    covariance_weight: float | None = None
    """vicreg: weight of the squared covariances. Default: 1."""
    redundancy_weight: float | None = None
    """barlow_twins: weight of the squared correlations of different coordinates.
    Default: 0.005."""

    regularize_small: bool = False
    """ssl_hsic, sfrik, vicreg, auh with swav or obow: whether what spreads the
    embeddings out is measured on all views; otherwise on the large ones."""

    average_decay: float | None = None
    """Decay of the average of the encoder's weights that is evaluated and exported;
    0 for the weights themselves."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    """Arithmetic of encoder and heads; the objectives always use float32."""
    jit_compile: bool | None = None
    """Whether to compile the step by XLA. Default: on JAX yes; on TensorFlow where
    there is a GPU or TPU."""
    steps_per_execution: int | None = None
    """Steps taken between two looks at the progress, which saves time where steps are
    short; must divide the steps of an epoch. Default: 1; on TPUs the largest divisor
    up to 50."""
    seed: int = 0
    """The one seed: weights, order, augmentation, random features, judges."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
            kinds.check_kind(field.name, getattr(self, field.name), field.type)
            choices = kinds.choices(field.type)
            if choices and not (value is None and field.default is None):
                check_choice("recipe", field.name, value, choices)
        self._check()

    def _check(self):
        for name, minimum in (
            ("limit", 2),
            ("per_class", 1),
            ("size", 1),
            ("epochs", 1),
            ("micro_batches", 1),
            ("steps_per_execution", 1),
            ("num_features", 1),
            ("eval_every", 0),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if value is not None or name in ("num_features", "seed", "micro_batches"):
                check_integer("recipe", name, value, minimum=minimum)
        if self.batch_size is not None:
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
            ("crop_min", 0.0, self.crop_max or 1.0),
            ("base_learning_rate", 0.0, float("inf")),
            ("learning_rate", 0.0, float("inf")),
            ("kernel_scale", 0.0, float("inf")),
            ("temperature", 0.0, float("inf")),
        ):
            value = getattr(self, name)
            if value is not None:
                check_number("recipe", name, value, minimum, maximum)
                check_that(value > 0, "recipe", name, "above 0", value)
        for name, maximum in (
            ("max_broken", 1.0),
            ("warmup_epochs", self.epochs or float("inf")),
            ("final_fraction", 1.0),
            ("flip", 1.0),
            ("weight_decay", float("inf")),
            ("regularizer_weight", float("inf")),
            ("target_decay", 1.0),
            ("invariance_weight", float("inf")),
            ("variance_weight", float("inf")),
            ("covariance_weight", float("inf")),
            ("redundancy_weight", float("inf")),
            ("average_decay", 1.0),
        ):
            if getattr(self, name) is not None:
                check_number("recipe", name, getattr(self, name), 0.0, maximum)
        for rule, is_right in (
            (
                "left out without small crops, which "
                + " and ".join(MULTI_CROP)
                + " make",
                self.augment in MULTI_CROP,
            ),
            (
                f"left out for {self.method}",
                "regularize_small" in METHOD_OPTIONS[self.method],
            ),
        ):
            value = self.regularize_small
            check_that(is_right or not value, "recipe", "regularize_small", rule, value)
        check_that(
            self.average_decay != 1.0,
            "recipe",
            "average_decay",
            "below 1, with which an average never moves",
            self.average_decay,
        )
        self._check_method()
        if self.projector is not None:
            rule = "one width or more, each at least 2"
            check_that(
                len(self.projector) > 0 and min(self.projector) >= 2,
                "recipe",
                "projector",
                rule,
                self.projector,
            )
        for name in ("eval_train", "eval_every"):
            check_that(
                not getattr(self, name) or self.eval_test is not None,
                "recipe",
                "eval_test",
                f"given where `{name}` is",
                self.eval_test,
            )

    def _check_method(self):
        """Refuses options that mean nothing to the method, or to its kernel."""
        for name in REFUSED_ELSEWHERE:
            value = getattr(self, name)
            check_that(
                value is None or name in METHOD_OPTIONS[self.method],
                "recipe",
                name,
                f"left out for {self.method}",
                value,
            )
        for name, is_right, rule in (
            (
                "kernel_scale",
                self.kernel != "linear" or self.kernel_scale is None,
                "left out for the linear kernel, which has none",
            ),
            (
                "learn_scale",
                self.kernel in (None, "imq") or not self.learn_scale,
                "left out, or false, for kernels other than imq",
            ),
            (
                "estimator",
                self.kernel != "linear" or self.estimator != "random_features",
                "'auto' or 'gram' for the linear kernel",
            ),
            (
                "weight_per_pair",
                self.method != "vicreg" or not self.weight_per_pair,
                "left out, or false, for vicreg, all of whose terms are means over "
                "coordinates",
            ),
        ):
            check_that(is_right, "recipe", name, rule, getattr(self, name))

    def resolved(self, facts):
        """The same recipe with its defaults written out, for this data and machine.

        Left open are `mean` and `std` (the data's channels tell), `jit_compile` and
        `steps_per_execution` (backend and devices do), `base_learning_rate` (its work
        is done by `learning_rate`), what is optional and what is refused for the
        method.
        """
        return dataclasses.replace(self, **chosen_defaults(self, facts))

    def differences(self, other, names=None):
        """Options that are others there: (here, there) by name.

        An option whose default depends on data or machine never differs where it is
        left to that default here.

        Args:
            other: another recipe.
            names: options to compare. Default: those not left to their defaults here.
        """
        if names is None:
            names = [
                field.name
                for field in dataclasses.fields(self)
                if getattr(self, field.name) != field.default
            ]
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in names}
        return {
            name: (here, there)
            for name, (here, there) in pairs.items()
            if here != there and here not in (None, "auto")
        }

    def to_json(self):
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text):
        """A recipe from what `to_json` returned; unknown names are refused."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise ValueError(
                f"recipe: the text must be JSON. Received: {error}"
            ) from None
        if not isinstance(values, dict):
            raise TypeError(message("recipe", "text", "a JSON object", values))
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            check_choice("recipe", "option", name, known)
        return cls(**values)

    @classmethod
    def read(cls, path):
        try:
            text = pathlib.Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"recipe: {str(path)!r} must be text in UTF-8. Received: {error}."
            ) from None
        return cls.from_json(text)
