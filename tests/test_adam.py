"""Adam by one kernel, against the definition and Keras's own."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_kssl.optimizers import LARS, Adam, Momentum

START = np.random.default_rng(0).normal(size=(3, 4))
# From tiny to large: epsilon counts for the first.
GRADIENTS = np.random.default_rng(1).normal(size=(8, 3, 4)) * np.logspace(-7, 3, 4)
FALLING = keras.optimizers.schedules.PiecewiseConstantDecay([2, 4], [0.3, 0.1, 0.02])

on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="of TensorFlow alone"
)


def trained(optimizer, dtype="float32"):
    variable = keras.Variable(START, dtype=dtype)
    for gradient in GRADIENTS:
        optimizer.apply([ops.cast(gradient, dtype)], [variable])
    return ops.convert_to_numpy(variable).astype("float64")


@pytest.mark.parametrize(("dtype", "slack"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_it_is_adam(dtype, slack):
    p, m, v = START, np.zeros_like(START), np.zeros_like(START)
    # PiecewiseConstantDecay keeps a value up to its boundary, that step included.
    rates = (0.3, 0.3, 0.3, 0.1, 0.1, 0.02, 0.02, 0.02)
    for t, (g, rate) in enumerate(zip(GRADIENTS, rates, strict=True), start=1):
        m = 0.8 * m + 0.2 * g
        v = 0.95 * v + 0.05 * g**2
        unbiased = np.sqrt(1 - 0.95**t) / (1 - 0.8**t)
        p = p - rate * unbiased * m / (np.sqrt(v) + 1e-6)
    found = trained(Adam(FALLING, beta_1=0.8, beta_2=0.95, epsilon=1e-6), dtype)
    np.testing.assert_allclose(found, p, rtol=slack, atol=slack)


@pytest.mark.parametrize(
    ("dtype", "slack"),
    # In float32, 1 - beta_2 to the power of a few steps has five digits.
    [("float32", 1e-4), pytest.param("float64", 1e-9, marks=on_tensorflow)],
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"amsgrad": True},
        {"weight_decay": 0.1, "clipnorm": 1.0},
        {"use_ema": True, "ema_overwrite_frequency": 3},
        {"gradient_accumulation_steps": 2},
    ],
    ids=str,
)
def test_whatever_is_asked_of_it_it_is_kerass(options, dtype, slack):
    found, expected = (
        trained(kind(FALLING, **options), dtype)
        for kind in (Adam, keras.optimizers.Adam)
    )
    np.testing.assert_allclose(found, expected, rtol=slack, atol=slack)


@on_tensorflow
def test_one_operation_moves_an_array():
    import tensorflow as tf

    variable, optimizer = keras.Variable(START, dtype="float32"), Adam()
    optimizer.build([variable])

    @tf.function
    def step(gradient):
        optimizer.apply([gradient], [variable])

    gradient = tf.ones_like(variable.value)
    kinds = [
        op.type for op in step.get_concrete_function(gradient).graph.get_operations()
    ]
    assert kinds.count("ResourceApplyAdam") == 1
    # Only the number of steps is written to beside it.
    assert sum(kind.startswith("Assign") for kind in kinds) == 1


@on_tensorflow
@pytest.mark.parametrize(
    "optimizer", [Adam(0.1), Momentum(0.1), LARS(10.0)], ids=lambda o: o.name
)
def test_gradients_of_rows_that_were_looked_up_are_those_of_all_rows(optimizer):
    """A row may be looked up twice, and its gradient is the sum."""
    import tensorflow as tf

    values, indices = tf.constant(GRADIENTS[:3, 0], tf.float32), [0, 2, 2]
    looked_up = tf.IndexedSlices(values, tf.constant(indices), tf.constant([3, 4]))
    found = []
    for gradient in (looked_up, tf.convert_to_tensor(looked_up)):
        variable = keras.Variable(START, dtype="float32")
        optimizer = optimizer.from_config(optimizer.get_config())
        for _ in range(3):
            optimizer.apply([gradient], [variable])
        found.append(ops.convert_to_numpy(variable))
    np.testing.assert_allclose(*found, rtol=1e-6)
    assert found[0][2, -1] != START[2, -1].astype("float32")


def test_a_copy_from_its_configuration_takes_the_same_steps():
    optimizer = Adam(0.2, beta_1=0.6, epsilon=1e-3)
    copy = Adam.from_config(optimizer.get_config())
    np.testing.assert_array_equal(trained(copy), trained(optimizer))
