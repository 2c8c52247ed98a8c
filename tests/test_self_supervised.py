"""Self-supervised models: what a training step does to every variable, by hand."""

import inspect
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_kssl import augment, kernels, models, objectives
from keras_kssl.optimizers import TargetDecay
from tests.conftest import ROOT
from tests.gradients import value_and_gradients

BACKEND = keras.backend.backend()
OTHER = {"tensorflow": "jax", "jax": "tensorflow"}.get(BACKEND)
# Eager JAX is slow and compiling TensorFlow by XLA is; each takes its quick way.
QUICK = {"jit_compile": BACKEND == "jax"}
CLASSES = {"ssl_hsic": (models.SSLHSIC, {}), "sfrik": (models.SFRIK, {})}
CLASSES["ssl_hsic_without_target"] = (models.SSLHSIC, {"target": False})
every_model = pytest.mark.parametrize("kind", CLASSES)
# On another backend the one with the most of what a step carries is enough.
every_model_on_one_backend = pytest.mark.parametrize(
    "kind",
    [
        kind
        if kind == "ssl_hsic"
        else pytest.param(kind, marks=pytest.mark.any_backend)
        for kind in CLASSES
    ],
)


def make_encoder(size=8, pooled=True, seed=0):
    images = keras.Input((size, size, 3))
    initializer = keras.initializers.GlorotUniform(seed)
    x = layers.Conv2D(4, 3, strides=2, kernel_initializer=initializer)(images)
    x = layers.BatchNormalization(momentum=0.9)(x)
    x = layers.Activation("relu")(x)
    if pooled:
        x = layers.GlobalAveragePooling2D(dtype="float32")(x)
    return keras.Model(images, x)


def make_head(name, seed=1):
    return models.MLPHead((6,), 5, normalize_output=True, seed=seed, name=name)


def make_model(kind="ssl_hsic", encoder=None, compiled=None, optimizer=None, **options):
    model_class, defaults = CLASSES[kind]
    options = {"projector": make_head("projector"), "seed": 0, **defaults, **options}
    if kind == "sfrik":
        options.setdefault("objective", objectives.SFRIK(10.0))
    else:
        options.setdefault("objective", objectives.HSIC(estimator="gram", seed=0))
    if kind == "ssl_hsic":
        options.setdefault("predictor", make_head("predictor", seed=2))
    encoder = make_encoder() if encoder is None else encoder
    model = model_class(encoder, **options)
    if optimizer is None:
        optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    model.compile(optimizer=optimizer, **{**QUICK, **(compiled or {})})
    return model


def views_of_batch(batch=8, size=8, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.uniform(size=(batch, size, size, 3))
    noise = 0.2 * rng.uniform(size=(2, batch, size, size, 3))
    return tuple((0.8 * images + n).astype("float32") for n in noise)


def step(model, seed=0, labels=None):
    return model.train_on_batch(views_of_batch(seed=seed), labels, return_dict=True)


def losses_of(model, steps=3, first=0):
    losses = []
    for i in range(first, first + steps):
        # The running mean starts anew, so that it is the loss of the step.
        model.reset_metrics()
        losses.append(float(step(model, seed=i)["loss"]))
    return losses


def arrays_of(variables):
    return [np.array(ops.convert_to_numpy(v)) for v in variables]


def online(model):
    return arrays_of(
        model.encoder.trainable_variables + model.projector.trainable_variables
    )


def target(model):
    """Parameters of the target network, found by the online variables' names."""
    arrays = []
    for copied, original in (
        (model.target_encoder, model.encoder),
        (model.target_projector, model.projector),
    ):
        trainable = [v.path.split("/")[-2:] for v in original.trainable_variables]
        arrays += [v for v in copied.variables if v.path.split("/")[-2:] in trainable]
    return arrays_of(arrays)


def statistics_of(layer):
    return arrays_of(v for v in layer.variables if "moving" in v.path)


def test_objective_sees_the_predictions_and_the_targets_of_each_view():
    model = make_model()
    # Another target network, as after some steps.
    for variable in model.target_encoder.variables + model.target_projector.variables:
        variable.assign(1.5 * variable + 0.1)
    views = views_of_batch()
    predictions = [model.predictor(model.projector(model.encoder(v))) for v in views]
    targets = [model.target_projector(model.target_encoder(v)) for v in views]
    expected = [*predictions, targets[1], targets[0]]
    embeddings = model.embed(views, training=False)["embeddings"]
    for ours, theirs in zip(arrays_of(embeddings), arrays_of(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


class OneGlobalView(augment.Policy):
    """Two views, the second of which counts as a small crop."""

    num_global_views = 1


@pytest.mark.parametrize(
    ("kind", "order", "num_global"),
    [
        ("sfrik", (0, 1), 1),
        ("ssl_hsic_without_target", (0, 1), 1),
        ("ssl_hsic", (0, "target", 1), 2),
    ],
)
def test_objective_is_told_which_embeddings_are_of_global_views(
    kind, order, num_global
):
    policy = OneGlobalView(augment.byol(8).views)
    model = make_model(kind, augment=policy)
    views = list(views_of_batch())
    embeddings = model.embed(views, training=False)["embeddings"]
    assert model.num_embeddings == len(embeddings) == len(order)
    for embedding, part in zip(embeddings, order, strict=True):
        view = views[0 if part == "target" else part]
        if part == "target":
            expected = model.target_projector(model.target_encoder(view))
        else:
            expected = model.projector(model.encoder(view))
            if kind == "ssl_hsic":
                expected = model.predictor(expected)
        np.testing.assert_allclose(*arrays_of([embedding, expected]), atol=1e-6)
    expected = float(model.objective(embeddings, num_global=num_global))
    assert float(model.objective(embeddings)) != pytest.approx(expected, rel=1e-3)
    outputs = {"embeddings": embeddings}
    loss = model.compute_loss(x=None, y_pred=outputs, training=True)
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_no_gradient_comes_back_through_the_target_network():
    model = make_model()
    weights = np.random.default_rng(0).normal(size=(4, 8, 5)).astype("float32")

    def sum_of(count):
        def function(*views):
            embeddings = model.embed(list(views), training=False)["embeddings"]
            return sum(ops.sum(embeddings[i] * weights[i]) for i in range(count))

        return value_and_gradients(function, *views_of_batch())[1]

    for all_four, of_predictions in zip(sum_of(4), sum_of(2), strict=True):
        assert np.abs(of_predictions).max() > 1e-3
        np.testing.assert_allclose(all_four, of_predictions, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "decay",
    [
        *(0.9, TargetDecay(4, initial=0.5)),
        *(pytest.param(d, marks=pytest.mark.any_backend) for d in (0.0, 1.0)),
    ],
)
def test_target_network_follows_the_recursion(decay):
    model = make_model(target_decay=decay)
    expected = online(model)
    for a, b in zip(target(model), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    for k in range(3):
        step(model, seed=k)
        tau = float(decay(k)) if callable(decay) else decay
        expected = [
            old + (1.0 - tau) * (new - old)
            for old, new in zip(expected, online(model), strict=True)
        ]
        if k == 0:
            # The target lags: it moves when the next step begins.
            model.settle_averages()
    model.settle_averages()
    for ours, theirs in zip(target(model), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


def test_target_network_has_moving_statistics_of_its_own_and_no_gradient():
    model = make_model(target_decay=1.0)
    pairs = [
        (model.target_encoder, model.encoder),
        (model.target_projector, model.projector),
    ]
    start = target(model), [statistics_of(copied) for copied, _ in pairs]
    step(model)
    step(model)
    for before, after in zip(start[0], target(model), strict=True):
        np.testing.assert_array_equal(before, after)
    for (copied, original), before in zip(pairs, start[1], strict=True):
        after, others = statistics_of(copied), statistics_of(original)
        assert len(after) == (2 if copied is model.target_encoder else 4)
        for old, new, other in zip(before, after, others, strict=True):
            assert np.abs(new - old).max() > 1e-3
            assert not np.array_equal(new, other)
    trainable = {id(v) for v in model.trainable_variables}
    for layer in (model.target_encoder, model.target_projector):
        assert not trainable & {id(v) for v in layer.variables}
    parts = (model.encoder, model.projector, model.predictor)
    assert trainable == {id(v) for part in parts for v in part.trainable_variables}


@pytest.mark.parametrize(
    ("kind", "decay"), [("sfrik", 0.9), ("sfrik", 0.0), ("ssl_hsic", 0.9)]
)
def test_averaged_encoder_is_the_weighted_mean_of_all_steps(kind, decay):
    model = make_model(kind, average_decay=decay)
    for averaged, own in zip(
        model.averaged_encoder().weights, model.encoder.weights, strict=True
    ):
        np.testing.assert_array_equal(*arrays_of([averaged, own]))
    history = []
    for k in range(4):
        step(model, seed=k)
        history.append(arrays_of(model.encoder.trainable_variables))
    # Weights (1 - d) d^(K - 1 - k) over 1 - d^K, which sum to 1.
    weights = np.array([decay ** (3 - k) for k in range(4)])
    weights /= weights.sum()
    expected = [
        sum(w * a for w, a in zip(weights, arrays, strict=True))
        for arrays in zip(*history, strict=True)
    ]
    averaged = model.averaged_encoder()
    for ours, theirs in zip(
        arrays_of(averaged.trainable_variables), expected, strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    for ours, theirs in zip(
        statistics_of(averaged), statistics_of(model.encoder), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_reading_the_averaged_encoder_leaves_the_model_as_it_is():
    model = make_model(target_decay=0.5, average_decay=0.9)
    step(model)
    before = arrays_of(model.variables)
    model.averaged_encoder()
    assert int(model.averaged_steps) == 0
    for a, b in zip(before, arrays_of(model.variables), strict=True):
        np.testing.assert_array_equal(a, b)


def test_settling_twice_changes_nothing():
    model = make_model(target_decay=0.5)
    step(model)
    model.settle_averages()
    before = arrays_of(model.variables)
    model.settle_averages()
    for a, b in zip(before, arrays_of(model.variables), strict=True):
        np.testing.assert_array_equal(a, b)


@every_model_on_one_backend
def test_training_goes_on_from_a_file_as_if_it_had_not_stopped(kind, tmp_path):
    options = {"target_decay": TargetDecay(9, 0.5)} if kind == "ssl_hsic" else {}
    if kind != "sfrik":
        # Random features: the state of their seed is in the file too.
        objective = objectives.HSIC(num_features=8, estimator="random_features", seed=1)
        options["objective"] = objective
    optimizer = keras.optimizers.Adam(1e-2)
    model = make_model(kind, optimizer=optimizer, **options)
    losses_of(model, 2)
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.saving.load_model(path)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert losses_of(loaded, 2, first=2) == losses_of(model, 2, first=2)


@every_model
def test_config_holds_every_argument_and_makes_an_equal_model(kind):
    model = make_model(kind, augment=augment.byol(8), probe_classes=3, name="trainer")
    config = model.get_config()
    arguments = inspect.signature(type(model).__init__).parameters
    assert set(config) == set(arguments) - {"self"}
    copied = type(model).from_config(config)
    # Keras adds what it knows of the encoder's shapes after it has been called.
    ours = {**copied.get_config(), "encoder": None}
    assert ours == {**config, "encoder": None}
    assert copied.count_params() == model.count_params()


@every_model_on_one_backend
def test_same_seed_gives_the_same_losses_and_another_seed_others(kind):
    images = views_of_batch()[0]
    # Random, and without colours, which take most of the time to trace.
    view = augment.View(8, flip=0.5)

    def losses(seed):
        # The default objective and heads take the model's seed.
        model_class, options = CLASSES[kind]
        model = model_class(
            make_encoder(),
            augment=augment.Policy([view, view]),
            projector=make_head("projector"),
            **({"predictor": make_head("predictor")} if kind == "ssl_hsic" else {}),
            seed=seed,
            **options,
        )
        model.compile("sgd", **QUICK)
        return [model.train_on_batch(images, return_dict=True)["loss"] for _ in "ab"]

    first = losses(0)
    assert losses(0) == first
    assert losses(1) != first
    # The second batch is augmented anew.
    assert first[0] != first[1]


def test_each_batch_is_augmented_anew_also_after_loading(tmp_path):
    model = models.SFRIK(
        make_encoder(), augment=augment.byol(8), projector=make_head("projector")
    )
    images = views_of_batch()[0]
    first = arrays_of(model.views(images))
    model.save(tmp_path / "model.keras")
    second = arrays_of(model.views(images))
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for a, b, c in zip(first, second, arrays_of(loaded.views(images)), strict=True):
        assert np.abs(a - b).max() > 0.1
        np.testing.assert_array_equal(c, b)


def test_ssl_hsic_by_default_has_the_documented_parts_each_with_a_seed_of_its_own():
    def make(seed):
        return models.SSLHSIC(make_encoder(), seed=seed)

    model = make(3)
    for head in (model.projector, model.predictor):
        assert head.hidden_units == (4096,)
        assert (head.output_units, head.normalize_output) == (256, True)
    assert (model.target_decay, model.average_decay) == (0.99, 0.999)
    assert (model.probe_classes, model.augment) == (None, None)
    hsic = objectives.HSIC(seed=3, name=model.objective.name)
    assert model.objective.get_config() == hsic.get_config()

    def kernels_of(model):
        return arrays_of(
            head.steps[-2].kernel for head in (model.projector, model.predictor)
        )

    projector, predictor = kernels_of(model)
    assert not np.array_equal(projector, predictor)
    for ours, same, others in zip(
        kernels_of(model), kernels_of(make(3)), kernels_of(make(4)), strict=True
    ):
        np.testing.assert_array_equal(ours, same)
        assert not np.array_equal(ours, others)


def test_sfrik_by_default_has_the_documented_parts_and_the_seed(monkeypatch):
    asked = []

    def small_head(*widths, **options):
        asked.append((*widths, options.pop("seed")))
        return models.MLPHead((4,), 3, **options)

    # The published projector has 134 million parameters.
    monkeypatch.setattr("keras_kssl.models.sfrik.MLPHead", small_head)
    model = models.SFRIK(make_encoder(), seed=3)
    assert asked == [((8192, 8192), 8192, 3)]
    assert not model.projector.normalize_output
    assert (model.average_decay, model.averages) == (None, [])
    sfrik = objectives.SFRIK(name=model.objective.name)
    assert model.objective.get_config() == sfrik.get_config()


def test_compiled_training_equals_uncompiled_training():
    expected = losses_of(make_model(compiled={"jit_compile": False}))
    compiled = losses_of(make_model(compiled={"jit_compile": True}))
    np.testing.assert_allclose(compiled, expected, rtol=1e-4)


def test_several_steps_per_execution_train_as_single_steps_do():
    views = [np.concatenate(v) for v in zip(*map(batch_of, range(4)), strict=True)]
    results = []
    for steps in (1, 2):
        model = make_model(compiled={"steps_per_execution": steps})
        model.fit(tuple(views), batch_size=8, shuffle=False, verbose=0)
        results.append([*model.get_weights(), arrays_of([model.steps])[0]])
    assert int(results[1][-1]) == 4
    for one, two in zip(*results, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-4, atol=1e-5)


def batch_of(seed):
    return views_of_batch(seed=seed)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_training_is_near_to_full_precision(policy, tmp_path):
    expected = losses_of(make_model())
    keras.config.set_dtype_policy(policy)
    try:
        model = make_model()
        losses = losses_of(model)
    finally:
        keras.config.set_dtype_policy("float32")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for optimizer in (model.optimizer, loaded.optimizer):
        scalers = []
        while isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            scalers.append(optimizer)
            optimizer = optimizer.inner_optimizer
        assert len(scalers) == (1 if policy == "mixed_float16" else 0)
    # Eight bits of significance in bfloat16, eleven in float16, over a few layers.
    np.testing.assert_allclose(losses, expected, atol=0.1)
    assert all(v.dtype == "float32" for v in model.trainable_variables)
    outputs = model(views_of_batch()[0])
    assert keras.backend.standardize_dtype(outputs.dtype) == "float32"


def run_one_step(kind, arrays):
    """Loss and weights after one step from given weights and views."""
    model = make_model(kind)
    model.set_weights([arrays[f"{kind}/{i}"] for i in range(len(model.weights))])
    views = (arrays["view_1"], arrays["view_2"])
    loss = model.train_on_batch(views, return_dict=True)["loss"]
    model.settle_averages()
    return float(loss), model.get_weights()


def write_steps(inputs, outputs):
    """What the other backend runs in a process of its own."""
    results = {}
    with np.load(inputs) as file:
        arrays = dict(file)
    for kind in CLASSES:
        results[f"{kind}/loss"], weights = run_one_step(kind, arrays)
        results |= {f"{kind}/{i}": weight for i, weight in enumerate(weights)}
    policy = augment.byol(8)
    results |= {
        f"augmented/{i}": ops.convert_to_numpy(view)
        for i, view in enumerate(policy.apply(arrays["view_1"], drawn_of(arrays)))
    }
    np.savez(outputs, **results)


def drawn_of(arrays):
    views = [{}, {}]
    for key, value in arrays.items():
        if key.startswith("drawn/"):
            _, view, name = key.split("/")
            views[int(view)][name] = value
    return views


@pytest.fixture(scope="module")
def both_backends(tmp_path_factory):
    """Inputs and the other backend's results for one step of every model."""
    if OTHER is None:
        pytest.skip("the comparison is between TensorFlow and JAX")
    pytest.importorskip(OTHER)
    folder = tmp_path_factory.mktemp("backends")
    arrays = dict(zip(("view_1", "view_2"), views_of_batch(), strict=True))
    for kind in CLASSES:
        weights = make_model(kind).get_weights()
        arrays |= {f"{kind}/{i}": weight for i, weight in enumerate(weights)}
    drawn = augment.byol(8).draw(8, height=8, width=8, channels=3, seed=0)
    for i, view in enumerate(drawn):
        for name, value in view.items():
            arrays[f"drawn/{i}/{name}"] = ops.convert_to_numpy(value)
    np.savez(folder / "inputs.npz", **arrays)
    code = "import sys; from tests.test_self_supervised import write_steps as w; "
    subprocess.run(
        [sys.executable, "-c", code + "w(*sys.argv[1:])", "inputs.npz", "outputs.npz"],
        cwd=folder,
        env={**os.environ, "KERAS_BACKEND": OTHER, "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=300,
    )
    with np.load(folder / "outputs.npz") as file:
        return arrays, dict(file)


@every_model
def test_one_training_step_is_the_same_on_tensorflow_and_jax(both_backends, kind):
    arrays, results = both_backends
    loss, weights = run_one_step(kind, arrays)
    assert loss == pytest.approx(float(results[f"{kind}/loss"]), rel=1e-5)
    for i, weight in enumerate(weights):
        # Biases before batch normalisation have a gradient of 0, and start at 0:
        # rounding alone moves them.
        scale = max(np.abs(weight).max(), 0.2)
        np.testing.assert_allclose(
            weight, results[f"{kind}/{i}"], rtol=0, atol=2e-5 * scale
        )


def test_views_of_the_same_draws_are_the_same_on_tensorflow_and_jax(both_backends):
    arrays, results = both_backends
    views = augment.byol(8).apply(arrays["view_1"], drawn_of(arrays))
    for i, view in enumerate(views):
        np.testing.assert_allclose(
            ops.convert_to_numpy(view), results[f"augmented/{i}"], rtol=0, atol=1e-5
        )


@every_model_on_one_backend
def test_probe_never_changes_the_encoder(kind):
    labels = np.array([0, 1, 2, 0, 1, 2, -1, -1])
    plain, probed = make_model(kind), make_model(kind, probe_classes=3)
    for k in range(2):
        step(plain, seed=k)
        logs = step(probed, seed=k, labels=labels)
    names = {"ssl_loss", "probe_loss", "probe_accuracy", "alignment", "uniformity"}
    names |= {"spread", "gradient_norm"}
    assert {*names, "loss", "effective_rank", *probed.objective.term_names} <= set(logs)
    total = float(logs["ssl_loss"]) + float(logs["probe_loss"])
    assert float(logs["loss"]) == pytest.approx(total, rel=1e-5)
    for a, b in zip(
        arrays_of(plain.encoder.variables),
        arrays_of(probed.encoder.variables),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_negative_labels_do_not_count_in_the_probe():
    results = []
    known = np.array([0, 1, 2, 0, 1, 2, 1, 0])
    for labels in (known, np.where(np.arange(8) < 4, known, -1), np.full(8, -1)):
        model = make_model("sfrik", probe_classes=3)
        logits = ops.convert_to_numpy(
            model.probe(model.features(views_of_batch()[0], training=True))
        ).astype("float64")
        logs = step(model, labels=labels)
        rows = np.flatnonzero(labels >= 0)
        log_sums = np.log(np.exp(logits).sum(-1))
        losses = log_sums[rows] - logits[rows, labels[rows]]
        results.append((float(logs["probe_loss"]), losses.mean() if len(rows) else 0.0))
    for ours, expected in results:
        assert ours == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_probe_accuracy_is_the_share_of_known_labels_it_finds():
    model = make_model("sfrik", probe_classes=3)
    features = model.features(views_of_batch()[0], training=True)
    guesses = ops.convert_to_numpy(model.probe(features)).argmax(axis=-1)
    # Two of six are wrong, two are unknown.
    labels = np.where(np.arange(8) < 2, (guesses + 1) % 3, guesses)
    labels[6:] = -1
    logs = step(model, labels=labels)
    assert float(logs["probe_accuracy"]) == pytest.approx(4 / 6, rel=1e-6)


def test_prediction_gives_the_features():
    model = make_model()
    images = views_of_batch()[0]
    expected = ops.convert_to_numpy(model.encoder(images, training=False))
    features = model.predict(images, verbose=0)
    np.testing.assert_allclose(features, expected, rtol=1e-5, atol=1e-6)


@every_model_on_one_backend
def test_evaluation_changes_no_variable_and_training_the_kernel_scale(kind):
    model = make_model(kind)
    step(model)
    model.settle_averages()
    before = arrays_of(model.variables)
    model.evaluate(views_of_batch(), verbose=0, batch_size=4)
    for a, b in zip(before, arrays_of(model.variables), strict=True):
        np.testing.assert_array_equal(a, b)
    if kind != "sfrik":
        # The first step of Adam's rule is as long as its learning rate.
        assert float(model.objective.scale) == pytest.approx(1.0 - 3e-4, abs=1e-6)


def test_evaluation_gives_the_objective_and_the_statistics_of_all_batches():
    model = make_model("sfrik")
    views = views_of_batch(seed=5)
    for _ in range(20):
        # Moving statistics near to those of the batch keep the directions apart.
        model.embed(views, training=True)
    z = [
        ops.convert_to_numpy(model.projector(model.encoder(v))).astype("float64")
        for v in views
    ]
    units = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in z]
    halves = [slice(0, 4), slice(4, 8)]
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    potentials = [
        np.mean([np.exp(-2 * np.sum((u[i] - u[j]) ** 2)) for i, j in pairs])
        for u in (units[0][half] for half in halves)
    ]
    spectrum = np.linalg.svd(units[0], compute_uv=False)
    share = spectrum / spectrum.sum()
    losses = [
        model.objective([v[half].astype("float32") for v in z]) for half in halves
    ]
    logs = model.evaluate(views, return_dict=True, verbose=0, batch_size=4)
    expected = {
        "loss": np.mean([float(loss) for loss in losses]),
        "alignment": np.mean(np.sum((units[0] - units[1]) ** 2, axis=1)),
        "uniformity": np.mean(np.log(potentials)),
        "spread": np.mean([units[0][half].std(axis=0).mean() for half in halves])
        * 5**0.5,
        "effective_rank": np.exp(-np.sum(share * np.log(share))),
    }
    for name, value in expected.items():
        assert float(logs[name]) == pytest.approx(value, rel=1e-4), name
    assert logs["effective_rank"] > 2.0
    assert {*expected, *model.objective.term_names} == set(logs)


def test_steps_of_an_epoch_log_the_effective_rank_of_the_epoch_before():
    class Recorder(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(float(logs["effective_rank"]))

    seen = []
    fitted = make_model("sfrik").fit(
        views_of_batch(), epochs=3, batch_size=8, verbose=0, callbacks=[Recorder()]
    )
    of_epochs = fitted.history["effective_rank"]
    assert min(of_epochs) > 1.0
    assert seen == [0.0, *of_epochs[:2]]


def test_uint8_images_are_scaled_to_unit_range():
    model = make_model("sfrik")
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype("uint8")
    scaled = images.astype("float32") / 255.0
    for ours, expected in (
        (model(images), model(scaled)),
        (model.views((images, images[::-1]))[0], scaled),
        (model.views((images, images[::-1]))[1], scaled[::-1]),
    ):
        np.testing.assert_allclose(*arrays_of([ours, expected]), rtol=1e-6)


def test_feature_maps_are_averaged_over_space():
    maps, vectors = (make_encoder(pooled=pooled) for pooled in (False, True))
    losses = [losses_of(make_model("sfrik", encoder), 2) for encoder in (maps, vectors)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def mobilenet():
    return keras.applications.MobileNetV3Small(
        weights=None, include_top=False, input_shape=(32, 32, 3)
    )


def keras_cv_backbone():
    keras_cv = pytest.importorskip("keras_cv", exc_type=ImportError)
    return keras_cv.models.ResNetBackbone(
        stackwise_filters=[8, 16],
        stackwise_blocks=[1, 1],
        stackwise_strides=[1, 2],
        include_rescaling=False,
        input_shape=(32, 32, 3),
    )


@pytest.mark.parametrize(
    ("make_backbone", "method"),
    [
        pytest.param(mobilenet, "sfrik", marks=pytest.mark.any_backend),
        pytest.param(mobilenet, "ssl_hsic", marks=pytest.mark.slow),
        pytest.param(keras_cv_backbone, "sfrik", marks=pytest.mark.slow),
        pytest.param(keras_cv_backbone, "ssl_hsic", marks=pytest.mark.slow),
    ],
)
def test_backbones_of_other_libraries_train_as_encoders(make_backbone, method):
    encoder = make_backbone()
    model = make_model(method, encoder, compiled={"run_eagerly": BACKEND != "jax"})
    before = arrays_of(encoder.trainable_variables)
    logs = model.train_on_batch(views_of_batch(4, size=32), return_dict=True)
    assert np.isfinite(logs["loss"])
    after = arrays_of(encoder.trainable_variables)
    moved = [np.abs(a - b).max() > 0 for a, b in zip(after, before, strict=True)]
    assert all(moved)


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    """An encoder without fixed inputs."""

    def __init__(self, **options):
        super().__init__(**options)
        self.convolution = layers.Conv2D(4, 3)

    def call(self, images):
        return self.convolution(images)


def test_subclassed_encoder_trains_once_it_was_called():
    encoder = Subclassed()
    with pytest.raises(ValueError, match=r"`encoder` must be .* built.*one batch"):
        make_model("sfrik", encoder)
    encoder(np.zeros((1, 8, 8, 3), "float32"))
    model = make_model("ssl_hsic", encoder)
    assert np.isfinite(losses_of(model, 2)).all()


@pytest.mark.parametrize(
    ("argument", "make"),
    [
        ("encoder", lambda: make_model(encoder=keras.Sequential([layers.Flatten()]))),
        ("encoder", lambda: make_model(encoder=layers.Conv2D(4, 3))),
        ("encoder", lambda: make_model(encoder=encoder_with_flat_inputs())),
        ("encoder", lambda: make_model(encoder=encoder_of_rank_3())),
        ("predictor", lambda: make_model(target=False)),
        ("predictor", lambda: make_model(predictor=models.MLPHead((4,), 3))),
        ("average_decay", lambda: make_model(average_decay=1.5)),
        ("target_decay", lambda: make_model(target_decay=-0.1)),
        ("probe_classes", lambda: make_model(probe_classes=1)),
    ],
)
def test_wrong_argument_is_named_in_the_error(argument, make):
    with pytest.raises(ValueError, match=rf"`{argument}` must be .*Received: "):
        make()


def encoder_with_flat_inputs():
    return keras.Sequential([keras.Input((7,)), layers.Dense(3)])


def encoder_of_rank_3():
    return keras.Sequential([keras.Input((8, 8, 3)), layers.Reshape((64, 3))])


def test_wrong_batches_are_named_in_the_error():
    views = views_of_batch()
    model = make_model("sfrik", compiled={"run_eagerly": True, "jit_compile": False})
    with pytest.raises(ValueError, match=r"`augment` must be a policy"):
        model.train_on_batch(views[0])
    with pytest.raises(ValueError, match=r"`sample_weight` must be None"):
        model.train_on_batch(views, sample_weight=np.ones(8, "float32"))
    probed = make_model(
        "sfrik", probe_classes=3, compiled={"run_eagerly": True, "jit_compile": False}
    )
    with pytest.raises(ValueError, match=r"`probe_classes` must be None for data"):
        probed.train_on_batch(views)


def test_other_kernels_train():
    objective = objectives.HSIC(kernel=kernels.Zonal((1.0, 2.0)))
    assert np.isfinite(losses_of(make_model(objective=objective), 1)).all()


def test_a_step_is_traced_once_for_all_epochs():
    """What resets and returns between epochs must not look new to the compiler."""
    model = make_model()
    traced = []
    compute_loss = model.compute_loss

    def counted(*args, **options):
        traced.append(options.get("training"))
        return compute_loss(*args, **options)

    model.compute_loss = counted
    for _ in range(2):
        model.fit(views_of_batch(), batch_size=8, epochs=2, verbose=0)
    assert len(traced) == 1


@pytest.mark.parametrize(
    "normalize_output", [True, pytest.param(False, marks=pytest.mark.any_backend)]
)
def test_a_head_takes_views_together_and_normalises_them_one_by_one(normalize_output):
    together, apart = (
        models.MLPHead((6, 7), 5, normalize_output=normalize_output, seed=1)
        for _ in range(2)
    )
    rng = np.random.default_rng(0)
    views = [rng.normal(v, 1.0 + v, (4, 3)).astype("float32") for v in range(3)]
    weights = rng.normal(size=(4, 3, 5)).astype("float32")

    def of_all(*views):
        return together(ops.stack(views, axis=1), training=True)

    def of_each(*views):
        return ops.stack([apart(view, training=True) for view in views], axis=1)

    def slopes(outputs):
        def total(*views):
            # What a gradient on JAX traces must not stay in the running averages.
            with keras.StatelessScope():
                return ops.sum(weights * outputs(*views))

        return value_and_gradients(total, *views)[1]

    np.testing.assert_allclose(of_all(*views), of_each(*views), rtol=1e-4, atol=1e-5)
    for one, other in zip(slopes(of_all), slopes(of_each), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert together.compute_output_shape((4, 3, 3)) == (4, 3, 5)
    moved = zip(together.variables, apart.variables, strict=True)
    for one, other in moved:
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
