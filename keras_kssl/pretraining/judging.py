"""How good an encoder's features are, for the summary of a run."""

import dataclasses

import numpy as np

from keras_kssl import callbacks, data, evaluation
from keras_kssl._checks import check_that
from keras_kssl._seeds import derived_seed
from keras_kssl.evaluation.features import labelled_features

# Neighbours whose vote is reported as the kNN accuracy of a run.
NEIGHBOURS = 20
# Side to which images of many sizes are brought where raw pixels are compared.
RAW_SIZE = 32


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What the judges found of one encoder."""

    scores: dict
    """Accuracies by name."""
    test_features: np.ndarray
    test_labels: np.ndarray


class Judges:
    """Labelled images by which the encoder of a run is judged, before and after.

    Args:
        recipe: a resolved recipe with `eval_test`.
        source: the images of the run, from which the judges learn without `eval_train`.

    Raises:
        ValueError: where accuracy could not be measured later on.
    """

    def __init__(self, recipe, source):
        self.train = source
        if recipe.eval_train is not None:
            self.train = data.open_source(recipe.eval_train)
        self.test = data.open_source(recipe.eval_test)
        self._size = recipe.size
        self._seed = derived_seed(recipe.seed, 3)
        for name, judge in (("eval_train", self.train), ("eval_test", self.test)):
            check_labelled("recipe", name, judge)
            check_that(
                judge.image_shape[-1] == source.image_shape[-1],
                "recipe",
                name,
                f"images of {source.image_shape[-1]} channels, as the data has",
                getattr(recipe, name),
                f"Its images have {judge.image_shape[-1]}.",
            )
        self._check()

    def judge(self, encoder):
        """The `Judgement` of an encoder."""
        features = self._features(encoder, self._size)
        return Judgement(score_features(*features, seed=self._seed), *features[2:])

    def online(self, every, epochs):
        """A callback that judges while training goes on, every so many epochs."""
        return callbacks.OnlineKNN(
            self.train,
            self.test,
            k=NEIGHBOURS,
            every=every,
            size=self._size,
            total_epochs=epochs,
        )

    def raw_pixels(self):
        """Accuracies of the kNN vote on the images as they are."""
        features = self._features(flatten_pixels, RAW_SIZE)
        return evaluation.knn_accuracy(*features, k=NEIGHBOURS)

    def _features(self, encoder, size):
        return labelled_features("judge", encoder, self.train, self.test, size=size)

    def _check(self):
        check_that(
            len(self.train) >= NEIGHBOURS,
            "recipe",
            "eval_train",
            f"at least {NEIGHBOURS} images, as many as vote",
            self.train,
        )
        check_that(
            self.train.image_shape == self.test.image_shape,
            "recipe",
            "eval_test",
            "images of the shape of the judges' training images, "
            f"{self.train.image_shape}",
            self.test,
        )
        test_labels = data.labels_like(self.test, self.train, caller="recipe")
        unseen = np.setdiff1d(test_labels, self.train.labels)
        smallest = min(self.train.labels.min(), test_labels.min())
        check_that(
            len(unseen) == 0 and smallest >= 0,
            "recipe",
            "eval_test",
            "of classes, from 0 on, that the judges' training images have",
            self.test,
            f"Not among them: {unseen.tolist()[:10]}." if len(unseen) else "",
        )


def score_features(
    train_x, train_y, test_x, test_y, protocols=("knn", "linear"), seed=0
):
    """Accuracies of the kNN vote and of the linear probe on frozen features."""
    features = (train_x, train_y, test_x, test_y)
    scores = {}
    if "knn" in protocols:
        scores.update(evaluation.knn_accuracy(*features, k=NEIGHBOURS))
    if "linear" in protocols:
        scores["linear"] = evaluation.linear_accuracy(*features, seed=seed)["linear"]
    return scores


def describe_scores(scores):
    """Accuracies as people read them: "kNN (k = 20) 61.3%, linear 70.2%"."""
    parts = []
    for name, value in scores.items():
        kind, _, k = name.partition("_")
        label = f"kNN (k = {k})" if kind == "knn" else kind
        parts.append(f"{label} {100 * value:.1f}%")
    return ", ".join(parts)


def check_labelled(caller, argument, source):
    """Raises `ValueError` for a source without labels."""
    remedy = "Accuracy cannot be measured without labels."
    rule = "a source with labels"
    check_that(source.labels is not None, caller, argument, rule, source, remedy)


def flatten_pixels(images):
    """Raw pixels: the features of an encoder that does nothing."""
    return images.reshape(len(images), -1)
