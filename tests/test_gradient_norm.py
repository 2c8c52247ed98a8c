"""The norm of the gradient, against what plain gradient descent has moved."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_kssl import models, objectives
from tests.test_self_supervised import arrays_of, make_model, step, views_of_batch

BACKEND = keras.backend.backend()


def moved(model, seed=0):
    """The gradient norm of a step of SGD at rate 1, from the weights around it."""
    before = arrays_of(model.trainable_variables)
    model.reset_metrics()
    logs = step(model, seed=seed)
    after = arrays_of(model.trainable_variables)
    squares = [np.sum((a - b) ** 2) for a, b in zip(after, before, strict=True)]
    return np.sqrt(np.sum(squares)), float(logs["gradient_norm"])


def plain(**options):
    return keras.optimizers.SGD(1.0, **options)


def scaled(**options):
    return keras.optimizers.LossScaleOptimizer(plain(), **options)


@pytest.mark.parametrize(
    "jit_compile", [pytest.param(False, marks=pytest.mark.any_backend), True]
)
@pytest.mark.parametrize(
    "make",
    [
        plain,
        scaled,
        # Keras divides gradients by this factor, and forgets nothing else.
        lambda: plain(loss_scale_factor=512.0),
    ],
)
def test_norm_is_that_of_what_the_optimizer_applies(make, jit_compile):
    options = {"jit_compile": jit_compile}
    model = make_model("sfrik", optimizer=make(), compiled=options)
    for seed in range(2):
        expected, found = moved(model, seed)
        assert expected > 0.1
        # Differences of weights have lost three digits or four.
        assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_an_epoch_holds_the_mean_over_its_steps(steps_per_execution):
    model = make_model("sfrik", optimizer=plain())
    norms = [moved(model, seed)[0] for seed in range(3)]
    assert np.std(norms) > 0.1 * np.mean(norms)
    views = tuple(np.concatenate(v) for v in zip(*map(batch, range(3)), strict=True))
    compiled = {"steps_per_execution": steps_per_execution}
    model = make_model("sfrik", optimizer=plain(), compiled=compiled)
    fitted = model.fit(views, batch_size=8, shuffle=False, verbose=0, epochs=2)
    of_epochs = fitted.history["gradient_norm"]
    assert of_epochs[0] == pytest.approx(np.mean(norms), rel=1e-3)
    assert of_epochs[1] != of_epochs[0]


def batch(seed):
    return views_of_batch(seed=seed)


def test_a_step_that_loss_scaling_skips_does_not_count():
    # The first steps overflow until the scale has been halved often enough.
    model = make_model("sfrik", optimizer=scaled(initial_scale=2.0**127))
    before = arrays_of(model.trainable_variables)
    logs = step(model)
    for a, b in zip(before, arrays_of(model.trainable_variables), strict=True):
        np.testing.assert_array_equal(a, b)
    assert float(logs["gradient_norm"]) == 0.0
    while not float(logs["gradient_norm"]):
        logs = step(model)
    alone = make_model("sfrik", optimizer=plain())
    assert float(logs["gradient_norm"]) == pytest.approx(moved(alone)[0], rel=1e-2)


def test_a_gradient_of_zero_counts():
    model = make_model("sfrik", objective=objectives.SFRIK(0.0, mmd_weight=0.0))
    assert float(step(model)["gradient_norm"]) < 1e-12
    assert float(ops.convert_to_numpy(model.gradient_norm.count)) == 1.0


def test_compiling_again_does_not_count_twice():
    model = make_model("sfrik", optimizer=plain())
    model.compile(model.optimizer, jit_compile=BACKEND == "jax")
    expected, found = moved(model)
    assert found == pytest.approx(expected, rel=1e-3)


def test_half_precision_gives_the_norm_of_the_unscaled_loss():
    _, expected = moved(make_model("sfrik", optimizer=plain()))
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = make_model("sfrik", optimizer=plain())
        assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        found = 0.0
        while not found:
            # Skipped while the scaled gradient overflows.
            _, found = moved(model)
    finally:
        keras.config.set_dtype_policy("float32")
    # Eleven bits, over a few layers; the scale is 32768.
    assert found == pytest.approx(expected, rel=0.1)


def test_evaluation_has_no_gradient_and_training_keeps_the_rank_of_its_epoch():
    model = make_model("sfrik")
    views = views_of_batch()
    options = {"batch_size": 4, "verbose": 0}
    fitted = model.fit(views, validation_data=(views,), epochs=2, **options)
    assert "gradient_norm" in fitted.history
    assert "val_spread" in fitted.history
    assert "val_gradient_norm" not in fitted.history
    for name in ("effective_rank", "val_effective_rank"):
        assert min(fitted.history[name]) > 1.0
    # Not the value of the epoch before, which the steps log.
    ranks = fitted.history["effective_rank"], fitted.history["val_effective_rank"]
    assert len({*ranks[0], *ranks[1]}) == 4


def test_a_loaded_model_goes_on_seeing_its_gradients(tmp_path):
    model = make_model("ssl_hsic", optimizer=keras.optimizers.Adam(1e-2))
    step(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, models.SSLHSIC)
    values = []
    for one in (model, loaded):
        one.reset_metrics()
        values.append(float(step(one, seed=1)["gradient_norm"]))
    assert values[0] == values[1] > 0.0
