"""SimCLR as a Keras model."""

import keras

from keras_kssl import objectives
from keras_kssl.models.heads import MLPHead
from keras_kssl.models.one_network import OneNetworkModel


@keras.saving.register_keras_serializable(package="keras_kssl")
class SimCLR(OneNetworkModel):
    """SimCLR: each view finds its partner among all views of a batch.

    Arguments are those of `OneNetworkModel`; default `objectives.SimCLR()` and
    `MLPHead((2048,), 128)`.

    References:
        Chen et al., SimCLR, arXiv 2002.05709. The released code batch-normalises the
        projector's outputs too: `MLPHead(normalize_output=True)` is near to it.
    """

    @staticmethod
    def default_objective():
        return objectives.SimCLR()

    @staticmethod
    def default_projector(seed):
        return MLPHead((2048,), 128, seed=seed, name="projector")
