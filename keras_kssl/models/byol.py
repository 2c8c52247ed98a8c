"""BYOL as a Keras model."""

import keras

from keras_kssl import objectives
from keras_kssl._seeds import derived_seed
from keras_kssl.models.heads import MLPHead
from keras_kssl.models.target_network import TargetNetworkModel


@keras.saving.register_keras_serializable(package="keras_kssl")
class BYOL(TargetNetworkModel):
    """BYOL: predicts a slowly moving target network's view of an image from another.

    Args:
        encoder: a Keras model from images to feature maps or vectors.
        augment, average_decay, probe_classes, micro_batches, name: see
            `SelfSupervisedModel`. `average_decay` is `None` by default: the published
            method evaluates the parameters themselves.
        objective: default `objectives.BYOL()`.
        projector: default `MLPHead((4096,), 256)`.
        predictor: the same by default.
        target_decay: tau, a number in [0, 1] or a schedule from the step to it, such as
            `optimizers.TargetDecay(total_steps, 0.996)`. Default 0.996.
        seed: integer seed of augmentation and heads.

    Cost beside the encoder's forward and backward pass: another forward pass per
    global view.

    References:
        Grill et al., BYOL, arXiv 2006.07733, and its released code. The target network
        moves at the start of the step after, which gives the same sequence.
    """

    def __init__(
        self,
        encoder,
        augment=None,
        objective=None,
        projector=None,
        predictor=None,
        target_decay=0.996,
        average_decay=None,
        probe_classes=None,
        seed=None,
        micro_batches=1,
        name=None,
    ):
        if objective is None:
            objective = objectives.BYOL()
        if projector is None:
            projector = MLPHead(seed=seed, name="projector")
        if predictor is None:
            predictor = MLPHead(seed=derived_seed(seed, 1), name="predictor")
        super().__init__(
            encoder,
            projector,
            objective,
            predictor,
            target_decay,
            augment=augment,
            average_decay=average_decay,
            probe_classes=probe_classes,
            seed=seed,
            micro_batches=micro_batches,
            name=name,
        )
