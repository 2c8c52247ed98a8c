"""Progress bars: of a training over all epochs, and of a file that is fetched."""

import contextlib
import math
import time

import keras
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
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
            value = float((logs or {}).get(name, math.nan))
            # NaN stands for what was not measured in this epoch.
            if name == "loss" or not math.isnan(value):
                parts.append(f"{name.replace('_', ' ')} {value:.3f}")
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


@contextlib.contextmanager
def bytes_bar(title, total, done=0):
    """A bar on terminals for bytes that come in: size, rate and time left.

    Args:
        title: what people read.
        total: number of bytes in all; `None` where it is not known.
        done: bytes that are there already.

    Yields:
        A function of the number of bytes that have come in since it was last called.
    """
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        disable=not Console().is_terminal,
    ) as progress:
        task = progress.add_task(title, total=total, completed=done)
        yield lambda count: progress.advance(task, count)
