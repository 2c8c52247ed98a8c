"""Linear classification on frozen features."""

import math

import numpy as np
import threadpoolctl

from keras_kssl._checks import check_integer, check_number, check_that
from keras_kssl._machine import num_cores
from keras_kssl.data.encoded import for_each
from keras_kssl.evaluation.features import check_data, labelled_features
from keras_kssl.evaluation.metrics import score_predictions
from keras_kssl.evaluation.subsets import parts_to_choose_by

LEARNING_RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
_MOMENTUM = 0.9
# What a step does beside its products has to pay.
_RATES_PER_THREAD = 3


def linear_probe(
    encoder,
    train,
    test,
    seed=0,
    epochs=100,
    learning_rates=LEARNING_RATES,
    batch_size=256,
    size=None,
):
    """Test accuracy of a linear classifier on an encoder's frozen features.

    Args:
        encoder: as in `extract_features`.
        train, test: labelled data, anything `data.open_source` takes.
        seed, epochs, learning_rates: as in `linear_accuracy`.
        batch_size, size: as in `extract_features`.

    Returns:
        dict as in `linear_accuracy`.
    """
    data = labelled_features("linear_probe", encoder, train, test, batch_size, size)
    return linear_accuracy(
        *data, seed=seed, epochs=epochs, learning_rates=learning_rates
    )


def linear_accuracy(
    train_x,
    train_y,
    test_x,
    test_y,
    seed=0,
    epochs=100,
    learning_rates=LEARNING_RATES,
    metric="top_1",
    validation=None,
):
    """Test accuracy of softmax regression trained on cached features.

    Features are standardised by mean and standard deviation of those trained on in the
    end. All learning rates are trained side by side on the training examples without
    those that choose; the one with the best accuracy on these, the smallest of several,
    is then trained on both together and tested once. The test set chooses nothing.

    Time grows with epochs n d classes (number of rates + 1), in float32 on the cores of
    the host.

    Args:
        train_x: features (n_train, d), n_train at least 10.
        train_y: integers (n_train,), at least 0.
        test_x: features (n_test, d).
        test_y: integers (n_test,), classes of `train_y`.
        seed: integer of at least 0: held-out examples and order. Default 0.
        epochs: passes over the training examples, at least 1. Default 100.
        learning_rates: initial rates to choose from, each above 0, or one.
        metric: as in `score_predictions`, "top_1" or "mean_per_class".
        validation: features and labels that choose. Default: a tenth of the training
            examples.

    Returns:
        dict: `linear`, accuracy on the test set, and `held_out`, that on which the rate
        was chosen, both in [0, 1]; `learning_rate`, the rate chosen.

    References: the protocol of SFRIK (arXiv 2208.00789): SGD with momentum 0.9, cosine,
    batch 256, 100 epochs. Differences: features are cached without augmentation and
    standardised, the rate is chosen instead of fixed at 0.4 and follows the cosine per
    step, and there is no weight decay (1e-6 there).
    """
    caller = "linear_accuracy"
    data = check_data(caller, train_x, train_y, test_x, test_y)
    train_x, train_y, test_x, test_y = data
    check_integer(caller, "seed", seed, minimum=0)
    check_integer(caller, "epochs", epochs, minimum=1)
    rates = sorted(
        check_number(caller, "learning_rates", rate, 0.0, exclusive=True)
        for rate in np.ravel(learning_rates)
    )
    check_that(len(rates) > 0, caller, "learning_rates", "at least one", learning_rates)
    if validation is not None:
        data = check_data(caller, train_x, train_y, *validation, name="validation")
        validation = data[2:]
    num_classes = int(train_y.max()) + 1
    part, validation, whole = parts_to_choose_by(
        caller, train_x, train_y, validation, seed
    )
    mean, deviation = _moments(whole[0])
    (part_x, part_y), (validation_x, validation_y), (whole_x, whole_y), (test_x, _) = (
        (((x - mean) / deviation).astype(np.float32), y)
        for x, y in (part, validation, whole, (test_x, test_y))
    )
    candidates = train_softmax_regression(
        part_x, part_y, num_classes, rates, epochs, seed
    )
    accuracies = _accuracies(*candidates, validation_x, validation_y, metric)
    best = int(np.argmax(accuracies))
    probe = train_softmax_regression(
        whole_x, whole_y, num_classes, rates[best : best + 1], epochs, seed
    )
    return {
        "linear": float(_accuracies(*probe, test_x, test_y, metric)[0]),
        "held_out": float(accuracies[best]),
        "learning_rate": rates[best],
    }


def train_softmax_regression(
    x, y, num_classes, learning_rates, epochs=100, seed=0, batch_size=256
):
    """Softmax regressions for several learning rates, trained side by side.

    All see the same batches and start at zero. For each step t of T, with the gradient
    g of the mean cross-entropy of the batch::

        m = 0.9 m + g
        w = w - learning_rate (1 + cos(pi t / T)) / 2 m

    Args:
        x: float32 features (n, d).
        y: integers (n,) from 0 to num_classes - 1.
        num_classes: number of classes.
        learning_rates: R initial rates.
        epochs: passes over the examples; the last batch of each may be smaller.
        seed: integer that fixes the order.
        batch_size: examples per step. Default 256.

    Returns:
        weights (R, num_classes, d) and biases (R, num_classes), float32.
    """
    # On several cores the rates are shared out: threads that share each product instead
    # would spend their time waiting for one another.
    count = max(1, min(num_cores(), len(learning_rates) // _RATES_PER_THREAD))
    shares = np.array_split(np.float32(learning_rates), count)
    x = np.concatenate([x, np.ones((len(x), 1), np.float32)], axis=1)
    trained = [None] * count

    def train(share):
        trained[share] = _train(
            x, y, num_classes, shares[share], epochs, seed, batch_size
        )

    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        for_each(train, count)
    parameters = np.concatenate(trained)
    return parameters[..., :-1], parameters[..., -1]


def _train(x, y, num_classes, learning_rates, epochs, seed, batch_size):
    """Weights and biases (R, num_classes, d), of features whose last is 1."""
    # One row per rate and class, so that all rates share each matrix product.
    rates = np.repeat(learning_rates, num_classes)[:, np.newaxis]
    parameters = np.zeros((len(rates), x.shape[1]), np.float32)
    buffer, gradient = np.zeros_like(parameters), np.zeros_like(parameters)
    batch = np.empty((min(batch_size, len(x)), x.shape[1]), np.float32)
    generator = np.random.default_rng((seed, 1))
    steps_per_epoch = math.ceil(len(x) / batch_size)
    last = epochs * steps_per_epoch
    for step in range(last):
        position = step % steps_per_epoch
        if position == 0:
            order = generator.permutation(len(x))
        rows = order[position * batch_size : (position + 1) * batch_size]
        # Memory that is used again: threads that ask the system for new pages at each
        # step wait for one another. Without "clip", NumPy would copy once more.
        examples = np.take(x, rows, axis=0, out=batch[: len(rows)], mode="clip")
        softmax_gradient(parameters, examples, y[rows], num_classes, out=gradient)
        buffer *= _MOMENTUM
        buffer += gradient
        decay = np.float32((1.0 + math.cos(math.pi * step / last)) / 2.0)
        parameters -= np.multiply(decay * rates, buffer, out=gradient)
    return parameters.reshape(-1, num_classes, x.shape[1])


def softmax_gradient(parameters, x, y, num_classes, out=None):
    """Gradient of the mean cross-entropy of softmax(parameters x).

    Args:
        parameters: (R * num_classes, d), R classifiers one after the other.
        x: (b, d).
        y: integers (b,).
        num_classes: number of classes.
        out: array to write the gradient into. Default: a new one.

    Returns:
        gradient (R * num_classes, d).
    """
    # A product with so few rows is faster the other way about.
    errors = np.ascontiguousarray((x @ parameters.T).T)
    per_class = errors.reshape(-1, num_classes, len(x))
    per_class -= per_class.max(axis=1, keepdims=True)
    np.exp(per_class, out=per_class)
    share = np.float32(1.0 / len(x))
    per_class *= share / per_class.sum(axis=1, keepdims=True)
    # Not by indexing, which holds up the other threads.
    per_class -= share * (y == np.arange(num_classes)[:, np.newaxis])
    return np.matmul(errors, x, out=out)


def _moments(x):
    mean = x.mean(axis=0, dtype=np.float64)
    deviation = x.std(axis=0, dtype=np.float64)
    # A constant feature says nothing, and rounding makes its deviation not quite 0.
    flat = deviation <= 1e-6 * np.abs(mean)
    return mean, np.where(flat, 1.0, deviation)


def _accuracies(weights, biases, x, y, metric):
    """Accuracy of each of R classifiers."""
    return np.array(
        [
            score_predictions(x @ weight.T + bias, y, metric)
            for weight, bias in zip(weights, biases, strict=True)
        ]
    )
