"""Small layers against their definitions in double precision and Keras's layers."""

import re

import keras
import numpy as np
import pytest
from keras import ops

from keras_kssl.models import layers
from keras_kssl.models.layers import BatchNorm, MaxPool, SumReLU
from tests.gradients import value_and_gradients

EPSILON, MOMENTUM = 1e-5, 0.9
SHAPES = {
    "vectors": (7, 5),
    "many vectors": (40, 5),
    "maps": (3, 4, 6, 5),
    "one row": (1, 5),
    "one channel": (4, 3, 3, 1),
    "sequence": (4, 3, 5),
}


@pytest.fixture(
    autouse=True,
    params=["small", "large"] if keras.backend.backend() == "tensorflow" else ["small"],
)
def size(request, monkeypatch):
    """What arrays count as: TensorFlow's fused kernel is for large ones."""
    fewest = {"small": 2**30, "large": 0}[request.param]
    monkeypatch.setattr(layers, "_FEWEST_NUMBERS", fewest)
    return request.param


def arrays(shape):
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 3.0, shape)
    upstream = rng.normal(0.5, 1.0, shape)
    return x, upstream, rng.normal(1.0, 0.5, shape[-1]), rng.normal(size=shape[-1])


def normalised(x, gamma, beta, mean, variance):
    return gamma * (x - mean) / np.sqrt(variance + EPSILON) + beta


def layer_of(shape, gamma, beta, **options):
    layer = BatchNorm(**options)
    layer.build(shape)
    if layer.scale:
        layer.gamma.assign(gamma)
    if layer.center:
        layer.beta.assign(beta)
    layer.moving_mean.assign(np.linspace(1.0, 3.0, shape[-1]))
    layer.moving_variance.assign(np.linspace(5.0, 9.0, shape[-1]))
    return layer


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_training_is_the_definition_with_its_gradient_and_averages(shape):
    x, upstream, gamma, beta = arrays(shape)
    layer = layer_of(shape, gamma, beta)
    axes = tuple(range(len(shape) - 1))
    mean, variance = x.mean(axes), x.var(axes)
    means = 0.9 * np.linspace(1.0, 3.0, shape[-1]) + 0.1 * mean
    variances = 0.9 * np.linspace(5.0, 9.0, shape[-1]) + 0.1 * variance

    deviation = np.sqrt(variance + EPSILON)
    # What is subtracted is large where the deviation is small, as in one row.
    rounding = 1e-6 * np.abs(gamma * mean / deviation).max()

    outputs = layer(x.astype("float32"), training=True)
    expected = normalised(x, gamma, beta, mean, variance)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5 + rounding)
    np.testing.assert_allclose(layer.moving_mean, means, rtol=1e-6)
    # Of all values alike, not of one less: the published statistics are those.
    np.testing.assert_allclose(layer.moving_variance, variances, rtol=1e-6)

    def total(x):
        return ops.sum(layer(x, training=True) * upstream.astype("float32"))

    _, (gradient,) = value_and_gradients(total, x.astype("float32"))
    unit = (x - mean) / deviation
    expected = upstream - upstream.mean(axes) - unit * (upstream * unit).mean(axes)
    expected = gamma / deviation * expected
    scale = max(np.abs(expected).max(), np.abs(gamma / deviation).max())
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("distance", [1, 16, 20])
def test_statistics_keep_their_digits_where_means_are_large(size, distance):
    """Also where the images that a first guess comes from are far from all others."""
    if size == "large":
        pytest.skip("TensorFlow's kernel adds up in its own way")
    x = np.random.default_rng(0).normal(1000.0, 1.0, (400, 6)).astype("float32")
    x[::distance] += 50.0
    layer = BatchNorm(momentum=0.0)
    layer.build(x.shape)
    outputs = layer(x, training=True)
    exact = x.astype("float64")
    mean, variance = exact.mean(0), exact.var(0)
    np.testing.assert_allclose(layer.moving_mean, mean, rtol=2e-6)
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=2e-5)
    expected = normalised(exact, 1.0, 0.0, mean, variance)
    # Keras's form, TensorFlow's here, multiplies numbers near 1000 before it subtracts.
    atol = 5e-5 if keras.backend.backend() == "jax" else 2e-3
    np.testing.assert_allclose(outputs, expected, rtol=2e-5, atol=atol)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("is_frozen", [False, True])
def test_inference_and_frozen_layers_take_the_averages_and_leave_them(shape, is_frozen):
    x, upstream, gamma, beta = arrays(shape)
    layer = layer_of(shape, gamma, beta)
    layer.trainable = not is_frozen
    before = [np.array(variable) for variable in layer.variables]

    def total(x):
        return ops.sum(layer(x, training=is_frozen) * upstream.astype("float32"))

    mean, variance = np.linspace(1.0, 3.0, shape[-1]), np.linspace(5.0, 9.0, shape[-1])
    outputs = layer(x.astype("float32"), training=is_frozen)
    expected = normalised(x, gamma, beta, mean, variance)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)
    _, (gradient,) = value_and_gradients(total, x.astype("float32"))
    expected = upstream * gamma / np.sqrt(variance + EPSILON)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)
    for old, variable in zip(before, layer.variables, strict=True):
        np.testing.assert_array_equal(old, variable)


@pytest.mark.parametrize(
    "options",
    [
        {"scale": False},
        {"center": False},
        {"scale": False, "center": False},
        {"axis": 1},
        {"dtype": "float64"},
        {"dtype": "mixed_bfloat16"},
        {"dtype": "mixed_float16"},
        {"momentum": 0.5, "epsilon": 0.1},
        {"renorm": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 5, 4)])
@pytest.mark.parametrize("training", [True, False])
def test_options_mean_what_they_mean_to_keras(options, shape, training):
    if options.get("dtype") == "float64" and keras.backend.backend() == "jax":
        pytest.skip("JAX computes in float32 unless it is told otherwise")
    x, *_ = arrays(shape)
    ours = BatchNorm(**options)
    theirs = keras.layers.BatchNormalization(
        **{"momentum": MOMENTUM, "epsilon": EPSILON, **options}
    )
    found, expected = (
        np.asarray(ops.cast(layer(x, training=training), "float32"))
        for layer in (ours, theirs)
    )
    assert ours.compute_dtype == theirs.compute_dtype
    tolerance = {"mixed_bfloat16": 0.02, "mixed_float16": 0.002}
    tolerance = tolerance.get(options.get("dtype"), 1e-5)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    for our_variable, their_variable in zip(
        ours.variables, theirs.variables, strict=True
    ):
        np.testing.assert_allclose(
            our_variable, their_variable, rtol=tolerance, atol=tolerance
        )


def test_half_precision_comes_in_and_goes_out_as_such():
    layer = BatchNorm(dtype="mixed_bfloat16")
    outputs = layer(ops.ones((2, 3, 3, 4), "bfloat16"), training=True)
    assert keras.backend.standardize_dtype(outputs.dtype) == "bfloat16"
    assert {v.dtype for v in layer.variables} == {"float32"}


def test_rows_left_out_by_a_mask_do_not_count():
    x, *_ = arrays((4, 3, 5))
    mask = np.array([[1, 1, 0]] * 4, bool)
    layer = BatchNorm()
    layer.build(x.shape)
    layer(x.astype("float32"), training=True, mask=ops.convert_to_tensor(mask))
    kept = x[:, :2].reshape(-1, 5)
    np.testing.assert_allclose(layer.moving_mean, 0.1 * kept.mean(0), rtol=1e-5)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the kernel is TensorFlow's"
)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(6, 4), (3, 4, 5, 4)])
def test_the_fused_kernel_works_on_what_is_large_or_may_be(shape, training, size):
    import tensorflow as tf

    def kinds(shape):
        layer = BatchNorm()
        layer.build(shape)
        step = tf.function(lambda x: layer(x, training=training))
        graph = step.get_concrete_function(tf.TensorSpec(shape)).graph
        return [operation.type for operation in graph.get_operations()]

    assert kinds((None, *shape[1:])).count("FusedBatchNormV3") == 1
    assert "SquaredDifference" not in kinds((None, *shape[1:]))
    assert kinds(shape).count("FusedBatchNormV3") == (1 if size == "large" else 0)


only_on_jax = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="what JAX's program does"
)


@only_on_jax
def test_a_normalisation_takes_four_sums_over_a_map():
    """Mean and square going forward; going back those of scale and offset."""
    import jax

    shape = (32, 4, 6, 5)
    layer = BatchNorm()
    layer.build(shape)

    def total(x, gamma, beta):
        variables = (gamma, beta, *layer.non_trainable_variables)
        variables = [ops.convert_to_tensor(variable) for variable in variables]
        outputs, _ = layer.stateless_call(
            variables[:2], variables[2:], x, training=True
        )
        return ops.vdot(outputs, outputs)

    x, _, gamma, beta = (array.astype("float32") for array in arrays(shape))
    program = jax.make_jaxpr(jax.grad(total, argnums=(0, 1, 2)))(x, gamma, beta)
    sums = [line for line in program.eqns if line.primitive.name == "reduce_sum"]
    assert [line.invars[0].aval.shape for line in sums].count(shape) == 4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_relu_of_a_sum_is_keras_relu_with_its_slopes(dtype):
    values = [-np.inf, -1.0, -1e-30, -0.0, 0.0, 1e-30, 0.5, 3.0, np.inf, np.nan]
    x = ops.convert_to_tensor(np.array(values, "float32"))
    upstream = ops.arange(1.0, 11.0)

    def of(layer):
        def total(x):
            return ops.sum(ops.cast(layer(x), "float32") * upstream)

        _, (gradient,) = value_and_gradients(total, x)
        outputs = layer(x)
        assert keras.backend.standardize_dtype(outputs.dtype) == dtype
        return np.array(ops.cast(outputs, "float32")), np.array(gradient)

    for ours, theirs in zip(
        of(SumReLU(dtype=dtype)), of(keras.layers.ReLU(dtype=dtype)), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


@only_on_jax
def test_slopes_of_a_relu_come_from_its_output():
    """Else XLA computes the sum before it again, from all branches, going back."""
    import jax

    def both_ways(a, b, upstream):
        outputs, back = jax.vjp(lambda a, b: SumReLU()(2.0 * a + b), a, b)
        return outputs, back(upstream)

    a = np.ones((64, 64), "float32")
    program = jax.jit(both_ways).lower(a, a, a).compile().as_text()
    assert re.findall(r" compare\(%(\w+?)[.\d]*,", program) == ["max"]


def pooled(maps, padding, upstream):
    """Largest numbers of windows, and the gradient: all to the first of the largest."""
    pads = [(0, 0), (0, 0), (0, 0), (0, 0)]
    if padding == "same":
        pads[1:3] = [(n % 2, 1) for n in maps.shape[1:3]]
    x = np.pad(maps, pads, constant_values=-np.inf)
    rows, columns = ((n - 3) // 2 + 1 for n in x.shape[1:3])
    outputs = np.empty((len(x), rows, columns, x.shape[-1]))
    gradient = np.zeros(x.shape)
    for b, i, j, c in np.ndindex(outputs.shape):
        window = x[b, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3, c]
        di, dj = np.unravel_index(window.argmax(), (3, 3))
        outputs[b, i, j, c] = window[di, dj]
        gradient[b, 2 * i + di, 2 * j + dj, c] += upstream[b, i, j, c]
    inside = [slice(low, low + n) for (low, _), n in zip(pads, maps.shape, strict=True)]
    return outputs, gradient[tuple(inside)]


@pytest.mark.parametrize(
    ("padding", "sides"),
    [
        ("valid", (3, 3)),
        ("valid", (4, 7)),
        ("valid", (9, 6)),
        ("same", (8, 8)),
        ("same", (5, 12)),
        ("same", (2, 5)),
        ("same", (6, 1)),
    ],
)
def test_pool_is_the_definition_with_its_gradient(padding, sides):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *sides, 3)).astype("float32")
    layer = MaxPool(3, 2, padding, data_format="channels_last")
    upstream = rng.normal(size=layer(x).shape).astype("float32")
    outputs, gradient = pooled(x, padding, upstream)
    np.testing.assert_array_equal(layer(x), outputs.astype("float32"))
    theirs = keras.layers.MaxPooling2D(3, 2, padding, data_format="channels_last")
    np.testing.assert_array_equal(layer(x), theirs(x))
    value, (found,) = value_and_gradients(lambda x: ops.sum(layer(x) * upstream), x)
    np.testing.assert_allclose(value, (outputs * upstream).sum(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found, gradient, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_of_equal_numbers_the_first_gets_the_gradient(dtype):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (2, 9, 12, 3)).astype("float32")
    layer = MaxPool(3, 2, "same", dtype=dtype)
    upstream = rng.integers(-3, 4, layer(x).shape).astype("float32")

    def total(x):
        return ops.sum(ops.cast(layer(x), "float32") * upstream)

    _, (found,) = value_and_gradients(total, x)
    np.testing.assert_array_equal(found, pooled(x, "same", upstream)[1])


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [
        (SumReLU, keras.layers.ReLU, {"max_value": 1.0}),
        (SumReLU, keras.layers.ReLU, {"negative_slope": 0.5}),
        (SumReLU, keras.layers.ReLU, {"threshold": 0.5}),
        (MaxPool, keras.layers.MaxPooling2D, {"pool_size": 2}),
        (MaxPool, keras.layers.MaxPooling2D, {"pool_size": (3, 2), "strides": 2}),
        (MaxPool, keras.layers.MaxPooling2D, {"pool_size": 3, "strides": (2, 1)}),
        (MaxPool, keras.layers.MaxPooling2D, {"pool_size": 3, "strides": 1}),
    ],
    ids=str,
)
def test_other_arguments_mean_what_they_mean_to_keras(ours, theirs, options):
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 3)).astype("float32")
    copy = ours.from_config(ours(**options).get_config())
    np.testing.assert_array_equal(copy(x), theirs(**options)(x))


@only_on_jax
def test_pool_goes_back_without_scattering_to_what_it_gives_without_a_gradient():
    import jax

    x = np.random.default_rng(0).normal(size=(2, 9, 12, 3)).astype("float32")
    x[0, 1, 1, 0] = np.nan
    ours, theirs = (
        kind(3, 2, data_format="channels_last")
        for kind in (MaxPool, keras.layers.MaxPooling2D)
    )
    outputs, back = jax.vjp(ours, x)
    np.testing.assert_array_equal(outputs, theirs(x))
    assert np.isnan(outputs).sum() == 1

    def program(layer):
        return str(jax.make_jaxpr(lambda x: jax.vjp(layer, x)[1](layer(x)))(x))

    assert "scatter" in program(theirs)
    assert "scatter" not in program(ours)

    direction = np.random.default_rng(1).normal(size=x.shape).astype("float32")
    _, along = jax.jvp(ours, (x,), (direction,))
    (gradient,) = back(ops.ones_like(along))
    np.testing.assert_allclose(
        ops.sum(along), ops.sum(gradient * direction), rtol=1e-5, atol=1e-4
    )
