"""Augmentation: policies that make views of images, and the operations they use."""

from keras_kssl.augment import image_ops
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
    "simclr",
    "vicreg",
]
