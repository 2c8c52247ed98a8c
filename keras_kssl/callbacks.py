"""Callbacks for training in a terminal."""

import time

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.text import Text


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
    """

    def __init__(self, batch_size, metrics=(), say=None):
        super().__init__()
        self.batch_size = batch_size
        self.metrics = metrics
        self.say = say
        self.seconds_per_epoch = []

    @property
    def images_per_second(self):
        """Rate over all steps but the first."""
        if self._timed_steps == 0:
            return 0.0
        return self._timed_steps * self.batch_size / (self._last - self._first)

    def on_train_begin(self, logs=None):
        self._steps = self.params["steps"]
        self._timed_steps = 0
        self._first = self._last = time.perf_counter()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            _Rate(),
            TextColumn("{task.fields[left]}"),
            disable=not Console().is_terminal,
        )
        total = self.params["epochs"] * self._steps
        self._task = self._progress.add_task("compiling", total=total, rate=0, left="")
        self._total, self._done = total, 0
        self._progress.start()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch_began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        steps = batch + 1 - self._done % self._steps
        if self._done == 0:
            self._first = now
        else:
            self._timed_steps += steps
        self._last = now
        self._done += steps
        rate = self.images_per_second
        left = ""
        if rate:
            seconds = (self._total - self._done) * self.batch_size / rate
            left = f"{seconds // 60:.0f}:{seconds % 60:02.0f} left"
        loss = float((logs or {}).get("loss", float("nan")))
        self._progress.update(
            self._task,
            completed=self._done,
            rate=rate,
            left=left,
            description=f"loss {loss:.3f}",
        )

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.perf_counter() - self._epoch_began
        self.seconds_per_epoch.append(seconds)
        parts = [f"epoch {epoch + 1}/{self.params['epochs']}"]
        for name in ("loss", *self.metrics):
            if name in (logs or {}):
                parts.append(f"{name.replace('_', ' ')} {float(logs[name]):.3f}")
        parts.append(f"{self._steps * self.batch_size / seconds:.0f} images/s")
        say = self.say or self._progress.console.print
        say("  ".join(parts))

    def on_train_end(self, logs=None):
        self._progress.stop()
