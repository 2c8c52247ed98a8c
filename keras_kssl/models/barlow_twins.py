"""Barlow Twins as a Keras model."""

import keras

from keras_kssl import objectives
from keras_kssl.models.heads import MLPHead
from keras_kssl.models.one_network import OneNetworkModel


@keras.saving.register_keras_serializable(package="keras_kssl")
class BarlowTwins(OneNetworkModel):
    """Barlow Twins: coordinates alike in two views and unlike each other.

    Arguments are those of `OneNetworkModel`; default `objectives.BarlowTwins()` and
    `MLPHead((8192, 8192), 8192)`.

    References:
        Zbontar et al., Barlow Twins, arXiv 2103.03230. The released code has no bias in
        the projector's hidden layers, where batch normalisation takes it out again.
    """

    @staticmethod
    def default_objective():
        return objectives.BarlowTwins()

    @staticmethod
    def default_projector(seed):
        return MLPHead((8192, 8192), 8192, seed=seed, name="projector")
