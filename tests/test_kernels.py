"""Kernels against their definitions, the recorded references, and laws."""

import keras
import numpy as np
import pytest
import scipy.special
from keras import ops

from keras_kssl import kernels

KERNELS = [
    kernels.InverseMultiquadric(0.7),
    kernels.Gaussian(1.3),
    kernels.Linear(),
    kernels.Zonal((1.0, 40.0)),
    kernels.Zonal((0.0, 0.0, 2.0, 1.0)),
]
STATIONARY = KERNELS[:2]


def by_name(value):
    return repr(value)


def numpy_kernel(kernel, x, y):
    """Kernel matrices by a double loop over the definitions."""
    result = np.empty((len(x), len(y)))
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            distance = np.sum((a - b) ** 2)
            if isinstance(kernel, kernels.InverseMultiquadric):
                value = kernel.scale / np.sqrt(kernel.scale**2 + distance)
            elif isinstance(kernel, kernels.Gaussian):
                value = np.exp(-distance / (2 * kernel.bandwidth**2))
            elif isinstance(kernel, kernels.Linear):
                value = a @ b
            else:
                alpha = (len(a) - 2) / 2
                value = sum(
                    b_l
                    * scipy.special.eval_gegenbauer(degree, alpha, a @ b)
                    / scipy.special.eval_gegenbauer(degree, alpha, 1.0)
                    for degree, b_l in enumerate(kernel.coefficients, start=1)
                )
            result[i, j] = value
    return result


def unit_vectors(count, dim, seed=0):
    x = np.random.default_rng(seed).normal(size=(count, dim)).astype("float32")
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("kernel", KERNELS, ids=by_name)
def test_matrix_of_two_sets_equals_the_definition(kernel):
    x, y = unit_vectors(7, 5), unit_vectors(4, 5, seed=1)
    values = ops.convert_to_numpy(kernel(x, y))
    np.testing.assert_allclose(values, numpy_kernel(kernel, x, y), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS, ids=by_name)
def test_gram_matrix_of_one_set_equals_that_of_the_set_with_itself(kernel):
    x = unit_vectors(9, 5)
    gram = ops.convert_to_numpy(kernel(x))
    np.testing.assert_allclose(gram, ops.convert_to_numpy(kernel(x, x)), atol=2e-5)
    # One rounding of a product moves values of 41 by some 5e-6.
    np.testing.assert_allclose(gram, gram.T, atol=2e-5)


@pytest.mark.parametrize("kernel", KERNELS, ids=by_name)
def test_gram_matrix_is_positive_semidefinite(kernel):
    gram = ops.convert_to_numpy(kernel(unit_vectors(30, 5))).astype("float64")
    eigenvalues = np.linalg.eigvalsh(gram)
    assert eigenvalues.min() > -1e-5 * eigenvalues.max()


@pytest.mark.parametrize("kernel", KERNELS, ids=by_name)
def test_kernel_comes_back_from_its_configuration(kernel):
    config = keras.saving.serialize_keras_object(kernel)
    assert keras.saving.deserialize_keras_object(config) == kernel


@pytest.mark.parametrize("kernel", KERNELS, ids=by_name)
def test_half_precision_input_is_computed_in_float32(kernel):
    values = kernel(unit_vectors(4, 5).astype("float16"))
    assert keras.backend.standardize_dtype(values.dtype) == "float32"


@pytest.mark.parametrize("kernel", STATIONARY, ids=by_name)
def test_self_similarity_of_stationary_kernels_is_exactly_one(kernel):
    gram = ops.convert_to_numpy(kernel(10 * unit_vectors(50, 64)))
    np.testing.assert_allclose(np.diag(gram), 1.0, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kernel", STATIONARY, ids=by_name)
@pytest.mark.parametrize("dim", [1, 2, 7, 256])
def test_random_features_estimate_the_kernel(kernel, dim):
    num_features = 20_000
    x = unit_vectors(6, dim)
    x[0] *= 2.0
    draws = kernel.sample_frequencies(num_features, dim, seed=dim)
    features = ops.convert_to_numpy(kernel.random_features(x, *draws))
    # Products of two features of amplitude sqrt(2/D) have a deviation of at most 1/D.
    standard_error = 1.0 / np.sqrt(num_features)
    errors = np.abs(features @ features.T - numpy_kernel(kernel, x, x))
    assert errors.max() < 4.5 * standard_error


def test_imq_amplitudes_follow_their_exact_law():
    # The scale mixture: a frequency's squared length is a product of independent
    # chi-squared numbers with 1 and d degrees of freedom.
    dim, count = 16, 40_000
    frequencies, phases = kernels.InverseMultiquadric().sample_frequencies(
        count, dim, seed=3
    )
    squared = np.sum(ops.convert_to_numpy(frequencies) ** 2, axis=1)
    # E[χ²_1 χ²_d] = d; E of the square root is the product of the roots' means.
    gamma = scipy.special.gamma
    mean_length = 2 / np.sqrt(np.pi) * gamma((dim + 1) / 2) / gamma(dim / 2)
    deviation = np.sqrt(dim - mean_length**2)
    assert abs(np.sqrt(squared).mean() - mean_length) < 4 * deviation / np.sqrt(count)
    phases = ops.convert_to_numpy(phases)
    assert phases.min() >= 0.0
    assert phases.max() < 2 * np.pi
    assert abs(phases.mean() - np.pi) < 4 * np.pi / np.sqrt(3 * count)


def test_imq_amplitudes_agree_with_the_authors_table(golden):
    table = golden("hsic_imq_table")
    frequencies, _ = kernels.InverseMultiquadric().sample_frequencies(
        40_000, 256, seed=5
    )
    lengths = np.linalg.norm(ops.convert_to_numpy(frequencies), axis=1)
    probabilities = table["probs_n256"] / table["probs_n256"].sum()
    expected = np.cumsum(probabilities)
    measured = np.searchsorted(np.sort(lengths), table["x"], side="right") / len(
        lengths
    )
    # Kolmogorov-Smirnov at a level of 1e-4, beside the table's own error of 1e-3.
    assert np.abs(measured - expected).max() < 2.2 / np.sqrt(len(lengths)) + 1e-3


def test_seed_fixes_the_draw_and_generator_advances():
    kernel = kernels.Gaussian()
    first, again, other = (
        ops.convert_to_numpy(kernel.sample_frequencies(4, 3, seed)[0])
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.1
    generator = keras.random.SeedGenerator(1)
    draws = [kernel.sample_frequencies(4, 3, generator)[0] for _ in range(2)]
    np.testing.assert_array_equal(ops.convert_to_numpy(draws[0]), first)
    assert np.abs(ops.convert_to_numpy(draws[1] - draws[0])).max() > 0.1


@pytest.mark.parametrize("degree", [1, 2, 3, 4])
@pytest.mark.parametrize("dim", [2, 3, 5, 64, 8192])
def test_legendre_polynomials_equal_the_recorded_ones(golden, dim, degree):
    arrays = golden("sfrik_legendre")
    values = ops.convert_to_numpy(
        kernels.legendre(arrays["t"].astype("float32"), dim, degree)
    )
    recorded = arrays[f"q{dim}_deg{degree}_f64"]
    np.testing.assert_allclose(values, recorded, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("degree", [0, 1, 5, 12])
@pytest.mark.parametrize("dim", [2, 3, 9])
def test_legendre_of_any_degree_equals_gegenbauer(dim, degree):
    t = np.linspace(-1, 1, 23)
    if dim == 2:
        expected = np.cos(degree * np.arccos(t))
    else:
        alpha = (dim - 2) / 2
        expected = scipy.special.eval_gegenbauer(degree, alpha, t)
        expected /= scipy.special.eval_gegenbauer(degree, alpha, 1.0)
    values = ops.convert_to_numpy(kernels.legendre(t.astype("float32"), dim, degree))
    np.testing.assert_allclose(values, expected, atol=2e-5)


def test_legendre_in_float64_is_exact(golden):
    pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("float64 on JAX needs a process-wide switch")
    arrays = golden("sfrik_legendre")
    for dim in (3, 64, 8192):
        values = ops.convert_to_numpy(kernels.legendre(arrays["t"], dim, 4))
        np.testing.assert_allclose(values, arrays[f"q{dim}_deg4_f64"], rtol=1e-9)


def test_slope_of_the_imq_kernel_equals_finite_differences():
    distances = np.array([0.0, 0.3, 2.0, 4.0])
    scale, h = 0.8, 1e-6

    def profile(s, c):
        return c / np.sqrt(s + c * c)

    slopes = (profile(distances + h, scale) - profile(distances, scale)) / h
    kernel = kernels.InverseMultiquadric(scale)
    values = ops.convert_to_numpy(kernel.log_slope(ops.convert_to_tensor(distances)))
    np.testing.assert_allclose(values, np.log(np.abs(slopes)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: kernels.InverseMultiquadric(0.0), "scale"),
        (lambda: kernels.Gaussian(-1.0), "bandwidth"),
        (lambda: kernels.Gaussian(float("nan")), "bandwidth"),
        (lambda: kernels.Zonal(()), "coefficients"),
        (lambda: kernels.Zonal((1.0, -0.1)), "coefficients"),
        (lambda: kernels.Zonal((0.0, 0.0)), "coefficients"),
        (lambda: kernels.legendre(0.5, dim=1, degree=2), "dim"),
        (lambda: kernels.Gaussian().sample_frequencies(0, 3, 0), "num_features"),
    ],
)
def test_wrong_value_is_named_in_the_error(make, argument):
    with pytest.raises(
        ValueError, match=rf"`{argument}` must be .*Received: {argument}="
    ):
        make()
