"""Models of one network: an encoder, a projector and an objective, nothing beside."""

from keras_kssl.models.self_supervised import SelfSupervisedModel


class OneNetworkModel(SelfSupervisedModel):
    """A self-supervised model whose class has an objective and a projector of its own.

    Neither predictor nor target network.

    Args:
        encoder: a Keras model from images to feature maps or vectors.
        augment, average_decay, probe_classes, micro_batches, name: see
            `SelfSupervisedModel`. `average_decay` is `None` by default: the published
            methods evaluate the parameters themselves.
        objective, projector: default those of the class.
        seed: integer seed of augmentation and projector.
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
        micro_batches=1,
        name=None,
    ):
        super().__init__(
            encoder,
            self.default_projector(seed) if projector is None else projector,
            self.default_objective() if objective is None else objective,
            augment=augment,
            average_decay=average_decay,
            probe_classes=probe_classes,
            seed=seed,
            micro_batches=micro_batches,
            name=name,
        )

    @staticmethod
    def default_objective():
        """The objective of the class."""
        raise NotImplementedError

    @staticmethod
    def default_projector(seed):
        """The projector of the class, from a seed."""
        raise NotImplementedError
