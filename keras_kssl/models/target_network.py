"""Training against a slowly moving copy of the network: SSL-HSIC and BYOL."""

import keras
from keras import ops

from keras_kssl._checks import check_number, check_that
from keras_kssl.models.self_supervised import (
    SelfSupervisedModel,
    copy_layer,
    move_towards,
    output_shape,
)


class TargetNetworkModel(SelfSupervisedModel):
    """A self-supervised model with a predictor and a target network.

    The objective sees the online predictions of the global views, the target network's
    projections of the same in reverse order, and the predictions of small crops, see
    `objectives.Objective`, which do not go through the target network: four embeddings
    for two views. The target network has the encoder's and projector's architecture,
    averaged parameters, `target += (1 - tau)(online - target)` after each step, and
    BatchNorm statistics of its own.

    Args:
        encoder, projector, objective: see `SelfSupervisedModel`.
        predictor: layer from embeddings to embeddings; `None` for a model without
            predictor and target network, whose objective sees the projections.
        target_decay: tau, a number in [0, 1] or a schedule from the step to it, such as
            `optimizers.TargetDecay(total_steps)`.
        **options: further arguments of `SelfSupervisedModel`.
    """

    def __init__(
        self, encoder, projector, objective, predictor, target_decay, **options
    ):
        super().__init__(encoder, projector, objective, **options)
        caller = type(self).__name__
        self.target_decay = target_decay
        if not callable(target_decay):
            check_number(caller, "target_decay", target_decay, 0.0, 1.0)
        self.predictor = predictor
        if predictor is None:
            return
        predictions = output_shape(predictor, self.embeddings_shape)
        check_that(
            predictions == self.embeddings_shape,
            caller,
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
        if self.predictor is None:
            return online
        return online + (self.num_global_views or online)

    @property
    def num_global_embeddings(self):
        if self.predictor is None or self.num_global_views is None:
            return self.num_global_views
        return 2 * self.num_global_views

    def embed(self, views, training):
        outputs = super().embed(views, training)
        if self.predictor is None:
            return outputs
        predictions = outputs["embeddings"]
        num_global = self.num_global_views or len(views)

        def project(view):
            return (self._target_projection(view, training),)

        targets = [z for (z,) in self.each_view(project, views[:num_global])]
        embeddings = [
            *predictions[:num_global],
            *targets[::-1],
            *predictions[num_global:],
        ]
        return {**outputs, "embeddings": embeddings}

    @property
    def online_heads(self):
        heads = super().online_heads
        return heads if self.predictor is None else [*heads, self.predictor]

    def embed_features(self, features, training):
        projections = super().embed_features(features, training)
        if self.predictor is None:
            return projections
        return self.predictor(projections, training=training)

    @property
    def embedding_layers(self):
        layers = super().embedding_layers
        if self.predictor is None:
            return layers
        return [*layers, self.target_encoder, self.target_projector]

    @property
    def averaged_variables(self):
        own = [] if self.predictor is None else self._target_parameters()
        return [*super().averaged_variables, *own]

    def update_averages(self, step, pending):
        super().update_averages(step, pending)
        if self.predictor is None:
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
            "predictor": keras.saving.serialize_keras_object(self.predictor),
            "target_decay": target_decay,
        }
