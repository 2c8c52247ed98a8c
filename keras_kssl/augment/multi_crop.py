"""Multi-crop policies: a few large views of an image and several cheap small ones.

Small crops are `small`: objectives compare each with the large, global views only.
Sizes are stated for views of 224 pixels, as published; with another `size` each length
in pixels is `round(size x length / 224)`, at least 1:

| size | OBoW crops | patches, of | SwAV small crops |
|---|---|---|---|
| 224 | 160 | 96, of 256 | 96 |
| 96 | 69 | 41, of 110 | 41 |
| 32 | 23 | 14, of 37 | 14 |

>>> list(multi_crop_swav(32).sizes)
[32, 32, 14, 14, 14, 14, 14, 14]
>>> list(multi_crop_obow(32).sizes)
[32, 23, 23, 14, 14, 14, 14, 14]

Cost in pixels, and so about that of the encoder, over two views of one size: 1.55 for
SwAV's eight views, 1.47 for OBoW's.
"""

import dataclasses

from keras_kssl._checks import check_integer
from keras_kssl.augment.policies import Policy, auh, simclr
from keras_kssl.augment.views import CENTER_FRACTION, COLORS, View

_PUBLISHED_SIZE = 224


def multi_crop_swav(
    size,
    crop_scale=(0.14, 1.0),
    flip=0.5,
    small_scale=(0.05, 0.14),
    num_small=6,
    colors=None,
):
    """Two global views and small crops, as SwAV makes them, in SFRIK's implementation.

    Two views of `size` pixels and six of 96 / 224 of it, bilinear, antialiased.

    Args:
        size: side of the global views in pixels; 224 in the papers.
        crop_scale: range of the global views' area, parts of the image's.
        flip: probability of mirroring left and right.
        small_scale: range of the small crops' area, likewise.
        num_small: number of small crops. Default 6.
        colors: policy, such as `vicreg(size)`, whose views' settings of jitter,
            grayscale, blur and solarize, and whose style, these views take in turn.
            `None` (default): SimCLR's, blurred with probability 1/2, as released.

    References:
        Caron et al., SwAV, 2020; valeoai/sfrik, src/sfrik/augmentations.py. Differences
        as in `vicreg`.
    """
    check_integer("multi_crop_swav", "num_small", num_small, minimum=1)
    shared = {"flip": flip, "interpolation": "bilinear"}
    large = View(size, crop_scale=crop_scale, **shared)
    small = View(_scaled(96, size), crop_scale=small_scale, is_small=True, **shared)
    views = [large] * 2 + [small] * num_small
    colors = simclr(size) if colors is None else colors
    return Policy(_colored(view, colors, i) for i, view in enumerate(views))


def multi_crop_obow(size, crop_scale=(0.08, 0.6), flip=0.5, colors=None):
    """The image's centre, two crops and five patches, as OBoW makes them.

    The one global view is the central square of `size` pixels after resizing the
    shorter side to 256 / 224 of that, maybe mirrored and changed in nothing else. Two
    crops have 160 / 224 of its side. Five patches of 96 / 224 of it come from one crop
    of 60 to 100% of the area, of 256 / 224 of the side, whose mirroring and colours
    they share: from five of the nine places of a 3 x 3 grid, each moved by up to
    24 / 224 of the side; see `augment.patches`. Bilinear, antialiased.

    Args:
        size: side of the global view in pixels; 224 in the papers.
        crop_scale: range of the two crops' area, parts of the image's.
        flip: probability of mirroring left and right, of all views.
        colors: policy, such as `vicreg(size)`, whose views' settings of jitter,
            grayscale, blur and solarize, and whose style, the two crops take in turn
            and the patches, but for blur and solarize, from the first. `None`
            (default), as released: strong jitter with probability 0.8, the two crops
            blurred with probability 1/2.

    References:
        Gidaris et al., OBoW, 2021; valeoai/sfrik, src/sfrik/augmentations.py, whose
        crops are mirrored last, which is the same. Differences as in `vicreg`.
    """
    shared = {"flip": flip, "interpolation": "bilinear"}
    original = View(size, center_fraction=CENTER_FRACTION, **shared)
    crop = View(_scaled(160, size), crop_scale=crop_scale, is_small=True, **shared)
    patches = View(
        _scaled(256, size),
        crop_scale=(0.6, 1.0),
        patches=(5, _scaled(96, size), _scaled(24, size, least=0)),
        is_small=True,
        **shared,
    )
    if colors is None:
        (view, _) = auh(size).views
        view = dataclasses.replace(view, jitter=0.8, blur=0.5)
        colors = Policy([view])
    patches = dataclasses.replace(_colored(patches, colors, 0), blur=0.0, solarize=0.0)
    crops = [_colored(crop, colors, i) for i in range(2)]
    return Policy([original, *crops, patches])


def _colored(view, colors, position):
    """A view with the colours of one of the views of another policy."""
    other = colors.views[position % len(colors.views)]
    return dataclasses.replace(view, **{name: getattr(other, name) for name in COLORS})


def _scaled(length, size, least=1):
    return max(least, round(size * length / _PUBLISHED_SIZE))
