"""A warning in words when fine-tuning leaves an encoder as it was loaded."""

import warnings

import keras
import numpy as np

from keras_kssl._checks import check_that

# In the names of batch normalisation's means and variances.
_STATISTIC = "moving_"
_CAUSES = {
    "all": "Nothing but what stands on top of it trains. Likely causes: it is frozen "
    "(encoder.trainable = True before compile, tensorflow_hub.KerasLayer(path, "
    "trainable=True)), or Keras does not see its weights (load encoder.keras, rather "
    "than to call a SavedModel in a Lambda or a function)",
    "statistics": "These are statistics of batch normalisation, which move where it is "
    "called in training mode alone. Likely causes: training=False, or a TFSMLayer "
    "without call_training_endpoint='serve_training'",
    "some": "Likely causes: layers of it are frozen, or the loss does not depend on "
    "them",
}


class FineTuningMonitor(keras.callbacks.Callback):
    """Warns where some of an encoder is the same after the first epoch of `fit`.

    A loader that trains the head alone fails without a word: the loss falls all the
    same, to a worse end. Costs a copy of the variables in the memory of the host for an
    epoch. To train the head on purpose, do without this.

    Args:
        encoder: what was loaded, a Keras model or layer, or a TensorFlow module with
            `variables`. Default: the whole model that is trained.
        say: function that is given each warning. Default `warnings.warn`.

    Attributes:
        found: the warning; `None` while there is none.
        kind: "all" where nothing has moved, "statistics" where what has not are
            statistics of batch normalisation alone, "some" otherwise; `None` likewise.

    Raises:
        ValueError: in `fit`, where the encoder has no variables.

    >>> import numpy as np
    >>> encoder = keras.layers.Dense(2, trainable=False)
    >>> model = keras.Sequential([keras.Input((3,)), encoder, keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> monitor = FineTuningMonitor(encoder, say=lambda text: print(text[:57]))
    >>> _ = model.fit(np.eye(3), np.ones(3), verbose=0, callbacks=[monitor])
    FineTuningMonitor: 2 of 2 variables of the encoder have n
    """

    def __init__(self, encoder=None, say=None):
        super().__init__()
        self.encoder = encoder
        self.say = warnings.warn if say is None else say
        self.found = self.kind = None
        self._before = None

    def on_train_begin(self, logs=None):
        self._before = [_value(variable) for variable in self._variables()]
        check_that(
            self._before,
            type(self).__name__,
            "encoder",
            "something with variables of floating point",
            self.encoder,
            "Keras sees no weights inside of functions: give the module itself.",
        )

    def on_epoch_end(self, epoch, logs=None):
        if self._before is None:
            return
        pairs = zip(self._variables(), self._before, strict=True)
        still = [v for v, before in pairs if np.array_equal(_value(v), before)]
        count, self._before = len(self._before), None
        if not still:
            return
        self.kind = "some"
        if len(still) == count:
            self.kind = "all"
        # A frozen weight is as little trainable as a statistic: names tell.
        elif all(_STATISTIC in _name(variable) for variable in still):
            self.kind = "statistics"
        names = ", ".join(map(_name, still[:3]))
        self.found = (
            f"FineTuningMonitor: {len(still)} of {count} variables of the encoder have "
            f"not moved in an epoch: {names}{', ...' if len(still) > 3 else ''}. "
            f"{_CAUSES[self.kind]}."
        )
        self.say(self.found)

    def _variables(self):
        """Weights and statistics; the states of random generators are integers."""
        owner = self.model if self.encoder is None else self.encoder
        return [
            variable
            for variable in owner.variables
            if keras.backend.is_float_dtype(
                keras.backend.standardize_dtype(variable.dtype)
            )
        ]


def _name(variable):
    return getattr(variable, "path", variable.name)


def _value(variable):
    return np.array(keras.ops.convert_to_numpy(variable))
