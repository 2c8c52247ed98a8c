"""Weighted nearest-neighbour classification on frozen features."""

import math

import numpy as np
import threadpoolctl

from keras_kssl._checks import check_integer, check_number, check_that
from keras_kssl.data.encoded import for_each
from keras_kssl.evaluation.features import (
    check_classes_seen,
    check_features,
    check_labels,
    check_widths,
    labelled_features,
    unit_rows,
)
from keras_kssl.evaluation.metrics import score_predictions

# Similarities that a thread holds, 4 or 8 bytes each, and as many positions of 8.
_ROWS, _COLUMNS = 512, 2**13
# exp(600) times any number of neighbours fits into float64.
_LARGEST_EXPONENT = 600.0


def knn_votes(train_x, train_y, test_x, k, temperature=0.07, num_classes=None):
    """Votes of the k nearest training examples for the class of each test example.

    Features are scaled to unit length; a neighbour of cosine similarity s votes for its
    class with exp(s / temperature). An all-zero row is similar to none (s = 0).
    Similarities are computed in float64 if both sets of features are float64, else in
    float32; votes in float64. Memory: a copy of the training features and 50 MB
    for each core; time is a matrix product of n_test d n_train and a partial sort of
    n_test n_train.

    Formula, N_k the k nearest neighbours of test row i::

        votes[i, c] = sum over j in N_k with train_y[j] = c of exp(s_ij / temperature)

    Below a temperature of 1/600, where this overflows, the votes of each row are
    divided by its largest term.

    Args:
        train_x: features (n_train, d).
        train_y: integers (n_train,), at least 0.
        test_x: features (n_test, d).
        k: number of neighbours, from 1 to n_train.
        temperature: above 0. Default 0.07.
        num_classes: number of columns, default largest label + 1.

    Returns:
        votes, float64 (n_test, num_classes).

    Example:

    >>> import numpy as np
    >>> train_x = np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 3.0]])
    >>> votes = knn_votes(train_x, np.array([0, 1, 1]), train_x[1:2], 2, 1.0)
    >>> votes.round(4).tolist()
    [[0.0, 5.4366]]

    References: Wu et al. 2018, arXiv 1805.01978, section 3.4, as in the released
    evaluation of SFRIK, which reports k = 10, 20, 100 and 200.
    """
    neighbours = _Neighbours("knn_votes", train_x, train_y, test_x, k)
    return neighbours.votes(k, temperature, num_classes)


def knn_accuracy(
    train_x,
    train_y,
    test_x,
    test_y,
    k=(10, 20, 100, 200),
    temperature=0.07,
    metric="top_1",
):
    """Share of test examples whose class wins the vote of `knn_votes`.

    Takes features of any origin, such as raw pixels, flattened: what an encoder has to
    beat. The neighbours are searched once for all k.

    Args:
        train_x, train_y, test_x, temperature: as in `knn_votes`.
        test_y: integers (n_test,), classes of `train_y`.
        k: one number of neighbours, or several; those above n_train are left out.
        metric: as in `score_predictions`, "top_1" or "mean_per_class".

    Returns:
        dict with an accuracy in [0, 1] for each k, such as {"knn_10": 0.93}.
    """
    caller = "knn_accuracy"
    wanted = [k] if np.ndim(k) == 0 else list(k)
    check_that(len(wanted) > 0, caller, "k", "one number or several", k)
    wanted = [check_integer(caller, "k", one, minimum=1) for one in wanted]
    fitting = [one for one in wanted if one <= len(train_x)]
    if not fitting:
        raise ValueError(
            f"{caller}: `k` must be at most the number of training examples, "
            f"{len(train_x)}. Received: k={k!r}."
        )
    neighbours = _Neighbours(caller, train_x, train_y, test_x, max(fitting))
    test_y = check_labels(caller, "test_y", test_y, len(test_x))
    check_classes_seen(caller, neighbours.train_y, test_y)
    return {
        f"knn_{one}": score_predictions(
            neighbours.votes(one, temperature), test_y, metric
        )
        for one in fitting
    }


def knn(
    encoder,
    train,
    test,
    k=(10, 20, 100, 200),
    temperature=0.07,
    batch_size=256,
    size=None,
):
    """Weighted nearest-neighbour accuracy of an encoder's features.

    Args:
        encoder: as in `extract_features`.
        train, test: labelled data, anything `data.open_source` takes.
        k, temperature: as in `knn_accuracy`.
        batch_size, size: as in `extract_features`.

    Returns:
        dict with an accuracy in [0, 1] for each k that the training set allows, such as
        {"knn_10": 0.93, "knn_20": 0.94}.
    """
    data = labelled_features("knn", encoder, train, test, batch_size, size)
    return knn_accuracy(*data, k=k, temperature=temperature)


class _Neighbours:
    """The nearest training examples of each test example, nearest first."""

    def __init__(self, caller, train_x, train_y, test_x, k):
        self.caller = caller
        train_x = check_features(caller, "train_x", train_x)
        test_x = check_features(caller, "test_x", test_x)
        check_widths(caller, train_x, test_x)
        self.train_y = check_labels(caller, "train_y", train_y, len(train_x))
        check_integer(caller, "k", k, minimum=1)
        if k > len(train_x):
            raise ValueError(
                f"{caller}: `k` must be at most the number of training examples, "
                f"{len(train_x)}. Received: k={k}."
            )
        dtype = (
            np.float64 if train_x.dtype == test_x.dtype == np.float64 else np.float32
        )
        train_x = unit_rows(train_x).astype(dtype, copy=False)
        self.similarities = np.empty((len(test_x), k), np.float64)
        self.labels = np.empty((len(test_x), k), np.int64)

        def find(number):
            block = slice(number * _ROWS, (number + 1) * _ROWS)
            found = _nearest(unit_rows(test_x[block]).astype(dtype), train_x, k)
            self.similarities[block], nearest = found
            self.labels[block] = self.train_y[nearest]

        # Threads have rows of their own: NumPy selects on one core at a time.
        with threadpoolctl.threadpool_limits(1, user_api="blas"):
            for_each(find, math.ceil(len(test_x) / _ROWS))

    def votes(self, k, temperature, num_classes=None):
        check_number(self.caller, "temperature", temperature, 0.0)
        check_that(temperature > 0, self.caller, "temperature", "above 0", temperature)
        classes = int(self.train_y.max()) + 1
        if num_classes is None:
            num_classes = classes
        check_integer(self.caller, "num_classes", num_classes, minimum=classes)
        exponents = self.similarities[:, :k] / temperature
        if 1.0 / temperature > _LARGEST_EXPONENT:
            exponents -= exponents[:, :1]
        cells = self.labels[:, :k] + num_classes * np.arange(len(exponents))[:, None]
        votes = np.bincount(
            cells.ravel(), np.exp(exponents).ravel(), len(exponents) * num_classes
        )
        return votes.reshape(len(exponents), num_classes)


def _nearest(x, train_x, k):
    """Similarities and places of the k nearest rows of train_x, nearest first."""
    similarities, places = [], []
    for start in range(0, len(train_x), _COLUMNS):
        products = x @ train_x[start : start + _COLUMNS].T
        largest = _largest(products, k)
        similarities.append(np.take_along_axis(products, largest, axis=1))
        places.append(start + largest)
    found = [np.concatenate(parts, axis=1) for parts in (similarities, places)]
    largest = _largest(found[0], k)
    order = np.argsort(-np.take_along_axis(found[0], largest, axis=1), axis=1)
    largest = np.take_along_axis(largest, order, axis=1)
    return [np.take_along_axis(array, largest, axis=1) for array in found]


def _largest(values, k):
    """Columns of the k largest values of each row, of all if there are no more."""
    columns = values.shape[1]
    if columns <= k:
        return np.broadcast_to(np.arange(columns), values.shape)
    return np.argpartition(values, columns - k, axis=1)[:, columns - k :]
