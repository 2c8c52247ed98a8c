"""Augmentation policies: the random views of an image that self-supervision compares.

A `Policy` is a sequence of `View` settings. It draws small parameters, one row per
image, and applies them in batch; the two are apart, so that parameters drawn for the
global batch can be shared out among replicas and chosen by hand:

>>> import keras
>>> policy = byol(size=32)
>>> images = keras.random.uniform((8, 48, 40, 3), seed=0)
>>> view_1, view_2 = policy(images, seed=1)
>>> tuple(view_1.shape)
(8, 32, 32, 3)
>>> parameters = policy.draw(8, height=48, width=40, channels=3, seed=1)
>>> tuple(parameters[0]["boxes"].shape)
(8, 4)

Every view is made in the order crop, flip, jitter, grayscale, blur, solarize, in
float32 with values in [0, 1]. The two papers' code differs in how; a style says which:

| | "byol" (SSL-HSIC) | "torchvision" (SFRIK) |
|---|---|---|
| crop | sides clipped to the image | up to 10 tries to fit, else the centre |
| brightness | added | multiplied |
| contrast | about each channel's mean | about the gray image's mean |
| saturation | S of HSV multiplied | blended with the gray image |
| blur | radius size // 20, zeros around | radius 3 sigma, edge repeated |
"""

import collections.abc
import dataclasses
import math
import warnings

import keras
from keras import ops

from keras_kssl._checks import (
    check_choice,
    check_integer,
    check_number,
    check_rank,
    check_that,
    message,
)
from keras_kssl.augment import image_ops

_NEEDS_RGB = ("saturation", "hue", "grayscale")
_JITTER = ("brightness", "contrast", "saturation", "hue")
_TRIES = 10
# Uniform numbers that one view of one image takes, by use.
_NUMBERS = {
    "area": _TRIES,
    "aspect": _TRIES,
    "top": 1,
    "left": 1,
    "flip": 1,
    "jitter": 1,
    "order": 4,
    **dict.fromkeys(_JITTER, 1),
    "grayscale": 1,
    "blur": 1,
    "sigma": 1,
    "solarize": 1,
}


@dataclasses.dataclass(frozen=True)
class View:
    """Settings of one view.

    Args:
        size: side of the square view in pixels.
        crop_scale: range of the crop's area, parts of the image's; uniform.
        crop_ratio: range of the crop's width over height; its logarithm is uniform.
        interpolation: "bicubic" or "bilinear".
        antialias: whether resizing filters before it shrinks.
        style: "byol" or "torchvision", see above.
        flip: probability of mirroring left and right.
        jitter: probability of all four jitter operations, which come in random order
            per image.
        brightness, contrast, saturation: half widths of the ranges of the factors
            about 1, cut off at 0; of the added brightness about 0 in the style "byol".
        hue: half width of the range of the hue's shift, in turns, at most 1/2.
        grayscale: probability of turning gray.
        blur: probability of Gaussian blur.
        blur_sigma: range of its sigma in pixels; uniform.
        solarize: probability of inverting values of at least 1/2.
        center_fraction: `None`, or the side of the central square over the image's
            shorter side: the view is then that square, resized, and nothing is random
            about its place.
    """

    size: int
    crop_scale: tuple = (0.08, 1.0)
    crop_ratio: tuple = (3 / 4, 4 / 3)
    interpolation: str = "bicubic"
    antialias: bool = True
    style: str = "torchvision"
    flip: float = 0.0
    jitter: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grayscale: float = 0.0
    blur: float = 0.0
    blur_sigma: tuple = (0.1, 2.0)
    solarize: float = 0.0
    center_fraction: float | None = None

    def __post_init__(self):
        check_integer("View", "size", self.size, minimum=1)
        for name, maximum in (("crop_scale", 1.0), ("crop_ratio", math.inf)):
            self._check_range(name, maximum)
        self._check_range("blur_sigma", math.inf)
        for name in ("flip", "jitter", "grayscale", "blur", "solarize"):
            check_number("View", name, getattr(self, name), 0.0, 1.0)
        for name in ("brightness", "contrast", "saturation"):
            check_number("View", name, getattr(self, name), 0.0)
        check_number("View", "hue", self.hue, 0.0, 0.5)
        check_choice("View", "style", self.style, ("byol", "torchvision"))
        check_choice(
            "View", "interpolation", self.interpolation, ("bicubic", "bilinear")
        )
        if self.center_fraction is not None:
            check_that(
                0.0
                < check_number("View", "center_fraction", self.center_fraction)
                <= 1,
                "View",
                "center_fraction",
                "above 0 and at most 1, or None",
                self.center_fraction,
            )

    def _check_range(self, name, maximum):
        value = getattr(self, name)
        rule = f"two numbers (low, high) with 0 < low <= high <= {maximum}"
        if not isinstance(value, collections.abc.Sequence) or len(value) != 2:
            raise TypeError(message("View", name, rule, value))
        low, high = (check_number("View", name, limit) for limit in value)
        check_that(0.0 < low <= high <= maximum, "View", name, rule, value)
        # Configurations come back from files with lists.
        object.__setattr__(self, name, (low, high))


@keras.saving.register_keras_serializable(package="keras_kssl")
class Policy:
    """Makes the views of a batch of images: `policy(images, seed)`.

    Costs, for the two views of `byol`, compiled, on two CPU cores shared with other
    work: 10,000 images a second from 32 to 32 pixels, 100 from 224 to 224.

    Images without three channels lack what needs colour (saturation, hue, grayscale);
    the policy says so once, by a warning.

    Args:
        views: sequence of `View`, or of dictionaries of its arguments.
    """

    def __init__(self, views):
        views = tuple(
            View(**view) if isinstance(view, collections.abc.Mapping) else view
            for view in views
        )
        rule = "one View or more"
        check_that(len(views) > 0, "Policy", "views", rule, views)
        for view in views:
            if not isinstance(view, View):
                raise TypeError(message("Policy", "views", rule, views))
        self.views = views
        self._warned = set()

    @property
    def num_views(self):
        """Number of views."""
        return len(self.views)

    @property
    def size(self):
        """Side of the first view in pixels."""
        return self.views[0].size

    def __call__(self, images, seed):
        """Draws and applies.

        Args:
            images: (B, H, W, C), uint8 in 0 ... 255 or floats in [0, 1].
            seed: `keras.random.SeedGenerator`, which advances, or an integer.

        Returns:
            List of float32 arrays (B, size, size, C) with values in [0, 1].
        """
        images = to_float(images)
        _, height, width, channels = images.shape
        batch_size = ops.shape(images)[0]
        return self.apply(images, self.draw(batch_size, height, width, channels, seed))

    def draw(self, batch_size, height, width, channels, seed):
        """Draws the parameters of all views of a batch.

        One call of the random number generator serves all views. Which parameters
        there are follows from the settings and the number of channels; what a coin
        leaves out is the parameter that changes nothing.

        Args:
            batch_size: number of images B.
            height, width, channels: shape of each.
            seed: `keras.random.SeedGenerator`, which advances, or an integer.

        Returns:
            List with a dictionary per view. Every array has B as leading axis: `boxes`
            (B, 4) top, left, height, width in pixels; `flip`, `grayscale`, `solarize`
            (B,) booleans; `order` (B, 4), the jitter operations (0 brightness,
            1 contrast, 2 saturation, 3 hue) from first to last; `brightness`,
            `contrast`, `saturation`, `hue`, `blur_sigma` (B,).
        """
        if not isinstance(seed, keras.random.SeedGenerator):
            seed = check_integer("Policy", "seed", seed)
        left_out = self.left_out(channels)
        if left_out and channels not in self._warned:
            self._warned.add(channels)
            warnings.warn(
                f"Augmentation leaves out {', '.join(left_out)}: images with "
                f"{channels} channels are not RGB.",
                stacklevel=2,
            )
        numbers = keras.random.uniform(
            (batch_size, self.num_views, sum(_NUMBERS.values())),
            dtype="float32",
            seed=seed,
        )
        return [
            draw_view(view, numbers[:, i], height, width, channels)
            for i, view in enumerate(self.views)
        ]

    def apply(self, images, parameters):
        """Makes views from images and parameters.

        Args:
            images: as in a call of the policy.
            parameters: list as from `draw`.

        Returns:
            List of float32 arrays (B, size, size, C) with values in [0, 1].
        """
        images = to_float(images)
        check_that(
            len(parameters) == self.num_views,
            "Policy.apply",
            "parameters",
            f"a list of {self.num_views} dictionaries, one per view",
            [sorted(view) for view in parameters],
        )
        return [
            apply_view(view, images, drawn)
            for view, drawn in zip(self.views, parameters, strict=True)
        ]

    def left_out(self, channels):
        """Names of the operations that images of so many channels do without."""
        if channels == 3:
            return ()
        return tuple(
            name
            for name in _NEEDS_RGB
            if any(_in_use(view, name) for view in self.views)
        )

    def get_config(self):
        """Constructor arguments, as plain data."""
        return {"views": [_plain(view) for view in self.views]}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __repr__(self):
        return f"Policy(views={self.views!r})"

    def __eq__(self, other):
        return type(self) is type(other) and self.views == other.views

    def __hash__(self):
        return hash(self.views)


def byol(size, crop_scale=(0.08, 1.0)):
    """Two views as BYOL and SSL-HSIC make them.

    Differences from the authors' code: on the device and without JPEG decoding.

    Args:
        size: side of the views in pixels.
        crop_scale: range of the crop's area, parts of the image's.

    References:
        Grill et al., Bootstrap your own latent, 2020, appendix B; deepmind-research,
        byol/utils/augmentations.py and dataset.py.
    """
    shared = {
        "size": size,
        "crop_scale": crop_scale,
        "antialias": False,
        "style": "byol",
        **_jitter(0.8, 0.4, 0.4, 0.2, 0.1),
    }
    return Policy([View(**shared, blur=1.0), View(**shared, blur=0.1, solarize=0.2)])


def vicreg(size, crop_scale=(0.08, 1.0)):
    """Two views as VICReg and SFRIK on ImageNet make them.

    Differences from the authors' code, here and in `simclr` and `auh`: values are not
    rounded to 256 steps between operations, and the blur is a Gaussian cut off at three
    sigma where PIL's is three box filters.

    Args:
        size: side of the views in pixels.
        crop_scale: range of the crop's area, parts of the image's.

    References:
        Bardes et al., VICReg, 2022; valeoai/sfrik, src/sfrik/augmentations.py.
    """
    shared = {
        "size": size,
        "crop_scale": crop_scale,
        **_jitter(0.8, 0.4, 0.4, 0.2, 0.1),
    }
    return Policy([View(**shared, blur=1.0), View(**shared, blur=0.1, solarize=0.2)])


def simclr(size, crop_scale=(0.08, 1.0)):
    """Two views as SimCLR makes them, in SFRIK's implementation (see `vicreg`).

    Args:
        size: side of the views in pixels.
        crop_scale: range of the crop's area, parts of the image's.

    References:
        Chen et al., A simple framework for contrastive learning, 2020.
    """
    view = View(
        size=size, crop_scale=crop_scale, blur=0.5, **_jitter(0.8, 0.8, 0.8, 0.8, 0.2)
    )
    return Policy([view, view])


def auh(size, crop_scale=(0.08, 1.0)):
    """Two views for STL-10 as alignment and uniformity and SFRIK make them.

    Strong jitter on every image, no blur; implemented as `vicreg` is.

    Args:
        size: side of the views in pixels; 64 in the papers.
        crop_scale: range of the crop's area, parts of the image's.

    References:
        Wang and Isola, Alignment and uniformity on the hypersphere, 2020.
    """
    view = View(size=size, crop_scale=crop_scale, **_jitter(1.0, 0.4, 0.4, 0.4, 0.4))
    return Policy([view, view])


def center_crop(size, fraction=224 / 256):
    """One view without randomness, for evaluation: resize, then cut out the centre.

    The shorter side becomes size / fraction pixels, bicubic with antialias; rounding is
    torchvision's. Small images are usually kept whole by `fraction=1.0`.

    Args:
        size: side of the view in pixels.
        fraction: side of the square over the shorter side, in (0, 1].
    """
    return Policy([View(size=size, center_fraction=fraction)])


def _jitter(probability, brightness, contrast, saturation, hue):
    return {
        "flip": 0.5,
        "jitter": probability,
        "brightness": brightness,
        "contrast": contrast,
        "saturation": saturation,
        "hue": hue,
        "grayscale": 0.2,
    }


def draw_view(view, numbers, height, width, channels):
    """Turns uniform numbers in [0, 1), (B, 33), into the parameters of one view."""
    ends = [sum(list(_NUMBERS.values())[: i + 1]) for i in range(len(_NUMBERS))]
    drawn = dict(zip(_NUMBERS, ops.split(numbers, ends[:-1], axis=1), strict=True))
    drawn = {
        name: column[:, 0] if column.shape[1] == 1 else column
        for name, column in drawn.items()
    }
    parameters = {}
    if view.center_fraction is None:
        parameters["boxes"] = draw_boxes(view, drawn, height, width)
    for name in ("flip", "grayscale", "solarize"):
        if _in_use(view, name, channels):
            parameters[name] = drawn[name] < getattr(view, name)
    jittered = [name for name in _JITTER if _in_use(view, name, channels)]
    for name in jittered:
        strength = getattr(view, name)
        additive = name == "hue" or _adds(view.style, name)
        center, low = (0.0, -strength) if additive else (1.0, max(1.0 - strength, 0.0))
        value = low + (center + strength - low) * drawn[name]
        parameters[name] = ops.where(drawn["jitter"] < view.jitter, value, center)
    if jittered:
        parameters["order"] = ops.argsort(drawn["order"], axis=-1)
    if _in_use(view, "blur", channels):
        low, high = view.blur_sigma
        sigma = low + (high - low) * drawn["sigma"]
        parameters["blur_sigma"] = ops.where(drawn["blur"] < view.blur, sigma, 0.0)
    return parameters


def draw_boxes(view, drawn, height, width):
    """Random boxes (B, 4): area and log aspect uniform, place uniform, whole pixels.

    In the style "torchvision" ten candidates are drawn at once and the first that fits
    is taken, which has the law of trying one after another.
    """
    low, high = view.crop_scale
    area = height * width * (low + (high - low) * drawn["area"])
    low, high = (math.log(ratio) for ratio in view.crop_ratio)
    ratio = ops.exp(low + (high - low) * drawn["aspect"])
    widths, heights = (
        ops.round(ops.sqrt(area * ratio)),
        ops.round(ops.sqrt(area / ratio)),
    )
    if view.style == "byol":
        box_height = ops.clip(heights[:, 0], 1.0, height)
        box_width = ops.clip(widths[:, 0], 1.0, width)
    else:
        fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
        first = fits & (ops.cumsum(ops.cast(fits, "int32"), axis=1) == 1)
        any_fits = ops.any(fits, axis=1)
        fallback_height, fallback_width = _central_box(view, height, width)
        box_height, box_width = (
            ops.where(any_fits, ops.sum(ops.where(first, sides, 0.0), axis=1), fallback)
            for sides, fallback in (
                (heights, fallback_height),
                (widths, fallback_width),
            )
        )
    # The product may round up to the number of places: minimum keeps the box inside.
    top, left = (
        ops.minimum(ops.floor(place * (places + 1.0)), places)
        for place, places in (
            (drawn["top"], height - box_height),
            (drawn["left"], width - box_width),
        )
    )
    if view.style == "torchvision":
        top = ops.where(any_fits, top, (height - fallback_height) // 2)
        left = ops.where(any_fits, left, (width - fallback_width) // 2)
    return ops.stack([top, left, box_height, box_width], axis=1)


def _central_box(view, height, width):
    """Largest box of an allowed aspect, as torchvision falls back on it."""
    low, high = view.crop_ratio
    if width / height < low:
        return round(width / low), width
    if width / height > high:
        return height, round(height * high)
    return height, width


def apply_view(view, images, parameters):
    """Makes one view of float images; what `parameters` lack is left out.

    Without `boxes` images must already be crops of the view's size, as a pipeline
    makes them that crops while decoding.
    """
    resizing = {"interpolation": view.interpolation, "antialias": view.antialias}
    if view.center_fraction is not None:
        images = image_ops.center_crop(
            images, view.size, view.center_fraction, **resizing
        )
    elif "boxes" in parameters:
        images = image_ops.crop_and_resize(
            images, parameters["boxes"], view.size, **resizing
        )
    else:
        check_that(
            tuple(images.shape[1:3]) == (view.size, view.size),
            "apply_view",
            "images",
            f"{view.size} x {view.size} pixels where there are no `boxes`",
            tuple(images.shape),
        )
    images = image_ops.clip(images)
    if "flip" in parameters:
        images = image_ops.choose(parameters["flip"], image_ops.flip(images), images)
    if "order" in parameters:
        images = apply_jitter(view.style, images, parameters)
    if "grayscale" in parameters:
        images = image_ops.choose(
            parameters["grayscale"], image_ops.grayscale(images), images
        )
    if "blur_sigma" in parameters:
        if view.style == "byol":
            radius, padding = view.size // 20, "zeros"
        else:
            radius, padding = math.ceil(3 * view.blur_sigma[1]), "edge"
        images = image_ops.gaussian_blur(
            images, parameters["blur_sigma"], radius, padding
        )
    if "solarize" in parameters:
        images = image_ops.choose(
            parameters["solarize"], image_ops.solarize(images), images
        )
    return image_ops.clip(images)


def apply_jitter(style, images, parameters):
    """Brightness, contrast, saturation and hue in each image's own order.

    Each operation is a blend of the image with something simpler or a change of S and
    H in HSV, clipped to [0, 1]. In each of four rounds one blend and one change of
    colour serve all images, with parameters that change nothing where it is not their
    turn: four rounds whatever the orders are.
    """
    # A loop in the compiled program, not four copies: XLA would fuse the copies and
    # compute most of them many times over. All that a round reads is part of the state,
    # and a round is a function of the module, so that eager JAX compiles it once.
    state = (
        tuple(image_ops.split(images)),
        ops.argsort(parameters["order"], axis=-1),
        {name: parameters[name] for name in _JITTER if name in parameters},
    )
    jitter_round = _byol_round if style == "byol" else _torchvision_round
    channels, _, _ = ops.fori_loop(0, len(_JITTER), jitter_round, state)
    return ops.stack(channels, axis=-1)


def _byol_round(place, state):
    channels, places, parameters = state
    brightness, contrast, saturation, hue = _at_place("byol", place, state)
    channels = [
        image_ops.clip(
            image_ops.adjust_brightness(
                image_ops.adjust_contrast(channel, contrast), brightness
            )
        )
        for channel in channels
    ]
    if "saturation" in parameters or "hue" in parameters:
        channels = image_ops.turn_colors(*channels, saturation, hue)
    return tuple(channels), places, parameters


def _torchvision_round(place, state):
    channels, places, parameters = state
    brightness, contrast, saturation, hue = _at_place("torchvision", place, state)
    gray = image_ops.gray_or_mean(channels)
    mean = image_ops.means(gray)
    # At most one of the factors differs from 1, and with 1 a blend changes nothing.
    channels = [image_ops.blend(mean, channel, contrast) for channel in channels]
    channels = [image_ops.blend(gray, channel, saturation) for channel in channels]
    channels = [
        image_ops.clip(image_ops.scale_brightness(channel, brightness))
        for channel in channels
    ]
    if "hue" in parameters:
        channels = image_ops.turn_colors(*channels, 1.0, hue)
    return tuple(channels), places, parameters


def _at_place(style, place, state):
    """Parameters of the four operations: neutral unless it is an image's turn."""
    _, places, parameters = state
    values = []
    for operation, name in enumerate(_JITTER):
        neutral = 0.0 if name == "hue" or _adds(style, name) else 1.0
        if name in parameters:
            is_here = places[:, operation] == place
            values.append(ops.where(is_here, parameters[name], neutral))
        else:
            values.append(neutral)
    return values


def _adds(style, name):
    return style == "byol" and name == "brightness"


def to_float(images):
    """Floats in [0, 1], float32, from uint8 in 0 ... 255 or floats in [0, 1]."""
    images = ops.convert_to_tensor(images)
    check_rank("Policy", "images", images, 4, "(B, H, W, C)")
    dtype = keras.backend.standardize_dtype(images.dtype)
    if dtype == "uint8":
        return ops.cast(images, "float32") / 255.0
    if "float" not in dtype:
        remedy = "Divide other integers by their largest value."
        rule = "uint8 in 0 ... 255 or floats in [0, 1]"
        raise TypeError(message("Policy", "images", rule, dtype, remedy))
    return ops.cast(images, "float32")


def _in_use(view, name, channels=3):
    if channels != 3 and name in _NEEDS_RGB:
        return False
    if name in _JITTER and view.jitter == 0.0:
        return False
    return getattr(view, name) > 0.0


def _plain(view):
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(view).items()
    }
