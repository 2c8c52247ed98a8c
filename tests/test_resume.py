"""Runs that end in the middle and go on: to the same weights, and nothing is lost."""

import dataclasses
import errno
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from keras_kssl import _files, augment, checkpoints, cli, data, pretraining
from keras_kssl.checkpoints import Checkpoints
from keras_kssl.pretraining import building, failures, interruption, training
from keras_kssl.recipes import Recipe
from tests.photos import broken_files, encoded, odd_files, picture, write_folder


def tiny_encoder(depth, seed=None, **options):
    """Compiles at once; batch statistics and dropout carry state from step to step."""
    del depth, options
    initializer = keras.initializers.GlorotUniform(seed)
    encoder = keras.Sequential(
        [
            keras.Input((None, None, 3)),
            keras.layers.Conv2D(4, 3, strides=2, kernel_initializer=initializer),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.2, seed=seed),
        ]
    )
    encoder.check_image_size = lambda height, width: None
    return encoder


def crops_and_flips(recipe):
    """Two views that draw random numbers, without colours: a third less to trace."""
    view = augment.View(recipe.size, flip=0.5, antialias=False)
    return augment.Policy([view, view])


@pytest.fixture(autouse=True)
def only_training(request, monkeypatch):
    """A tiny encoder, and nothing of what comes after training and takes longer."""
    if request.node.get_closest_marker("slow"):
        return
    monkeypatch.setattr(building.models, "ResNet", tiny_encoder)
    monkeypatch.setattr(building, "build_policy", crops_and_flips)
    monkeypatch.setattr(pretraining.Run, "_write_encoder", lambda *arguments: {})
    for name in ("show_views", "show_curves", "show_embeddings"):
        monkeypatch.setattr(pretraining.showing, name, lambda *arguments: None)
    monkeypatch.setattr(pretraining.showing, "has_tensorboard", lambda: False)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    files = {f"{i:02d}.jpg": encoded(picture(24 + i, 40, i)) for i in range(26)}
    return write_folder(folder, files)


def recipe_of(photos, **options):
    """Of the method whose step takes the least time to trace."""
    small = {"encoder": "resnet10", "projector": (16, 8), "size": 16}
    steps = {"epochs": 3, "batch_size": 8, "method": "sfrik"}
    return Recipe(data=f"folder:{photos}", **{**small, **steps, **options})


def pretrain(recipe, out, **options):
    lines = []
    options = {"checkpoint_seconds": 1000.0, "say": lines.append, **options}
    summary = pretraining.pretrain(recipe, out, **options)
    return summary, lines


def state(out):
    """Every array of the last checkpoint, and the metrics of every epoch."""
    path = Checkpoints(out / "checkpoints").paths()[0]
    with np.load(path) as archive:
        # In one process a second model's variables have other names.
        names = ("facts", "paths")
        arrays = {key: archive[key] for key in archive if key not in names}
    return arrays, (out / "metrics.csv").read_text()


def assert_same_run(out, expected):
    (arrays, metrics), (others, other_metrics) = state(out), expected
    assert arrays.keys() == others.keys()
    different = [key for key in arrays if not np.array_equal(arrays[key], others[key])]
    assert different == []
    assert metrics == other_metrics


class StopAt(keras.callbacks.Callback):
    """Does something after a number of steps of this process."""

    def __init__(self, step, action):
        super().__init__()
        self.step, self.action, self.seen = step, action, 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == self.step:
            self.action()


def stop_at(monkeypatch, step, action):
    """Lets a run do something after `step` steps, before its own callbacks see it."""
    usual = training._callbacks

    def callbacks(*arguments):
        return [StopAt(step, action), *usual(*arguments)]

    monkeypatch.setattr(training, "_callbacks", callbacks)


def send(number):
    return lambda: os.kill(os.getpid(), number)


HSIC = {"method": "ssl_hsic", "target": True, "num_features": 16}
METHODS = {
    "gram": {**HSIC, "estimator": "gram"},
    "random features": {**HSIC, "estimator": "random_features"},
    "sfrik": {},
}


@pytest.fixture(scope="module")
def undisturbed(photos, tmp_path_factory):
    """States of whole runs, each made once."""
    made = {}

    def run(name):
        if name not in made:
            out = tmp_path_factory.mktemp("whole") / "run"
            pretrain(recipe_of(photos, **METHODS[name]), out)
            made[name] = state(out)
        return made[name]

    return run


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    """Copies of a run of one epoch that has ended, trained once."""
    made = tmp_path_factory.mktemp("finished") / "run"

    def copy(out):
        if not made.exists():
            pretrain(recipe_of(photos, epochs=1), made)
        return shutil.copytree(made, out)

    return copy


@pytest.mark.parametrize(
    "name",
    ["gram", "sfrik", pytest.param("random features", marks=pytest.mark.slow)],
)
def test_a_stopped_run_goes_on_to_the_same_weights(
    name, photos, tmp_path, monkeypatch, undisturbed
):
    recipe, out = recipe_of(photos, **METHODS[name]), tmp_path / "run"
    # In the middle of an epoch, at its end, and soon after going on: the last two for
    # one method, for what they add lies in no method.
    stops = ((signal.SIGTERM, 2), (signal.SIGINT, 1), (signal.SIGTERM, 2))
    stops = stops if name == "sfrik" else stops[:1]
    for number, step in stops:
        with monkeypatch.context() as patch:
            stop_at(patch, step, send(number))
            with pytest.raises(pretraining.RunInterrupted, match="--resume") as caught:
                pretrain(recipe, out, resume=out.exists())
        assert caught.value.signal == number
    done = sum(step for _, step in stops)
    assert Checkpoints(out / "checkpoints").steps()[0] == done
    _, lines = pretrain(None, out, resume=True)
    assert any(f"going on after step {done}" in line for line in lines)
    assert_same_run(out, undisturbed(name))


def test_steps_taken_together_stop_and_go_on_together(photos, tmp_path, monkeypatch):
    recipe = recipe_of(photos, batch_size=4, epochs=2, steps_per_execution=3)
    pretrain(recipe, tmp_path / "whole")
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, 1, send(signal.SIGTERM))
        with pytest.raises(pretraining.RunInterrupted, match="step 3 of 12"):
            pretrain(recipe, out)
    pretrain(None, out, resume=True)
    assert_same_run(out, state(tmp_path / "whole"))


@pytest.mark.any_backend
def test_a_run_that_was_done_only_writes_its_results_again(photos, tmp_path):
    out = tmp_path / "run"
    pretrain(recipe_of(photos), out)
    before = state(out)
    (out / "summary.json").unlink()
    pretrain(None, out, resume=True)
    assert_same_run(out, before)
    assert (out / "summary.json").is_file()


def dense(names):
    """A compiled model of a layer for each name."""
    built = keras.Sequential([keras.layers.Dense(4, name=name) for name in names])
    built.build((None, 4))
    built.num_steps = 0
    built.compile("sgd")
    return built


HARMS = {
    "cut": lambda content: content[: len(content) // 2],
    "flipped": lambda content: (
        content[: len(content) // 2]
        + bytes([content[len(content) // 2] ^ 1])
        + content[len(content) // 2 + 1 :]
    ),
    "empty": lambda content: b"",
}


@pytest.mark.any_backend
@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_the_checkpoint_before_a_damaged_one_is_restored(harm, tmp_path):
    kept, model, said = Checkpoints(tmp_path), dense(["only"]), []
    for model.num_steps in (4, 5):
        model.set_weights([np.full(w.shape, model.num_steps) for w in model.weights])
        kept.write(model)
    newest, _ = kept.paths()
    newest.write_bytes(harm(newest.read_bytes()))
    other = dense(["only"])
    assert kept.restore(other, warn=said.append)["step"] == 4
    for weight in other.get_weights():
        np.testing.assert_array_equal(weight, 4)
    assert len(said) == 1
    assert f"{newest.name} is damaged and passed over" in said[0]


@pytest.mark.any_backend
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    photos, tmp_path, monkeypatch, undisturbed
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, 5, send(signal.SIGTERM))
        with pytest.raises(pretraining.RunInterrupted):
            pretrain(recipe_of(photos), out, checkpoint_seconds=0.0)
    newest, older = Checkpoints(out / "checkpoints").paths()
    newest.write_bytes(HARMS["cut"](newest.read_bytes()))
    _, lines = pretrain(None, out, resume=True)
    assert any(f"{newest.name} is damaged and passed over" in line for line in lines)
    step = int(older.name.split("-")[1])
    assert any(f"going on after step {step}" in line for line in lines)
    assert_same_run(out, undisturbed("sfrik"))


@pytest.mark.any_backend
def test_a_run_whose_checkpoints_are_all_damaged_is_not_begun_again_in_silence(
    finished, tmp_path
):
    out = finished(tmp_path / "run")
    metrics = (out / "metrics.csv").read_text()
    for path in Checkpoints(out / "checkpoints").paths():
        path.write_bytes(b"")
    with pytest.raises(pretraining.RunFailed, match="1, all damaged"):
        pretrain(None, out, resume=True)
    assert (out / "metrics.csv").read_text() == metrics


@pytest.mark.any_backend
def test_a_checkpoint_that_cannot_be_read_now_is_not_called_damaged(
    finished, tmp_path, monkeypatch
):
    out = finished(tmp_path / "run")

    def fail(path):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "sha256", fail)
        with pytest.raises(OSError, match="Input/output"):
            pretrain(None, out, resume=True)
    assert Checkpoints(out / "checkpoints").steps() == [3]


@pytest.mark.any_backend
def test_variables_in_another_order_are_another_model(photos, tmp_path):
    """Of the same shapes, so that nothing but their names tells them apart."""
    kept = Checkpoints(tmp_path)
    kept.write(dense(["first", "second"]))
    assert kept.restore(dense(["first", "second"]))["step"] == 0
    with pytest.raises(ValueError, match="must be the one that was saved"):
        kept.restore(dense(["second", "first"]))


@pytest.mark.any_backend
def test_without_a_checkpoint_a_run_begins_again(
    photos, tmp_path, monkeypatch, undisturbed
):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, 4, send(signal.SIGTERM))
        with pytest.raises(pretraining.RunInterrupted):
            pretrain(recipe_of(photos), out)
    shutil.rmtree(out / "checkpoints")
    pretrain(None, out, resume=True)
    assert_same_run(out, undisturbed("sfrik"))


@pytest.mark.any_backend
def test_a_changed_recipe_is_refused_and_named(photos, finished, tmp_path):
    out = finished(tmp_path / "run")
    with pytest.raises(ValueError, match=r"epochs=2 \(the run has epochs=1\)"):
        pretrain(recipe_of(photos, epochs=2), out, resume=True)
    pretrain(recipe_of(photos, epochs=1), out, resume=True)
    # Left to a default that depends on the data, and one that a run may change.
    pretrain(recipe_of(photos, epochs=1, stem="auto", max_broken=0.5), out, resume=True)
    assert Recipe.read(out / "recipe.json").max_broken == 0.5
    with pytest.raises(FileExistsError, match="--resume"):
        pretrain(recipe_of(photos, epochs=1), out)
    with pytest.raises(FileNotFoundError, match="which holds none"):
        pretrain(None, tmp_path / "other", resume=True)
    assert not (tmp_path / "other").exists()


@pytest.mark.any_backend
def test_other_files_and_versions_are_noticed(photos, tmp_path, monkeypatch):
    folder = shutil.copytree(photos, tmp_path / "photos")
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, 4, send(signal.SIGTERM))
        with pytest.raises(pretraining.RunInterrupted):
            pretrain(recipe_of(folder, max_broken=0.5), out)
    (folder / "03.jpg").unlink()
    (folder / "00_new.jpg").write_bytes(encoded(picture(30, 30, 99)))
    monkeypatch.setattr(keras, "__version__", "3.99.0")
    summary, lines = pretrain(None, out, resume=True)
    text = "\n".join(lines)
    assert "keras was 3.15" in text
    assert "3.99.0" in text
    assert "the data's content was" in text
    assert "1 files are gone (03.jpg) and count as broken; 1 are new" in text
    assert summary["broken_images"] == 1
    assert "03.jpg: " in (out / "broken_images.txt").read_text()


def lose_a_file(folder):
    (folder / "03.jpg").unlink()


def add_files(folder):
    for i in range(9):
        (folder / f"00_{i}.jpg").write_bytes(encoded(picture(30, 30, i)))


@pytest.mark.any_backend
@pytest.mark.parametrize("harm", [lose_a_file, add_files])
def test_a_run_keeps_its_length_whatever_files_come_or_go(
    harm, photos, tmp_path, monkeypatch
):
    """24 images are 3 batches of 8; one file less makes 2 of them, 9 more make 4."""
    folder = shutil.copytree(photos, tmp_path / "photos")
    for name in ("00.jpg", "01.jpg"):
        (folder / name).unlink()
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, 4, send(signal.SIGTERM))
        with pytest.raises(pretraining.RunInterrupted):
            pretrain(recipe_of(folder, max_broken=0.5), out)
    harm(folder)
    run = pretraining.Run(None, out, resume=True, say=lambda line: None)
    steps = run.prepared.total_steps
    assert steps == 3 * run.recipe.epochs
    run.execute()
    assert Checkpoints(out / "checkpoints").steps()[0] == steps


@pytest.mark.any_backend
def test_new_files_before_those_of_a_limited_run_change_nothing(photos, tmp_path):
    folder, out = shutil.copytree(photos, tmp_path / "photos"), tmp_path / "run"
    pretrain(recipe_of(folder, limit=10, epochs=1), out)
    add_files(folder)
    _, lines = pretrain(None, out, resume=True)
    assert not any("changed" in line for line in lines)


@pytest.mark.any_backend
def test_more_or_fewer_images_in_an_archive_are_refused(tmp_path):
    path, out = tmp_path / "a.npz", tmp_path / "run"
    for count in (16, 24):
        np.savez(path, images=np.zeros((count, 9, 9, 3), "uint8"))
        recipe = dataclasses.replace(recipe_of(""), data=f"npz:{path}", size=8)
        if count == 16:
            pretrain(recipe, out)
            continue
        with pytest.raises(ValueError, match=r"16 images.*with 24"):
            pretrain(None, out, resume=True)


@pytest.mark.any_backend
def test_keras_taking_no_step_ends_in_a_sentence(photos, tmp_path, monkeypatch):
    run = pretraining.Run(recipe_of(photos), tmp_path / "run", say=lambda line: None)
    monkeypatch.setattr(run.model, "fit", lambda *arguments, **options: None)
    with pytest.raises(RuntimeError, match=r"stands still at step 0 of 9.*MAX_EPOCHS"):
        run.execute()


@pytest.mark.any_backend
def test_signals_outside_training_end_the_run_at_once(photos, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(pretraining.Run, "_judge", lambda *a: send(signal.SIGTERM)())
        with pytest.raises(pretraining.RunInterrupted, match="No checkpoint") as caught:
            pretrain(recipe_of(photos), out)
    assert caught.value.signal == signal.SIGTERM
    with monkeypatch.context() as patch:
        patch.setattr(
            pretraining.Run, "_write_encoder", lambda *a: send(signal.SIGINT)()
        )
        with pytest.raises(pretraining.RunInterrupted, match=r"step 9 of 9.*--resume"):
            pretrain(None, out, resume=True)
    pretrain(None, out, resume=True)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.any_backend
def test_a_signal_during_the_last_checkpoint_is_not_lost(photos, tmp_path, monkeypatch):
    out = tmp_path / "run"
    usual = Checkpoints.write

    def write(self, *arguments, **facts):
        path = usual(self, *arguments, **facts)
        send(signal.SIGTERM)()
        return path

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "write", write)
        with pytest.raises(pretraining.RunInterrupted, match="step 9 of 9"):
            pretrain(recipe_of(photos), out)
    assert not (out / "summary.json").exists()


@pytest.mark.any_backend
def test_signals_that_are_ignored_stay_ignored(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_IGN)
    with interruption.Interruption() as noted:
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        assert noted._previous == {}


@pytest.mark.any_backend
def test_nobody_listening_does_not_end_a_run(photos, tmp_path):
    def say(line):
        raise BrokenPipeError

    pretrain(recipe_of(photos, epochs=1), tmp_path / "run", say=say)
    assert "epoch 1/1" in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.any_backend
def test_what_was_found_broken_is_known_after_going_on(photos, tmp_path, monkeypatch):
    folder, out = shutil.copytree(photos, tmp_path / "photos"), tmp_path / "run"
    content = encoded(picture(60, 60))
    (folder / "02.jpg").write_bytes(content[: len(content) * 2 // 3])
    (folder / "none.jpg").write_bytes(b"")
    pretrain(recipe_of(folder), out)
    named = (out / "broken_images.txt").read_text()
    assert [line.split(":")[0] for line in named.splitlines()] == ["02.jpg", "none.jpg"]
    first = json.loads((out / "summary.json").read_text())
    pretrain(None, out, resume=True)
    again = json.loads((out / "summary.json").read_text())
    for name in ("broken_images", "images_per_second"):
        assert again[name] == first[name] > 0
    assert (out / "broken_images.txt").read_text() == named


@pytest.mark.any_backend
def test_lines_count_the_epochs_of_the_whole_run(photos, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, 4, send(signal.SIGTERM))
        with pytest.raises(pretraining.RunInterrupted):
            pretrain(recipe_of(photos), out)
    _, lines = pretrain(None, out, resume=True)
    assert sum("epoch 2/3  loss" in line for line in lines) == 1
    assert "1 device, cpu:0: batch 8" in lines


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ["gs://bucket/run", "gs:/bucket/run"])
def test_runs_are_kept_on_this_machine(name, photos):
    with pytest.raises(ValueError, match="a local path"):
        pretraining.Run(recipe_of(photos), pathlib.Path(name))


@pytest.mark.any_backend
def test_overwriting_unlinks_links_and_keeps_what_they_lead_to(
    photos, finished, tmp_path
):
    out, elsewhere = finished(tmp_path / "run"), tmp_path / "scratch"
    shutil.move(out / "checkpoints", elsewhere)
    os.symlink(elsewhere, out / "checkpoints")
    pretraining.Run(recipe_of(photos), out, overwrite=True).execute()
    assert list(elsewhere.iterdir())
    assert not (out / "checkpoints").is_symlink()


def test_half_precision_and_lars_go_on_to_the_same_weights(
    photos, tmp_path, monkeypatch
):
    options = {"precision": "mixed_float16", "optimizer": "lars", "learning_rate": 0.1}
    recipe, out = recipe_of(photos, **options), tmp_path / "run"
    pretrain(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 4, send(signal.SIGTERM))
        with pytest.raises(pretraining.RunInterrupted):
            pretrain(recipe, out)
    pretrain(None, out, resume=True)
    assert_same_run(out, state(tmp_path / "whole"))


def test_judging_on_the_way_changes_no_weight_and_goes_on_to_the_same_metrics(
    tmp_path, monkeypatch
):
    path = tmp_path / "labelled.npz"
    images = np.random.default_rng(0).integers(0, 256, (30, 17, 17, 3), dtype=np.uint8)
    np.savez(path, images=images, labels=np.arange(30) % 3)
    sources = {"data": f"npz:{path}", "eval_test": f"npz:{path}"}
    recipe = dataclasses.replace(recipe_of(""), **sources, eval_every=2)
    never = dataclasses.replace(recipe, eval_every=0)
    _, lines = pretrain(recipe, tmp_path / "whole")
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert ["val knn 20 0." in line for line in epochs] == [False, True, True]
    pretrain(never, tmp_path / "never")
    judged, unjudged = state(tmp_path / "whole"), state(tmp_path / "never")
    for key, array in unjudged[0].items():
        np.testing.assert_array_equal(judged[0][key], array)
    assert "val_knn_20" in judged[1]
    assert "val_knn_20" not in unjudged[1]
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_at(patch, 2, send(signal.SIGTERM))
        with pytest.raises(pretraining.RunInterrupted):
            pretrain(recipe, out)
    # The rest of the first epoch is a `fit` of its own, and no end of training.
    summary, _ = pretrain(None, out, resume=True)
    assert_same_run(out, judged)
    assert 0.0 <= summary["last_epoch"]["val_knn_20"] <= 1.0


def collapse_at(monkeypatch, step):
    """Lets the monitor of a run find something at a step."""
    usual = training.callbacks.CollapseMonitor.on_train_batch_end

    def on_train_batch_end(self, batch, logs=None):
        usual(self, batch, logs)
        self.seen = getattr(self, "seen", 0) + 1
        if self.seen == step:
            self.found["total"] = "For long all embeddings have been equal."
            self.say(self.found["total"])

    monkeypatch.setattr(
        training.callbacks.CollapseMonitor, "on_train_batch_end", on_train_batch_end
    )


@pytest.mark.any_backend
def test_collapse_is_a_warning_unless_the_run_is_to_stop_then(
    photos, tmp_path, monkeypatch, undisturbed
):
    recipe, out = recipe_of(photos), tmp_path / "run"
    with monkeypatch.context() as patch:
        collapse_at(patch, 4)
        pretrain(recipe, tmp_path / "warned")
        log = (tmp_path / "warned" / "log.txt").read_text()
        assert "warning: For long all embeddings have been equal.\n" in log
        assert_same_run(tmp_path / "warned", undisturbed("sfrik"))
        words = r"For long all .*equal\. Start a new run.*step 4 of 9\. .*--resume"
        with pytest.raises(pretraining.RunFailed, match=words):
            pretrain(recipe, out, stop_on_collapse=True)
    pretrain(None, out, resume=True)
    assert_same_run(out, undisturbed("sfrik"))


@pytest.mark.any_backend
def test_a_command_that_stops_on_collapse_fails_in_one_sentence(
    photos, tmp_path, monkeypatch, capsys
):
    collapse_at(monkeypatch, 2)
    out = tmp_path / "run"
    arguments = ["pretrain", "--data", f"folder:{photos}", "--out", str(out)]
    arguments += ["--width", "0.125", "--projector", "16", "8", "--size", "16"]
    arguments += ["--batch-size", "8", "--epochs", "1", "--stop-on-collapse"]
    arguments += ["--method", "sfrik"]
    assert cli.main(arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("kssl: For long all embeddings have been equal. ")
    assert said.count("\n") == 1
    assert said in (out / "log.txt").read_text()
    assert Checkpoints(out / "checkpoints").steps() == [2]


@pytest.mark.any_backend
def test_a_second_process_is_refused(photos, tmp_path):
    out = tmp_path / "run"
    first = pretraining.Run(recipe_of(photos), out)
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises((BlockingIOError, FileExistsError)) as caught:
            pretraining.Run(recipe_of(photos), out, **options)
        if options:
            assert f"held by process {os.getpid()}" in str(caught.value)
    first.execute()
    pretraining.Run(recipe_of(photos), out, overwrite=True).execute()


@pytest.mark.any_backend
def test_a_full_disk_ends_the_run_and_keeps_what_is_there(
    photos, tmp_path, monkeypatch, undisturbed, capsys
):
    out = tmp_path / "run"
    written = []

    def fill_the_disk(file):
        written.append(file)
        if len(written) > 4:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        usual = np.savez

        def savez(file, **arrays):
            fill_the_disk(file)
            usual(file, **arrays)

        patch.setattr(np, "savez", savez)
        with pytest.raises(pretraining.RunFailed, match=r"is full.*step 4 of 9.*Go on"):
            pretrain(recipe_of(photos), out, checkpoint_seconds=0.0)
    assert not list((out / "checkpoints").glob("*partial*"))
    pretrain(None, out, resume=True)
    assert_same_run(out, undisturbed("sfrik"))


@pytest.mark.any_backend
def test_a_full_disk_leaves_no_half_of_a_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    _files.write_whole(path, "old")

    def fail(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        _files.write_whole(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_lost_run_says_so_and_keeps_its_last_good_checkpoint(photos, tmp_path):
    out = tmp_path / "run"
    options = {"learning_rate": 1e6, "optimizer": "lars", "warmup_epochs": 1.0}
    recipe = recipe_of(photos, epochs=20, **HSIC, **options)
    with pytest.raises(pretraining.RunFailed, match=r"lost: .*lower learning rate"):
        pretrain(recipe, out, checkpoint_seconds=0.0)
    for path in Checkpoints(out / "checkpoints").paths():
        with np.load(path) as archive:
            weights = [archive[key] for key in archive if key.startswith("model/")]
        assert all(np.isfinite(weight).all() for weight in weights)


def test_a_weight_that_is_lost_is_never_written(photos, tmp_path):
    run = pretraining.Run(recipe_of(photos), tmp_path / "run", say=lambda line: None)
    run.model.optimizer.build(run.model.trainable_variables)
    variable = run.model.encoder.trainable_variables[3]
    variable.assign(variable * np.nan)
    with pytest.raises(FloatingPointError, match=variable.path):
        run.checkpoints.write(run.model)
    assert run.checkpoints.paths() == []


@pytest.mark.any_backend
def test_too_many_broken_images_end_a_run_with_their_list(tmp_path):
    """Broken behind good headers, so that only training finds out."""
    files = {f"{i:02d}.jpg": encoded(picture(60, 60, i)) for i in range(24)}
    for name in list(files)[::4]:
        files[name] = files[name][: len(files[name]) * 2 // 3]
    photos = write_folder(tmp_path / "photos", files)
    with pytest.raises(pretraining.RunFailed, match=r"3 of 24.*\n  \d\d\.jpg: image"):
        pretrain(recipe_of(photos), tmp_path / "run")
    summary, _ = pretrain(recipe_of(photos, max_broken=0.5), tmp_path / "other")
    assert summary["broken_images"] == 6


@pytest.mark.slow
def test_out_of_memory_says_which_batch_fits(photos, tmp_path, monkeypatch):
    usual, tried = data.Batches.at, []

    def at(self, step, rows):
        assert not self.with_labels
        tried.append(keras.config.dtype_policy().name)
        if self.batch_size > 4:
            raise MemoryError("Unable to allocate")
        return usual(self, step, rows)

    monkeypatch.setattr(data.Batches, "at", at)
    words = r"batch of 8\. A batch of 4 fits.*If other.*No checkpoint.*Go on"
    run = pretraining.Run(recipe_of(photos), tmp_path / "run", say=lambda line: None)
    with pytest.raises(pretraining.RunFailed, match=words):
        run.execute()
    assert run.model is None


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("size", "words"), [(8, "batch of 2 fits"), (3, "batch of 2 fits"), (2, "Not even")]
)
def test_the_largest_batch_is_looked_for_down_to_two(size, words):
    class Run:
        recipe = Recipe(batch_size=size)

        def try_batch(self, size):
            if size > 2:
                raise MemoryError

    assert words in failures.largest_batch(Run())


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "text",
    [
        "RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes",
        "OOM when allocating tensor with shape[8]",
        "Out of memory while trying to allocate 8 bytes",
    ],
)
def test_what_libraries_say_of_memory_is_understood(text):
    assert failures.is_out_of_memory(RuntimeError(text))
    assert not failures.is_out_of_memory(RuntimeError("shapes do not fit"))


@pytest.mark.any_backend
@pytest.mark.skipif(not pathlib.Path("/sys").is_dir(), reason="no folder of this kind")
def test_a_folder_that_cannot_be_written_is_wrong_input(photos, capsys):
    arguments = ["pretrain", "--data", f"folder:{photos}", "--out", "/sys/kssl/run"]
    assert cli.main(arguments) == 2
    assert "must be a folder that can be written" in capsys.readouterr().err


@pytest.mark.any_backend
def test_an_interrupted_command_says_how_to_go_on(
    photos, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "run"
    arguments = ["pretrain", "--data", f"folder:{photos}", "--out", str(out)]
    arguments += ["--width", "0.125", "--projector", "16", "8", "--size", "16"]
    arguments += ["--batch-size", "8", "--epochs", "1", "--method", "sfrik"]
    with monkeypatch.context() as patch:
        stop_at(patch, 2, send(signal.SIGTERM))
        assert cli.main(arguments) == 128 + signal.SIGTERM
    said = capsys.readouterr().err
    assert "The last checkpoint is of step 2 of 3. Go on: kssl pretrain --re" in said
    assert said.count("\n") == 1
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    # An option that is typed counts, also where it says what is the default.
    resume = ["pretrain", "--resume", "--out", str(out)]
    assert cli.main([*resume, "--width", "1.0"]) == 2
    assert "width=1.0 (the run has width=0.125)" in capsys.readouterr().err
    assert cli.main([*resume, "--width", "0.125"]) == 0
    assert "going on after step 2" in (out / "log.txt").read_text()


@pytest.mark.slow
def test_killed_ten_times_at_any_moment_a_run_ends_in_the_same_weights(tmp_path):
    """2,000 photos with every oddity; two of the checkpoints are cut off."""
    files = {
        f"{i % 7}/{i:04d}.jpg": encoded(picture(60 + i % 50, 90 - i % 40, i))
        for i in range(2000)
    }
    files |= {f"odd/{name}": content for name, content in odd_files().items()}
    bad = {f"bad/{name}": content for name, content in broken_files().items()}
    photos = write_folder(tmp_path / "photos", files | bad)
    command = [sys.executable, "-m", "keras_kssl.cli", "pretrain", "--data"]
    command += [f"folder:{photos}", "--width", "0.125", "--size", "32", "--epochs", "8"]
    command += ["--batch-size", "64", "--projector", "64", "32", "--target", "True"]
    command += ["--checkpoint-seconds", "0.3", "--out"]
    silently = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*command, whole], check=True, capture_output=True)
    named = (whole / "broken_images.txt").read_text()
    assert {line.split(": ")[0] for line in named.splitlines()} == set(bad)

    rng, checkpoints = random.Random(0), Checkpoints(killed / "checkpoints")
    for kill in range(10):
        resume = ["--resume"] if kill else []
        process = subprocess.Popen([*command, killed, *resume], **silently)
        before = set(checkpoints.paths())
        wait_for(process, lambda seen=before: set(checkpoints.paths()) - seen)
        time.sleep(rng.uniform(0.0, 2.5))
        assert process.poll() is None, "the run ended before it was killed"
        process.kill()
        process.communicate()
        if kill in (4, 7):
            newest = checkpoints.paths()[0]
            newest.write_bytes(newest.read_bytes()[:1000])
    subprocess.run([*command, killed, "--resume"], check=True, capture_output=True)
    assert_same_run(killed, state(whole))
    assert (killed / "log.txt").read_text().count("going on after step") == 10


def wait_for(process, condition, seconds=120.0):
    """Looks again and again until something is so, while a process lives."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the process ended"
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)
