"""From a recipe to a run folder: train, judge before and after, export, draw."""

import contextlib
import datetime
import gc
import time

import keras

from keras_kssl import checkpoints, export
from keras_kssl._checks import check_number, check_that
from keras_kssl._machine import peak_memory
from keras_kssl._versions import versions
from keras_kssl.distribution import choose, peak_device_memory
from keras_kssl.pretraining import failures, showing
from keras_kssl.pretraining.folder import RunFolder
from keras_kssl.pretraining.interruption import Interruption
from keras_kssl.pretraining.judging import describe_scores
from keras_kssl.pretraining.preparing import continued, prepare
from keras_kssl.pretraining.telling import describe_beginning
from keras_kssl.pretraining.training import train
from keras_kssl.recipes import Recipe


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
        stop_on_collapse: whether the run ends, with a checkpoint, when
            `callbacks.CollapseMonitor` finds that it is in vain. Default: it warns.
        distribution: `distribution.Distribution` that it trains under. Default: one
            device.
        asked: with `resume`, names of the recipe's options that must be the run's own.
            Default: those that are not left to their defaults.
        say: function that prints a line for people.

    Attributes:
        prepared: `Prepared`: the resolved recipe, its source and its judges.
        model: the compiled model.
        checkpoints: `checkpoints.Checkpoints` of the run.
        folder: `RunFolder`.
    """

    def __init__(
        self,
        recipe,
        out,
        overwrite=False,
        resume=False,
        checkpoint_seconds=300.0,
        stop_on_collapse=False,
        distribution=None,
        asked=None,
        say=print,
    ):
        self._say = say
        self.distribution = distribution or choose("none")
        self.checkpoint_seconds = check_number(
            "pretrain", "checkpoint_seconds", checkpoint_seconds, 0.0
        )
        self.stop_on_collapse = stop_on_collapse
        check_that(
            not (overwrite and resume),
            "pretrain",
            "overwrite",
            "False where `resume` is given",
            overwrite,
        )
        self._resumes = resume
        self._before, self.rate = {"seconds": 0.0}, lambda: None
        self._began = time.perf_counter()
        with contextlib.ExitStack() as stack:
            self.folder = RunFolder(
                out, overwrite, resume, stack, self.distribution.is_chief
            )
            self.checkpoints = checkpoints.Checkpoints(self.folder / "checkpoints")
            recipe = recipe or Recipe()
            if resume:
                self._take_up(recipe, asked)
            else:
                self._begin(recipe)
            self._stack = stack.pop_all()

    @property
    def recipe(self):
        """The resolved recipe."""
        return self.prepared.recipe

    def execute(self):
        """Trains, judges, exports and draws.

        Returns:
            The summary; `None` for workers that are not the chief, which end when the
            training is over.
        """
        interruption = Interruption()
        with self._stack, failures.explained(self, interruption), interruption:
            return self._execute(interruption)

    def say(self, line):
        """Prints a line and keeps it in the run's log; on the chief alone."""
        if not self.distribution.is_chief:
            return
        try:
            self._say(line)
        except BrokenPipeError:
            # Nobody listens any more, as after `| head`; that must not end a run.
            self._say = lambda line: None
        self.folder.log(line)

    def facts(self):
        """What is kept with a checkpoint, beside the model."""
        return {
            "seconds": self._before["seconds"] + time.perf_counter() - self._began,
            "images_per_second": self.rate(),
            "broken": dict(getattr(self.prepared.source, "broken", {})),
        }

    def try_batch(self, size):
        """Takes one step with a new model and a batch of another size."""
        with self.distribution.scope():
            model = self.prepared.build_model(batch_size=size)
            batches = self.prepared.batches(batch_size=size)
            model.fit(batches, steps_per_epoch=1, verbose=0)

    def forget_model(self):
        """Gives the memory of the model back."""
        self.model = None
        keras.utils.clear_session()
        gc.collect()

    def _begin(self, recipe):
        self.prepared = prepare(recipe)
        self.model = self._build_model()
        listing = getattr(self.prepared.source, "files", None)
        self.folder.begin(self.recipe, self.prepared.facts(), listing)

    def _take_up(self, recipe, asked):
        recipe = continued(recipe, self.folder.recipe(), asked)
        self.prepared = prepare(recipe, self.folder.listing())
        facts = self.prepared.facts()
        self.folder.check_count(facts)
        self.model = self._build_model()
        self.folder.keep_recipe(self.recipe)
        for line in (*self.folder.changes(facts), *self.prepared.notes):
            self.say(f"changed since the run began: {line}")

    def _build_model(self):
        self.distribution.check_batch(self.recipe.batch_size)
        with self.distribution.scope():
            return self.prepared.build_model()

    def _execute(self, interruption):
        self._began = time.perf_counter()
        self.say(describe_beginning(self.prepared, self.model))
        self.say(self.distribution.describe(self.recipe.batch_size))
        before = self._judge("untrained", self.model.averaged_encoder())
        done = self._restore()
        self._report_broken()
        self.folder.cut_metrics(done // self.prepared.steps_per_epoch)
        if done == 0 and self.distribution.is_chief:
            showing.show_views(
                self.folder.path,
                self.prepared.source,
                self.model.augment,
                self.recipe.seed,
            )
        try:
            with self.distribution.watch() as watchdog, interruption.waiting():
                rate = train(self, done, interruption, watchdog)
            memory = peak_memory(), peak_device_memory()
        finally:
            self._report_broken()
        encoder = self.model.averaged_encoder()
        if not self.distribution.is_chief:
            return None
        after = self._judge("trained", encoder)
        accuracies = self._accuracies(before, after)
        written = self._write_encoder(encoder)
        self._show(before, after)
        facts = self.facts()
        summary = {
            "method": self.recipe.method,
            "accuracies": accuracies,
            "last_epoch": self.folder.last_metrics(),
            "images_per_second": rate or self._before.get("images_per_second"),
            "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "seconds": facts["seconds"],
            "peak_memory": memory[0],
            "peak_device_memory": memory[1],
            "seed": self.recipe.seed,
            "broken_images": len(facts["broken"]),
            "replicas": self.distribution.num_replicas,
            "versions": versions(),
            "files": written,
        }
        self.folder.write_summary(summary)
        return summary

    def _restore(self):
        """Loads the last checkpoint; returns the number of steps that are done."""
        if not self._resumes:
            return 0
        try:
            with self.distribution.scope():
                facts = self.checkpoints.restore(self.model, warn=self.say)
        except ValueError as error:
            raise failures.RunFailed(str(error)) from error
        step = 0 if facts is None else facts["step"]
        self.distribution.check_same("last checkpoint's step", step)
        if facts is None:
            return 0
        self._before = facts
        if facts["broken"]:
            self.prepared.source.broken.update(facts["broken"])
        done = facts["step"]
        epoch, step = divmod(done, self.prepared.steps_per_epoch)
        where = f"step {step} of epoch {epoch + 1}" if step else f"epoch {epoch}"
        self.say(f"going on after step {done}: after {where}")
        return done

    def _report_broken(self):
        broken = getattr(self.prepared.source, "broken", {})
        if self.folder.report_broken(broken):
            path = self.folder / "broken_images.txt"
            self.say(f"{len(broken)} images cannot be read and are skipped: {path}")

    def _judge(self, tag, encoder):
        if self.prepared.judges is None:
            return None
        judgement = self.prepared.judges.judge(encoder)
        self.say(f"{tag} encoder: {describe_scores(judgement.scores)}")
        return judgement

    def _accuracies(self, before, after):
        if self.prepared.judges is None:
            return None
        raw = self.prepared.judges.raw_pixels()
        self.say(f"raw pixels: {describe_scores(raw)}")
        return {"raw_pixels": raw, "untrained": before.scores, "trained": after.scores}

    def _write_encoder(self, encoder):
        path = self.folder / "encoder.keras"
        written = {"encoder": export.keras_file(encoder, path, overwrite=True)}
        if keras.backend.backend() == "tensorflow":
            path = self.folder / "saved_model"
            written["saved_model"] = export.saved_model(
                encoder, path, size=self.recipe.size, overwrite=True
            )
        return {name: str(path) for name, path in written.items()}

    def _show(self, before, after):
        folder, judges = self.folder.path, self.prepared.judges
        showing.show_curves(
            folder, f"{self.recipe.method}, {self.prepared.source.name}"
        )
        if judges is not None:
            steps = self.prepared.total_steps
            showing.show_embeddings(folder, judges, before, after, steps)


def pretrain(recipe, out, overwrite=False, resume=False, say=print, **options):
    """Runs a recipe and leaves everything in the folder `out`; returns the summary.

    The folder holds recipe.json (every default written out), data.json and
    versions.json (what was trained on and with), metrics.csv, checkpoints/,
    tensorboard/, log.txt, encoder.keras, saved_model/ (TensorFlow backend), pictures/
    and summary.json; for folders of photos files.json and, if there are any,
    broken_images.txt.

    A run that has ended in the middle, however it did, goes on with `resume=True`, from
    its last checkpoint and to the same weights, bit for bit on a CPU.

    Raises:
        ValueError, TypeError, OSError: before training, for anything wrong with the
            recipe, the data or the folder.
        RunFailed: for what goes wrong later; it says how to go on.
        KeyboardInterrupt: for Ctrl-C and SIGTERM; while it trains, once the step is
            done and a checkpoint written.
    """
    return Run(recipe, out, overwrite, resume, say=say, **options).execute()
