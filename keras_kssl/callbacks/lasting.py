"""What long runs live by: checkpoints, a stop when loss is lost, signs of life."""

import math
import time

import keras

from keras_kssl.distribution import Distribution

# What a worker wishes after a step; the largest wish is what all do.
_GO_ON, _WRITE, _STOP = 0, 1, 2


class StopWhenLost(keras.callbacks.Callback):
    """Ends training at the step at which the loss is no finite number any more.

    Raises `FloatingPointError` that names the step and what to try. Costs nothing: the
    mean loss that is looked at has been fetched for the progress bar.

    Args:
        start_step: steps that were done before, when training goes on.
    """

    def __init__(self, start_step=0):
        super().__init__()
        self._before = start_step
        self._steps_of_epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self._before += self._steps_of_epoch
        self._steps_of_epoch = 0

    def on_train_batch_end(self, batch, logs=None):
        self._steps_of_epoch = batch + 1
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss became {loss} at step {self._before + batch + 1}"
            )


class CheckpointEvery(keras.callbacks.Callback):
    """Writes checkpoints while training goes on, and one when it is to be stopped.

    To be the last of the callbacks, so that what the others write at the end of an
    epoch is there when a checkpoint says that the epoch is over.

    Args:
        checkpoints: `checkpoints.Checkpoints` to write to.
        seconds: time between two of them. Default 300.
        facts: function without arguments that returns a dictionary of what is kept with
            each.
        should_stop: function without arguments, asked after every step; where it
            returns true a checkpoint is written and `fit` ends by `KeyboardInterrupt`.
        distribution: `distribution.Distribution` whose workers do all this at the same
            steps, one of them writing. Default: one worker.
    """

    def __init__(
        self,
        checkpoints,
        seconds=300.0,
        facts=dict,
        should_stop=bool,
        distribution=None,
    ):
        super().__init__()
        self.checkpoints = checkpoints
        self.seconds = seconds
        self.facts = facts
        self.should_stop = should_stop
        self.distribution = distribution or Distribution()

    def on_train_begin(self, logs=None):
        self._written = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        # The last step of an epoch belongs to it until its metrics are written down.
        if batch + 1 < self.params["steps"]:
            self._write_if_due()

    def on_epoch_end(self, epoch, logs=None):
        self._write_if_due()

    def _write_if_due(self):
        is_due = time.monotonic() - self._written >= self.seconds
        wish = _STOP if self.should_stop() else _WRITE if is_due else _GO_ON
        wish = self.distribution.largest(wish)
        if wish == _GO_ON:
            return
        is_chief = self.distribution.is_chief
        self.checkpoints.write(self.model, is_chief, **self.facts())
        self._written = time.monotonic()
        if wish == _STOP:
            raise KeyboardInterrupt


class Beat(keras.callbacks.Callback):
    """Tells a `distribution.Watchdog` after every step that something has moved."""

    def __init__(self, watchdog):
        super().__init__()
        self.watchdog = watchdog

    def on_train_batch_end(self, batch, logs=None):
        self.watchdog.beat()


class KeepMetrics(keras.callbacks.Callback):
    """Gives metrics back the state that they had in the middle of an epoch.

    `fit` resets all metrics at the start of an epoch, also of one that it takes up in
    the middle.

    Args:
        model: the model, whose metrics hold that state now.
    """

    def __init__(self, model):
        super().__init__()
        self._values = [
            keras.ops.convert_to_numpy(variable) for variable in model.metrics_variables
        ]

    def on_epoch_begin(self, epoch, logs=None):
        if self._values is None:
            return
        variables = self.model.metrics_variables
        for variable, value in zip(variables, self._values, strict=True):
            variable.assign(value)
        self._values = None
