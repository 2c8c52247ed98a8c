"""Callbacks for `model.fit`: a progress bar, checkpoints, a stop when loss is lost.

They work in the `fit` of any `SelfSupervisedModel`; the progress bar in any Keras
model's.
"""

import math
import time

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.text import Text

from keras_kssl.distribution import Distribution

# What a worker wishes after a step; the largest wish is what all do.
_GO_ON, _WRITE, _STOP = 0, 1, 2


class _Rate(ProgressColumn):
    """Images per second since training began."""

    def render(self, task):
        return Text(
            f"{task.fields['rate']:.0f} images/s" if task.fields["rate"] else ""
        )


class ProgressBar(keras.callbacks.Callback):
    """One bar over all epochs: loss, images per second, time left; a line per epoch.

    For `model.fit(..., verbose=0, callbacks=[ProgressBar(batch_size)])`. The first
    step, which compiles, does not count for the rate. Lines are printed through
    `say`; the bar shows on terminals only.

    Args:
        batch_size: images per step.
        metrics: names of the metrics in the line, beside the loss.
        say: function that prints a line. Default: through the bar's own console.
        batches: `data.Batches` that `fit` is given: the share of the time in which it
            waits for them is shown. Default: not shown.
        start_step: steps that were done before, when training goes on.
        total_steps, total_epochs: length of the whole training. Default: that of this
            `fit`.
    """

    def __init__(
        self,
        batch_size,
        metrics=(),
        say=None,
        batches=None,
        start_step=0,
        total_steps=None,
        total_epochs=None,
    ):
        super().__init__()
        self.batch_size = batch_size
        self.metrics = metrics
        self.say = say
        self.batches = batches
        self.total_steps = total_steps
        self.total_epochs = total_epochs
        self.seconds_per_epoch = []
        self._done = start_step
        self._timed_steps = 0
        self._first = self._last = None

    @property
    def images_per_second(self):
        """Rate over all steps but the first."""
        if self._timed_steps == 0:
            return 0.0
        return self._timed_steps * self.batch_size / (self._last - self._first)

    def on_train_begin(self, logs=None):
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            _Rate(),
            TextColumn("{task.fields[left]}"),
            disable=not Console().is_terminal,
        )
        self._total = self.total_steps
        if self._total is None:
            self._total = self.params["epochs"] * self.params["steps"]
        self._task = self._progress.add_task(
            "compiling", total=self._total, completed=self._done, rate=0, left=""
        )
        self._progress.start()

    def on_epoch_begin(self, epoch, logs=None):
        self._steps_of_epoch = 0
        self._epoch_began = time.perf_counter()
        self._waited_before = self._waited()

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        # With steps_per_execution, several steps end at a time.
        steps = batch + 1 - self._steps_of_epoch
        self._steps_of_epoch += steps
        if self._first is None:
            self._first = now
        else:
            self._timed_steps += steps
        self._last = now
        self._done += steps
        rate = self.images_per_second
        left = ""
        if rate:
            seconds = round((self._total - self._done) * self.batch_size / rate)
            left = "{}:{:02d} left".format(*divmod(seconds, 60))
            if self.batches is not None:
                share = self._share_waited(now)
                left += f", {100 * share:.0f}% of the time waiting for data"
        loss = float((logs or {}).get("loss", float("nan")))
        self._progress.update(
            self._task,
            completed=self._done,
            rate=rate,
            left=left,
            description=f"loss {loss:.3f}",
        )

    def on_epoch_end(self, epoch, logs=None):
        now = time.perf_counter()
        seconds = now - self._epoch_began
        self.seconds_per_epoch.append(seconds)
        epochs = self.total_epochs or self.params["epochs"]
        parts = [f"epoch {epoch + 1}/{epochs}"]
        for name in ("loss", *self.metrics):
            if name in (logs or {}):
                parts.append(f"{name.replace('_', ' ')} {float(logs[name]):.3f}")
        rate = self._steps_of_epoch * self.batch_size / seconds
        parts.append(f"{rate:.0f} images/s")
        if self.batches is not None:
            parts.append(f"{100 * self._share_waited(now):.0f}% waiting for data")
        say = self.say or self._progress.console.print
        say("  ".join(parts))

    def on_train_end(self, logs=None):
        self._progress.stop()

    def _waited(self):
        return 0.0 if self.batches is None else self.batches.seconds_waited

    def _share_waited(self, now):
        """Share of this epoch's time that `fit` has waited for batches."""
        waited = self._waited() - self._waited_before
        return waited / max(now - self._epoch_began, 1e-9)


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
