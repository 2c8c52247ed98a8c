"""Encoders, heads, and the self-supervised models that train them."""

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
from keras_kssl.models.ssl_hsic import SSLHSIC

__all__ = [
    "SFRIK",
    "SSLHSIC",
    "MLPHead",
    "ResNet",
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "ResNet101",
    "ResNet152",
    "SelfSupervisedModel",
]
