"""Linear classifiers on an encoder, trained on augmented images."""

import keras
import numpy as np
from keras import ops

from keras_kssl import optimizers, replicas
from keras_kssl._checks import check_that
from keras_kssl.data import Batches
from keras_kssl.evaluation.features import extract_features
from keras_kssl.models.fitting import FitsBatches
from keras_kssl.models.self_supervised import copy_layer


class Classifier(FitsBatches, keras.Model):
    """An encoder with R linear classifiers, each trained at a rate of its own.

    The classifiers start at zero and see the same batches; the loss is the
    cross-entropy of their softmax, or of a sigmoid per class for labels (B, classes).
    A frozen encoder is used in inference mode, and one pass of it serves all of them.
    With gradient descent whose learning rate is a shape of peak 1, classifier r is
    trained exactly as if alone at `rates[r]` times that shape: its gradients are
    multiplied by the rate, and descent with momentum is linear in them.

    Args:
        encoder: Keras model from images to vectors or feature maps; it is copied.
        image_shape: (H, W, C) of the images after augmentation.
        num_classes: number of classes.
        rates: learning rates of the classifiers.
        encoder_rate: learning rate of the encoder's parameters; 0 (default) for a
            frozen encoder. Above 0 there must be one classifier.
        weight_decay: for each trained parameter p, this times p is added to its
            gradient.
        augment: policy of one view, applied in training; `None` for none.
        seed: seed of the augmentation.
    """

    def __init__(
        self,
        encoder,
        image_shape,
        num_classes,
        rates=(1.0,),
        encoder_rate=0.0,
        weight_decay=0.0,
        augment=None,
        seed=0,
    ):
        super().__init__()
        rule = "one where the encoder is trained too"
        check_that(
            not encoder_rate or len(rates) == 1, "Classifier", "rates", rule, rates
        )
        self.encoder = copy_layer(encoder, (None, *image_shape))
        self.encoder.trainable = bool(encoder_rate)
        # Variables, so that other rates need no other compiled step.
        self.rates = self._constant(rates)
        self.encoder_rate = self._constant(encoder_rate)
        self.weight_decay = self._constant(weight_decay)
        self.augment = augment
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.pool = keras.layers.GlobalAveragePooling2D(dtype="float32")
        width = self._features(keras.KerasTensor((None, *image_shape)), False).shape[-1]
        self.kernels, self.biases = (
            self.add_weight((len(rates), *shape), "zeros", name=name)
            for name, shape in (
                ("kernels", (num_classes, width)),
                ("biases", (num_classes,)),
            )
        )
        self.built = True

    def restart(self, encoder, rate, encoder_rate, weight_decay, seed):
        """Everything as it was at the start, for training at other rates.

        The compiled step is kept; what was frozen stays so.
        """
        self.encoder.set_weights(encoder.get_weights())
        self.rates.assign([rate])
        self.encoder_rate.assign(encoder_rate)
        self.weight_decay.assign(weight_decay)
        self.seed_generator.state.assign(keras.random.SeedGenerator(seed).state)
        variables = [self.kernels, self.biases]
        if self.compiled:
            variables += [self.optimizer.iterations, *self.optimizer.momentums]
        for variable in variables:
            variable.assign(ops.zeros(variable.shape, variable.dtype))

    def call(self, images, training=False):
        """Logits (B, R, num_classes) of the images, augmented in training."""
        if training and self.augment is not None:
            (images,) = self.augment(images, seed=self.seed_generator)
        features = self._features(images, training and self.encoder.trainable)
        if self.encoder.trainable:
            # The loss carries the classifier's rate; the encoder has its own.
            ratio = self.encoder_rate / self.rates[0]
            features = ratio * features + ops.stop_gradient((1.0 - ratio) * features)
        else:
            features = ops.stop_gradient(features)
        return ops.einsum("bd,rcd->brc", features, self.kernels) + self.biases

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        del x, sample_weight, training
        losses = ops.mean(_cross_entropy(y, y_pred), axis=0)
        decay = self.weight_decay / 2
        squares = ops.sum(ops.square(self.kernels), axis=(1, 2))
        squares = squares + ops.sum(ops.square(self.biases), axis=1)
        loss = ops.sum(self.rates * (losses + decay * squares))
        if self.encoder.trainable:
            variables = self.encoder.trainable_variables
            squares = sum(ops.sum(ops.square(variable)) for variable in variables)
            loss = loss + self.encoder_rate * decay * squares
        return loss / replicas.count()

    def scores(self, data, batch_size=256, size=None):
        """Logits (R, n, num_classes) of a data set's images, and their labels."""
        features, labels = extract_features(self.encoder, data, batch_size, size)
        return self.scores_of_features(features), labels

    def scores_of_features(self, features):
        """Logits (R, n, num_classes) of features (n, d)."""
        kernels, biases = map(ops.convert_to_numpy, (self.kernels, self.biases))
        return np.einsum("nd,rcd->rnc", features, kernels) + biases[:, np.newaxis]

    def train(
        self,
        source,
        batch_size,
        steps,
        schedule,
        nesterov=False,
        average=None,
        seed=0,
        callbacks=(),
    ):
        """Trains by SGD with momentum 0.9; again after `restart`.

        Args:
            source: labelled source; each epoch has another order, and the images left
                over by its last full batch sit it out.
            batch_size: images per step, at most as many as there are.
            steps: number of steps.
            schedule: learning rate, a Keras schedule with peak 1 or a number.
            nesterov: whether the momentum is Nesterov's.
            average: decay of an average of the parameters, which takes their place in
                the end; `None` for none. The average starts at the first parameters;
                it is not for training again.
            seed: seed of the order.
            callbacks: Keras callbacks.
        """
        if not self.compiled:
            optimizer = optimizers.Momentum(
                schedule,
                nesterov=nesterov,
                use_ema=average is not None,
                ema_momentum=average or 0.99,
            )
            self.compile(optimizer)
        batches = Batches(source, batch_size, seed)
        self.fit(batches, steps_per_epoch=steps, verbose=0, callbacks=list(callbacks))

    def _constant(self, value):
        return self.add_weight(
            np.shape(value),
            lambda shape, dtype: ops.convert_to_tensor(value, dtype),
            trainable=False,
        )

    def _features(self, images, training):
        features = self.encoder(images, training=training)
        if len(features.shape) == 4:
            return self.pool(features)
        return ops.cast(features, "float32")


def _cross_entropy(labels, logits):
    """Losses (B, R): of the softmax; of sigmoids for labels (B, classes)."""
    if len(labels.shape) == 1:
        labels = ops.broadcast_to(labels[:, None], logits.shape[:2])
        return keras.losses.sparse_categorical_crossentropy(
            labels, logits, from_logits=True
        )
    targets = ops.cast(labels, logits.dtype)[:, None, :]
    losses = ops.softplus(logits) - targets * logits
    # Classes of which it is not said whether the image shows them do not count.
    return ops.sum(ops.where(targets >= 0, losses, 0.0), axis=-1)


@keras.saving.register_keras_serializable(package="keras_kssl")
class CosinePerEpoch(keras.optimizers.schedules.LearningRateSchedule):
    """Half a cosine from 1 to 0 that moves once per epoch, as PyTorch's often do.

    Formula, for step t, S steps per epoch and E epochs::

        (1 + cos(pi floor(t / S) / E)) / 2

    >>> [round(float(CosinePerEpoch(2, 4)(t)), 4) for t in (0, 1, 2, 7)]
    [1.0, 1.0, 0.8536, 0.1464]
    """

    def __init__(self, steps_per_epoch, epochs):
        self.steps_per_epoch = steps_per_epoch
        self.epochs = epochs

    def __call__(self, step):
        epoch = ops.cast(step, "int32") // self.steps_per_epoch
        return optimizers.schedules.cosine_decay(epoch, 0, self.epochs)

    def get_config(self):
        return {"steps_per_epoch": self.steps_per_epoch, "epochs": self.epochs}
