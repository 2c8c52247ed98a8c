"""SFRIK as a Keras model."""

import keras

from keras_kssl import objectives
from keras_kssl.models.heads import MLPHead
from keras_kssl.models.self_supervised import SelfSupervisedModel


@keras.saving.register_keras_serializable(package="keras_kssl")
class SFRIK(SelfSupervisedModel):
    """SFRIK: views of an image together, embeddings uniform on the sphere.

    Neither predictor nor target network.

    Args:
        encoder: a Keras model from images to feature maps or vectors.
        augment, average_decay, probe_classes, name: see `SelfSupervisedModel`.
            `average_decay` is `None` by default: the published method evaluates the
            parameters themselves.
        objective: default `objectives.SFRIK()`.
        projector: default `MLPHead((8192, 8192), 8192)`.
        seed: integer seed of augmentation and projector.

    References:
        SFRIK, arXiv 2208.00789.
    """

    def __init__(
        self,
        encoder,
        augment=None,
        objective=None,
        projector=None,
        average_decay=None,
        probe_classes=None,
        seed=None,
        name=None,
    ):
        if objective is None:
            objective = objectives.SFRIK()
        if projector is None:
            projector = MLPHead((8192, 8192), 8192, seed=seed, name="projector")
        super().__init__(
            encoder,
            projector,
            objective,
            augment=augment,
            average_decay=average_decay,
            probe_classes=probe_classes,
            seed=seed,
            name=name,
        )
