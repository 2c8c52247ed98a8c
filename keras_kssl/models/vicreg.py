"""VICReg as a Keras model."""

import keras

from keras_kssl import objectives
from keras_kssl.models.heads import MLPHead
from keras_kssl.models.one_network import OneNetworkModel


@keras.saving.register_keras_serializable(package="keras_kssl")
class VICReg(OneNetworkModel):
    """VICReg: views together, coordinates of variance 1 and without covariance.

    Arguments are those of `OneNetworkModel`; default `objectives.VICReg()` and
    `MLPHead((8192, 8192), 8192)`.

    References:
        Bardes et al., VICReg, arXiv 2105.04906.
    """

    @staticmethod
    def default_objective():
        return objectives.VICReg()

    @staticmethod
    def default_projector(seed):
        return MLPHead((8192, 8192), 8192, seed=seed, name="projector")
