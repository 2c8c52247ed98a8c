"""Accuracy of an encoder while it trains, on labelled images kept for that."""

import abc
import random

import keras

from keras_kssl._checks import check_integer, check_that
from keras_kssl.data import labels_like
from keras_kssl.evaluation import knn_accuracy, linear_accuracy
from keras_kssl.evaluation.features import (
    check_classes_seen,
    check_labels,
    labelled_features,
    labelled_sources,
)


class _OnlineJudge(keras.callbacks.Callback, abc.ABC):
    """Judges an encoder at the end of epochs and puts what it finds into their logs."""

    names = ()
    """Names of the numbers, the same in every epoch."""

    def __init__(
        self,
        train,
        test,
        every=1,
        encoder=None,
        batch_size=256,
        size=None,
        total_epochs=None,
    ):
        super().__init__()
        caller = type(self).__name__
        self.train, self.test = labelled_sources(caller, train, test)
        labels = {
            "train": self.train.labels,
            "test": labels_like(self.test, self.train, caller=caller),
        }
        for argument, values in labels.items():
            check_labels(caller, argument, values, len(values))
        check_classes_seen(caller, *labels.values())
        self.every = check_integer(caller, "every", every, minimum=1)
        check_that(
            encoder is None or callable(encoder),
            caller,
            "encoder",
            "None, a Keras model or a function of images",
            encoder,
        )
        self.encoder = encoder
        self.batch_size = check_integer(caller, "batch_size", batch_size, minimum=1)
        self.size = size
        self.total_epochs = total_epochs
        self._copy = None

    @abc.abstractmethod
    def judge(self, train_x, train_y, test_x, test_y):
        """Accuracies, by `names`, of features and labels."""

    def on_epoch_end(self, epoch, logs=None):
        if logs is None:
            return
        epochs = self.total_epochs or self.params["epochs"]
        found = {}
        if (epoch + 1) % self.every == 0 or epoch + 1 == epochs:
            # Layers draw seeds from here when they are made.
            state = random.getstate()
            try:
                found = self.judge(*self._features())
            finally:
                random.setstate(state)
        logs.update({name: found.get(name, float("nan")) for name in self.names})

    def _features(self):
        return labelled_features(
            type(self).__name__,
            self._current_encoder(),
            self.train,
            self.test,
            self.batch_size,
            self.size,
        )

    def _current_encoder(self):
        if self.encoder is not None:
            return self.encoder
        model = self.model
        if not hasattr(model, "averaged_encoder"):
            return getattr(model, "encoder", model)
        averaged = model.averaged_encoder()
        if self._copy is None:
            self._copy = averaged
        else:
            # The first copy is compiled.
            self._copy.set_weights(averaged.get_weights())
        return self._copy


class OnlineKNN(_OnlineJudge):
    """Weighted nearest-neighbour accuracy of the encoder at the end of epochs.

    Puts `val_knn_K` into the logs of every epoch, in [0, 1], where callbacks that come
    later find it: NaN in epochs that are not judged, so that columns stay the same. The
    last epoch always is. The labelled images are no part of what is trained on, and
    training goes on as if it had not been judged, to the last bit.

    Cost of each judgement: the encoder's forward pass over all labelled images, and
    those of `evaluation.knn_votes`; memory for the features, 4 bytes a number. On
    several replicas of one process each does the whole forward pass. Not for several
    processes: those that do not judge would wait.

    Args:
        train: labelled images that vote, anything `data.open_source` takes.
        test: labelled images that are classified; classes are matched by name.
        k: number of neighbours, or several; at most the number of images in `train`.
            Default 20.
        every: epochs from one judgement to the next. Default 1.
        encoder: Keras model or function as in `evaluation.extract_features`. Default:
            what `averaged_encoder()` of the model that is trained returns, otherwise
            its `encoder`, otherwise the model itself.
        batch_size, size: as in `evaluation.extract_features`.
        total_epochs: length of the whole training. Default: that of this `fit`.

    Raises:
        ValueError: when it is made, for sources without labels and the like.

    >>> import numpy as np
    >>> images = np.eye(40, dtype="float32").reshape(40, 5, 8, 1)
    >>> labelled = (images, np.arange(40) % 2)
    >>> layers = [keras.layers.Flatten(), keras.layers.Dense(40)]
    >>> model = keras.Sequential([keras.Input((5, 8, 1)), *layers])
    >>> model.compile("sgd", "mse")
    >>> fitted = model.fit(
    ...     images, images.reshape(40, 40), epochs=2, verbose=0,
    ...     callbacks=[OnlineKNN(labelled, labelled, k=1, every=2)],
    ... )
    >>> fitted.history["val_knn_1"]
    [nan, 1.0]
    """

    def __init__(
        self,
        train,
        test,
        k=20,
        every=1,
        encoder=None,
        batch_size=256,
        size=None,
        total_epochs=None,
    ):
        super().__init__(train, test, every, encoder, batch_size, size, total_epochs)
        self.k = tuple(k) if isinstance(k, list | tuple) else (k,)
        check_that(len(self.k) > 0, "OnlineKNN", "k", "one number or several", k)
        for number in self.k:
            check_integer("OnlineKNN", "k", number, 1, len(self.train))
        self.names = tuple(f"val_knn_{number}" for number in self.k)

    def judge(self, train_x, train_y, test_x, test_y):
        found = knn_accuracy(train_x, train_y, test_x, test_y, k=self.k)
        return {f"val_{name}": value for name, value in found.items()}


class OnlineProbe(_OnlineJudge):
    """Accuracy of a linear classifier on the encoder's features at the end of epochs.

    Puts `val_linear` into the logs; everything else is as in `OnlineKNN`. Beside the
    forward passes it costs what `evaluation.linear_accuracy` does on the host, for
    `probe_epochs` passes over the features.

    Args:
        train: labelled images that the classifier learns from, at least 10.
        test, every, encoder, batch_size, size, total_epochs: as in `OnlineKNN`.
        probe_epochs: epochs of the classifier. Default 100.
        seed: integer seed of the classifier, the same each time. Default 0.
    """

    names = ("val_linear",)

    def __init__(
        self,
        train,
        test,
        every=1,
        encoder=None,
        probe_epochs=100,
        seed=0,
        batch_size=256,
        size=None,
        total_epochs=None,
    ):
        super().__init__(train, test, every, encoder, batch_size, size, total_epochs)
        caller = "OnlineProbe"
        rule = "at least 10 labelled images"
        check_that(len(self.train) >= 10, caller, "train", rule, self.train)
        self.probe_epochs = check_integer(caller, "probe_epochs", probe_epochs, 1)
        self.seed = check_integer(caller, "seed", seed, minimum=0)

    def judge(self, train_x, train_y, test_x, test_y):
        options = {"seed": self.seed, "epochs": self.probe_epochs}
        found = linear_accuracy(train_x, train_y, test_x, test_y, **options)
        return {"val_linear": found["linear"]}
