"""SSL-HSIC as a Keras model."""

import keras

from keras_kssl import objectives
from keras_kssl._checks import check_that
from keras_kssl._seeds import derived_seed
from keras_kssl.models.heads import MLPHead
from keras_kssl.models.target_network import TargetNetworkModel


@keras.saving.register_keras_serializable(package="keras_kssl")
class SSLHSIC(TargetNetworkModel):
    """SSL-HSIC: maximises the dependence of embeddings on image identity.

    With a target network (the published method) the objective sees, for each view,
    the online prediction and the target network's projection, four embeddings for two
    views, see `TargetNetworkModel`; without it the online projections.

    Args:
        encoder: a Keras model from images to feature maps or vectors.
        target: whether there is a target network (and a predictor). Default True.
        augment, average_decay, probe_classes, micro_batches, name: see
            `SelfSupervisedModel`.
        objective: default `objectives.HSIC(seed=seed)`.
        projector: default `MLPHead((4096,), 256, normalize_output=True)`.
        predictor: the same by default; `None` without a target network.
        target_decay: tau, a number in [0, 1] or a schedule from the step to it, such as
            `optimizers.TargetDecay(total_steps)`. Default 0.99.
        seed: integer seed of augmentation, heads and random features.

    Cost beside the encoder's forward and backward pass: with the target network
    another forward pass per view.

    References:
        SSL-HSIC, arXiv 2106.08320. Outputs are batch-normalised before they are
        rescaled to unit norm, as the paper says; the released code does not:
        `MLPHead(normalize_output=False)` matches it. The target network moves at the
        start of the step after, which gives the same sequence.
    """

    def __init__(
        self,
        encoder,
        target=True,
        augment=None,
        objective=None,
        projector=None,
        predictor=None,
        target_decay=0.99,
        average_decay=0.999,
        probe_classes=None,
        seed=None,
        micro_batches=1,
        name=None,
    ):
        check_that(
            target or predictor is None,
            "SSLHSIC",
            "predictor",
            "None without a target network",
            predictor,
        )
        if objective is None:
            objective = objectives.HSIC(seed=seed)
        if projector is None:
            projector = MLPHead(normalize_output=True, seed=seed, name="projector")
        if target and predictor is None:
            predictor = MLPHead(
                normalize_output=True,
                seed=derived_seed(seed, 1),
                name="predictor",
            )
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
        self.target = target

    def get_config(self):
        return {**super().get_config(), "target": self.target}
