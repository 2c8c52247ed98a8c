"""Augmentation: policies that make views of images, and the operations they use."""

from keras_kssl.augment import image_ops
from keras_kssl.augment.multi_crop import multi_crop_obow, multi_crop_swav
from keras_kssl.augment.policies import (
    Policy,
    auh,
    byol,
    center_crop,
    crop_flip,
    simclr,
    vicreg,
)
from keras_kssl.augment.views import View

__all__ = [
    "Policy",
    "View",
    "auh",
    "byol",
    "center_crop",
    "crop_flip",
    "image_ops",
    "multi_crop_obow",
    "multi_crop_swav",
    "simclr",
    "vicreg",
]
