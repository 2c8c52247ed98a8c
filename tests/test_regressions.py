"""Logistic regressions along strengths, against scikit-learn and the definition."""

import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from keras_kssl.evaluation import regressions
from keras_kssl.evaluation.regressions import LogisticRegressions

pytestmark = pytest.mark.any_backend

STRENGTHS = np.logspace(5, -6, 12)


def examples(count, width, classes, distance, seed=0):
    """Features that nearly repeat each other, as those of encoders do."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, count)
    centres = distance * np.random.default_rng(9).normal(size=(classes, width))
    x = centres[labels] + generator.normal(size=(count, width))
    scales = np.logspace(0, -2, width)
    mixed = np.linalg.qr(np.random.default_rng(8).normal(size=(width, width)))[0]
    return x * scales @ mixed + 1.0, labels


def exact(strength, x, y, solver="newton-cholesky"):
    """By Newton's method, which features that are alike do not slow down."""
    options = {"solver": solver, "tol": 1e-10, "max_iter": 10_000}
    return LogisticRegression(C=1 / strength, **options).fit(x, y)


def assert_scores_agree(found, expected, tolerance=1e-3):
    """Up to what moves all classes alike, which says nothing."""
    if expected.ndim == 2:
        found, expected = (s - s.mean(axis=1, keepdims=True) for s in (found, expected))
    largest = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=tolerance * largest)


@pytest.mark.parametrize("distance", [0.3, 3.0], ids=["overlapping", "separable"])
def test_every_regression_of_a_path_is_scikit_learns(distance):
    x, y = examples(200, 8, 4, distance)
    path = LogisticRegressions(x, y)
    for strength in STRENGTHS[:9]:
        expected = exact(strength, x, y)
        assert_scores_agree(path.scores(strength, x), expected.decision_function(x))
    assert path.not_converged == 0


@pytest.mark.parametrize("distance", [0.3, 3.0], ids=["overlapping", "separable"])
def test_no_regression_of_a_path_has_a_lower_minimum_nearby(distance):
    """By Newton's method on the definition, at strengths no solver likes."""
    x, y = examples(200, 8, 4, distance)
    path, own = LogisticRegressions(x, y), (np.arange(200), y)
    ones = np.concatenate([x, np.ones((200, 1))], axis=1)
    for strength in STRENGTHS:
        biases, *rest = path.scores(strength, np.eye(9, 8, -1))
        weights = (rest - biases).T
        logits = x @ weights.T + biases
        odds = np.exp(logits - logits[own][:, np.newaxis])
        p = odds / odds.sum(axis=1, keepdims=True)
        odds[own] = 0.0
        loss = np.log1p(odds.sum(axis=1)).sum() + strength / 2 * np.sum(weights**2)
        errors = p.copy()
        errors[own] = -odds.sum(axis=1) * p[own]
        gradient = errors.T @ ones
        gradient[:, :8] += strength * weights
        curvature = np.einsum("nk,kl,ni,nj->kilj", p, np.eye(4), ones, ones)
        curvature -= np.einsum("nk,nl,ni,nj->kilj", p, p, ones, ones)
        for k in range(4):
            curvature[k, range(8), k, range(8)] += strength
        step = np.linalg.lstsq(curvature.reshape(36, 36), gradient.ravel())[0]
        assert gradient.ravel() @ step / 2 < 1e-8 * loss


def test_a_path_costs_few_passes_however_alike_features_are():
    x, y = examples(500, 30, 5, 0.5)
    x[:, 1] = x[:, 0] + 1e-5 * x[:, 1]
    path, passes = LogisticRegressions(x, y), []
    loss = path._loss
    path._loss = lambda *arguments: passes.append(1) or loss(*arguments)
    for strength in np.logspace(5, -6, 45):
        path.scores(strength, x[:1])
    # L-BFGS on the features as they are takes thousands for the weak ones alone.
    assert len(passes) < 45 * 60
    assert path.not_converged == 0


def test_the_way_to_a_strength_changes_nothing():
    x, y = examples(200, 8, 4, 3.0)
    # Straight to where the loss is a millionth of that at the start.
    alone = LogisticRegressions(x, y).scores(1e-5, x)
    for way in ((1e3, 1e1, 1e-1, 1e-3), (1e-6, 1e-2), (1.0, 1.0)):
        path = LogisticRegressions(x, y)
        for strength in way:
            path.scores(strength, x)
        assert_scores_agree(path.scores(1e-5, x), alone)


def test_blocks_and_threads_change_nothing(monkeypatch):
    x, y = examples(200, 8, 4, 1.0)
    whole = LogisticRegressions(x, y).scores(0.1, x)
    monkeypatch.setattr(regressions, "_BLOCK", 13 * 17)
    for threads in (1, 3):
        monkeypatch.setattr(regressions, "num_cores", lambda count=threads: count)
        np.testing.assert_allclose(
            LogisticRegressions(x, y).scores(0.1, x), whole, atol=1e-6
        )


def test_a_sample_tells_enough_of_the_curvature(monkeypatch):
    x, y = examples(500, 8, 4, 1.0)
    monkeypatch.setattr(regressions, "_SAMPLE", 2)
    found = LogisticRegressions(x, y)
    assert_scores_agree(found.scores(0.1, x), exact(0.1, x, y).decision_function(x))


@pytest.mark.parametrize("width", [5, 60])
def test_two_classes_are_told_apart_as_scikit_learn_does(width):
    x, y = examples(40, width, 2, 0.5)
    found = LogisticRegressions(x, 2 * y).scores(0.3, x)
    assert found.shape == (40, 3)
    assert (found[:, 1] == -np.inf).all()
    assert_scores_agree(found[:, 2], exact(0.3, x, y).decision_function(x))
    np.testing.assert_array_equal(found[:, 0], -found[:, 2])


def test_fewer_examples_than_features_are_fitted_in_their_span():
    x, y = examples(30, 50, 3, 0.5)
    test_x, _ = examples(20, 50, 3, 0.5, seed=1)
    path = LogisticRegressions(x, y)
    for strength in (10.0, 0.1):
        expected = exact(strength, x, y, "lbfgs").decision_function(test_x)
        assert_scores_agree(path.scores(strength, test_x), expected)


def test_classes_that_do_not_exclude_each_other_are_each_alone():
    x, y = examples(150, 6, 3, 0.5)
    many = np.stack([y == 0, y > 0, y == 2, y >= 0, y < 0], axis=1).astype(int)
    many[::7, 0] = -1
    path = LogisticRegressions(x, many)
    for strength in (10.0, 0.1):
        found = path.scores(strength, x)
        for c in range(3):
            rows = many[:, c] >= 0
            expected = exact(strength, x[rows], many[rows, c]).decision_function(x)
            assert_scores_agree(found[:, c], expected)
        # Shown by all, and by none.
        assert (found[:, 3:] == 0).all()


def test_one_class_leaves_nothing_to_learn():
    x, _ = examples(20, 4, 2, 1.0)
    path = LogisticRegressions(x, np.full(20, 1))
    assert path.scores(1.0, x[:1]).tolist() == [[-np.inf, 0.0]]
    assert path.not_converged == 0


def test_certain_predictions_keep_their_digits():
    gap = 60.0
    logits = np.array([[gap, 0.0, 0.0], [0.0, gap, 0.0]])
    loss = regressions._softmax_errors(logits, np.array([0, 0]))
    rest = 2 * math.exp(-gap)
    assert loss == pytest.approx(gap + math.exp(-gap) + rest, rel=1e-15)
    small = np.array([[gap, 0.0, 0.0]])
    assert regressions._softmax_errors(small, np.array([0])) == pytest.approx(
        rest, rel=1e-12
    )
    np.testing.assert_allclose(small, [[-rest, rest / 2, rest / 2]], rtol=1e-12)
    np.testing.assert_allclose(logits[0], small[0], rtol=1e-12)
    margins = np.array([[gap, -gap, 5.0]])
    loss = regressions._sigmoid_errors(margins, np.array([[1.0, 1.0, 0.0]]))
    assert loss == pytest.approx(gap, rel=1e-15)
    expected = [[-math.exp(-gap), -1.0, 0.0]]
    np.testing.assert_allclose(margins, expected, rtol=1e-12)


def test_regressions_that_run_out_of_steps_are_counted(monkeypatch):
    monkeypatch.setattr(regressions, "_ITERATIONS", 2)
    x, y = examples(200, 8, 4, 1.0)
    path = LogisticRegressions(x, y)
    path.scores(0.1, x)
    assert path.not_converged == 1
