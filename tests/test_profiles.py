"""Legendre coefficients of kernels against integrals, sums, limits and laws."""

import itertools

import numpy as np
import pytest
import scipy.integrate
import scipy.special
from keras import ops

from keras_kssl import kernels, objectives, pictures, profiles, statistics

pytestmark = pytest.mark.any_backend

NAMED = [
    ("gaussian", 2.5),
    ("gaussian", 50.0),
    ("exponential", 0.1),
    ("exponential", 3.0),
    ("energy", 1.0),
    ("energy", 0.3),
]
SMOOTH = [(name, parameter) for name, parameter in NAMED if name != "energy"]
named = pytest.mark.parametrize(("name", "parameter"), NAMED)
smooth = pytest.mark.parametrize(("name", "parameter"), SMOOTH)


def definition(name, parameter):
    """The profile by the distance or the inner product of two vectors."""

    def profile(t):
        distance = np.sqrt(2.0 - 2.0 * t)
        if name == "gaussian":
            return np.exp(-parameter * distance**2)
        return (
            np.exp(t / parameter) if name == "exponential" else -(distance**parameter)
        )

    return profile


def polynomial(t, dim, degree):
    if dim == 2:
        return np.cos(degree * np.arccos(t))
    alpha = (dim - 2) / 2
    values = scipy.special.eval_gegenbauer(degree, alpha, t)
    return values / scipy.special.eval_gegenbauer(degree, alpha, 1.0)


def projection(profile, dim, degree):
    """b_l by adaptive quadrature over the angle between two vectors."""

    def integral(function):
        def integrand(a):
            return function(np.cos(a)) * np.sin(a) ** (dim - 2)

        size = np.abs(integrand(np.linspace(0.0, np.pi, 2001))).max()
        options = {"limit": 400, "epsabs": 1e-11 * size, "epsrel": 1e-9}
        return scipy.integrate.quad(integrand, 0.0, np.pi, **options)[0]

    square = integral(lambda t: polynomial(t, dim, degree) ** 2)
    return integral(lambda t: profile(t) * polynomial(t, dim, degree)) / square


@named
@pytest.mark.parametrize("dim", [2, 3, 7, 64])
def test_coefficients_are_projections_on_the_legendre_polynomials(name, parameter, dim):
    coefficients, _ = profiles.expansion(name, dim, 5, parameter)
    expected = [projection(definition(name, parameter), dim, k) for k in range(6)]
    scale = np.abs(expected).max()
    np.testing.assert_allclose(coefficients, expected, rtol=1e-6, atol=1e-9 * scale)


@smooth
@pytest.mark.parametrize("dim", [2, 3, 64, 8192, 32768])
def test_coefficients_put_the_kernel_together_again(name, parameter, dim):
    # Where two vectors of the dimension may be, give or take.
    t = np.linspace(-1.0, 1.0, 41) * min(1.0, 40.0 / dim**0.5)
    profile = definition(name, parameter)
    coefficients, _ = profiles.expansion(name, dim, 160, parameter)
    np.testing.assert_allclose(
        profiles.legendre_sum(t, dim, coefficients),
        profile(t),
        rtol=1e-9,
        atol=1e-13 * np.abs(profile(t)).max(),
    )


@pytest.mark.parametrize("exponent", [0.3, 1.0, 1.9])
@pytest.mark.parametrize("dim", [64, 8192, 32768])
def test_coefficients_of_the_energy_put_it_together_where_it_is_smooth(dim, exponent):
    t = np.linspace(-0.3, 0.3, 21)
    coefficients, _ = profiles.expansion("energy", dim, 40, exponent)
    found = profiles.legendre_sum(t, dim, coefficients)
    np.testing.assert_allclose(found, definition("energy", exponent)(t), rtol=1e-9)


@named
def test_coefficients_tend_to_those_of_the_power_series(name, parameter):
    found = kernels.legendre_coefficients(name, 10**7, 4, parameter)
    k = np.arange(1, 5)
    rate = {"gaussian": 2.0 * parameter, "exponential": 1.0 / parameter}.get(name)
    if rate is None:
        p = parameter / 2.0
        expected = -(2.0**p) * scipy.special.binom(p, k) * (-1.0) ** k
    else:
        at_zero = definition(name, parameter)(0.0)
        expected = at_zero * rate**k / scipy.special.factorial(k)
    np.testing.assert_allclose(found, expected, rtol=2e-3)


@named
@pytest.mark.parametrize("dim", [2, 64, 32768])
def test_kernels_with_names_are_admissible_to_every_degree(name, parameter, dim):
    found = kernels.legendre_coefficients(name, dim, 30, parameter)
    assert len(found) == 30
    assert min(found) > 0
    assert all(type(value) is float for value in found)
    assert kernels.Zonal(found).coefficients == found


@smooth
@pytest.mark.parametrize(("dim", "degree"), [(2, 12), (3, 12), (64, 6), (8192, 3)])
def test_functions_have_the_coefficients_of_their_names(name, parameter, dim, degree):
    profile = definition(name, parameter)
    found, errors = profiles.expansion(profile, dim, degree)
    expected, _ = profiles.expansion(name, dim, degree, parameter)
    assert (np.abs(found - expected) <= 8 * errors + 1e-12 * np.abs(expected)).all()


def test_published_coefficients_come_back_from_their_kernel():
    for dim, coefficients in itertools.product((3, 64, 8192), [(1, 40, 40), (0, 0, 2)]):
        found = kernels.legendre_coefficients(
            lambda t, d=dim, b=coefficients: sum(
                value * polynomial(t, d, k) for k, value in enumerate(b, start=1)
            ),
            dim,
            3,
        )
        np.testing.assert_allclose(found, coefficients, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("profile", "degree"),
    [
        (lambda t: 3.0 * t - t**2, 2),
        (lambda t: t - 0.5 * t**3, 3),
        (lambda t: -np.exp(-t), 2),
    ],
)
def test_kernels_that_are_not_admissible_name_the_degree(profile, degree):
    with pytest.raises(ValueError, match=rf"semi-definite .* of degree {degree} is -"):
        kernels.legendre_coefficients(profile, 5, 6)


@pytest.mark.parametrize("batch", [5, 16])
def test_sfrik_with_a_gaussian_kernel_is_auhs_uniformity_and_the_diagonal(batch):
    dim, scale = 6, 2.5
    mean = profiles.expansion("gaussian", dim, 60, scale)[0][0]
    coefficients = kernels.legendre_coefficients("gaussian", dim, 60, scale)
    rng = np.random.default_rng(batch)
    for spread in (0.3, 1.0, 3.0):
        z = rng.normal(size=(batch, dim)) * spread + 1.0
        z = (z / np.linalg.norm(z, axis=1, keepdims=True)).astype("float32")
        mmd = float(statistics.mmd_to_uniform(z, coefficients))
        potential = np.exp(float(statistics.uniformity(z, scale)))
        expected = (1.0 + (batch - 1) * potential) / batch - mean
        assert mmd == pytest.approx(expected, rel=1e-4)


def test_sfrik_with_a_gaussian_kernel_orders_batches_as_auh_does():
    dim = 8
    coefficients = kernels.legendre_coefficients("gaussian", dim, 40, 2.5)
    sfrik = objectives.SFRIK(0.0, coefficients=coefficients)
    auh = objectives.AlignmentUniformity(0.0, scale=2.5)
    rng = np.random.default_rng(0)
    batches = [
        (rng.normal(size=(12, dim)) * spread + rng.normal(size=dim)).astype("float32")
        for spread in np.geomspace(0.2, 4.0, 12)
    ]
    orders = [
        np.argsort([float(loss([z, z])) for z in batches]) for loss in (sfrik, auh)
    ]
    np.testing.assert_array_equal(*orders)
    assert list(orders[0]) != list(range(12))


def test_of_degree_1_sfrik_is_the_length_of_the_mean():
    (first,) = kernels.legendre_coefficients(lambda t: 3.0 * t, 5, 1)
    z = np.random.default_rng(0).normal(size=(7, 5)).astype("float32")
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    found = float(statistics.mmd_to_uniform(z, (first,)))
    assert found == pytest.approx(3.0 * np.sum(z.mean(0) ** 2), rel=1e-5)


@pytest.mark.parametrize(
    ("error", "argument", "arguments"),
    [
        (ValueError, "profile", ("gausian", 5, 2)),
        (ValueError, "dim", ("gaussian", 1, 2)),
        (TypeError, "dim", ("gaussian", 5.0, 2)),
        (ValueError, "degree", ("gaussian", 5, 0)),
        (ValueError, "parameter", ("gaussian", 5, 2, 0.0)),
        (ValueError, "parameter", ("exponential", 5, 2, 0.001)),
        (ValueError, "parameter", ("energy", 5, 2, 2.0)),
        (TypeError, "parameter", ("energy", 5, 2, "1")),
        (ValueError, "parameter", (np.exp, 5, 2, 1.0)),
        (ValueError, "profile", (lambda t: 1.0, 5, 2)),
        (ValueError, "profile", (lambda t: t * np.nan, 5, 2)),
        (ValueError, "degree", (np.exp, 32768, 6)),
    ],
)
def test_wrong_argument_is_named_in_the_error(error, argument, arguments):
    with pytest.raises(error, match=rf"legendre_coefficients: `{argument}` must be"):
        kernels.legendre_coefficients(*arguments)


def test_picture_shows_profiles_and_shares_of_every_kind_of_kernel(
    tmp_path, monkeypatch
):
    drawn = []
    monkeypatch.setattr(
        pictures, "_write", lambda figure, path: drawn.append(figure) or path
    )
    shown = {
        "published": (1.0, 40.0, 40.0),
        "default": "energy",
        "chosen": ("gaussian", 1.5),
        "own": lambda t: t + t**3,
    }
    pictures.draw_kernels(shown, 9, tmp_path / "kernels.png", degree=6)
    left, right = drawn[0].axes
    for line in left.lines:
        t, values = line.get_data()
        assert (t[0], t[-1]) == (-1.0, 1.0)
        assert values[-1] == pytest.approx(1.0)
    published, default, chosen, own = (line.get_ydata() for line in right.lines)
    np.testing.assert_allclose(published, np.array([1.0, 40.0, 40.0]) / 81.0)
    assert np.nansum(chosen) < 1.0
    gaussian = np.array(kernels.legendre_coefficients("gaussian", 9, 6, 1.5))
    np.testing.assert_allclose(chosen / chosen[0], gaussian / gaussian[0])
    assert len(default) == 6
    # t³ has the degrees 1 and 3 alone.
    assert list(np.isnan(own)) == [False, True, False, True, True, True]
    assert [text.get_text() for text in right.get_legend().get_texts()] == list(shown)


def test_zonal_kernel_of_the_coefficients_is_the_gaussian_without_its_mean():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 4)).astype("float32")
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    coefficients = kernels.legendre_coefficients("gaussian", 4, 40, 2.0)
    mean = profiles.expansion("gaussian", 4, 1, 2.0)[0][0]
    found = ops.convert_to_numpy(kernels.Zonal(coefficients)(x))
    # exp(-s d²) = exp(-d² / (2 σ²)).
    expected = ops.convert_to_numpy(kernels.Gaussian(0.5)(x)) - mean
    np.testing.assert_allclose(found, expected, atol=2e-5)
