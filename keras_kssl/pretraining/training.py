"""The training of a run: epochs, checkpoints, and what people see of them."""

import contextlib

import keras

from keras_kssl import callbacks
from keras_kssl.pretraining import failures
from keras_kssl.pretraining.judging import NEIGHBOURS
from keras_kssl.pretraining.showing import has_tensorboard

_METRICS = ("alignment", "uniformity", "effective_rank", f"val_knn_{NEIGHBOURS}")


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

    Raises:
        RunFailed: where embeddings collapse and the run is to stop then.
    """
    prepared, bar = run.prepared, None
    steps, total = prepared.steps_per_epoch, prepared.total_steps
    monitor = callbacks.CollapseMonitor(
        say=lambda text: run.say(f"warning: {text}"), start_step=done % steps
    )

    def should_stop():
        return interruption.signal or (run.stop_on_collapse and monitor.reason)

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
        kept = _callbacks(run, bar, done, position, monitor, should_stop)
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
        except BaseException as error:
            # Keras leaves files and the bar open where it is interrupted.
            for callback in kept:
                # It may not even have begun.
                with contextlib.suppress(Exception):
                    callback.on_train_end()
            has_stopped = isinstance(error, KeyboardInterrupt) and should_stop()
            if has_stopped and not interruption.signal:
                raise failures.collapsed(run, monitor.reason) from None
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


def _callbacks(run, bar, done, position, monitor, should_stop):
    kept = [callbacks.StopWhenLost(done), monitor]
    if position:
        kept.insert(0, callbacks.KeepMetrics(run.model))
    is_chief = run.distribution.is_chief
    recipe = run.recipe
    # Workers that do not judge would wait for the one that does, and give it up.
    if recipe.eval_every and run.distribution.num_workers == 1:
        kept.append(run.prepared.judges.online(recipe.eval_every, recipe.epochs))
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
            should_stop=should_stop,
            distribution=run.distribution,
        )
    )
    return kept
