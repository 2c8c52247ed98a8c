"""The training of a run: epochs, checkpoints, and what people see of them."""

import contextlib

import keras

from keras_kssl import callbacks
from keras_kssl.pretraining.showing import has_tensorboard

_METRICS = ("alignment", "uniformity", "effective_rank")


def train(run, done, interruption, watchdog):
    """Trains a run from step `done` to its end and writes a checkpoint.

    Args:
        run: `Run`.
        done: steps that are done.
        interruption: `Interruption`; once it has noted a signal, the step is finished,
            a checkpoint written and `KeyboardInterrupt` raised.
        watchdog: `distribution.Watchdog` that is told of every step.

    Returns:
        Images per second; `None` where there was nothing to do.
    """
    prepared, bar = run.prepared, None
    steps, total = prepared.steps_per_epoch, prepared.total_steps
    while done < total:
        epoch, position = divmod(done, steps)
        batches = prepared.batches(done)
        bar = callbacks.ProgressBar(
            prepared.recipe.batch_size,
            metrics=_METRICS,
            say=run.say,
            batches=batches,
            start_step=done,
            total_steps=total,
            total_epochs=prepared.recipe.epochs,
        )
        run.rate = lambda bar=bar: bar.images_per_second
        kept = _callbacks(run, bar, done, position, interruption)
        kept.insert(0, callbacks.Beat(watchdog))
        try:
            with run.distribution.scope():
                run.model.fit(
                    batches,
                    steps_per_epoch=steps - position,
                    initial_epoch=epoch,
                    # An epoch that was left in the middle is ended first.
                    epochs=epoch + 1 if position else prepared.recipe.epochs,
                    verbose=0,
                    callbacks=kept,
                )
        except BaseException:
            # Keras leaves files and the bar open where it is interrupted.
            for callback in kept:
                # It may not even have begun.
                with contextlib.suppress(Exception):
                    callback.on_train_end()
            raise
        before, done = done, run.model.num_steps
        if done == before:
            raise RuntimeError(
                f"Training stands still at step {done} of {total}: Keras took no step. "
                "Is KERAS_MAX_EPOCHS or KERAS_MAX_STEPS_PER_EPOCH set?"
            )
    if bar is not None:
        is_chief = run.distribution.is_chief
        run.checkpoints.write(run.model, is_chief, **run.facts())
    return bar and bar.images_per_second


def _callbacks(run, bar, done, position, interruption):
    kept = [callbacks.StopWhenLost(done)]
    if position:
        kept.insert(0, callbacks.KeepMetrics(run.model))
    is_chief = run.distribution.is_chief
    if is_chief:
        path = str(run.folder / "metrics.csv")
        kept += [bar, keras.callbacks.CSVLogger(path, append=True)]
    if is_chief and has_tensorboard():
        folder = str(run.folder / "tensorboard")
        kept.append(keras.callbacks.TensorBoard(folder, write_graph=False))
    kept.append(
        callbacks.CheckpointEvery(
            run.checkpoints,
            run.checkpoint_seconds,
            facts=run.facts,
            should_stop=lambda: interruption.signal,
            distribution=run.distribution,
        )
    )
    return kept
