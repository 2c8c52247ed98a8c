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
import warnings

import keras
from keras import ops

from keras_kssl import replicas
from keras_kssl._checks import check_integer, check_that, message
from keras_kssl._fusing import fused_by_rows
from keras_kssl.augment.boxes import by_use
from keras_kssl.augment.patches import cut_patches
from keras_kssl.augment.views import (
    CENTER_FRACTION,
    NEEDS_RGB,
    View,
    apply_view,
    change_view,
    draw_view,
    numbers_of,
    operations_of,
    to_float,
)


@keras.saving.register_keras_serializable(package="keras_kssl")
class Policy:
    """Makes the views of a batch of images: `policy(images, seed)`.

    Costs, for the two views of `byol`, compiled, batches of 64, on two CPU cores:
    6,000 images a second from 32 to 32 pixels, 250 from 224 to 224.

    Images without three channels lack what needs colour (saturation, hue, grayscale);
    the policy says so once, by a warning.

    Args:
        views: sequence of `View`, or of dictionaries of its arguments; small ones, if
            any, come last.
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
        smallness = [view.is_small for view in views]
        check_that(
            not smallness[0] and smallness == sorted(smallness),
            "Policy",
            "views",
            "one that is not small or more, before all that are",
            views,
        )
        self.views = views
        self._warned = set()

    @property
    def num_views(self):
        """Views made of each image, of which one `View` with patches makes several."""
        return sum(view.num_views for view in self.views)

    @property
    def num_global_views(self):
        """Those that are not small: the first of them."""
        return sum(view.num_views for view in self.views if not view.is_small)

    @property
    def sizes(self):
        """Side of each of the views made, in pixels."""
        return tuple(v.made_size for v in self.views for _ in range(v.num_views))

    @property
    def size(self):
        """Side of the first view in pixels."""
        return self.sizes[0]

    def __call__(self, images, seed):
        """Draws and applies.

        Args:
            images: (B, H, W, C), uint8 in 0 ... 255 or floats in [0, 1]; or a list or
                tuple of such arrays, one for each of `views`, which are cut and
                resized already, as `data.load` does with images of many sizes.
            seed: `keras.random.SeedGenerator`, which advances, or an integer.

        Returns:
            List of float32 arrays (B, size, size, C) with values in [0, 1], one for
            each view that is made, of the side that `sizes` says.
        """
        are_cut = isinstance(images, list | tuple)
        if are_cut:
            count = len(self.views)
            rule = f"one array for each of {count} views"
            check_that(len(images) == count, "Policy", "images", rule, images)
        else:
            images = to_float(images)
        first = ops.convert_to_tensor(images[0]) if are_cut else images
        # For the global batch: every replica draws the same numbers and takes its own.
        batch_size = ops.shape(first)[0] * replicas.count()
        parameters = self.draw(batch_size, *first.shape[1:], seed)
        parameters = keras.tree.map_structure(replicas.my_rows, parameters)
        if not are_cut:
            return self.apply(images, parameters)
        cuts = [ops.convert_to_tensor(cut) for cut in images]
        return self._make(_change_cut, cuts, parameters)

    def draw(self, batch_size, height, width, channels, seed):
        """Draws the parameters of all views of a batch.

        One call of the random number generator serves all views. Which parameters
        there are follows from the settings and the number of channels; what a coin
        leaves out, or a view that is made like another one does without, is the
        parameter that changes nothing.

        Args:
            batch_size: number of images B.
            height, width, channels: shape of each.
            seed: `keras.random.SeedGenerator`, which advances, or an integer.

        Returns:
            List with a dictionary for each of `views`. Every array has B as leading
            axis: `boxes` (B, 4) top, left, height, width in pixels; `flip`,
            `grayscale`, `solarize` (B,) booleans; `order` (B, 4), the jitter
            operations (0 brightness, 1 contrast, 2 saturation, 3 hue) from first to
            last; `brightness`, `contrast`, `saturation`, `hue`, `blur_sigma` (B,);
            `patches` (B, count, 2), top and left in pixels of the view.
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
        counts = numbers_of(self.views)
        numbers = keras.random.uniform(
            (batch_size, len(self.views), sum(counts.values())),
            dtype="float32",
            seed=seed,
        )
        # What one of the views that are made alike needs all of them are given, so
        # that one program makes them.
        names = {view.making: set() for view in self.views}
        for view in self.views:
            names[view.making].update(operations_of(view, channels))
        return [
            draw_view(
                view, by_use(counts, numbers[:, i]), height, width, names[view.making]
            )
            for i, view in enumerate(self.views)
        ]

    def apply(self, images, parameters):
        """Makes views from images and parameters.

        Args:
            images: as in a call of the policy.
            parameters: list as from `draw`.

        Returns:
            List as from a call of the policy.
        """
        images = to_float(images)
        check_that(
            len(parameters) == len(self.views),
            "Policy.apply",
            "parameters",
            f"a list of {len(self.views)} dictionaries, one per view",
            [sorted(view) for view in parameters],
        )
        return self._make(apply_view, [images] * len(self.views), parameters)

    def _make(self, make, images, parameters):
        """All views by a function of `augment.views`, images and parameters of each."""
        # Views that are made alike share one compiled program.
        programs, views = {}, []
        for view, shown, drawn in zip(self.views, images, parameters, strict=True):
            program = programs.setdefault(view.making, _program(make, view.making))
            views += program(shown, drawn)
        return views

    def left_out(self, channels):
        """Names of the operations that images of so many channels do without."""
        if channels == 3:
            return ()
        used = set().union(*(operations_of(view) for view in self.views))
        return tuple(name for name in NEEDS_RGB if name in used)

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


def byol(size, crop_scale=(0.08, 1.0), flip=0.5):
    """Two views as BYOL and SSL-HSIC make them.

    Differences from the authors' code: on the device and without JPEG decoding.

    Args:
        size: side of the views in pixels.
        crop_scale: range of the crop's area, parts of the image's.
        flip: probability of mirroring left and right; 0 where, as in writing, a mirror
            image means something else.

    References:
        Grill et al., Bootstrap your own latent, 2020, appendix B; deepmind-research,
        byol/utils/augmentations.py and dataset.py.
    """
    shared = {
        "size": size,
        "crop_scale": crop_scale,
        "flip": flip,
        "antialias": False,
        "style": "byol",
        **_jitter(0.8, 0.4, 0.4, 0.2, 0.1),
    }
    return Policy([View(**shared, blur=1.0), View(**shared, blur=0.1, solarize=0.2)])


def vicreg(size, crop_scale=(0.08, 1.0), flip=0.5):
    """Two views as VICReg and SFRIK on ImageNet make them.

    Differences from the authors' code, here and in `simclr` and `auh`: values are not
    rounded to 256 steps between operations, and the blur is a Gaussian cut off at three
    sigma where PIL's is three box filters.

    Args:
        size: side of the views in pixels.
        crop_scale: range of the crop's area, parts of the image's.
        flip: probability of mirroring left and right; 0 where, as in writing, a mirror
            image means something else.

    References:
        Bardes et al., VICReg, 2022; valeoai/sfrik, src/sfrik/augmentations.py.
    """
    shared = {
        "size": size,
        "crop_scale": crop_scale,
        "flip": flip,
        **_jitter(0.8, 0.4, 0.4, 0.2, 0.1),
    }
    return Policy([View(**shared, blur=1.0), View(**shared, blur=0.1, solarize=0.2)])


def simclr(size, crop_scale=(0.08, 1.0), flip=0.5):
    """Two views as SimCLR makes them, in SFRIK's implementation (see `vicreg`).

    Args:
        size: side of the views in pixels.
        crop_scale: range of the crop's area, parts of the image's.
        flip: probability of mirroring left and right; 0 where, as in writing, a mirror
            image means something else.

    References:
        Chen et al., A simple framework for contrastive learning, 2020.
    """
    view = View(
        size=size,
        crop_scale=crop_scale,
        flip=flip,
        blur=0.5,
        **_jitter(0.8, 0.8, 0.8, 0.8, 0.2),
    )
    return Policy([view, view])


def auh(size, crop_scale=(0.08, 1.0), flip=0.5):
    """Two views for STL-10 as alignment and uniformity and SFRIK make them.

    Strong jitter on every image, no blur; implemented as `vicreg` is.

    Args:
        size: side of the views in pixels; 64 in the papers.
        crop_scale: range of the crop's area, parts of the image's.
        flip: probability of mirroring left and right; 0 where, as in writing, a mirror
            image means something else.

    References:
        Wang and Isola, Alignment and uniformity on the hypersphere, 2020.
    """
    view = View(
        size=size, crop_scale=crop_scale, flip=flip, **_jitter(1.0, 0.4, 0.4, 0.4, 0.4)
    )
    return Policy([view, view])


def crop_flip(size, crop_scale=(0.08, 1.0), flip=0.5, antialias=True):
    """One view with a random crop, maybe mirrored: for training with labels.

    Args:
        size: side of the view in pixels.
        crop_scale: range of the crop's area, parts of the image's.
        flip: probability of mirroring left and right.
        antialias: whether resizing filters before it shrinks, as SFRIK's does and
            SSL-HSIC's does not.
    """
    style = "torchvision" if antialias else "byol"
    view = View(
        size=size, crop_scale=crop_scale, flip=flip, antialias=antialias, style=style
    )
    return Policy([view])


def center_crop(size, fraction=CENTER_FRACTION):
    """One view without randomness, for evaluation: resize, then cut out the centre.

    The shorter side becomes size / fraction pixels, bicubic with antialias; rounding is
    torchvision's. Small images are usually kept whole by `fraction=1.0`.

    Args:
        size: side of the view in pixels.
        fraction: side of the square over the shorter side, in (0, 1].
    """
    return Policy([View(size=size, center_fraction=fraction)])


def _change_cut(view, images, drawn):
    return change_view(view, to_float(images), drawn)


def _program(make, view):
    def whole_and_cut(images, drawn):
        return cut_patches(view, make(view, images, drawn), drawn)

    return fused_by_rows(whole_and_cut)


def _jitter(probability, brightness, contrast, saturation, hue):
    return {
        "jitter": probability,
        "brightness": brightness,
        "contrast": contrast,
        "saturation": saturation,
        "hue": hue,
        "grayscale": 0.2,
    }


def _plain(view):
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(view).items()
    }
