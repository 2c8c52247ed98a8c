"""From a recipe to a run folder: train, judge before and after, export, draw."""

import dataclasses
import importlib.util
import json
import pathlib
import platform
import shutil
import time

import keras
import numpy as np

import keras_kssl
from keras_kssl import (
    augment,
    callbacks,
    data,
    evaluation,
    export,
    models,
    objectives,
    optimizers,
    pictures,
)
from keras_kssl._checks import check_that
from keras_kssl._seeds import derived_seed
from keras_kssl.data.arrays import unit_images

_AUTO_CIFAR_STEM_BELOW = 64
# Neighbours whose vote is reported as the kNN accuracy of a run.
NEIGHBOURS = 20


class Run:
    """A run that was checked as a whole and has not begun.

    Everything that can be wrong with a recipe, its data or its folder is found here:
    the sources are open, the model is built, and the folder has been made.

    Args:
        recipe: a `recipes.Recipe`.
        out: the run folder; it must not exist, be empty, or `overwrite` be given.
        overwrite: whether a run that is there is deleted.
        say: function that prints a line for people.
    """

    def __init__(self, recipe, out, overwrite=False, say=print):
        self._say = say
        recipe = recipe.resolved()
        self.out = _free_folder(out, overwrite)
        self.source = data.open_source(recipe.data, limit=recipe.limit)
        self.judges = self._open_judges(recipe)
        self.recipe = self._with_shapes(recipe)
        self.batches = data.load(self.source, recipe.batch_size, seed=recipe.seed)
        self.total_steps = recipe.epochs * self.batches.steps_per_epoch
        keras.utils.set_random_seed(recipe.seed)
        keras.config.set_dtype_policy(recipe.precision)
        try:
            self.model = build_model(
                self.recipe, self.source.image_shape[-1], self.total_steps
            )
        finally:
            keras.config.set_dtype_policy("float32")
        self._make_folder()

    def execute(self):
        """Trains, judges, exports and draws; returns the summary."""
        began = time.perf_counter()
        recipe, model = self.recipe, self.model
        self.say(self._describe())
        before = self._judge("untrained", model.averaged_encoder())
        progress = callbacks.ProgressBar(
            recipe.batch_size,
            metrics=(*model.objective.term_names, "effective_rank"),
            say=self._log_line,
        )
        history = model.fit(
            self.batches,
            epochs=recipe.epochs,
            verbose=0,
            callbacks=[progress, *self._loggers()],
        )
        last = {name: values[-1] for name, values in history.history.items()}
        self._check_finite(history.history["loss"])
        encoder = model.averaged_encoder()
        after = self._judge("trained", encoder)
        accuracies = self._accuracies(before, after)
        written = self._write_encoder(encoder)
        self._draw(before, after)
        summary = {
            "method": recipe.method,
            "accuracies": accuracies,
            "last_epoch": last,
            "images_per_second": progress.images_per_second,
            "seconds": time.perf_counter() - began,
            "seed": recipe.seed,
            "versions": versions(),
            "files": written,
        }
        text = json.dumps(summary, indent=2, default=float) + "\n"
        (self.out / "summary.json").write_text(text)
        return summary

    def say(self, line):
        """Prints a line and keeps it in the run's log."""
        self._say(line)
        self._log_line(line, echo=False)

    def _log_line(self, line, echo=True):
        if echo:
            self._say(line)
        with open(self.out / "log.txt", "a") as file:
            file.write(line + "\n")

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
        _check_judges(train, test)
        return train, test

    def _with_shapes(self, recipe):
        height, width, _ = self.source.image_shape
        size = recipe.size or min(height, width)
        stem = recipe.stem
        if stem == "auto":
            stem = "cifar" if size < _AUTO_CIFAR_STEM_BELOW else "imagenet"
        return dataclasses.replace(recipe, size=size, stem=stem)

    def _make_folder(self):
        # Only here, where everything is checked, does an old run go.
        if self.out.exists():
            shutil.rmtree(self.out)
        self.out.mkdir(parents=True)
        (self.out / "recipe.json").write_text(self.recipe.to_json())

    def _describe(self):
        recipe = self.recipe
        millions = self.model.encoder.count_params() / 1e6
        return (
            f"{recipe.method}: {recipe.encoder} ({millions:.2f} million parameters) on "
            f"{len(self.source):,} images of {self.source.name}, {recipe.epochs} "
            f"epochs of {self.batches.steps_per_epoch} steps, batch "
            f"{recipe.batch_size}, {keras.backend.backend()} backend, "
            f"seed {recipe.seed}"
        )

    def _loggers(self):
        loggers = [
            keras.callbacks.CSVLogger(str(self.out / "metrics.csv")),
            keras.callbacks.TerminateOnNaN(),
        ]
        if all(importlib.util.find_spec(p) for p in ("tensorflow", "tensorboard")):
            loggers.append(
                keras.callbacks.TensorBoard(
                    str(self.out / "tensorboard"), write_graph=False
                )
            )
        else:
            self.say("no tensorboard/ folder: TensorFlow or TensorBoard is missing")
        return loggers

    def _check_finite(self, losses):
        if not np.isfinite(losses[-1]):
            raise FloatingPointError(
                f"The loss became {losses[-1]} in epoch {len(losses)}. Try a lower "
                "learning rate or a longer warm-up; with mixed_float16, try "
                "mixed_bfloat16."
            )

    def _judge(self, tag, encoder):
        if self.judges is None:
            return None
        train, test = (evaluation.extract_features(encoder, s) for s in self.judges)
        scores = score_features(*train, *test, seed=derived_seed(self.recipe.seed, 3))
        self.say(f"{tag} encoder: {describe_scores(scores)}")
        return {"scores": scores, "test_features": test[0]}

    def _accuracies(self, before, after):
        if self.judges is None:
            return None
        pixels = [(source.images, source.labels) for source in self.judges]
        pixels = [(unit_images(x).reshape(len(x), -1), y) for x, y in pixels]
        raw = evaluation.knn_accuracy(*pixels[0], *pixels[1], k=NEIGHBOURS)
        self.say(f"raw pixels: {describe_scores(raw)}")
        return {
            "raw_pixels": raw,
            "untrained": before["scores"],
            "trained": after["scores"],
        }

    def _write_encoder(self, encoder):
        written = {"encoder": export.keras_file(encoder, self.out / "encoder.keras")}
        if keras.backend.backend() == "tensorflow":
            path = self.out / "saved_model"
            written["saved_model"] = export.saved_model(encoder, path)
        return {name: str(path) for name, path in written.items()}

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
            test.labels,
            folder / "embeddings.png",
            class_names=test.class_names,
            seed=0,
        )


def pretrain(recipe, out, overwrite=False, say=print):
    """Runs a recipe and leaves everything in the folder `out`; returns the summary.

    The folder holds recipe.json (every default written out), metrics.csv,
    tensorboard/, log.txt, encoder.keras, saved_model/ (TensorFlow backend), pictures/
    and summary.json.

    Raises:
        ValueError, TypeError, OSError: before training, for anything wrong with the
            recipe, the data or the folder.
        FloatingPointError: when the loss stops being a number.
    """
    return Run(recipe, out, overwrite=overwrite, say=say).execute()


def build_model(recipe, channels, total_steps):
    """The compiled model of a resolved recipe."""
    encoder = models.ResNet(
        int(recipe.encoder.removeprefix("resnet")),
        width=recipe.width,
        stem=recipe.stem,
        input_channels=channels,
        seed=derived_seed(recipe.seed, 0),
    )
    encoder.check_image_size(recipe.size, recipe.size)
    policy = getattr(augment, recipe.augment)(
        recipe.size, crop_scale=(recipe.crop_min, recipe.crop_max), flip=recipe.flip
    )
    options = {
        "augment": policy,
        "average_decay": recipe.average_decay or None,
        "seed": derived_seed(recipe.seed, 1),
    }
    if recipe.method == "ssl_hsic":
        model = _ssl_hsic(recipe, encoder, total_steps, options)
    else:
        model = models.SFRIK(
            encoder,
            objective=objectives.SFRIK(
                recipe.invariance_weight,
                coefficients=recipe.coefficients,
                weight_per_pair=recipe.weight_per_pair,
            ),
            projector=_head(recipe, recipe.projector, 2, "projector"),
            **options,
        )
    model.compile(_optimizer(recipe, total_steps), jit_compile=_jit_compile(recipe))
    return model


def _ssl_hsic(recipe, encoder, total_steps, options):
    predictor = None
    if recipe.target:
        # A predictor maps embeddings to embeddings through one hidden layer.
        widths = (recipe.projector[0], recipe.projector[-1])
        predictor = _head(recipe, widths, 3, "predictor")
    return models.SSLHSIC(
        encoder,
        target=recipe.target,
        objective=objectives.HSIC(
            recipe.regularizer_weight,
            num_features=recipe.num_features,
            estimator=recipe.estimator,
            seed=derived_seed(recipe.seed, 4),
        ),
        projector=_head(recipe, recipe.projector, 2, "projector"),
        predictor=predictor,
        target_decay=optimizers.TargetDecay(total_steps, recipe.target_decay),
        **options,
    )


def _head(recipe, widths, key, name):
    return models.MLPHead(
        widths[:-1],
        widths[-1],
        normalize_output=recipe.method == "ssl_hsic" and recipe.normalize_output,
        seed=derived_seed(recipe.seed, key),
        name=name,
    )


def _optimizer(recipe, total_steps):
    schedule = optimizers.warmup_cosine(
        recipe.learning_rate,
        warmup_steps=round(recipe.warmup_epochs * total_steps / recipe.epochs),
        total_steps=total_steps,
        final_fraction=recipe.final_fraction,
    )
    if recipe.optimizer == "adam":
        return keras.optimizers.Adam(schedule)
    return optimizers.LARS(schedule, weight_decay=recipe.weight_decay)


def _jit_compile(recipe):
    if recipe.jit_compile is not None:
        return recipe.jit_compile
    if keras.backend.backend() == "jax":
        return True
    # XLA's convolutions on a CPU are several times slower than TensorFlow's own.
    return any(not name.startswith("cpu") for name in keras.distribution.list_devices())


def score_features(
    train_x, train_y, test_x, test_y, protocols=("knn", "linear"), seed=0
):
    """Accuracies of the kNN vote and of the linear probe on frozen features."""
    data = (train_x, train_y, test_x, test_y)
    scores = {}
    if "knn" in protocols:
        scores.update(evaluation.knn_accuracy(*data, k=NEIGHBOURS))
    if "linear" in protocols:
        scores["linear"] = evaluation.linear_accuracy(*data, seed=seed)["linear"]
    return scores


def describe_scores(scores):
    """Accuracies as people read them: "kNN (k = 20) 61.3%, linear 70.2%"."""
    parts = []
    for name, value in scores.items():
        kind, _, k = name.partition("_")
        label = f"kNN (k = {k})" if kind == "knn" else kind
        parts.append(f"{label} {100 * value:.1f}%")
    return ", ".join(parts)


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


def check_labelled(caller, argument, source):
    """Raises `ValueError` for a source without labels."""
    remedy = "Accuracy cannot be measured without labels."
    rule = "a source with labels"
    check_that(source.labels is not None, caller, argument, rule, source, remedy)


def _check_judges(train, test):
    """Raises `ValueError` where accuracy could not be measured later on."""
    check_that(
        len(train) >= NEIGHBOURS,
        "recipe",
        "eval_train",
        f"at least {NEIGHBOURS} images, as many as vote",
        train,
    )
    check_that(
        train.image_shape == test.image_shape,
        "recipe",
        "eval_test",
        f"images of the shape of the judges' training images, {train.image_shape}",
        test,
    )
    unseen = np.setdiff1d(test.labels, train.labels)
    check_that(
        len(unseen) == 0 and min(train.labels.min(), test.labels.min()) >= 0,
        "recipe",
        "eval_test",
        "of classes, from 0 on, that the judges' training images have",
        test,
        f"Not among them: {unseen.tolist()[:10]}." if len(unseen) else "",
    )


def versions():
    """Versions of what the numbers of a run depend on."""
    return {
        "keras_kssl": keras_kssl.__version__,
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _free_folder(out, overwrite):
    out = pathlib.Path(out).expanduser()
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return out
    holds_run = (out / "recipe.json").is_file()
    if holds_run and overwrite:
        return out
    holding = "another run" if holds_run else "other files"
    remedy = "or give --overwrite" if holds_run else "or empty it"
    raise FileExistsError(
        f"pretrain: `out` must be a new or an empty folder. Received: "
        f"out={str(out)!r}, which holds {holding}. Take another folder {remedy}."
    )
