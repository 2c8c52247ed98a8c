"""How good an encoder's features are, for the summary of a run."""

import numpy as np

from keras_kssl import evaluation
from keras_kssl._checks import check_that

# Neighbours whose vote is reported as the kNN accuracy of a run.
NEIGHBOURS = 20


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


def check_labelled(caller, argument, source):
    """Raises `ValueError` for a source without labels."""
    remedy = "Accuracy cannot be measured without labels."
    rule = "a source with labels"
    check_that(source.labels is not None, caller, argument, rule, source, remedy)


def check_judges(train, test):
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
