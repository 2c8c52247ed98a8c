"""SFRIK as a Keras model."""

import keras

from keras_kssl import objectives
from keras_kssl.models.heads import MLPHead
from keras_kssl.models.one_network import OneNetworkModel


@keras.saving.register_keras_serializable(package="keras_kssl")
class SFRIK(OneNetworkModel):
    """SFRIK: views of an image together, embeddings uniform on the sphere.

    Arguments are those of `OneNetworkModel`; default `objectives.SFRIK()` and
    `MLPHead((8192, 8192), 8192)`.

    References:
        SFRIK, arXiv 2208.00789.
    """

    @staticmethod
    def default_objective():
        return objectives.SFRIK()

    @staticmethod
    def default_projector(seed):
        return MLPHead((8192, 8192), 8192, seed=seed, name="projector")
