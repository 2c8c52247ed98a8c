"""Micro-batches: the step of the whole batch, from parts, with the memory of one."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_kssl import models, objectives
from keras_kssl.augment import Policy, View
from keras_kssl.micro_batches import map_parts
from tests.gradients import value_and_gradients

BACKEND = keras.backend.backend()
ON_JAX = BACKEND == "jax"
# Eager JAX is slow; TensorFlow's graph, without XLA, is what CPUs take by default.
QUICK = {"jit_compile": ON_JAX}
COMPILED = {"jit_compile": True}
WAYS = [COMPILED]
if not ON_JAX:
    WAYS = [
        pytest.param(COMPILED, marks=pytest.mark.slow),
        {"jit_compile": False},
        {"run_eagerly": True, "jit_compile": False},
    ]
BATCH, PARTS = 12, 3
# Random, and compiled at once: no colours.
TWO_VIEWS = Policy([View(12, flip=0.5), View(12, crop_scale=(0.3, 0.6))])
SMALL = {"is_small": True, "flip": 0.5}
SMALL_CROPS = Policy(
    [
        View(12, center_fraction=1.0),
        View(9, **SMALL),
        View(12, patches=(2, 7, 1), **SMALL),
    ]
)


def make_encoder(norm="layer", dropout=0.0):
    images = keras.Input((None, None, 3))
    initializer = keras.initializers.GlorotUniform(0)
    x = layers.Conv2D(6, 3, strides=2, kernel_initializer=initializer)(images)
    if norm == "layer":
        x = layers.LayerNormalization()(x)
    else:
        x = layers.BatchNormalization(momentum=0.9, name="norm")(x)
    x = layers.Activation("relu")(x)
    if dropout:
        x = layers.Dropout(dropout, seed=3)(x)
    encoder = keras.Model(images, layers.GlobalAveragePooling2D(dtype="float32")(x))
    if norm == "frozen":
        encoder.get_layer("norm").trainable = False
    return encoder


def make_head(seed, name):
    # One layer: no batch normalisation.
    return models.MLPHead((), 5, seed=seed, name=name)


def make_model(kind, parts, encoder=None, policy=None, **options):
    # The probe has no seed of its own.
    keras.utils.set_random_seed(0)
    encoder = make_encoder() if encoder is None else encoder
    shared = {"augment": policy, "seed": 0, "micro_batches": parts, **options}
    shared["projector"] = make_head(1, "projector")
    if kind == "sfrik":
        return models.SFRIK(encoder, objective=objectives.SFRIK(10.0), **shared)
    objective = objectives.HSIC(
        estimator="random_features", num_features=16, seed=0, scale_learning_rate=0.1
    )
    predictor = make_head(2, "predictor")
    return models.SSLHSIC(encoder, objective=objective, predictor=predictor, **shared)


def images_and_labels(seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (BATCH, 16, 14, 3), dtype=np.uint8)
    return images, rng.integers(0, 3, BATCH)


def to_numpy(tree):
    return keras.tree.map_structure(ops.convert_to_numpy, tree)


def trained(model, steps=2, optimizer=None, **compiled):
    """Logs of each step, and all variables after the last by name."""
    if optimizer is None:
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(optimizer, **(compiled or QUICK))
    logs = []
    for seed in range(steps):
        model.reset_metrics()
        images, labels = images_and_labels(seed)
        labels = labels if model.probe_classes else None
        logs.append(model.train_on_batch(images, labels, return_dict=True))
    found = {
        f"{step}/{name}": np.array(log[name])
        for step, log in enumerate(logs)
        for name in log
    }
    names = [v.path for v in model.variables]
    return found | dict(zip(names, to_numpy(list(model.variables)), strict=True))


def assert_equal_training(ours, expected, tolerance=1e-5):
    assert len(ours) == len(expected)
    far = {}
    for (name, one), other in zip(ours.items(), expected.values(), strict=True):
        if one.dtype.kind != "f":
            np.testing.assert_array_equal(one, other, err_msg=name)
            continue
        error = np.abs(one - other).max() / max(np.abs(other).max(), 0.1)
        if not error <= tolerance:
            far[name] = error
    assert far == {}


@pytest.mark.parametrize("compiled", WAYS, ids=str)
@pytest.mark.parametrize(
    "kind", ["ssl_hsic", pytest.param("sfrik", marks=pytest.mark.slow)]
)
def test_steps_are_those_of_the_whole_batch(kind, compiled):
    """Losses, terms, metrics, gradient norm, kernel scale, target network, averages."""
    if kind == "sfrik" and not compiled["jit_compile"]:
        pytest.skip("the other method says as much")
    options = {"policy": TWO_VIEWS, "average_decay": 0.9, "probe_classes": 3}
    expected = trained(make_model(kind, 1, **options), **compiled)
    ours = trained(make_model(kind, PARTS, **options), **compiled)
    assert_equal_training(ours, expected)
    assert ours["1/loss"] != ours["0/loss"]


@pytest.mark.slow
def test_steps_with_small_crops_are_those_of_the_whole_batch():
    expected = trained(make_model("ssl_hsic", 1, policy=SMALL_CROPS), steps=1)
    ours = trained(make_model("ssl_hsic", PARTS, policy=SMALL_CROPS), steps=1)
    assert_equal_training(ours, expected)


@pytest.mark.any_backend
def test_frozen_batch_normalisation_makes_no_difference():
    found = [
        trained(
            make_model("sfrik", parts, make_encoder("frozen"), policy=TWO_VIEWS),
            steps=1,
        )
        for parts in (1, PARTS)
    ]
    assert_equal_training(found[1], found[0])


def test_half_precision_steps_with_a_scaled_loss_are_near_to_the_whole_batch():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        found = []
        for parts in (1, PARTS):
            inner = keras.optimizers.SGD(0.1, momentum=0.9)
            # The scale that Keras begins with is too large for a first step here.
            optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0)
            model = make_model("sfrik", parts, policy=TWO_VIEWS)
            found.append(trained(model, steps=1, optimizer=optimizer))
    finally:
        keras.config.set_dtype_policy("float32")
    assert found[0]["0/gradient_norm"] > 0.01
    assert_equal_training(found[1], found[0], tolerance=2e-2)


def test_each_part_is_normalised_on_its_own_and_counts_once():
    model = make_model("sfrik", PARTS, make_encoder("moving"))
    rng = np.random.default_rng(0)
    views = [rng.uniform(size=(BATCH, 9, 9, 3)).astype("float32") for _ in "ab"]
    convolution = model.encoder.layers[1]
    before = [to_numpy(convolution(v)) for v in views]
    model.compile(keras.optimizers.SGD(0.0), **QUICK)
    model.train_on_batch(tuple(views))
    moving = np.zeros(6)
    for i in range(PARTS):
        for maps in before:
            moving = 0.9 * moving + 0.1 * maps[i::PARTS].mean((0, 1, 2))
    ours = to_numpy(model.encoder.get_layer("norm").moving_mean)
    np.testing.assert_allclose(ours, moving, rtol=1e-4, atol=1e-6)


def test_dropout_drops_the_same_in_both_passes():
    """Otherwise the gradient were not that of the loss, which is linear in the head."""
    model = make_model("sfrik", PARTS, make_encoder(dropout=0.5))
    rng = np.random.default_rng(0)
    views = tuple(rng.uniform(size=(BATCH, 9, 9, 3)).astype("float32") for _ in "ab")
    kernel = model.projector.steps[-1].kernel
    state = [to_numpy(v) for v in model.variables]

    def loss_and_step(moved):
        for variable, value in zip(model.variables, state, strict=True):
            variable.assign(value)
        kernel.assign(kernel + moved)
        model.compile(keras.optimizers.SGD(1.0), **QUICK)
        start = to_numpy(kernel)
        model.reset_metrics()
        loss = model.train_on_batch(views)[0]
        return float(loss), start - to_numpy(kernel)

    _, gradient = loss_and_step(0.0)
    direction = gradient / np.linalg.norm(gradient)
    step = 0.01
    after, _ = loss_and_step(step * direction)
    before, _ = loss_and_step(-step * direction)
    slope = (after - before) / (2 * step)
    assert slope == pytest.approx(np.linalg.norm(gradient), rel=2e-2)


def test_parts_take_every_other_row_and_the_state_of_the_part_before():
    x = np.arange(12.0, dtype="float32").reshape(6, 2)
    weights = np.random.default_rng(0).normal(size=(6, 2)).astype("float32")
    seen = []

    def function(parameters, state, part):
        (factor,), (count,), (rows,) = parameters, state, part
        seen.append(rows.shape[0])
        return [factor * (count + 1.0) * rows, rows[:, :1]], [count + 1.0]

    def outputs(factor):
        return map_parts(function, [factor], [ops.zeros(())], [x], 3, [2, 1])

    found, state = outputs(ops.convert_to_tensor(2.0))
    # Rows 0 and 3 are the first part, 1 and 4 the second, 2 and 5 the third.
    counts = np.array([1, 2, 3, 1, 2, 3])[:, None]
    np.testing.assert_allclose(to_numpy(found[0]), 2.0 * counts * x)
    np.testing.assert_allclose(to_numpy(found[1]), x[:, :1])
    assert float(state[0]) == 3.0
    assert set(seen) == {2}
    _, gradients = value_and_gradients(
        lambda factor: ops.sum(weights * outputs(factor)[0][0]), np.float32(2.0)
    )
    assert gradients[0] == pytest.approx(np.sum(weights * counts * x), rel=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not ON_JAX, reason="JAX tells the memory of a compiled step")
def test_a_step_takes_the_memory_of_a_part():
    import jax

    images = keras.Input((None, None, 3))
    x = images
    for i in range(6):
        initializer = keras.initializers.GlorotUniform(i)
        x = layers.Conv2D(
            16, 3, padding="same", activation="relu", kernel_initializer=initializer
        )(x)
    encoder = keras.Model(images, layers.GlobalAveragePooling2D()(x))
    rng = np.random.default_rng(0)
    views = tuple(rng.uniform(size=(64, 16, 16, 3)).astype("float32") for _ in "ab")
    peaks = {}
    for parts in (1, 8):
        model = make_model("sfrik", parts, encoder)
        model.compile("sgd")
        model.optimizer.build(model.trainable_variables)
        state = (
            [v.value for v in model.trainable_variables],
            [v.value for v in model.non_trainable_variables],
            [v.value for v in model.optimizer.variables],
            [v.value for v in model.metrics_variables],
        )
        compiled = jax.jit(model.train_step).lower(state, (views,)).compile()
        peaks[parts] = compiled.memory_analysis().temp_size_in_bytes
    assert peaks[8] < peaks[1] / 4


@pytest.mark.any_backend
def test_wrong_numbers_of_parts_and_accumulated_gradients_are_refused():
    for wrong, error in ((0, ValueError), (2.0, TypeError)):
        with pytest.raises(error, match="SFRIK: `micro_batches` must be an integer"):
            make_model("sfrik", wrong)
    views = [np.zeros((BATCH, 9, 9, 3), "float32")] * 2
    for parts in (5, 12):
        model = make_model("sfrik", parts)
        model.compile("sgd", jit_compile=False, run_eagerly=True)
        with pytest.raises(
            ValueError, match=f"a divisor of the {BATCH} images.*{parts}"
        ):
            model(views, training=True)
    model = make_model("sfrik", 1)
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=4)
    for one in (optimizer, keras.optimizers.LossScaleOptimizer(optimizer)):
        with pytest.raises(
            ValueError, match="`gradient_accumulation_steps` must be None"
        ):
            model.compile(one)
