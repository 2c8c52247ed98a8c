"""What the accuracy of a classification set is: the measures that papers name."""

import numpy as np

from keras_kssl._checks import check_choice
from keras_kssl.evaluation.dense.metrics import average_precision

METRICS = ("top_1", "mean_per_class", "map_11")


def score_predictions(scores, labels, metric="top_1"):
    """One number for the scores that a classifier gives to every class.

    Args:
        scores: (n, classes), larger for likelier classes.
        labels: integers (n,); for "map_11", which is for images of several classes,
            0 or 1 (n, classes), and -1 where the class does not count ("difficult").
        metric: "top_1", the share of images whose class scores highest;
            "mean_per_class", the mean over the classes of that share of their images;
            "map_11", the mean over the classes of the 11-point average precision.

    Returns:
        A number in [0, 1].

    >>> scores = np.array([[3.0, 1.0], [2.0, 1.0], [2.0, 1.0], [0.0, 1.0]])
    >>> labels = np.array([0, 0, 1, 1])
    >>> score_predictions(scores, labels), score_predictions(scores[1:], labels[1:])
    (0.75, 0.6666666666666666)
    >>> score_predictions(scores[1:], labels[1:], "mean_per_class")
    0.75
    """
    check_choice("score_predictions", "metric", metric, METRICS)
    if metric == "map_11":
        return _mean_average_precision(scores, labels)
    is_right = scores.argmax(axis=1) == labels
    if metric == "top_1":
        return float(is_right.mean())
    counts = np.bincount(labels)
    right = np.bincount(labels, is_right)
    return float(np.mean(right[counts > 0] / counts[counts > 0]))


def _mean_average_precision(scores, labels):
    counted, positive = (labels >= 0).T, labels == 1
    return float(
        np.mean(
            [
                average_precision(
                    scores[rows, c], positive[rows, c], int(positive[:, c].sum()), "11"
                )
                for c, rows in enumerate(counted)
                if positive[:, c].any()
            ]
        )
    )
