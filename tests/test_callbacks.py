"""The progress bar: what it counts and what it says."""

import itertools

import keras
import numpy as np
import pytest

from keras_kssl import callbacks, progress


@pytest.fixture
def clock(monkeypatch):
    """Each look at the clock is a second after the one before."""
    ticks = itertools.count()
    monkeypatch.setattr(progress.time, "perf_counter", lambda: float(next(ticks)))


def started(epochs=2, steps=3, **options):
    lines = []
    bar = callbacks.ProgressBar(batch_size=10, say=lines.append, **options)
    bar.set_params({"epochs": epochs, "steps": steps})
    bar.on_train_begin()
    return bar, lines


def test_rate_leaves_the_first_step_out(clock):
    bar, _ = started()
    bar.on_epoch_begin(0)
    assert bar.images_per_second == 0.0
    bar.on_train_batch_end(0, {"loss": 1.0})
    assert bar.images_per_second == 0.0
    bar.on_train_batch_end(1, {"loss": 1.0})
    assert bar.images_per_second == 10.0
    bar.on_train_end()


def test_steps_count_once_over_epochs_and_where_several_run_at_a_time(clock):
    bar, _ = started(epochs=2, steps=4)
    for epoch in range(2):
        bar.on_epoch_begin(epoch)
        for batch in (1, 3):
            bar.on_train_batch_end(batch, {"loss": 1.0})
    assert bar._done == 8
    # Six steps follow the first two; the start of an epoch looks at the clock too.
    assert bar.images_per_second == 15.0
    bar.on_train_end()


def test_an_epoch_ends_in_one_line_of_loss_metrics_and_rate(clock):
    bar, lines = started(metrics=("hsic_zy", "absent", "val_knn_20"))
    bar.on_epoch_begin(1)
    for batch in range(3):
        bar.on_train_batch_end(batch, {"loss": 1.0})
    bar.on_epoch_end(1, {"loss": np.float32(0.5), "hsic_zy": 0.25, "other": 1.0})
    bar.on_train_end()
    # Three steps of 10 images in four looks at the clock.
    assert lines == ["epoch 2/2  loss 0.500  hsic zy 0.250  8 images/s"]
    assert bar.seconds_per_epoch == [4.0]


def test_what_was_not_measured_is_left_out_but_not_a_lost_loss(clock):
    bar, lines = started(metrics=("val_knn_20",))
    bar.on_epoch_begin(0)
    bar.on_train_batch_end(2, {"loss": 1.0})
    bar.on_epoch_end(0, {"loss": 0.5, "val_knn_20": np.nan})
    bar.on_epoch_end(0, {"loss": np.nan, "val_knn_20": 0.25})
    bar.on_train_end()
    assert "  loss 0.500  " in lines[0]
    assert "knn" not in lines[0]
    assert "  loss nan  val knn 20 0.250  " in lines[1]


class Waiting:
    """Batches for which training has waited."""

    seconds_waited = 0.0


def test_the_time_waiting_for_data_is_that_of_the_epoch(clock):
    batches = Waiting()
    bar, lines = started(batches=batches)
    for epoch in range(2):
        bar.on_epoch_begin(epoch)
        batches.seconds_waited += 0.5 + 0.5 * epoch
        for batch in range(3):
            bar.on_train_batch_end(batch, {"loss": 1.0})
        bar.on_epoch_end(epoch, {"loss": 1.0})
    bar.on_train_end()
    assert [line.split("  ")[-1] for line in lines] == [
        "12% waiting for data",
        "25% waiting for data",
    ]


def test_a_bar_goes_on_where_training_did():
    bar, _ = started(epochs=2, steps=2, start_step=7, total_steps=10)
    bar.on_epoch_begin(3)
    bar.on_train_batch_end(0, {"loss": 1.0})
    assert (bar._done, bar._total) == (8, 10)
    bar.on_train_end()


@pytest.mark.parametrize("loss", [np.nan, np.inf, -np.inf])
def test_a_lost_loss_ends_training_and_names_the_step(loss):
    guard = callbacks.StopWhenLost(start_step=10)
    guard.on_epoch_begin(0)
    for batch in range(4):
        guard.on_train_batch_end(batch, {"loss": 1.0})
    guard.on_epoch_begin(1)
    guard.on_train_batch_end(0, {"loss": 1.0})
    with pytest.raises(FloatingPointError, match=r"the loss became -?\w+ at step 16"):
        guard.on_train_batch_end(1, {"loss": loss})


def test_fit_prints_a_line_per_epoch():
    lines = []
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    images, targets = np.ones((12, 2), "float32"), np.ones((12, 1), "float32")
    bar = callbacks.ProgressBar(4, say=lines.append)
    model.fit(images, targets, batch_size=4, epochs=2, verbose=0, callbacks=[bar])
    assert [line.split("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert bar._done == 6
    assert bar.images_per_second > 0


def test_lines_go_to_the_console_where_nobody_listens(capsys):
    bar = callbacks.ProgressBar(4)
    bar.set_params({"epochs": 1, "steps": 2})
    bar.on_train_begin()
    bar.on_epoch_begin(0)
    bar.on_epoch_end(0, {"loss": 0.5})
    bar.on_train_end()
    assert "epoch 1/1" in capsys.readouterr().out
