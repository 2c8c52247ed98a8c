"""Encoders, heads, and the self-supervised models that train them."""

from keras_kssl.models.barlow_twins import BarlowTwins
from keras_kssl.models.byol import BYOL
from keras_kssl.models.heads import MLPHead
from keras_kssl.models.resnet import (
    ResNet,
    ResNet18,
    ResNet34,
    ResNet50,
    ResNet101,
    ResNet152,
)
from keras_kssl.models.self_supervised import SelfSupervisedModel
from keras_kssl.models.sfrik import SFRIK
from keras_kssl.models.simclr import SimCLR
from keras_kssl.models.ssl_hsic import SSLHSIC
from keras_kssl.models.uniformity import AlignmentUniformity
from keras_kssl.models.vicreg import VICReg

__all__ = [
    "BYOL",
    "SFRIK",
    "SSLHSIC",
    "AlignmentUniformity",
    "BarlowTwins",
    "MLPHead",
    "ResNet",
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "ResNet101",
    "ResNet152",
    "SelfSupervisedModel",
    "SimCLR",
    "VICReg",
]
