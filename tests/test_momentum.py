"""Gradient descent with momentum, against the definition and Keras's own."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_kssl.optimizers import Momentum

START = np.array([1.0, -2.0, 0.5], "float32")
GRADIENTS = np.random.default_rng(0).normal(size=(6, 3)).astype("float32")
FALLING = keras.optimizers.schedules.PiecewiseConstantDecay([2, 4], [0.3, 0.1, 0.02])


def trained(optimizer, dtype="float32"):
    variable = keras.Variable(START, dtype=dtype)
    for gradient in GRADIENTS:
        optimizer.apply([ops.cast(gradient, dtype)], [variable])
    return ops.convert_to_numpy(ops.cast(variable, "float32"))


@pytest.mark.parametrize(("dtype", "slack"), [("float32", 1e-5), ("bfloat16", 0.02)])
@pytest.mark.parametrize("nesterov", [False, True])
def test_the_learning_rate_is_outside_the_buffer(nesterov, dtype, slack):
    p, m = START.astype(float), np.zeros(3)
    # PiecewiseConstantDecay keeps a value up to its boundary, that step included.
    for g, rate in zip(GRADIENTS, (0.3, 0.3, 0.3, 0.1, 0.1, 0.02), strict=True):
        m = 0.8 * m + g
        p = p - rate * (g + 0.8 * m if nesterov else m)
    found = trained(Momentum(FALLING, momentum=0.8, nesterov=nesterov), dtype)
    np.testing.assert_allclose(found, p, rtol=slack, atol=slack / 10)
    keras_own = trained(keras.optimizers.SGD(FALLING, momentum=0.8, nesterov=nesterov))
    assert np.abs(keras_own - p).max() > 0.01


@pytest.mark.parametrize("nesterov", [False, True])
def test_at_a_constant_rate_it_is_kerass(nesterov):
    options = {"learning_rate": 0.1, "momentum": 0.7, "nesterov": nesterov}
    found, expected = (
        trained(kind(**options)) for kind in (Momentum, keras.optimizers.SGD)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_a_copy_from_its_configuration_takes_the_same_steps():
    optimizer = Momentum(0.2, momentum=0.6, nesterov=True)
    copy = Momentum.from_config(optimizer.get_config())
    np.testing.assert_array_equal(trained(copy), trained(optimizer))


@pytest.mark.parametrize("momentum", [1.0, -0.1, 2])
def test_momentum_out_of_range_is_refused(momentum):
    with pytest.raises(ValueError, match="Momentum: `momentum` must be"):
        Momentum(0.1, momentum=momentum)
