"""Classification from a few labelled images of each class, over many draws."""

import numpy as np

from keras_kssl._checks import check_integer, check_that
from keras_kssl._seeds import derived_seed
from keras_kssl.evaluation.features import check_data, unit_rows
from keras_kssl.evaluation.metrics import score_predictions
from keras_kssl.evaluation.regressions import LogisticRegressions
from keras_kssl.evaluation.subsets import balanced_subset

_STRENGTH = 1.0


def few_shot_accuracy(
    train_x,
    train_y,
    test_x,
    test_y,
    shots=(1, 5, 10),
    draws=20,
    seed=0,
    metric="top_1",
):
    """Test accuracies of classifiers that have seen n images of each class.

    For each draw n images of each class are taken from the training set, logistic
    regression of strength 1 (see `logistic_accuracy`) is fitted on their features,
    scaled to unit length, and tested on the whole test set. A draw of more shots holds
    those of fewer.

    Args:
        train_x: features (n_train, d).
        train_y: integers (n_train,), at least 0.
        test_x: features (n_test, d).
        test_y: integers (n_test,), classes of `train_y`.
        shots: numbers of images per class; those that some class of `train_y` does
            not have are left out.
        draws: number of draws, at least 1. Default 20.
        seed: integer of at least 0 that fixes all draws.
        metric: as in `score_predictions`, "top_1" or "mean_per_class".

    Returns:
        dict with a list of `draws` accuracies in [0, 1] for each n, such as
        {"few_shot_1": [0.21, 0.24, ...]}.

    Raises:
        ValueError: where a class has fewer images than the smallest n.
    """
    caller = "few_shot_accuracy"
    data = check_data(caller, train_x, train_y, test_x, test_y)
    train_x, train_y, test_x, test_y = data
    check_integer(caller, "draws", draws, minimum=1)
    check_integer(caller, "seed", seed, minimum=0)
    shots = [check_integer(caller, "shots", n, minimum=1) for n in np.ravel(shots)]
    counts = np.bincount(train_y)
    smallest = counts[counts > 0].min()
    fitting = [n for n in shots if n <= smallest]
    check_that(
        len(fitting) > 0,
        caller,
        "shots",
        f"at most {smallest}, the images of the smallest class of the training set",
        shots,
    )
    train_x, test_x = unit_rows(train_x), unit_rows(test_x)
    found = {f"few_shot_{n}": [] for n in fitting}
    for draw in range(draws):
        for n in fitting:
            rows = balanced_subset(
                train_y, per_class=n, seed=derived_seed(seed, 0, draw)
            )
            fitted = LogisticRegressions(train_x[rows], train_y[rows])
            scores = fitted.scores(_STRENGTH, test_x)
            found[f"few_shot_{n}"].append(score_predictions(scores, test_y, metric))
    return found
