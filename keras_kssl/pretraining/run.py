"""From a recipe to a run folder: train, judge before and after, export, draw."""

import contextlib
import dataclasses
import importlib.util
import json
import time

import keras
import numpy as np

from keras_kssl import (
    callbacks,
    checkpoints,
    data,
    evaluation,
    export,
    pictures,
    preview,
)
from keras_kssl._checks import check_number, check_that
from keras_kssl._files import write_whole
from keras_kssl._seeds import derived_seed
from keras_kssl.pretraining import failures
from keras_kssl.pretraining.building import build_model, has_accelerator
from keras_kssl.pretraining.folder import RunFolder, versions
from keras_kssl.pretraining.interruption import Interruption
from keras_kssl.pretraining.judging import (
    NEIGHBOURS,
    check_judges,
    check_labelled,
    describe_scores,
    score_features,
)
from keras_kssl.recipes import Facts, Recipe

# Side to which images of many sizes are brought where raw pixels are compared.
_RAW_SIZE = 32
_METRICS = ("alignment", "uniformity", "effective_rank")


class Run:
    """A run that was checked as a whole and has not begun.

    Everything that can be wrong with a recipe, its data or its folder is found here:
    the sources are open, the model is built, and the folder has been made. The folder
    is this process's until `execute` ends.

    Args:
        recipe: a `recipes.Recipe`; `None`, with `resume`, for the run's own.
        out: the run folder; it must not exist or be empty, or `overwrite` or `resume`
            be given.
        overwrite: whether a run that is there is deleted.
        resume: whether a run that is there is gone on with.
        checkpoint_seconds: time between two checkpoints. Default 300.
        asked: with `resume`, names of the recipe's options that must be the run's own.
            Default: those that are not left to their defaults.
        say: function that prints a line for people.
    """

    def __init__(
        self,
        recipe,
        out,
        overwrite=False,
        resume=False,
        checkpoint_seconds=300.0,
        asked=None,
        say=print,
    ):
        self._say = say
        self.checkpoint_seconds = check_number(
            "pretrain", "checkpoint_seconds", checkpoint_seconds, 0.0
        )
        check_that(
            not (overwrite and resume),
            "pretrain",
            "overwrite",
            "False where `resume` is given",
            overwrite,
        )
        with contextlib.ExitStack() as stack:
            self.folder = RunFolder(out, overwrite, resume, stack)
            self.out = self.folder.path
            self._prepare(recipe or Recipe(), resume, asked)
            self._stack = stack.pop_all()

    def _prepare(self, recipe, resume, asked):
        if resume:
            recipe = self._unchanged(recipe, asked)
        rule = "given: images such as folder:DIR"
        check_that(recipe.data is not None, "recipe", "data", rule, recipe.data)
        self.source = data.open_source(recipe.data, recipe.limit, recipe.max_broken)
        self.recipe = self._resolved(recipe)
        self.judges = self._open_judges(self.recipe)
        self.batches = self._batches_from(0)
        self.total_steps = self.recipe.epochs * self.batches.steps_per_epoch
        keras.utils.set_random_seed(self.recipe.seed)
        keras.config.set_dtype_policy(self.recipe.precision)
        try:
            self.model = build_model(
                self.recipe, self.source.image_shape[-1], self.total_steps
            )
        finally:
            keras.config.set_dtype_policy("float32")
        self.checkpoints = checkpoints.Checkpoints(self.folder / "checkpoints")
        facts = {
            "name": self.source.name,
            "images": len(self.source),
            "content": self.source.fingerprint(),
        }
        if not resume:
            self.folder.begin(self.recipe, facts)
            if hasattr(self.source, "files"):
                listing = "\n".join(self.source.files) + "\n"
                write_whole(self.folder / "files.txt", listing)
            return
        for line in self.folder.changes(facts):
            self.say(f"changed since the run began: {line}")
        self._keep_listing()

    def execute(self):
        """Trains, judges, exports and draws; returns the summary."""
        with self._stack:
            return self._execute()

    def _execute(self):
        began = time.perf_counter()
        self.say(self._describe())
        before = self._judge("untrained", self.model.averaged_encoder())
        self._report_broken()
        facts = self.checkpoints.restore(self.model) or {"step": 0, "seconds": 0.0}
        self._seconds = lambda: facts["seconds"] + time.perf_counter() - began
        if facts["step"]:
            epoch, step = divmod(facts["step"], self.batches.steps_per_epoch)
            where = f"step {step} of epoch {epoch + 1}" if step else f"epoch {epoch}"
            self.say(f"going on after step {facts['step']}: after {where}")
        self.folder.cut_metrics(facts["step"] // self.batches.steps_per_epoch)
        if facts["step"] == 0:
            self._draw_views()
        rate = self._train(facts["step"])
        self._report_broken()
        encoder = self.model.averaged_encoder()
        after = self._judge("trained", encoder)
        accuracies = self._accuracies(before, after)
        written = self._write_encoder(encoder)
        self._draw(before, after)
        summary = {
            "method": self.recipe.method,
            "accuracies": accuracies,
            "last_epoch": self.folder.last_metrics(),
            "images_per_second": rate,
            "seconds": self._seconds(),
            "seed": self.recipe.seed,
            "broken_images": len(getattr(self.source, "broken", ())),
            "versions": versions(),
            "files": written,
        }
        text = json.dumps(summary, indent=2, default=float) + "\n"
        write_whole(self.folder / "summary.json", text)
        return summary

    def say(self, line):
        """Prints a line and keeps it in the run's log."""
        self._say(line)
        self.log(line)

    def try_batch(self, size):
        """Takes one step with a new model and a batch of another size."""
        recipe = dataclasses.replace(self.recipe, batch_size=size)
        model = build_model(recipe, self.source.image_shape[-1], self.total_steps)
        batches = data.Batches(self.source, size, recipe.seed)
        model.fit(batches, steps_per_epoch=1, verbose=0)

    def log(self, line):
        """Keeps a line in the run's log."""
        with open(self.out / "log.txt", "a") as file:
            file.write(line + "\n")

    def _train(self, done):
        """Trains from step `done` on; returns images per second."""
        steps = self.batches.steps_per_epoch
        bar = None
        interruption = Interruption()
        with failures.explained(self, interruption), interruption:
            while done < self.total_steps:
                epoch, position = divmod(done, steps)
                batches = self._batches_from(done)
                # An epoch that was left in the middle is ended first.
                last = epoch + 1 if position else self.recipe.epochs
                bar = callbacks.ProgressBar(
                    self.recipe.batch_size,
                    metrics=_METRICS,
                    say=self.say,
                    batches=batches,
                    start_step=done,
                    total_steps=self.total_steps,
                )
                options = {"initial_epoch": epoch, "epochs": last, "verbose": 0}
                kept = self._callbacks(bar, done, interruption)
                try:
                    self.model.fit(
                        batches,
                        steps_per_epoch=steps - position,
                        callbacks=kept,
                        **options,
                    )
                except BaseException:
                    # Keras leaves files and the bar open where it is interrupted.
                    for callback in kept:
                        # It may not even have begun.
                        with contextlib.suppress(Exception):
                            callback.on_train_end()
                    raise
                done = int(self.model.steps)
            self.checkpoints.write(self.model, seconds=self._seconds())
        return bar.images_per_second if bar else 0.0

    def _callbacks(self, bar, done, interruption):
        kept = [
            callbacks.StopWhenLost(done),
            bar,
            keras.callbacks.CSVLogger(str(self.out / "metrics.csv"), append=True),
        ]
        if done % self.batches.steps_per_epoch:
            kept.insert(0, callbacks.KeepMetrics(self.model))
        if _has_tensorboard():
            folder = str(self.out / "tensorboard")
            kept.append(keras.callbacks.TensorBoard(folder, write_graph=False))
        kept.append(
            callbacks.CheckpointEvery(
                self.checkpoints,
                self.checkpoint_seconds,
                facts=lambda: {"seconds": self._seconds()},
                should_stop=lambda: interruption.signal,
            )
        )
        return kept

    def _batches_from(self, step):
        recipe = self.recipe
        size, seed = recipe.batch_size, recipe.seed
        return data.Batches(self.source, size, seed, step, with_labels=False)

    def _unchanged(self, recipe, asked):
        """The run's own recipe, unless another was asked for."""
        own = self.folder.recipe()
        changed = recipe.differences(own, asked)
        if changed:
            named = ", ".join(
                f"{name}={asked!r} (the run has {name}={has!r})"
                for name, (asked, has) in changed.items()
            )
            raise ValueError(
                "pretrain: a run that is gone on with must keep its recipe. Received: "
                f"{named}. Leave these out, or start a new run in another folder."
            )
        return own

    def _keep_listing(self):
        """Keeps to the files that the run began with, whatever is there now."""
        path = self.folder / "files.txt"
        if not path.is_file():
            return
        began_with = path.read_text().split("\n")[:-1]
        if began_with == self.source.files:
            return
        now = set(self.source.files)
        gone = [file for file in began_with if file not in now]
        new = len(now.difference(began_with))
        self.say(
            f"{len(gone)} files are gone ({', '.join(gone[:3]) or 'none'}) and count "
            f"as broken; {new} are new and left out"
        )
        self.source = self.source.listed_as(began_with)
        self.batches = self._batches_from(0)

    def _resolved(self, recipe):
        height, width = self.source.image_shape[:2]
        if height is None:
            height, width = np.median(self.source.some_sizes(), axis=0)
        facts = Facts(len(self.source), int(min(height, width)), has_accelerator())
        recipe = recipe.resolved(facts)
        channels = self.source.image_shape[-1]
        if channels != 3 and None in (recipe.mean, recipe.std):
            mean, std = data.channel_moments(self.source)
            recipe = dataclasses.replace(
                recipe, mean=recipe.mean or mean, std=recipe.std or std
            )
        return recipe

    def _open_judges(self, recipe):
        if recipe.eval_test is None:
            return None
        train = self.source
        if recipe.eval_train is not None:
            train = data.open_source(recipe.eval_train)
        test = data.open_source(recipe.eval_test)
        for name, source in (("eval_train", train), ("eval_test", test)):
            check_labelled("recipe", name, source)
            check_that(
                source.image_shape[-1] == self.source.image_shape[-1],
                "recipe",
                name,
                f"images of {self.source.image_shape[-1]} channels, as the data has",
                getattr(recipe, name),
                f"Its images have {source.image_shape[-1]}.",
            )
        check_judges(train, test)
        return train, test

    def _describe(self):
        recipe = self.recipe
        millions = self.model.encoder.count_params() / 1e6
        return (
            f"{recipe.method}: {recipe.encoder} ({millions:.2f} million parameters) on "
            f"{len(self.source):,} images of {self.source.name}, views of "
            f"{recipe.size} x {recipe.size}, {recipe.epochs} epochs of "
            f"{self.batches.steps_per_epoch} steps, batch {recipe.batch_size}, "
            f"{recipe.optimizer} at {recipe.learning_rate:g}, "
            f"{keras.backend.backend()} backend, seed {recipe.seed}"
        )

    def _report_broken(self):
        broken = getattr(self.source, "broken", {})
        path = self.out / "broken_images.txt"
        text = "".join(f"{name}: {why}\n" for name, why in sorted(broken.items()))
        if text and (not path.is_file() or path.read_text() != text):
            write_whole(path, text)
            self.say(f"{len(broken)} images cannot be read and are skipped: {path}")

    def _judge(self, tag, encoder):
        if self.judges is None:
            return None
        train, test = (
            evaluation.extract_features(encoder, source, size=self.recipe.size)
            for source in self.judges
        )
        scores = score_features(*train, *test, seed=derived_seed(self.recipe.seed, 3))
        self.say(f"{tag} encoder: {describe_scores(scores)}")
        return {"scores": scores, "test_features": test[0], "test_labels": test[1]}

    def _accuracies(self, before, after):
        if self.judges is None:
            return None
        # Raw pixels are the features of an encoder that does nothing.
        pixels = [
            evaluation.extract_features(_flatten, source, size=_RAW_SIZE)
            for source in self.judges
        ]
        raw = evaluation.knn_accuracy(*pixels[0], *pixels[1], k=NEIGHBOURS)
        self.say(f"raw pixels: {describe_scores(raw)}")
        return {
            "raw_pixels": raw,
            "untrained": before["scores"],
            "trained": after["scores"],
        }

    def _write_encoder(self, encoder):
        path = self.out / "encoder.keras"
        written = {"encoder": export.keras_file(encoder, path, overwrite=True)}
        if keras.backend.backend() == "tensorflow":
            path = self.out / "saved_model"
            written["saved_model"] = export.saved_model(encoder, path, overwrite=True)
        return {name: str(path) for name, path in written.items()}

    def _draw_views(self):
        path = self.out / "pictures" / "views.png"
        preview.draw(self.source, self.model.augment, path, seed=self.recipe.seed)
        self._show_on_tensorboard("views", path)

    def _draw(self, before, after):
        folder = self.out / "pictures"
        title = f"{self.recipe.method}, {self.source.name}"
        pictures.draw_curves(self.out / "metrics.csv", folder / "curves.png", title)
        if self.judges is None:
            return
        test = self.judges[1]
        panels = {
            f"{tag} encoder: {describe_scores(judged['scores'])}": judged[
                "test_features"
            ]
            for tag, judged in (("untrained", before), ("trained", after))
        }
        pictures.draw_maps(
            panels,
            after["test_labels"],
            folder / "embeddings.png",
            class_names=test.class_names,
            seed=0,
        )
        self._show_on_tensorboard("embeddings", folder / "embeddings.png")

    def _show_on_tensorboard(self, name, path):
        if not _has_tensorboard():
            return
        import tensorflow as tf

        with tf.summary.create_file_writer(str(self.out / "tensorboard")).as_default():
            image = tf.io.decode_png(path.read_bytes(), channels=3)
            tf.summary.image(name, image[tf.newaxis], step=int(self.model.steps))


def pretrain(recipe, out, overwrite=False, resume=False, say=print, **options):
    """Runs a recipe and leaves everything in the folder `out`; returns the summary.

    The folder holds recipe.json (every default written out), metrics.csv,
    checkpoints/, tensorboard/, log.txt, encoder.keras, saved_model/ (TensorFlow
    backend), pictures/ and summary.json; for folders of photos files.txt and, if there
    are any, broken_images.txt.

    A run that has ended in the middle, however it did, goes on with `resume=True`, from
    its last checkpoint and to the same weights, bit for bit on a CPU.

    Raises:
        ValueError, TypeError, OSError: before training, for anything wrong with the
            recipe, the data or the folder.
        RunFailed: for what goes wrong later; it says how to go on.
        KeyboardInterrupt: for Ctrl-C and SIGTERM, once a checkpoint is written.
    """
    return Run(recipe, out, overwrite, resume, say=say, **options).execute()


def describe_summary(summary, out):
    """The closing lines of a run: what was gained, and where everything is."""
    lines = []
    accuracies = summary["accuracies"]
    if accuracies is not None:
        lines.append("")
        for name, scores in accuracies.items():
            lines.append(f"{name.replace('_', ' '):>10}: {describe_scores(scores)}")
    pictures_folder = out / "pictures"
    lines += ["", f"Pictures:    {pictures_folder}/"]
    for name, path in summary["files"].items():
        lines.append(f"{name.replace('_', ' ').capitalize() + ':':<13}{path}")
    lines.append(f"Summary:     {out / 'summary.json'}")
    return lines


def _flatten(images):
    return images.reshape(len(images), -1)


def _has_tensorboard():
    return all(importlib.util.find_spec(p) for p in ("tensorflow", "tensorboard"))
