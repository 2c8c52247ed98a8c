"""Kernels on embeddings: Gram matrices and random Fourier features.

A kernel is called as `k(x, y=None)` on rows of embeddings, `x` of shape (n, d) and
`y` of shape (m, d), and returns the (n, m) matrix of its values; `y=None` stands for
`x` itself and costs one matrix product in the backward pass instead of two, because
the Gram matrix is symmetric. On several replicas `x` holds one replica's rows, and
`y=None` stands for the rows of all, in the order of the replicas. Everything is
computed in float32, or in float64 for float64 input, whatever the dtype policy.
"""

import abc
import math

import keras
from keras import ops

from keras_kssl import replicas
from keras_kssl._checks import check_integer, check_number, check_rank, check_that
from keras_kssl._precision import matmul
from keras_kssl.profiles import legendre_coefficients

__all__ = [
    "Gaussian",
    "InverseMultiquadric",
    "Kernel",
    "Linear",
    "StationaryKernel",
    "Zonal",
    "legendre",
    "legendre_coefficients",
]

_PACKAGE = "keras_kssl"


def at_least_float32(x):
    """Casts half-precision and integer arrays to float32; keeps float64."""
    x = ops.convert_to_tensor(x)
    if keras.backend.standardize_dtype(x.dtype) in ("float32", "float64"):
        return x
    return ops.cast(x, "float32")


@ops.custom_gradient
def inner_products(x):
    """Matrix of inner products x xᵀ of the rows of `x`, shape (n, d) -> (n, n).

    For an upstream gradient U automatic differentiation takes two matrix products,
    U x and Uᵀ x; this takes one, (U + Uᵀ) x.

    On N replicas: this replica's rows against all, shape (n, d) -> (n, N n). The
    gradient there takes the whole of U to be symmetric, as it is for every function in
    which i and j play the same part; then 2 U x of the own rows of U is all of it, and
    nothing is exchanged in the backward pass.
    """
    every = replicas.global_rows(x)

    def gradient(*args, upstream=None):
        if upstream is None:
            (upstream,) = args
        if replicas.count() > 1:
            return 2.0 * matmul(upstream, every)
        return matmul(upstream + ops.transpose(upstream), x)

    return matmul(x, ops.transpose(every)), gradient


@ops.custom_gradient
def second_moments(x):
    """Sum over rows of x_i x_iᵀ, shape (n, d) -> (d, d); gradient x (U + Uᵀ).

    On several replicas: the sum over this one's rows.
    """

    def gradient(*args, upstream=None):
        if upstream is None:
            (upstream,) = args
        return matmul(x, upstream + ops.transpose(upstream))

    return matmul(ops.transpose(x), x), gradient


@ops.custom_gradient
def doubled_gradient(x):
    """x itself; whatever its gradient is comes back twice."""

    def gradient(*args, upstream=None):
        if upstream is None:
            (upstream,) = args
        return 2.0 * upstream

    return x + 0.0, gradient


def squared_distances(x, y=None):
    """Squared Euclidean distances between rows, (n, d) and (m, d) -> (n, m).

    With `y=None` the diagonal is exactly zero.
    """
    x = at_least_float32(x)
    if y is None:
        products = inner_products(x)
        norms_x = ops.diagonal(_own_columns(products))
        norms_y = replicas.global_rows(norms_x)
        distances = norms_x[:, None] + norms_y[None, :] - 2.0 * products
    else:
        y = ops.cast(y, x.dtype)
        norms_x, norms_y = (ops.sum(ops.square(rows), axis=-1) for rows in (x, y))
        # The factor on the rows, not on the products: fewer passes over the matrix.
        products = matmul(-2.0 * x, ops.transpose(y))
        distances = products + norms_x[:, None] + norms_y[None, :]
    return ops.maximum(distances, 0.0)


def _own_columns(products):
    """The columns that belong to this replica's rows, (n, N n) -> (n, n)."""
    if replicas.count() == 1:
        return products
    return ops.transpose(replicas.my_rows(ops.transpose(products)))


def legendre(t, dim, degree):
    """Legendre polynomial of dimension `dim` (Gegenbauer, normalised to P(1) = 1).

    The zonal function of degree k on the unit sphere of R^dim: Chebyshev's
    cos(k arccos t) for `dim=2`, the classical Legendre polynomial for `dim=3`.
    Formula: P_0 = 1, P_1 = t,
    P_{k+1} = [(2k + q - 2) t P_k - k P_{k-1}] / (k + q - 2) for q = dim.

    Args:
        t: array of inner products of unit vectors, in [-1, 1], any shape.
        dim: dimension q of the embeddings, at least 2.
        degree: degree k, at least 0.

    Returns:
        Array of the shape of `t`.

    >>> float(legendre(0.5, dim=3, degree=2))
    -0.125
    """
    degree = check_integer("legendre", "degree", degree, minimum=0)
    return legendre_values(t, dim, degree)[degree]


def legendre_values(t, dim, max_degree):
    """Legendre polynomials of degrees 0 ... max_degree as a list, one pass."""
    q = check_integer("legendre", "dim", dim, minimum=2)
    t = at_least_float32(t)
    values = [ops.ones_like(t), t]
    for k in range(1, max_degree):
        rising, falling = _recurrence(k, q)
        values.append(rising * t * values[k] - falling * values[k - 1])
    return values[: max_degree + 1]


def _recurrence(k, dim):
    """(r, f) of P_{k+1} = r t P_k - f P_{k-1}, in the range of float32 for every q."""
    return (2 * k + dim - 2) / (k + dim - 2), k / (k + dim - 2)


class Kernel(abc.ABC):
    """Base of all kernels; a kernel is a value and serialises with its arguments."""

    @abc.abstractmethod
    def __call__(self, x, y=None):
        """Kernel values of the rows of x, (n, d), and y, (m, d): shape (n, m)."""

    def get_config(self):
        return {}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def __repr__(self):
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({arguments})"

    def __eq__(self, other):
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self):
        return hash(repr(self))


class StationaryKernel(Kernel):
    """A kernel of the distance ||x - y|| / width, with random Fourier features.

    The features φ(x) = sqrt(2/D) cos(W x / width + b) satisfy
    E φ(x)·φ(y) = k(x, y), with a standard error of the order of 1/sqrt(D).
    Subclasses say how to draw the rows of W for width 1 (`_frequencies`).
    """

    @property
    @abc.abstractmethod
    def width(self):
        """The length by which distances are divided."""

    @abc.abstractmethod
    def from_squared_distances(self, distances):
        """Kernel values for squared distances, elementwise."""

    @abc.abstractmethod
    def _frequencies(self, num_features, dim, seed, dtype):
        """Rows of W for width 1, shape (num_features, dim)."""

    def __call__(self, x, y=None):
        return self.from_squared_distances(squared_distances(x, y))

    def sample_frequencies(self, num_features, dim, seed, dtype="float32"):
        """Draws what a random feature map needs; the width is not in it.

        Args:
            num_features: number D of random features.
            dim: dimension d of the embeddings.
            seed: `keras.random.SeedGenerator` (advances by the draws) or an integer.
            dtype: "float32" or "float64".

        Returns:
            `frequencies` of shape (D, d) and `phases` of shape (D,), the latter
            uniform in [0, 2π).
        """
        caller = f"{type(self).__name__}.sample_frequencies"
        check_integer(caller, "num_features", num_features, minimum=1)
        check_integer(caller, "dim", dim, minimum=1)
        if not isinstance(seed, keras.random.SeedGenerator):
            seed = keras.random.SeedGenerator(seed)
        frequencies = self._frequencies(num_features, dim, seed, dtype)
        phases = keras.random.uniform(
            (num_features,), 0.0, 2.0 * math.pi, dtype=dtype, seed=seed
        )
        return frequencies, phases

    def random_features(self, x, frequencies, phases):
        """Random Fourier features of rows, (..., d) -> (..., D).

        Args:
            x: embeddings, shape (..., d).
            frequencies: array (D, d) from `sample_frequencies`.
            phases: array (D,) from `sample_frequencies`.
        """
        x = at_least_float32(x)
        frequencies = ops.cast(frequencies, x.dtype)
        phases = ops.cast(phases, x.dtype)
        width = ops.cast(self.width, x.dtype)
        angles = matmul(x / width, ops.transpose(frequencies)) + phases
        return (2.0 / frequencies.shape[0]) ** 0.5 * ops.cos(angles)


@keras.saving.register_keras_serializable(package=_PACKAGE)
class InverseMultiquadric(StationaryKernel):
    """Inverse multiquadric kernel k(x, y) = c / sqrt(c² + ||x - y||²).

    A scale mixture of Gaussians, E_a exp(-a² r² / 2) = 1 / sqrt(1 + r²) for a
    standard normal a, so that a frequency is a scalar normal number times a normal
    vector: exact in every dimension, without a table of amplitudes.

    Args:
        scale: c > 0; a number, or a scalar tensor while c is being learned.

    >>> round(float(InverseMultiquadric()([[0.0, 0.0]], [[0.0, 3.0]])[0, 0]), 4)
    0.3162

    References:
        SSL-HSIC, arXiv 2106.08320. The authors draw the amplitude |W_j| from a table
        of 10,000 points on [0, 100], which is coarse for d = 1 and truncates from
        d = 1024 on.
    """

    def __init__(self, scale=1.0):
        self.scale = _checked_width("InverseMultiquadric", "scale", scale)

    @property
    def width(self):
        return self.scale

    def from_squared_distances(self, distances):
        scale = ops.cast(self.scale, distances.dtype)
        return scale * ops.rsqrt(distances + ops.square(scale))

    def log_slope(self, distances):
        """log |dk/ds| at squared distances s: log(c/2) - 1.5 log(s + c²)."""
        scale = ops.cast(self.scale, distances.dtype)
        return ops.log(0.5 * scale) - 1.5 * ops.log(distances + ops.square(scale))

    def log_slope_gradient(self, distances):
        """Derivative of `log_slope` by the scale: 1/c - 3c / (s + c²)."""
        scale = ops.cast(self.scale, distances.dtype)
        return 1.0 / scale - 3.0 * scale / (distances + ops.square(scale))

    def _frequencies(self, num_features, dim, seed, dtype):
        directions = keras.random.normal((num_features, dim), dtype=dtype, seed=seed)
        amplitudes = keras.random.normal((num_features, 1), dtype=dtype, seed=seed)
        return amplitudes * directions

    def get_config(self):
        return {"scale": self.scale}


@keras.saving.register_keras_serializable(package=_PACKAGE)
class Gaussian(StationaryKernel):
    """Gaussian kernel k(x, y) = exp(-||x - y||² / (2 σ²)).

    Args:
        bandwidth: σ > 0; a number or a scalar tensor.
    """

    def __init__(self, bandwidth=1.0):
        self.bandwidth = _checked_width("Gaussian", "bandwidth", bandwidth)

    @property
    def width(self):
        return self.bandwidth

    def from_squared_distances(self, distances):
        bandwidth = ops.cast(self.bandwidth, distances.dtype)
        return ops.exp(-0.5 * distances / ops.square(bandwidth))

    def _frequencies(self, num_features, dim, seed, dtype):
        return keras.random.normal((num_features, dim), dtype=dtype, seed=seed)

    def get_config(self):
        return {"bandwidth": self.bandwidth}


@keras.saving.register_keras_serializable(package=_PACKAGE)
class Linear(Kernel):
    """Linear kernel k(x, y) = x·y."""

    def __call__(self, x, y=None):
        return _inner_products(x, y)


@keras.saving.register_keras_serializable(package=_PACKAGE)
class Zonal(Kernel):
    """Rotation-invariant kernel on the unit sphere, k(x, y) = Σ b_l P_l(x·y).

    P_l is the Legendre polynomial of the embeddings' dimension; l starts at 1, so
    that the mean of k over the sphere is 0. By Schoenberg's theorem k is positive
    semi-definite if and only if no b_l is negative.

    Args:
        coefficients: b_1, b_2, ... b_L, non-negative, not all zero; those of other
            rotation-invariant kernels are found by `legendre_coefficients`.

    >>> float(Zonal((1.0, 40.0))([[1.0, 0.0]], [[1.0, 0.0]])[0, 0])
    41.0

    References:
        SFRIK, arXiv 2208.00789.
    """

    def __init__(self, coefficients=(1.0, 40.0, 40.0)):
        self.coefficients = check_coefficients("Zonal", coefficients)

    def __call__(self, x, y=None):
        x = at_least_float32(x)
        return self.from_inner_products(_inner_products(x, y), x.shape[-1])

    def from_inner_products(self, t, dim):
        """Kernel values for inner products t of unit vectors of dimension `dim`."""
        return self.with_slope(t, dim)[0]

    def with_slope(self, t, dim):
        """Kernel values for inner products t, and their derivatives by t.

        By Clenshaw's recurrence: for P_{k+1} = r_k t P_k - f_k P_{k-1} let
        y_k = b_k + r_k t y_{k+1} - f_{k+1} y_{k+2}; then k(t) = t y_1 - f_1 y_2.
        """
        t = at_least_float32(t)
        # y_{k+1} and y_{k+2}, and their derivatives.
        (y, slope), (y_next, slope_next) = (0.0, 0.0), (0.0, 0.0)
        for k in range(len(self.coefficients), 0, -1):
            rising, falling = _recurrence(k, dim)[0], _recurrence(k + 1, dim)[1]
            (y, slope), (y_next, slope_next) = (
                (
                    self.coefficients[k - 1] + rising * t * y - falling * y_next,
                    rising * (y + t * slope) - falling * slope_next,
                ),
                (y, slope),
            )
        falling = _recurrence(1, dim)[1]
        return t * y - falling * y_next, y + t * slope - falling * slope_next

    def get_config(self):
        return {"coefficients": self.coefficients}


def check_coefficients(caller, coefficients):
    """Checks Legendre coefficients and returns them as a tuple of floats."""
    rule = "a sequence of non-negative numbers, not all zero"
    remedy = "A negative coefficient makes the kernel indefinite."
    values = list(coefficients) if hasattr(coefficients, "__iter__") else []
    check_that(bool(values), caller, "coefficients", rule, coefficients)
    numbers = tuple(check_number(caller, "coefficients", b) for b in values)
    check_that(
        min(numbers) >= 0 and max(numbers) > 0,
        caller,
        "coefficients",
        rule,
        coefficients,
        remedy,
    )
    return numbers


def _checked_width(caller, argument, value):
    if hasattr(value, "shape"):
        check_rank(caller, argument, value, 0, "a scalar")
        return value
    return check_number(caller, argument, value, minimum=0.0, exclusive=True)


def _inner_products(x, y):
    x = at_least_float32(x)
    if y is None:
        return inner_products(x)
    return matmul(x, ops.transpose(ops.cast(y, x.dtype)))
