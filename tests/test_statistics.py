"""Statistics against double loops, the authors' recorded numbers, and limits."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_kssl import kernels, objectives, statistics
from tests.gradients import value_and_gradients

HSIC_CASES = ["hsic_B32_d16_V2_D64_c1", "hsic_B16_d256_V4_D512_c2"]
on_tensorflow = keras.backend.backend() == "tensorflow"
precisions = pytest.mark.parametrize(
    ("suffix", "rtol"),
    [
        ("f32", 1e-5),
        pytest.param(
            "f64",
            1e-9,
            marks=pytest.mark.skipif(
                not on_tensorflow, reason="float64 on JAX needs a process-wide switch"
            ),
        ),
    ],
)


def numpy_of(value):
    return ops.convert_to_numpy(value)


def unit_vectors(*shape, seed=0):
    x = np.random.default_rng(seed).normal(size=shape).astype("float32")
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def of_several_lengths(*shape, seed=0):
    lengths = np.geomspace(0.1, 10, shape[0])[:, None].astype("float32")
    return unit_vectors(*shape, seed=seed) * lengths


def plain_unit_rows(z):
    squared_norm = ops.sum(z * z, axis=-1, keepdims=True)
    return z / ops.sqrt(ops.maximum(squared_norm, 1e-12))


def check_equal_derivatives(ours, automatic, *arrays):
    """Values, and gradients row by row: those of short rows are large."""
    value, gradients = value_and_gradients(ours, *arrays)
    expected_value, expected = value_and_gradients(automatic, *arrays)
    np.testing.assert_allclose(value, expected_value, rtol=1e-5)
    for found, gradient in zip(gradients, expected, strict=True):
        scale = np.linalg.norm(gradient, axis=-1, keepdims=True) + 1e-6
        np.testing.assert_allclose(found / scale, gradient / scale, rtol=0, atol=1e-5)


def hsic_zz_from_definition(gram):
    """HSIC(Z, Z) by the definition, with centring matrices."""
    n = len(gram)
    centring = np.eye(n) - 1.0 / n
    centred = centring @ gram @ centring
    return np.sum(centred * centred) / n**2


@pytest.mark.parametrize("num_views", [2, 3, 4])
def test_hsic_from_gram_equals_the_definition(num_views):
    num_images = 5
    z = unit_vectors(num_views * num_images, 6)
    gram = numpy_of(kernels.Gaussian()(z)).astype("float64")
    same = 0.0
    for i in range(num_views * num_images):
        for j in range(num_views * num_images):
            if i % num_images == j % num_images:
                same += gram[i, j]
    expected = same / (num_images * num_views * (num_views - 1)) - gram.mean()
    zy, zz = statistics.hsic_from_gram(gram.astype("float32"), num_views)
    assert float(zy) == pytest.approx(expected, rel=1e-5)
    assert float(zz) == pytest.approx(hsic_zz_from_definition(gram), rel=1e-5)


@pytest.mark.parametrize("num_regularized", [2, 3])
def test_gradients_of_hsic_from_gram_are_those_of_the_definition(num_regularized):
    num_views, num_images = 3, 4
    n, kept = num_views * num_images, num_regularized * num_images
    gram = np.random.default_rng(0).normal(size=(n, n)).astype("float32")
    gram += gram.T

    def total(gram):
        zy, zz = statistics.hsic_from_gram(gram, num_views, num_regularized)
        return 2.0 * zy + 5.0 * zz

    _, (found,) = value_and_gradients(total, gram)
    same_image = np.equal.outer(np.arange(n) % num_images, np.arange(n) % num_images)
    expected = same_image / (num_images * num_views * (num_views - 1)) - 1.0 / n**2
    expected = 2.0 * expected
    centring = np.eye(kept) - 1.0 / kept
    centred = centring @ gram[:kept, :kept] @ centring
    expected[:kept, :kept] += 5.0 * 2.0 * centred / kept**2
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", HSIC_CASES)
def test_exact_hsic_equals_the_recorded_definition(golden, case):
    arrays = golden(case)
    kernel = kernels.InverseMultiquadric(float(arrays["c"]))
    hiddens = arrays["hiddens"]
    z = hiddens.reshape(-1, hiddens.shape[-1])
    zy, zz = statistics.hsic_from_gram(kernel(z), len(hiddens))
    assert float(zy) == pytest.approx(
        float(arrays["exact/hsic_xy_ref_limit"]), rel=1e-5
    )
    assert float(zz) == pytest.approx(float(arrays["exact/hsic_zz_biased"]), rel=1e-5)
    total = 3 * np.sqrt(float(zz)) - float(zy)
    assert total == pytest.approx(float(arrays["exact/total_ref_limit"]), rel=1e-5)


@precisions
@pytest.mark.parametrize("case", HSIC_CASES)
def test_random_feature_hsic_and_gradients_equal_the_authors(
    golden, case, suffix, rtol
):
    arrays = golden(case)
    dtype = {"f32": "float32", "f64": "float64"}[suffix]
    kernel = kernels.InverseMultiquadric(float(arrays["c"]))
    draws = [
        (arrays[f"w{i}"].astype(dtype), arrays[f"b{i}"][0].astype(dtype))
        for i in (1, 2)
    ]
    hiddens = arrays["hiddens"].astype(dtype)

    def features_of(z):
        return [kernel.random_features(z, *draw) for draw in draws]

    for i, features in enumerate(features_of(hiddens), start=1):
        np.testing.assert_allclose(
            numpy_of(features), arrays[f"rff{i}_{suffix}"], rtol=0, atol=rtol
        )

    def terms(z):
        return statistics.hsic_from_features(*features_of(z))

    functions = {
        "hsic_xy": (lambda z: terms(z)[0], "grad_hsic_xy"),
        "hsic_xx": (lambda z: terms(z)[1], "grad_hsic_xx"),
        "total_loss": (lambda z: 3 * ops.sqrt(terms(z)[1]) - terms(z)[0], "grad_total"),
    }
    for name, (function, gradient_name) in functions.items():
        value, (gradient,) = value_and_gradients(function, hiddens)
        np.testing.assert_allclose(value, arrays[f"{name}_{suffix}"], rtol=rtol)
        recorded = arrays[f"{gradient_name}_{suffix}"]
        scale = np.abs(recorded).max()
        np.testing.assert_allclose(gradient, recorded, rtol=0, atol=rtol * scale)


@precisions
@pytest.mark.parametrize("case", HSIC_CASES)
def test_kernel_scale_term_and_its_gradient_equal_the_authors(
    golden, case, suffix, rtol
):
    arrays = golden(case)
    dtype = {"f32": "float32", "f64": "float64"}[suffix]
    hiddens = arrays["hiddens"].astype(dtype)
    sides = [
        np.concatenate([view[rows] for view, rows in zip(hiddens, index, strict=True)])
        for index in (arrays["pair_idx1"], arrays["pair_idx2"])
    ]
    kernel = kernels.InverseMultiquadric(float(arrays["c"]))
    distances = kernels.squared_distances(*sides)
    value = float(ops.mean(kernel.log_slope(distances)))
    gradient = float(ops.mean(kernel.log_slope_gradient(distances)))
    assert value == pytest.approx(float(arrays[f"grad_norm_{suffix}"]), rel=rtol)
    recorded = float(arrays[f"dgradnorm_dscale_{suffix}"])
    # The mean of terms of both signs: its error is relative to their size, 1/c.
    assert gradient == pytest.approx(recorded, rel=rtol, abs=rtol / float(arrays["c"]))


def test_random_features_converge_to_the_exact_hsic():
    z = unit_vectors(2, 64, 8)
    kernel = kernels.InverseMultiquadric()
    exact = statistics.hsic_from_gram(kernel(z.reshape(-1, 8)), 2)
    estimates = []
    generator = keras.random.SeedGenerator(0)
    for _ in range(20):
        draws = [kernel.sample_frequencies(1024, 8, generator) for _ in range(2)]
        features = [kernel.random_features(z, *draw) for draw in draws]
        estimates.append([float(t) for t in statistics.hsic_from_features(*features)])
    mean, deviation = np.mean(estimates, axis=0), np.std(estimates, axis=0, ddof=1)
    errors = np.abs(mean - [float(t) for t in exact])
    assert (errors < 4 * deviation / np.sqrt(len(estimates))).all()


def test_collapse_gives_the_known_values_and_finite_gradients():
    z = np.tile(unit_vectors(1, 12), (4 * 6, 1))

    def terms(z):
        gram = kernels.InverseMultiquadric()(z)
        zy, zz = statistics.hsic_from_gram(gram, num_views=4)
        return zy + zz

    value, (gradient,) = value_and_gradients(terms, z)
    assert float(value) == pytest.approx(1 / 3, abs=1e-6)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(("batch", "zy", "root_zz"), [(256, 0.7543, 0.02636)])
def test_perfect_embeddings_give_the_known_values(batch, zy, root_zz):
    z = np.tile(np.eye(batch, dtype="float32"), (4, 1))
    terms = statistics.hsic_from_gram(kernels.InverseMultiquadric()(z), num_views=4)
    assert float(terms[0]) == pytest.approx(zy, abs=5e-5)
    assert float(terms[1]) ** 0.5 == pytest.approx(root_zz, abs=5e-6)


def test_centring_first_keeps_small_hsic_accurate_in_float32():
    # Nearly collapsed embeddings: the expanded formula is all rounding error here.
    rng = np.random.default_rng(0)
    z = 1.0 + 1e-2 * rng.normal(size=(64, 8))
    gram = 1.0 / np.sqrt(1.0 + ((z[:, None] - z[None]) ** 2).sum(-1))
    expected = hsic_zz_from_definition(gram)
    _, zz = statistics.hsic_from_gram(gram.astype("float32"), 2)
    assert float(zz) == pytest.approx(expected, rel=1e-2)


@precisions
@pytest.mark.parametrize("case", ["sfrik_two_view_B32_q16", "sfrik_two_view_B64_q128"])
def test_mmd_equals_the_authors(golden, case, suffix, rtol):
    arrays = golden(case)
    settings = json.loads((golden.folder / f"{case}.json").read_text())
    assert settings["q"] == arrays["x"].shape[1]
    x = arrays["x"].astype({"f32": "float32", "f64": "float64"}[suffix])
    for name, coefficients in (("w1_40_40", (1, 40, 40)), ("w1_40_0", (1, 40))):
        value = statistics.mmd_to_uniform(x, coefficients)
        recorded = arrays[f"sfrik/{name}/mmd_x_{suffix}"]
        np.testing.assert_allclose(numpy_of(value), recorded, rtol=rtol)


@pytest.mark.parametrize("shape", [(40, 6), (6, 40), (31, 45), (2, 2)])
@pytest.mark.parametrize("coefficients", [(3.0,), (1.0, 40.0), (0.0, 2.0)])
def test_moment_form_of_the_mmd_equals_its_gram_form(shape, coefficients):
    padded = (*coefficients, 0.0, 0.0, 0.0)[:3]
    z = of_several_lengths(*shape)

    def derivatives(coefficients):
        return value_and_gradients(
            lambda z: statistics.mmd_to_uniform(z, coefficients), z
        )

    moments, gram = derivatives(coefficients), derivatives(padded)
    np.testing.assert_allclose(moments[0], gram[0], rtol=1e-5, atol=1e-6)
    scale = max(np.abs(gram[1][0]).max(), 1.0)
    np.testing.assert_allclose(moments[1][0], gram[1][0], rtol=0, atol=1e-5 * scale)


def test_mmd_is_invariant_under_rotation():
    z = unit_vectors(20, 7)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(7, 7)))
    values = [
        float(statistics.mmd_to_uniform(x))
        for x in (z, (z @ rotation).astype("float32"), z[::-1].copy())
    ]
    np.testing.assert_allclose(values, values[0], rtol=1e-5)


def test_mmd_of_collapse_and_of_orthogonal_embeddings():
    collapsed = np.tile(unit_vectors(1, 64), (32, 1))
    assert float(statistics.mmd_to_uniform(collapsed)) == pytest.approx(81.0, rel=1e-5)
    q = 256
    orthogonal = np.eye(q, dtype="float32")[:64]
    # Off the diagonal P_2(0) = -1/(q-1), P_1(0) = P_3(0) = 0.
    expected = 81 / 64 - 40 / (q - 1) * 63 / 64
    value = float(statistics.mmd_to_uniform(orthogonal))
    assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("rows", "blocks"), [(12, 3), (14, 7), (13, 1), (4, 1)])
def test_mmd_in_blocks_of_rows_is_that_of_all_at_once(rows, blocks, monkeypatch):
    monkeypatch.setattr(statistics, "_BLOCK_ELEMENTS", 64)
    assert statistics._num_blocks(rows, 8, rows) == blocks
    z, coefficients = of_several_lengths(rows, 8), (1.0, 40.0, 30.0, 7.0)
    z[1] = 1e-8  # Counts as zero.
    kernel = kernels.Zonal(coefficients)

    def automatic(z):
        z = plain_unit_rows(z)
        products = ops.matmul(z, ops.transpose(z))
        return ops.mean(kernel.from_inner_products(products, 8))

    def ours(z):
        return statistics.mmd_to_uniform(z, coefficients)

    check_equal_derivatives(ours, automatic, z)


@pytest.mark.skipif(not on_tensorflow, reason="XLA compiles all that JAX does")
def test_mmd_in_blocks_of_rows_can_be_compiled_by_xla(monkeypatch):
    import tensorflow as tf

    monkeypatch.setattr(statistics, "_BLOCK_ELEMENTS", 64)
    compiled = tf.function(statistics.mmd_to_uniform, jit_compile=True)
    z = of_several_lengths(12, 8)
    check_equal_derivatives(compiled, statistics.mmd_to_uniform, z)


@pytest.mark.skipif(on_tensorflow, reason="TensorFlow plans no memory ahead")
def test_sfrik_keeps_no_array_of_embeddings_beside_its_gradients(monkeypatch):
    import jax

    monkeypatch.setattr(statistics, "_BLOCK_ELEMENTS", 2**16)
    objective, shape = objectives.SFRIK(), (2048, 1024)
    views = [jax.ShapeDtypeStruct(shape, "float32")] * 2
    step = jax.jit(jax.value_and_grad(lambda *views: objective(views), (0, 1)))
    needed = step.lower(*views).compile().memory_analysis()
    # One that XLA fills with zeros to start from, and a few blocks.
    assert needed.temp_size_in_bytes < 2 * 4 * np.prod(shape)


def test_symmetric_gram_gradient_equals_automatic_differentiation():
    x = unit_vectors(9, 4)
    weights = np.random.default_rng(2).normal(size=(9, 9)).astype("float32")

    def ours(x):
        return ops.sum(weights * ops.sin(kernels.inner_products(x)))

    def automatic(x):
        return ops.sum(weights * ops.sin(ops.matmul(x, ops.transpose(x))))

    check_equal_derivatives(ours, automatic, x)


def test_gradients_of_unit_rows_and_of_alignment_are_those_of_their_definitions():
    z_1, z_2 = of_several_lengths(7, 5), of_several_lengths(7, 5, seed=1)[::-1].copy()
    z_1[1] = 1e-8  # Counts as zero.
    weights = np.random.default_rng(2).normal(size=(7, 5)).astype("float32")

    def distances(z_1, z_2):
        difference = plain_unit_rows(z_1) - plain_unit_rows(z_2)
        return ops.sum(difference * difference) / 7

    check_equal_derivatives(statistics.alignment, distances, z_1, z_2)
    check_equal_derivatives(
        lambda z: ops.sum(weights * statistics.unit_rows(z)),
        lambda z: ops.sum(weights * plain_unit_rows(z)),
        z_1,
    )


def test_alignment_and_uniformity_equal_their_definitions():
    z_1, z_2 = unit_vectors(11, 5), unit_vectors(11, 5, seed=1)
    expected = np.mean([np.sum((a - b) ** 2) for a, b in zip(z_1, z_2, strict=True)])
    assert float(statistics.alignment(z_1, z_2)) == pytest.approx(expected, rel=1e-5)
    potentials = [
        np.exp(-2.0 * np.sum((z_1[i] - z_1[j]) ** 2))
        for i in range(11)
        for j in range(11)
        if i != j
    ]
    value = float(statistics.uniformity(z_1))
    assert value == pytest.approx(np.log(np.mean(potentials)), rel=1e-4)


def test_spread_is_that_of_the_coordinates_from_0_to_1():
    z = unit_vectors(31, 7)
    expected = np.mean([np.std(column) for column in z.T.astype("float64")]) * 7**0.5
    assert float(statistics.spread(z)) == pytest.approx(expected, rel=1e-5)
    uniform = unit_vectors(20_000, 16)
    assert float(statistics.spread(uniform)) == pytest.approx(1.0, abs=5e-3)
    assert float(statistics.spread(np.tile(z[:1], (9, 1)))) < 1e-6
    # A common direction takes its share: variances sum to 1 - ||mean||².
    tilted = np.concatenate([uniform, np.ones((20_000, 1), "float32")], axis=1)
    spread = float(statistics.spread(statistics.unit_rows(tilted)))
    assert spread == pytest.approx(16 / 17 * 0.5**0.5 * (17 / 16) ** 0.5, abs=5e-3)


def test_spread_of_nearly_equal_embeddings_is_no_rounding_error():
    rng = np.random.default_rng(0)
    z = 1.0 / 4.0 + 1e-5 * rng.normal(size=(64, 16)).astype("float32")
    expected = np.mean(z.astype("float64").std(axis=0)) * 4.0
    assert float(statistics.spread(z)) == pytest.approx(expected, rel=1e-2)


def test_effective_rank_counts_directions():
    assert float(
        statistics.effective_rank(np.ones((9, 4), "float32"))
    ) == pytest.approx(1.0, abs=1e-2)
    z = unit_vectors(30, 6)
    sigma = np.linalg.svd(z, compute_uv=False)
    p = sigma / sigma.sum()
    expected = np.exp(-(p * np.log(p)).sum())
    assert float(statistics.effective_rank(z)) == pytest.approx(expected, rel=1e-4)
    zeros = np.zeros((4, 3), "float32")
    assert np.isfinite(float(statistics.effective_rank(zeros)))


def test_unit_rows_normalises_and_keeps_zero():
    x = np.array([[3.0, 4.0], [0.0, 0.0], [1e-3, 0.0]], "float32")
    _, (gradient,) = value_and_gradients(lambda x: ops.sum(statistics.unit_rows(x)), x)
    expected = [[0.6, 0.8], [0.0, 0.0], [1.0, 0.0]]
    np.testing.assert_allclose(numpy_of(statistics.unit_rows(x)), expected, rtol=1e-6)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: statistics.hsic_from_gram(np.ones((4, 6), "float32"), 2),
        lambda: statistics.hsic_from_gram(np.ones((5, 5), "float32"), 2),
        lambda: statistics.hsic_from_gram(np.ones((4, 4), "float32"), 1),
        lambda: statistics.hsic_from_gram(np.ones(4, "float32"), 2),
        lambda: statistics.hsic_from_features(*np.ones((2, 1, 4, 3), "float32")),
        lambda: statistics.hsic_from_features(
            np.ones((2, 4, 3), "float32"), np.ones((2, 5, 3), "float32")
        ),
        lambda: statistics.mmd_to_uniform(np.ones((3, 2, 2), "float32")),
    ],
)
def test_wrong_shape_is_named_in_the_error(call):
    with pytest.raises(ValueError, match=r"`\w+` must .*Received: "):
        call()
