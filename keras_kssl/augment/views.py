"""One view of an image: its settings, the numbers it draws, and how it is made."""

import collections.abc
import dataclasses
import functools
import math

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
from keras_kssl.augment.boxes import BOX_NUMBERS, draw_boxes
from keras_kssl.augment.patches import PATCH_NUMBERS, check_patches, draw_patches

NEEDS_RGB = ("saturation", "hue", "grayscale")
# The centre that evaluation looks at: 224 of 256 pixels, as published.
CENTER_FRACTION = 224 / 256
JITTER = ("brightness", "contrast", "saturation", "hue")
# The settings of how a view's colours change, and how its details do.
COLORS = ("style", "jitter", *JITTER, "grayscale", "blur", "blur_sigma", "solarize")
# The settings that matter once the numbers of a view are drawn.
_MAKING = (
    *("size", "interpolation", "antialias", "center_fraction", "patches"),
    *("style", "blur_sigma"),
)
# Cut images are changed as planes, (B, C, H, W); see `image_ops`.
_CHANNEL_AXIS = 1
# Uniform numbers that one view of one image takes, by use.
NUMBERS = {
    **BOX_NUMBERS,
    "flip": 1,
    "jitter": 1,
    "order": 4,
    **dict.fromkeys(JITTER, 1),
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
        patches: `None`, or (count, side, jitter): the view, made and changed as a
            whole, is cut into `count` patches, which are views of their own; see
            `augment.patches`.
        is_small: whether objectives compare the view with those that are not small
            alone, as multi-crop methods do with small crops.
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
    patches: tuple | None = None
    is_small: bool = False

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
        if self.patches is not None:
            object.__setattr__(self, "patches", check_patches(self.size, self.patches))

    @property
    def num_views(self):
        """Views that these settings make of an image: one, or the patches."""
        return 1 if self.patches is None else self.patches[0]

    @property
    def made_size(self):
        """Side in pixels of what they make: of the view, or of its patches."""
        return self.size if self.patches is None else self.patches[1]

    @property
    def making(self):
        """Settings by which a view is made of numbers drawn, without those for drawing.

        Where they are equal, views are made alike.
        """
        return View(**{name: getattr(self, name) for name in _MAKING})

    def _check_range(self, name, maximum):
        value = getattr(self, name)
        rule = f"two numbers (low, high) with 0 < low <= high <= {maximum}"
        if not isinstance(value, collections.abc.Sequence) or len(value) != 2:
            raise TypeError(message("View", name, rule, value))
        low, high = (check_number("View", name, limit) for limit in value)
        check_that(0.0 < low <= high <= maximum, "View", name, rule, value)
        # Configurations come back from files with lists.
        object.__setattr__(self, name, (low, high))


def numbers_of(views):
    """How many uniform numbers each of the views of an image takes, by use."""
    has_patches = any(view.patches is not None for view in views)
    return {**NUMBERS, **(PATCH_NUMBERS if has_patches else {})}


def operations_of(view, channels=3):
    """Names of the operations that a view has settings for, on so many channels."""
    names = ("flip", *JITTER, "grayscale", "blur", "solarize")
    return {
        name
        for name in names
        if getattr(view, name) > 0.0
        and (name not in JITTER or view.jitter > 0.0)
        and (name not in NEEDS_RGB or channels == 3)
    }


def draw_view(view, drawn, height, width, names):
    """Turns uniform numbers in [0, 1), by use, into the parameters of one view.

    There are those of the operations `names`; where the view does without one of them,
    its parameters change nothing.
    """
    parameters = {}
    if view.center_fraction is None:
        parameters["boxes"] = draw_boxes(view, drawn, height, width, ops)
    for name in ("flip", "grayscale", "solarize"):
        if name in names:
            parameters[name] = drawn[name] < getattr(view, name)
    jittered = [name for name in JITTER if name in names]
    for name in jittered:
        strength = getattr(view, name)
        additive = name == "hue" or _adds(view.style, name)
        center, low = (0.0, -strength) if additive else (1.0, max(1.0 - strength, 0.0))
        value = low + (center + strength - low) * drawn[name]
        parameters[name] = ops.where(drawn["jitter"] < view.jitter, value, center)
    if jittered:
        parameters["order"] = ops.argsort(drawn["order"], axis=-1)
    if "blur" in names:
        low, high = view.blur_sigma
        sigma = low + (high - low) * drawn["sigma"]
        parameters["blur_sigma"] = ops.where(drawn["blur"] < view.blur, sigma, 0.0)
    if view.patches is not None:
        parameters["patches"] = draw_patches(view, drawn)
    return parameters


def apply_view(view, images, parameters):
    """Makes one view of float images, whole; what `parameters` lack is left out."""
    return change_view(view, cut_view(view, images, parameters), parameters)


def cut_view(view, images, parameters):
    """The part of each image that a view shows, resized: (B, size, size, C)."""
    resizing = {"interpolation": view.interpolation, "antialias": view.antialias}
    if view.center_fraction is not None:
        return image_ops.center_crop(
            images, view.size, view.center_fraction, **resizing
        )
    if "boxes" in parameters:
        return image_ops.crop_and_resize(
            images, parameters["boxes"], view.size, **resizing
        )
    return images


def change_view(view, images, parameters):
    """What a view does to images that are cut to its size already."""
    check_that(
        tuple(images.shape[1:3]) == (view.size, view.size),
        "Policy",
        "images",
        f"{view.size} x {view.size} pixels where they are not to be cut",
        tuple(images.shape),
    )
    images = image_ops.clip(images)
    if not parameters.keys() - {"boxes", "patches"}:
        # To planes and back would be two copies where no compiler sees through them.
        return images
    planes = ops.transpose(images, (0, 3, 1, 2))
    if "flip" in parameters:
        planes = _where(
            parameters["flip"],
            lambda planes: image_ops.flip(planes, _CHANNEL_AXIS),
            planes,
        )
    if "order" in parameters:
        planes = _where(
            _is_jittered(view.style, parameters),
            lambda planes: apply_jitter(view.style, planes, parameters),
            planes,
        )
    if "grayscale" in parameters:
        planes = _where(
            parameters["grayscale"],
            lambda planes: image_ops.grayscale(planes, _CHANNEL_AXIS),
            planes,
        )
    if "blur_sigma" in parameters:
        if view.style == "byol":
            radius, padding = view.size // 20, "zeros"
        else:
            radius, padding = math.ceil(3 * view.blur_sigma[1]), "edge"
        sigma = parameters["blur_sigma"]
        planes = _where(
            sigma > 0.0,
            lambda planes: image_ops.gaussian_blur(
                planes, sigma, radius, padding, _CHANNEL_AXIS
            ),
            planes,
        )
    if "solarize" in parameters:
        planes = _where(parameters["solarize"], image_ops.solarize, planes)
    return ops.transpose(image_ops.clip(planes), (0, 2, 3, 1))


def _where(mask, change, planes):
    """Planes of which those of the images that the mask says are changed.

    Of a single image that is not to change the change is not computed.
    """
    if planes.shape[0] == 1:
        return ops.cond(mask[0], lambda: change(planes), lambda: planes)
    return image_ops.choose(mask, change(planes), planes)


def _is_jittered(style, parameters):
    names = [name for name in JITTER if name in parameters]
    return functools.reduce(
        ops.logical_or,
        [parameters[name] != _neutral(style, name) for name in names],
    )


def apply_jitter(style, planes, parameters):
    """Brightness, contrast, saturation and hue in each image's own order.

    Each operation is a blend of the image with something simpler, or a turn: a change
    of S and H in HSV, the costly ones; results are clipped to [0, 1]. All images take
    their first turn together, and the second if there are two. Before, between and
    after them every place of the order has a round of blends, with parameters that
    change nothing where a place does not belong there or holds a turn.

    Args:
        style: as of a `View`.
        planes: (B, C, H, W).
        parameters: as from `draw_view`.
    """
    places = ops.argsort(parameters["order"], axis=-1)
    turning = [i for i, name in enumerate(JITTER) if _turns(style, name)]
    turning = [i for i in turning if JITTER[i] in parameters]
    turns = ops.sort(ops.take(places, turning, axis=-1), axis=-1) if turning else None
    blends = {
        name: parameters[name]
        for name in JITTER
        if name in parameters and not _turns(style, name)
    }
    before = -ops.ones_like(places[:, 0])
    blend_round = _byol_round if style == "byol" else _torchvision_round
    for stretch in range(len(turning) + 1):
        is_last = stretch == len(turning)
        after = len(JITTER) + 0 * before if is_last else turns[:, stretch]
        if blends:
            # A loop in the compiled program, not copies: XLA would fuse the copies and
            # compute most of them many times over. All that a round reads is part of
            # the state, and a round is a function of the module, so that eager JAX
            # compiles it once.
            planes, *_ = ops.fori_loop(
                stretch,
                len(JITTER) - len(turning) + stretch,
                blend_round,
                (planes, places, before, after, blends),
            )
        if not is_last:
            values = dict.fromkeys(("saturation", "hue"))
            for i in turning:
                neutral = _neutral(style, JITTER[i])
                is_here = places[:, i] == after
                values[JITTER[i]] = ops.where(is_here, parameters[JITTER[i]], neutral)
            factor = 1.0 if values["saturation"] is None else values["saturation"]
            delta = 0.0 if values["hue"] is None else values["hue"]
            planes = image_ops.turn_colors(planes, factor, delta, _CHANNEL_AXIS)
        before = after
    return planes


def _byol_round(place, state):
    return _round("byol", place, state, _byol_blends)


def _torchvision_round(place, state):
    return _round("torchvision", place, state, _torchvision_blends)


def _round(style, place, state, blends_of):
    """The blends that are at one place of the order of each image."""
    planes, places, before, after, blends = state
    is_between = (before < place) & (place < after)
    values, has_any = [], False
    for operation, name in enumerate(JITTER[:3]):
        value = _neutral(style, name)
        if name in blends:
            is_here = is_between & (places[:, operation] == place)
            has_any = has_any | is_here
            value = ops.where(is_here, blends[name], value)
        values.append(value)
    planes = _where(has_any, lambda planes: blends_of(planes, *values), planes)
    return planes, places, before, after, blends


def _byol_blends(planes, brightness, contrast, _):
    planes = image_ops.adjust_contrast(planes, contrast, _CHANNEL_AXIS)
    return image_ops.clip(image_ops.adjust_brightness(planes, brightness))


def _torchvision_blends(planes, brightness, contrast, saturation):
    gray = image_ops.gray_or_mean(planes, _CHANNEL_AXIS)
    mean = image_ops.means(gray, _CHANNEL_AXIS)
    # At most one of the factors differs from 1, and with 1 a blend changes nothing.
    planes = image_ops.blend(mean, planes, contrast)
    planes = image_ops.blend(gray, planes, saturation)
    return image_ops.clip(image_ops.scale_brightness(planes, brightness))


def _turns(style, name):
    """Whether an operation changes S or H of HSV."""
    return name == "hue" or (style == "byol" and name == "saturation")


def _neutral(style, name):
    return 0.0 if name == "hue" or _adds(style, name) else 1.0


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
