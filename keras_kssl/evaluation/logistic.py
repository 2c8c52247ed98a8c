"""L2-regularised logistic regression on frozen features, its strength chosen."""

import numpy as np

from keras_kssl._checks import check_choice, check_integer, check_number, check_that
from keras_kssl.evaluation.features import (
    check_classes_seen,
    check_features,
    check_labels,
    check_widths,
    labelled_features,
)
from keras_kssl.evaluation.metrics import METRICS, score_predictions
from keras_kssl.evaluation.regressions import LogisticRegressions
from keras_kssl.evaluation.subsets import parts_to_choose_by

STRENGTHS = tuple(np.logspace(-6, 5, 45).tolist())


def logistic_regression(
    encoder, train, test, seed=0, strengths=STRENGTHS, batch_size=256, size=None
):
    """Test accuracy of logistic regression on an encoder's frozen features.

    Args:
        encoder: as in `extract_features`.
        train, test: labelled data, anything `data.open_source` takes.
        seed, strengths: as in `logistic_accuracy`.
        batch_size, size: as in `extract_features`.

    Returns:
        dict as in `logistic_accuracy`.
    """
    caller = "logistic_regression"
    data = labelled_features(caller, encoder, train, test, batch_size, size)
    return logistic_accuracy(*data, seed=seed, strengths=strengths)


def logistic_accuracy(
    train_x,
    train_y,
    test_x,
    test_y,
    validation=None,
    seed=0,
    strengths=STRENGTHS,
    metric="top_1",
):
    """Test accuracy of multinomial logistic regression on cached features.

    One regression for each strength, from the strongest to the weakest, by L-BFGS; see
    `LogisticRegressions` for what is minimised, which is what scikit-learn's
    `LogisticRegression` minimises for C = 1 / strength. The strength that scores best
    on the validation part, the strongest of several, is fitted again on training and
    validation part together and tested once. The test set chooses nothing.

    Features count as they are, neither scaled nor centred. Time, for the 45 strengths:
    about 1,000 times 4 n d classes; below a minute on two cores for 50,000 x 128
    features of 10 classes.

    Args:
        train_x: features (n_train, d), n_train at least 10 where `validation` is not
            given.
        train_y: integers (n_train,), at least 0; for images of several classes 0 or 1
            (n_train, classes), for which a regression of each class against the rest
            is fitted, and -1 where the image is left out of it.
        test_x, test_y: likewise, of classes of `train_y`.
        validation: features and labels that choose. Default: a tenth of the training
            examples.
        seed: integer that fixes that tenth. Default 0.
        strengths: numbers above 0 to choose from, or one. Default: 45, from 1e-6 to
            1e5, evenly spaced in their logarithms.
        metric: as in `score_predictions`.

    Returns:
        dict: `logreg`, the score on the test set, and `held_out`, that on which the
        strength was chosen, in [0, 1]; `strength`; `not_converged`, how many of the
        regressions had not converged after 1,000 steps.

    References: Kornblith et al. 2019, arXiv 1805.08974, appendix A.6, as in BYOL and
    SSL-HSIC. Difference: they hold out the validation part that each set comes with.
    """
    caller = "logistic_accuracy"
    check_choice(caller, "metric", metric, METRICS)
    check_integer(caller, "seed", seed, minimum=0)
    is_multi_label = np.ndim(train_y) == 2
    rule = "map_11, which takes labels (n, classes), where labels are; and only there"
    check_that((metric == "map_11") == is_multi_label, caller, "metric", rule, metric)
    train_x, train_y = _checked(caller, "train", train_x, train_y)
    test_x, test_y = _checked(caller, "test", test_x, test_y)
    check_widths(caller, train_x, test_x)
    strengths = sorted(
        (
            check_number(caller, "strengths", strength, 0.0, exclusive=True)
            for strength in np.ravel(strengths)
        ),
        reverse=True,
    )
    check_that(len(strengths) > 0, caller, "strengths", "at least one", strengths)
    if not is_multi_label:
        check_classes_seen(caller, train_y, test_y)
    if validation is not None:
        validation = _checked(caller, "validation", *validation)
        check_widths(caller, train_x, validation[0], "validation_x")
    part, validation, whole = parts_to_choose_by(
        caller, train_x, train_y, validation, seed
    )
    path = LogisticRegressions(*part)
    scores = [
        score_predictions(path.scores(strength, validation[0]), validation[1], metric)
        for strength in strengths
    ]
    best = int(np.argmax(scores))
    final = LogisticRegressions(*whole)
    return {
        "logreg": score_predictions(
            final.scores(strengths[best], test_x), test_y, metric
        ),
        "held_out": scores[best],
        "strength": strengths[best],
        "not_converged": path.not_converged + final.not_converged,
    }


def _checked(caller, name, x, y):
    x = check_features(caller, f"{name}_x", x)
    if np.ndim(y) != 2:
        return x, check_labels(caller, f"{name}_y", y, len(x))
    y = np.asarray(y)
    rule = f"-1, 0 or 1, ({len(x)}, classes)"
    check_that(
        len(y) == len(x) and np.isin(y, (-1, 0, 1)).all(),
        caller,
        f"{name}_y",
        rule,
        y,
    )
    return x, y
