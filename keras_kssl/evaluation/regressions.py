"""Logistic regressions of many strengths on the same examples."""

import numpy as np
import threadpoolctl

from keras_kssl._machine import num_cores
from keras_kssl.data.encoded import for_each

_ITERATIONS = 1000
_TOLERANCE = 1e-4
# Numbers that are worked on at a time, 1 MB of float64, so that they stay in cache.
_BLOCK = 2**17
# Examples that tell the curvature, for each parameter of a class.
_SAMPLE = 16
# Of the curvature's mean: what keeps it invertible where features repeat each other.
_FLOOR = 1e-10


class LogisticRegressions:
    """Regressions on the same examples, each from where the last two point.

    Formula, with the sum over the examples, and biases left free::

        minimise sum_i -log softmax(W x_i + b)[y_i] + strength / 2 ||W||^2

    and of two classes, as for each of several that are not exclusive::

        minimise sum_i log(1 + exp(-s_i (w x_i + b))) + strength / 2 ||w||^2,
        s_i = 1 for the class, -1 for the other

    by SciPy's L-BFGS in float64. Features of an encoder nearly repeat each other, which
    would take it thousands of steps. Hence it works on V, [W, b] = V L^-1, for which
    the curvature is about the same in all directions: with x' the features and a 1, and
    p the probability of class c where it starts::

        L L^T = sum_i mean_c p (1 - p) x'_i x'_i^T + strength I

    This changes the way to the minimum, and not the minimum.

    A fit ends where the gradient by V says that the minimum is lower by less than 1e-8
    of itself. Time: for each strength 10 to 40 times, seldom 100 times 4 n d classes,
    and 16 d^3. Memory: 1 MB for each core, some d^2, and 30 times the coefficients.

    Args:
        x: features (n, d).
        y: integers (n,), or 0, 1 and -1 (n, classes), -1 for examples that say nothing
            of a class. Classes that all of them show or none get zeros.

    Attributes:
        not_converged: how many of those fitted so far had not converged.
    """

    def __init__(self, x, y):
        self._span = None
        if len(x) < x.shape[1]:
            # Weights have no part that is orthogonal to all examples.
            self._span = np.linalg.qr(x.T.astype(np.float64))[0]
            x = x @ self._span
        self._x = x
        if y.ndim == 2:
            self._classes, self._num_classes = None, y.shape[1]
            self._y = _signs(y)
        else:
            self._num_classes = int(y.max()) + 1
            self._classes, self._y = np.unique(y, return_inverse=True)
            if len(self._classes) <= 2:
                self._y = _signs(self._y[:, np.newaxis])
        is_softmax = self._y.ndim == 1
        self._errors = _softmax_errors if is_softmax else _sigmoid_errors
        rows = len(self._classes) if is_softmax else self._y.shape[1]
        self._parameters = np.zeros((rows, x.shape[1] + 1))
        order = np.random.default_rng(0).permutation(len(x))
        self._sample = order[: _SAMPLE * (x.shape[1] + 1)]
        self._fitted = []
        self.not_converged = 0

    def scores(self, strength, x):
        """Fits for one strength; scores (n, classes) of other examples."""
        with threadpoolctl.threadpool_limits(1, user_api="blas"):
            self._fit(strength)
        weights, biases = self._parameters[:, :-1], self._parameters[:, -1]
        if self._span is not None:
            weights = weights @ self._span.T
        values = x @ weights.T + biases
        if self._classes is None:
            return values
        if len(self._classes) == 2:
            values = np.concatenate([-values, values], axis=1)
        scores = np.full((len(x), self._num_classes), -np.inf)
        scores[:, self._classes] = values
        return scores

    def _fit(self, strength):
        parameters, loss = self._start(strength)
        is_near, converged = loss == 0.0, True
        while not is_near:
            parameters, found, converged = self._descend(strength, parameters, loss)
            # What ends the descent is in terms of the loss where it began.
            is_near, loss = found > loss / 2, found
        self.not_converged += not converged
        self._fitted = [*self._fitted[-1:], (np.log(strength), parameters)]
        self._parameters = parameters

    def _start(self, strength):
        """Coefficients to start from, and their loss."""
        starts = [self._parameters]
        if len(self._fitted) == 2:
            (before, first), (after, second) = self._fitted
            if before != after:
                step = (np.log(strength) - after) / (after - before)
                starts.append(second + step * (second - first))
        losses = [self._loss(start, strength)[0] for start in starts]
        best = int(np.argmin(losses))
        return starts[best], losses[best]

    def _descend(self, strength, parameters, loss):
        """Coefficients of the minimum, their loss, and whether it was found."""
        from scipy import linalg, optimize

        factor = linalg.cholesky(self._curvature(parameters, strength), lower=True)
        inverse = linalg.solve_triangular(factor, np.eye(len(factor)), lower=True)
        # Now the loss and all curvatures are about 1.
        inverse *= np.sqrt(loss)
        shape = parameters.shape

        def scaled(v):
            found, gradient = self._loss(v.reshape(shape) @ inverse, strength)
            return found / loss, (gradient @ inverse.T).ravel() / loss

        result = optimize.minimize(
            scaled,
            (parameters @ factor).ravel() / np.sqrt(loss),
            jac=True,
            method="L-BFGS-B",
            options={
                "maxiter": _ITERATIONS,
                "gtol": _TOLERANCE / np.sqrt(parameters.size),
                "ftol": 0.0,
            },
        )
        found = result.x.reshape(shape) @ inverse
        return found, result.fun * loss, result.success

    def _curvature(self, parameters, strength):
        """A matrix (d + 1, d + 1) like the curvature for each class."""
        x = self._x[self._sample].astype(np.float64)
        errors = x @ parameters[:, :-1].T + parameters[:, -1]
        self._errors(errors, self._y[self._sample])
        errors = np.abs(errors)
        weights = np.mean(errors * (1.0 - errors), axis=1)
        x = np.concatenate([x, np.ones((len(x), 1))], axis=1)
        matrix = (x * weights[:, np.newaxis]).T @ x * (len(self._x) / len(x))
        diagonal = np.einsum("ii->i", matrix)
        diagonal[:-1] += strength
        diagonal += _FLOOR * diagonal.mean()
        return matrix

    def _loss(self, parameters, strength):
        """The sum that is minimised, and its gradient (classes, d + 1)."""
        weights, biases = parameters[:, :-1], parameters[:, -1]
        rows = max(1, _BLOCK // sum(parameters.shape))
        starts = range(0, len(self._x), rows)
        count = min(num_cores(), len(starts))
        losses, gradients = np.zeros(count), np.zeros((count, *parameters.shape))

        def add(part):
            for start in starts[part::count]:
                block = slice(start, start + rows)
                x = self._x[block].astype(np.float64, copy=False)
                errors = x @ weights.T
                errors += biases
                losses[part] += self._errors(errors, self._y[block])
                gradients[part, :, :-1] += errors.T @ x
                gradients[part, :, -1] += errors.sum(axis=0)

        if count == 1:
            add(0)
        else:
            for_each(add, count)
        gradient = gradients.sum(axis=0)
        gradient[:, :-1] += strength * weights
        return losses.sum() + strength / 2 * np.vdot(weights, weights), gradient


def _signs(y):
    """1 for examples of a class, -1 for others, 0 for those that say nothing."""
    signs = np.where(y > 0, 1.0, -1.0) * (y >= 0)
    return signs * ((signs > 0).any(axis=0) & (signs < 0).any(axis=0))


def _softmax_errors(logits, classes):
    """Loss of logits (n, classes), which become probabilities minus one-hot classes.

    Probabilities and losses near 0 keep all their digits.
    """
    rows = np.arange(len(classes))
    logits -= logits.max(axis=1, keepdims=True)
    own = logits[rows, classes]
    np.exp(logits, out=logits)
    logits[rows, classes] = 0.0
    others = logits.sum(axis=1)
    more = others + np.expm1(own)
    logits /= 1.0 + more[:, np.newaxis]
    logits[rows, classes] = -others / (1.0 + more)
    return np.sum(np.log1p(more) - own)


def _sigmoid_errors(logits, signs):
    """Loss of logits (n, classes), which become probabilities minus 0 or 1."""
    margins = signs * logits
    losses = np.logaddexp(0.0, -margins)
    np.multiply(-signs, np.exp(-margins - losses), out=logits)
    return np.vdot(losses, np.abs(signs))
