"""LARS, against 20 recorded steps of the reference and NumPy from the definition."""

import contextlib
import inspect

import keras
import numpy as np
import pytest
from keras import ops

from keras_kssl.optimizers import LARS, lars_step, warmup_cosine

# Keras's conversion of its variables to NumPy lacks NumPy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"

CASES = {
    "A_wd1e-6": warmup_cosine(3.2, 10, 20, 0.001),
    "A_wd1e-2": warmup_cosine(3.2, 10, 20, 0.001),
    "A_wd1e-2_nofilter": warmup_cosine(3.2, 10, 20, 0.001),
    "B_wd1e-6": warmup_cosine(3.2, 6250, 125_000, 0.001),
    "C_wd1e-6": 3.2,
    "C_wd0": 3.2,
}


@pytest.fixture
def floatx(request):
    if request.param == "float64" and not ON_TENSORFLOW:
        pytest.skip("float64 on JAX needs jax_enable_x64")
    keras.config.set_floatx(request.param)
    yield request.param
    keras.config.set_floatx("float32")


@pytest.mark.parametrize("floatx", ["float32", "float64"], indirect=True)
@pytest.mark.parametrize("case", CASES)
def test_twenty_recorded_steps_are_met(golden, case, floatx):
    recorded = golden("lars_torch")
    names = [key.removeprefix("init/") for key in recorded if key.startswith("init/")]
    # Scaling of biases too, as the reference does without its filter, is what tensors
    # of two axes get: the norms do not depend on the shape.
    extra_axis = case.endswith("nofilter")

    def shaped(array):
        return array[:, None] if extra_axis and array.ndim == 1 else array

    variables = [
        keras.Variable(shaped(recorded[f"init/{name}"]), dtype=floatx, name=name)
        for name in names
    ]
    optimizer = LARS(CASES[case], weight_decay=float(recorded[f"{case}/wd"]))
    # A 20-step product of float32 roundings, relative to the largest entry.
    tolerance = 1e-5 if floatx == "float32" else 1e-11
    for step in range(20):
        without = ["nograd_kernel"] if step in recorded["nograd_steps"] else []
        gradients = [
            None
            if name in without
            else ops.cast(shaped(recorded[f"grad/{name}"][step]), floatx)
            for name in names
        ]
        with (
            keras_warns_of_missing_gradients() if without else contextlib.nullcontext()
        ):
            optimizer.apply(gradients, variables)
        for name, variable, buffer in zip(
            names, variables, optimizer.momentums, strict=True
        ):
            for kind, actual in (("", variable), ("mu/", buffer)):
                expected = shaped(recorded[f"{case}/f64/{kind}{name}"][step])
                np.testing.assert_allclose(
                    actual.numpy(),
                    expected,
                    rtol=0,
                    atol=tolerance * np.abs(expected).max(),
                    err_msg=f"{kind}{name} at step {step}",
                )


def keras_warns_of_missing_gradients():
    return pytest.warns(UserWarning, match="Gradients do not exist.*nograd_kernel")


def numpy_step(p, g, m, learning_rate, momentum, weight_decay, trust_coefficient):
    if p.ndim > 1:
        g = g + weight_decay * p
        p_norm = np.linalg.norm(p.ravel())
        g_norm = np.linalg.norm(g.ravel())
        if p_norm > 0 and g_norm > 0:
            g = g * trust_coefficient * p_norm / g_norm
    m = momentum * m + g
    return p - learning_rate * m, m


@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (1, 1), (2, 3, 4), (3, 3, 2, 5)])
@pytest.mark.parametrize("zero", ["none", "parameter", "gradient", "both"])
def test_one_step_is_the_definition(shape, zero):
    rng = np.random.default_rng(0)
    p, g, m = rng.standard_normal((3, *shape)).astype("float32")
    p = p * (zero not in ("parameter", "both"))
    g = g * (zero not in ("gradient", "both"))
    numbers = (0.7, 0.8, 0.03, 0.02)
    actual = lars_step(*(ops.convert_to_tensor(x) for x in (p, g, m)), *numbers)
    expected = numpy_step(p, g, m, *numbers)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(a), e, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_kernels_move_alike_whatever_the_scale_of_the_loss(scale):
    rng = np.random.default_rng(0)
    p, g = (ops.convert_to_tensor(x) for x in rng.standard_normal((2, 3, 5), "float32"))
    results = [
        lars_step(p, factor * g, ops.zeros((3, 5)), 1.0, weight_decay=0.0)[0]
        for factor in (1.0, scale)
    ]
    plain, scaled = (ops.convert_to_numpy(r) for r in results)
    np.testing.assert_allclose(scaled, plain, rtol=1e-6)
    assert np.abs(plain - ops.convert_to_numpy(p)).max() > 1e-4


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_norms_of_half_precision_tensors_do_not_overflow(dtype):
    # 300 squared, summed, is far beyond 65504.
    parameter = ops.cast(ops.full((8, 8), 300.0), dtype)
    moved, buffer = lars_step(
        parameter, parameter, ops.zeros((8, 8), dtype), 1.0, trust_coefficient=0.5
    )
    assert keras.backend.standardize_dtype(moved.dtype) == "float32"
    np.testing.assert_allclose(ops.convert_to_numpy(moved), 150.0, rtol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(buffer), 150.0, rtol=1e-5)

    variable = keras.Variable(parameter, dtype=dtype)
    LARS(1.0, trust_coefficient=0.5).apply([parameter], [variable])
    assert keras.backend.standardize_dtype(variable.dtype) == dtype
    assert float(ops.max(ops.abs(ops.cast(variable.value, "float32") - 150.0))) < 1.0


def kernel_and_bias():
    rng = np.random.default_rng(1)
    return [
        keras.Variable(rng.standard_normal(s), dtype="float32") for s in ((3, 4), (4,))
    ]


def gradients(seed):
    rng = np.random.default_rng(seed)
    return [
        ops.convert_to_tensor(rng.standard_normal(s), "float32") for s in ((3, 4), (4,))
    ]


def assert_same_values(variables, others):
    for variable, other in zip(variables, others, strict=True):
        np.testing.assert_allclose(variable.numpy(), other.numpy(), rtol=1e-6)


def test_loss_scaling_leaves_the_steps_as_they_are():
    plain, scaled = kernel_and_bias(), kernel_and_bias()
    LARS(1.0).apply(gradients(0), plain)
    wrapper = keras.optimizers.LossScaleOptimizer(LARS(1.0), initial_scale=1024.0)
    scaled_gradients = [1024.0 * gradient for gradient in gradients(0)]
    if ON_TENSORFLOW:
        wrapper.apply(scaled_gradients, scaled)
    else:
        # On JAX the wrapper works inside compiled steps only, which are stateless.
        wrapper.build(scaled)
        state, values = ([v.value for v in vs] for vs in (wrapper.variables, scaled))
        values, _ = wrapper.stateless_apply(state, scaled_gradients, values)
        for variable, value in zip(scaled, values, strict=True):
            variable.assign(value)
    assert_same_values(plain, scaled)


def test_accumulated_gradients_make_one_step_of_their_mean():
    plain, accumulated = kernel_and_bias(), kernel_and_bias()
    start = kernel_and_bias()
    mean = [(a + b) / 2 for a, b in zip(gradients(0), gradients(1), strict=True)]
    LARS(1.0).apply(mean, plain)
    optimizer = LARS(1.0, gradient_accumulation_steps=2)
    optimizer.apply(gradients(0), accumulated)
    assert_same_values(accumulated, start)
    optimizer.apply(gradients(1), accumulated)
    assert_same_values(accumulated, plain)


def test_moving_average_of_the_weights_follows_its_recursion():
    variables = kernel_and_bias()
    optimizer = LARS(1.0, use_ema=True, ema_momentum=0.75)
    optimizer.apply(gradients(0), variables)
    average = [variable.numpy() for variable in variables]
    optimizer.apply(gradients(1), variables)
    average = [
        0.75 * a + 0.25 * v.numpy() for a, v in zip(average, variables, strict=True)
    ]
    optimizer.finalize_variable_values(variables)
    for expected, variable in zip(average, variables, strict=True):
        np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-5)


def small_model(learning_rate=1.0, **compile_options):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((5, 7, 2)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    model.compile(LARS(learning_rate), "mse", **compile_options)
    return model


def fit(model, epochs=2):
    rng = np.random.default_rng(0)
    x, y = rng.random((6, 5, 7, 2), "float32"), rng.random((6, 1), "float32")
    return model.fit(x, y, batch_size=3, epochs=epochs, shuffle=False, verbose=0)


def test_compiled_training_steps_equal_eager_ones():
    schedule = warmup_cosine(2.0, 2, 6)
    eager = small_model(schedule, run_eagerly=True)
    compiled = small_model(schedule, jit_compile=True)
    start = [weight.copy() for weight in eager.get_weights()]
    fit(eager)
    fit(compiled)
    for before, a, b in zip(
        start, eager.get_weights(), compiled.get_weights(), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        assert not np.array_equal(before, a)


def test_training_goes_on_after_saving_as_if_it_had_not_stopped(tmp_path):
    model = small_model(warmup_cosine(2.0, 2, 8))
    fit(model)
    model.save(tmp_path / "model.keras")
    resumed = keras.models.load_model(tmp_path / "model.keras")
    assert type(resumed.optimizer) is LARS
    fit(model)
    fit(resumed)
    for a, b in zip(model.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("rate", [0.5, warmup_cosine(3.0, 2, 10, 0.001)])
def test_config_restores_every_argument(rate):
    optimizer = LARS(rate, 0.8, 1e-4, 2e-3, name="mine", clipnorm=1.0, use_ema=True)
    config = optimizer.get_config()
    named = {"learning_rate", "momentum", "weight_decay", "trust_coefficient", "name"}
    inherited = set(keras.optimizers.SGD(0.1).get_config()) - {"nesterov"}
    assert set(inspect.signature(LARS).parameters) == named | {"kwargs"}
    assert set(config) == named | inherited
    assert (config["momentum"], config["weight_decay"]) == (0.8, 1e-4)
    assert (config["trust_coefficient"], config["clipnorm"]) == (2e-3, 1.0)
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(optimizer)
    )
    assert type(copy) is LARS
    assert copy.get_config() == config


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"learning_rate": -1.0}, ValueError, "`learning_rate` must be"),
        ({"learning_rate": "1"}, TypeError, "`learning_rate` must be a number"),
        ({"momentum": 1.0}, ValueError, "`momentum` must be below 1"),
        ({"momentum": -0.1}, ValueError, "`momentum` must be"),
        ({"weight_decay": -1e-6}, ValueError, "`weight_decay` must be"),
        ({"weight_decay": None}, TypeError, "`weight_decay` must be a number"),
        ({"trust_coefficient": 0.0}, ValueError, "`trust_coefficient` must be above"),
    ],
)
def test_wrong_arguments_are_named_with_what_was_received(arguments, error, message):
    with pytest.raises(error, match=message):
        LARS(**{"learning_rate": 1.0, **arguments})


def test_learning_rates_of_other_number_types_are_taken():
    assert [float(LARS(rate).learning_rate) for rate in (2, np.float32(2))] == [2, 2]


def test_exclusions_from_weight_decay_are_refused_rather_than_ignored():
    with pytest.raises(NotImplementedError, match="at most one axis"):
        LARS(1.0).exclude_from_weight_decay(var_names=["kernel"])
