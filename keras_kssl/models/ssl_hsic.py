"""SSL-HSIC as a Keras model."""

import keras
from keras import ops

from keras_kssl import objectives
from keras_kssl._checks import check_number, check_that
from keras_kssl._seeds import derived_seed
from keras_kssl.models.heads import MLPHead
from keras_kssl.models.self_supervised import (
    SelfSupervisedModel,
    copy_layer,
    move_towards,
    output_shape,
)


@keras.saving.register_keras_serializable(package="keras_kssl")
class SSLHSIC(SelfSupervisedModel):
    """SSL-HSIC: maximises the dependence of embeddings on image identity.

    With a target network (the published method) the objective sees, for each view,
    the online prediction and the target network's projection, four embeddings for two
    views; without it the online projections. The target network has the encoder's and
    projector's architecture, averaged parameters, `target += (1 - tau)(online -
    target)` after each step, and BatchNorm statistics of its own. Small crops, see
    `objectives.Objective`, do not go through it; they are predicted only.

    Args:
        encoder: a Keras model from images to feature maps or vectors.
        target: whether there is a target network (and a predictor). Default True.
        augment, average_decay, probe_classes, name: see `SelfSupervisedModel`.
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
        name=None,
    ):
        if objective is None:
            objective = objectives.HSIC(seed=seed)
        if projector is None:
            projector = MLPHead(normalize_output=True, seed=seed, name="projector")
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
        self.target = target
        self.target_decay = target_decay
        if not callable(target_decay):
            check_number("SSLHSIC", "target_decay", target_decay, 0.0, 1.0)
        check_that(
            target or predictor is None,
            "SSLHSIC",
            "predictor",
            "None without a target network",
            predictor,
        )
        if target and predictor is None:
            predictor = MLPHead(
                normalize_output=True,
                seed=derived_seed(seed, 1),
                name="predictor",
            )
        self.predictor = predictor
        if not target:
            return
        predictions = output_shape(predictor, self.embeddings_shape)
        check_that(
            predictions == self.embeddings_shape,
            "SSLHSIC",
            "predictor",
            f"a head with outputs of the projector's shape {self.embeddings_shape}",
            predictions,
        )
        self.target_encoder = copy_layer(encoder, self.view_shape)
        self.target_projector = copy_layer(projector, self.features_shape)
        # Not trainable as variables, yet trainable as layers: BatchNormalization
        # uses batch statistics only in a trainable layer.
        for layer in (self.target_encoder, self.target_projector):
            for variable in layer.trainable_variables:
                variable.trainable = False

    @property
    def num_embeddings(self):
        online = super().num_embeddings
        if not self.target:
            return online
        return online + (self.num_global_views or online)

    @property
    def num_global_embeddings(self):
        if not self.target or self.num_global_views is None:
            return self.num_global_views
        return 2 * self.num_global_views

    def embed(self, views, training):
        outputs = super().embed(views, training)
        if not self.target:
            return outputs
        projections = outputs["embeddings"]
        predictions = [self.predictor(p, training=training) for p in projections]
        num_global = self.num_global_views or len(views)
        targets = [self._target_projection(v, training) for v in views[:num_global]]
        embeddings = [
            *predictions[:num_global],
            *targets[::-1],
            *predictions[num_global:],
        ]
        return {**outputs, "embeddings": embeddings}

    def update_averages(self, step, pending):
        super().update_averages(step, pending)
        if not self.target:
            return
        tau = self.target_decay
        tau = tau(step) if callable(tau) else tau
        online = self.encoder.trainable_variables + self.projector.trainable_variables
        move_towards(self._target_parameters(), online, pending * (1.0 - tau))

    def _target_projection(self, view, training):
        features = self._encode(self.target_encoder, view, training)
        return ops.stop_gradient(self.target_projector(features, training=training))

    def _target_parameters(self):
        # The same variables in the same order as the online ones: those that are
        # trainable there.
        pairs = [
            (self.target_encoder, self.encoder),
            (self.target_projector, self.projector),
        ]
        return [
            copied
            for target, online in pairs
            for copied, original in zip(target.variables, online.variables, strict=True)
            if original.trainable
        ]

    def get_config(self):
        target_decay = self.target_decay
        if callable(target_decay):
            target_decay = keras.saving.serialize_keras_object(target_decay)
        return {
            **super().get_config(),
            "target": self.target,
            "predictor": keras.saving.serialize_keras_object(self.predictor),
            "target_decay": target_decay,
        }
