"""Learning-rate and target-averaging schedules, against recordings and formulas."""

import inspect
import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_kssl.optimizers import TargetDecay, WarmupCosine, warmup_cosine

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"

# Name in the recording: peak, steps of the warm-up, steps in total.
RECORDED = {
    "A": (3.2, 10, 20),
    "in1k_200ep": (3.2, 6250, 125_000),
    "stl10_100ep": (9.6, 480, 4800),
    "in20_100ep": (9.6, 1260, 12_600),
}


@pytest.fixture
def float64():
    if not ON_TENSORFLOW:
        pytest.skip("float64 on JAX needs jax_enable_x64")
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx("float32")


def as_array(tensor):
    return ops.convert_to_numpy(tensor)


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_curves_are_met_in_float32(golden, name):
    recorded = golden("lars_schedules")
    rates = warmup_cosine(*RECORDED[name], 0.001)(recorded[f"{name}/step"])
    np.testing.assert_allclose(as_array(rates), recorded[f"{name}/lr"], rtol=1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", RECORDED)
def test_recorded_curves_are_met_in_float64(golden, name):
    recorded = golden("lars_schedules")
    rates = warmup_cosine(*RECORDED[name], 0.001)(recorded[f"{name}/step"])
    np.testing.assert_allclose(as_array(rates), recorded[f"{name}/lr"], rtol=1e-12)


def test_first_steps_of_integer_arguments_are_no_zeros():
    schedule = warmup_cosine(2, 4, 8)
    rates = [float(schedule(step)) for step in range(9)]
    falling = [1 + math.cos(math.pi * k / 4) for k in range(5)]
    np.testing.assert_allclose(rates, [0, 0.5, 1, 1.5, *falling], atol=1e-6)


def test_training_without_warmup_starts_at_the_peak():
    assert float(warmup_cosine(3.0, 0, 10)(0)) == 3.0


@pytest.mark.parametrize("fraction", [0.0, 0.001, 1.0])
def test_rate_stays_at_the_final_fraction_after_the_last_step(fraction):
    schedule = warmup_cosine(3.0, 2, 10, fraction)
    rates = as_array(schedule(np.array([10, 11, 10**6])))
    np.testing.assert_allclose(rates, 3.0 * fraction, rtol=1e-6)


def test_millions_of_steps_keep_six_digits_up_to_the_last():
    warmup, total = 100_000, 5_000_000
    steps = [1, 99_999, 100_000, 100_001, 2_550_000, total - 1000, total - 2, total - 1]
    # (1 + cos x) / 2 = cos(x / 2)^2, which float64 can follow down to the last step.
    expected = [
        step / warmup
        if step < warmup
        else math.cos(0.5 * math.pi * (step - warmup) / (total - warmup)) ** 2
        for step in steps
    ]
    rates = as_array(warmup_cosine(1.0, warmup, total)(np.array(steps)))
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


@pytest.mark.parametrize("schedule", [warmup_cosine(3.0, 4, 9), TargetDecay(9)])
def test_every_kind_of_step_gives_the_same_value(schedule):
    expected = float(schedule(6))
    steps = [
        np.int64(6),
        6.0,
        ops.convert_to_tensor(6),
        keras.Variable(6, dtype="int32", trainable=False),
        ops.convert_to_tensor(6.0),
    ]
    assert [float(schedule(step)) for step in steps] == [expected] * len(steps)
    assert keras.backend.standardize_dtype(schedule(6).dtype) == "float32"


@pytest.mark.parametrize("schedule", [warmup_cosine(3.0, 4, 9), TargetDecay(9)])
def test_compiled_schedules_equal_eager_ones(schedule):
    if ON_TENSORFLOW:
        import tensorflow as tf

        compiled = tf.function(schedule, jit_compile=True)
    else:
        import jax

        compiled = jax.jit(schedule)
    steps = np.arange(12)
    np.testing.assert_allclose(
        as_array(compiled(ops.convert_to_tensor(steps))),
        as_array(schedule(steps)),
        rtol=1e-5,
    )


@pytest.mark.parametrize("initial", [0.0, 0.99, 1.0])
def test_target_rate_rises_from_its_initial_value_to_one_and_stays(initial):
    total = 7
    steps = np.arange(10)
    cosine = np.cos(np.pi * np.minimum(steps, total) / total)
    expected = 1 - (1 - initial) * (1 + cosine) / 2
    rates = as_array(TargetDecay(total, initial)(steps))
    np.testing.assert_allclose(rates, expected, atol=1e-7)
    assert (rates[7:] == 1).all()


@pytest.mark.parametrize(
    "schedule", [WarmupCosine(3.0, 4, 9, 0.001), TargetDecay(9, initial=0.9)]
)
def test_schedules_come_back_from_their_configs(schedule):
    config = schedule.get_config()
    assert list(config) == list(inspect.signature(type(schedule)).parameters)
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(schedule)
    )
    assert type(copy) is type(schedule)
    assert copy.get_config() == config
    assert float(copy(6)) == float(schedule(6))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0.0, 1, 10), ValueError, "`peak` must be above 0"),
        ((-1.0, 1, 10), ValueError, "`peak` must be"),
        (("1", 1, 10), TypeError, "`peak` must be a number"),
        ((1.0, -1, 10), ValueError, "`warmup_steps` must be"),
        ((1.0, 1.5, 10), TypeError, "`warmup_steps` must be an integer"),
        ((1.0, 10, 10), ValueError, "`warmup_steps` must be below total_steps=10"),
        ((1.0, 0, 0), ValueError, "`total_steps` must be"),
        ((1.0, 1, 10, 1.5), ValueError, "`final_fraction` must be"),
    ],
)
def test_wrong_arguments_of_warmup_cosine_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        warmup_cosine(*arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0,), ValueError, "`total_steps` must be"),
        ((1.5,), TypeError, "`total_steps` must be an integer"),
        ((10, -0.1), ValueError, "`initial` must be"),
        ((10, 1.1), ValueError, "`initial` must be"),
    ],
)
def test_wrong_arguments_of_target_decay_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        TargetDecay(*arguments)
