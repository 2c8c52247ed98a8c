"""Legendre coefficients of rotation-invariant kernels, from their profiles.

A rotation-invariant kernel on the unit sphere of dimension q is a function of the inner
product, k(u, v) = φ(u·v), its profile, and a sum of Legendre polynomials,
φ(t) = Σ_l b_l P_l(t). The coefficients say what the kernel compares: degree 1 means of
embeddings, degree 2 covariances, and so on. With N_l polynomials of degree l and
(x)_l = x (x + 1) ... (x + l - 1)::

    b_l = c_l E[φ⁽ˡ⁾(T)],    c_l = N_l / (2ˡ (q/2)_l),
    T with a density proportional to (1 - t²)^(l + (q - 3)/2)

by Rodrigues' formula and integration by parts. For large q the law of T shrinks to 0
and b_l tends to the Taylor coefficient φ⁽ˡ⁾(0) / l!. The kernels with names have closed
forms of this, all terms of one sign, which keep their digits for every q. Everything
here is NumPy in float64.
"""

import math

import numpy as np
import scipy.linalg
import scipy.special

from keras_kssl._checks import check_choice, check_integer, check_number, check_that

# Of the parameter of each kernel that has a name.
_DEFAULTS = {"gaussian": 2.5, "exponential": 0.1, "energy": 1.0}
# Nodes of the quadrature for profiles without a closed form.
_NODES = 400
_ROUNDING = 4 * np.finfo("float64").eps
# Largest error of a coefficient, as a share of the largest value.
_LARGEST_ERROR = 1e-6


def legendre_coefficients(profile, dim, degree, parameter=None):
    """Coefficients b_1 ... b_L of a rotation-invariant kernel, for `Zonal` and SFRIK.

    | profile | φ(t), t = u·v | parameter, default | belongs to |
    |---|---|---|---|
    | "gaussian" | exp(-2s(1 - t)) = exp(-s ‖u - v‖²) | s > 0, 2.5 | uniformity |
    | "exponential" | exp(t / T) | T >= 0.002, 0.1 | SimCLR's denominator |
    | "energy" | -(2 - 2t)^(r/2) = -‖u - v‖^r | 0 < r < 2, 1 | energy distance |

    The constant b_0, the mean over the sphere, is left out, and so are degrees above L:
    the kernel with these coefficients is φ - b_0 with its finest parts cut off.

    Args:
        profile: a name, or a function from an array of inner products in [-1, 1] to
            values. A function is integrated by a Gauss rule of 400 nodes, to about
            1e-16 √N_L of its size, which at large q is too coarse for high degrees; for
            one with a kink or a root at t = 1 it is good to three digits or so.
        dim: dimension q of the embeddings, at least 2.
        degree: highest degree L, at least 1.
        parameter: s, T or r of a kernel with a name.

    Returns:
        Tuple of L floats, none negative.

    Raises:
        ValueError: for a profile with a negative coefficient, which is named: that
            kernel is not positive semi-definite. For a degree that rounding spoils.

    >>> b = legendre_coefficients("gaussian", dim=8192, degree=3)
    >>> [round(value, 4) for value in b]
    [0.0337, 0.0843, 0.1405]
    >>> b = legendre_coefficients(lambda t: 2 * t + t**2, dim=4, degree=3)
    >>> [round(value, 4) for value in b]
    [2.0, 0.75, 0.0]

    References:
        Schoenberg, Positive definite functions on spheres, 1942; for the Gaussian and
        the exponential the integral is a modified Bessel function.
    """
    coefficients, errors = expansion(profile, dim, degree, parameter)
    for order, (value, error) in enumerate(zip(coefficients, errors, strict=True)):
        check_that(
            order == 0 or value >= -error,
            "legendre_coefficients",
            "profile",
            "of a positive semi-definite kernel, without negative coefficients",
            profile,
            f"That of degree {order} is {value:.3g}.",
        )
    # What is not told from 0 is 0: not every kernel has every degree.
    return tuple(
        float(value) if value > error else 0.0
        for value, error in zip(coefficients[1:], errors[1:], strict=True)
    )


def expansion(profile, dim, degree, parameter=None):
    """Coefficients b_0 ... b_L of any sign, and bounds of their rounding errors.

    Arguments are those of `legendre_coefficients`.
    """
    caller = "legendre_coefficients"
    dim = check_integer(caller, "dim", dim, minimum=2)
    degree = check_integer(caller, "degree", degree, minimum=1)
    if callable(profile):
        rule = "None for a function of your own"
        check_that(parameter is None, caller, "parameter", rule, parameter)
        return _by_quadrature(profile, dim, degree)
    parameter = _checked(profile, parameter)
    degrees = np.arange(degree + 1)
    if profile == "energy":
        coefficients = _of_energy(dim, degrees, parameter)
    elif profile == "gaussian":
        rate = 2.0 * parameter
        coefficients = _of_exponential(dim, degrees, rate, -rate)
    else:
        coefficients = _of_exponential(dim, degrees, 1.0 / parameter, 0.0)
    return coefficients, np.zeros(degree + 1)


def profile_function(name, parameter=None):
    """The profile with a name as a function of an array of inner products."""
    parameter = _checked(name, parameter)
    return {
        "gaussian": lambda t: np.exp(-2.0 * parameter * (1.0 - t)),
        "exponential": lambda t: np.exp(t / parameter),
        "energy": lambda t: -((2.0 - 2.0 * t) ** (parameter / 2.0)),
    }[name]


def legendre_sum(t, dim, coefficients):
    """Σ b_l P_l(t) of coefficients b_0 ... b_L, for an array t of any shape."""
    before, value = np.zeros_like(t), np.ones_like(t)
    total = coefficients[0] * value
    for k, coefficient in enumerate(coefficients[1:]):
        if k == 0:
            following = t
        else:
            rising = (2 * k + dim - 2) / (k + dim - 2)
            following = rising * t * value - k / (k + dim - 2) * before
        before, value = value, following
        total = total + coefficient * value
    return total


def _checked(name, parameter):
    """The parameter of a kernel with a name, or its default."""
    caller = "legendre_coefficients"
    check_choice(caller, "profile", name, _DEFAULTS)
    if parameter is None:
        return _DEFAULTS[name]
    low, high = {"gaussian": (0.0, math.inf), "energy": (0.0, 2.0)}.get(
        name, (0.002, math.inf)
    )
    exclusive = name != "exponential"
    return check_number(caller, "parameter", parameter, low, high, exclusive)


def _of_exponential(dim, degrees, rate, offset):
    """Coefficients of exp(rate t + offset): c_l rateˡ exp(offset) E[exp(rate T)]."""
    logs = [_log_mean_exponential(rate, k + dim / 2.0) for k in degrees]
    return _factors(dim, degrees) * np.exp(degrees * np.log(rate) + logs + offset)


def _log_mean_exponential(rate, half):
    """log E[exp(rate T)] = log Σ_j (rate²/4)^j / ((half)_j j!), all terms positive."""
    square = rate * rate / 4.0
    # The largest term, and as many beyond it as it takes.
    peak = (math.sqrt(half * half + 4.0 * square) - half) / 2.0
    steps = np.arange(math.ceil(peak + 20.0 * math.sqrt(peak + 1.0)) + 40)
    ratios = np.log(square) - np.log(half + steps) - np.log(1.0 + steps)
    return scipy.special.logsumexp(np.append(0.0, np.cumsum(ratios)))


def _of_energy(dim, degrees, exponent):
    """Coefficients of -(2 - 2t)^p with p = r/2, moments of a Beta law."""
    p, half = exponent / 2.0, (dim - 1) / 2.0
    log_gamma = scipy.special.gammaln
    logs = (2.0 * p - degrees) * math.log(2.0)
    logs += log_gamma(p + half) - log_gamma(degrees + half)
    logs += log_gamma(2 * degrees + 2.0 * half) - log_gamma(degrees + 2.0 * half + p)
    # (-p)_l: all but the first of its factors are positive.
    return -_factors(dim, degrees) * scipy.special.poch(-p, degrees) * np.exp(logs)


def _factors(dim, degrees):
    """c_0 ... c_L: each is the one before times (l + q - 3) / (l (2l + q - 4))."""
    factors = np.ones(len(degrees))
    for k in degrees[2:]:
        factors[k] = factors[k - 1] * (k + dim - 3) / (k * (2 * k + dim - 4))
    return factors


def _by_quadrature(profile, dim, degree):
    """Coefficients of a function, b_l = N_l E[φ(t) P_l(t)] over two uniform vectors."""
    nodes, weights = _gauss(dim, max(_NODES, 2 * degree))
    values = np.asarray(profile(nodes), "float64")
    finite = values.shape == nodes.shape and np.isfinite(values).all()
    rule = "a function from an array to as many finite values"
    check_that(finite, "legendre_coefficients", "profile", rule, profile)
    size = np.abs(values).max()
    coefficients, errors = [], []
    # P_l has the mean square 1 / N_l.
    for order, count in enumerate(_counts(dim, degree)):
        polynomial = legendre_sum(nodes, dim, np.eye(degree + 1)[order])
        coefficients.append(count * np.sum(weights * values * polynomial))
        errors.append(_ROUNDING * math.sqrt(count) * size)
    check_that(
        errors[-1] <= _LARGEST_ERROR * size,
        "legendre_coefficients",
        "degree",
        f"low enough for rounding at dim={dim}",
        degree,
        "Kernels with a name have no such limit.",
    )
    return np.array(coefficients), np.array(errors)


def _counts(dim, degree):
    """N_0 ... N_L, the numbers of independent polynomials of each degree."""
    counts = [1.0, float(dim)]
    for k in range(2, degree + 1):
        growth = (2 * k + dim - 2) / (2 * k + dim - 4) * (k + dim - 3) / k
        counts.append(counts[-1] * growth)
    return counts


def _gauss(dim, count):
    """Nodes and weights of E[f(t)] for the inner product t of two uniform vectors."""
    if dim == 2:
        angles = (np.arange(count) + 0.5) * np.pi / count
        return np.cos(angles), np.full(count, 1.0 / count)
    # The recurrence of the Legendre polynomials in its symmetric form.
    k = np.arange(1, count)
    squares = k * (k + dim - 3.0) / ((2 * k + dim - 2.0) * (2 * k + dim - 4.0))
    nodes, vectors = scipy.linalg.eigh_tridiagonal(np.zeros(count), np.sqrt(squares))
    return nodes, vectors[0] ** 2
