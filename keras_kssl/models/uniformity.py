"""Alignment and uniformity as a Keras model."""

import keras

from keras_kssl import objectives
from keras_kssl.models.heads import MLPHead
from keras_kssl.models.one_network import OneNetworkModel


@keras.saving.register_keras_serializable(package="keras_kssl")
class AlignmentUniformity(OneNetworkModel):
    """Alignment and uniformity (AUH): views together, all images apart.

    Arguments are those of `OneNetworkModel`; default
    `objectives.AlignmentUniformity()` and `MLPHead((8192, 8192), 8192)`.

    References:
        Wang and Isola, arXiv 2005.10242, with the projector of SFRIK's paper.
    """

    @staticmethod
    def default_objective():
        return objectives.AlignmentUniformity()

    @staticmethod
    def default_projector(seed):
        return MLPHead((8192, 8192), 8192, seed=seed, name="projector")
