"""Training on views of several sizes: which go together, and which are compared."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_kssl import augment, models, objectives
from keras_kssl.models.self_supervised import of_equal_sizes

BACKEND = keras.backend.backend()
QUICK = {"jit_compile": BACKEND == "jax"}
SIZES = (12, 12, 5, 5, 5, 5, 5, 5)


def normalised_encoder():
    """Means over space of images that are batch-normalised: all can be done by hand."""
    images = keras.Input((None, None, 3))
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-3, name="norm")(images)
    return keras.Model(images, layers.GlobalAveragePooling2D(dtype="float32")(x))


def make_model(kind="sfrik", policy=None, **options):
    policy = augment.multi_crop_swav(12) if policy is None else policy
    head = models.MLPHead((), 4, seed=1, name="projector")
    shared = {"augment": policy, "projector": head, "seed": 0, **options}
    if kind == "sfrik":
        return models.SFRIK(normalised_encoder(), **shared)
    objective = objectives.HSIC(estimator="gram", learn_scale=False, seed=0)
    predictor = models.MLPHead((), 4, seed=2, name="predictor")
    return models.SSLHSIC(
        normalised_encoder(), objective=objective, predictor=predictor, **shared
    )


def views_of(sizes, batch=6, seed=0):
    rng = np.random.default_rng(seed)
    return [
        (0.1 * i + rng.uniform(size=(batch, size, size, 3))).astype("float32")
        for i, size in enumerate(sizes)
    ]


def to_numpy(tree):
    return keras.tree.map_structure(ops.convert_to_numpy, tree)


def normalised(views):
    """One batch normalisation of views of one size together, from the definition."""
    joined = np.concatenate(views)
    mean, variance = joined.mean((0, 1, 2)), joined.var((0, 1, 2))
    return [(v - mean) / np.sqrt(variance + 1e-3) for v in views], mean


def test_views_of_one_size_are_normalised_together_and_come_back_in_order():
    model, views = make_model(), views_of(SIZES)
    outputs = to_numpy(model.embed([ops.convert_to_tensor(v) for v in views], True))
    (large, mean_large), (small, mean_small) = (
        normalised(views[:2]),
        normalised(views[2:]),
    )
    kernel = to_numpy(model.projector.steps[-1].kernel)
    for ours, view in zip(outputs["embeddings"], [*large, *small], strict=True):
        expected = view.mean((1, 2)) @ kernel
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs["features"], large[0].mean((1, 2)), atol=1e-5)
    # Two batches were seen, not eight.
    moving = to_numpy(model.encoder.get_layer("norm").moving_mean)
    np.testing.assert_allclose(
        moving, 0.9 * 0.1 * mean_large + 0.1 * mean_small, rtol=1e-5
    )


def test_two_views_of_one_size_are_normalised_each_on_its_own():
    model, views = make_model(policy=augment.vicreg(12)), views_of((12, 12))
    outputs = to_numpy(model.embed([ops.convert_to_tensor(v) for v in views], True))
    kernel = to_numpy(model.projector.steps[-1].kernel)
    for ours, view in zip(outputs["embeddings"], views, strict=True):
        (alone,), _ = normalised([view])
        expected = alone.mean((1, 2)) @ kernel
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.any_backend
def test_a_function_is_called_once_for_each_size():
    calls = []

    def function(images):
        calls.append(tuple(images.shape))
        return ops.mean(images, axis=(1, 2)), ops.max(images, axis=(1, 2, 3))

    views = views_of((5, 12, 5, 7, 12), batch=3)
    results = of_equal_sizes(function, views)
    assert calls == [(6, 5, 5, 3), (6, 12, 12, 3), (3, 7, 7, 3)]
    for (mean, largest), view in zip(results, views, strict=True):
        np.testing.assert_allclose(to_numpy(mean), view.mean((1, 2)), rtol=1e-5)
        np.testing.assert_array_equal(to_numpy(largest), view.max((1, 2, 3)))


@pytest.mark.any_backend
@pytest.mark.parametrize("kind", ["sfrik", "ssl_hsic"])
@pytest.mark.parametrize(("name", "num_global"), [("swav", 2), ("obow", 1)])
def test_the_objective_is_told_which_embeddings_are_of_global_views(
    kind, name, num_global
):
    policy = {"swav": augment.multi_crop_swav, "obow": augment.multi_crop_obow}[name]
    model = make_model(kind, policy(12))
    views = [ops.convert_to_tensor(v) for v in views_of(model.augment.sizes)]
    embeddings = model.embed(views, training=False)["embeddings"]
    online = [model.projector(model.encoder(v)) for v in views]
    expected = online
    if kind == "ssl_hsic":
        # The target network, still the same as the online one, sees global views only.
        online = [model.predictor(z) for z in online]
        targets = [model.projector(model.encoder(v)) for v in views[:num_global]]
        expected = [*online[:num_global], *targets[::-1], *online[num_global:]]
    assert model.num_embeddings == len(expected) == len(embeddings)
    for ours, theirs in zip(to_numpy(embeddings), to_numpy(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    told = model.num_global_embeddings
    assert told == num_global * (1 if kind == "sfrik" else 2)
    model.compile("sgd", **QUICK)
    outputs = {"embeddings": embeddings, "features": None}
    loss = model.compute_loss(y_pred=outputs)
    terms = model.objective.terms(expected, num_global=told)
    assert float(loss) == pytest.approx(float(terms["loss"]), rel=1e-5)
    everything = model.objective.terms(expected)
    assert float(loss) != pytest.approx(float(everything["loss"]), rel=1e-3)


def test_images_train_to_finite_losses_that_a_second_run_repeats():
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 20, 3), dtype=np.uint8)
    # Without colours, which would take most of the time to compile.
    views = [
        dataclasses.replace(view, jitter=0.0, grayscale=0.0, blur=0.0)
        for view in augment.multi_crop_obow(12).views
    ]
    policy = augment.Policy(views)
    losses = []
    for _ in range(2):
        model = make_model("ssl_hsic", policy)
        model.compile(keras.optimizers.SGD(0.01), **QUICK)
        before = to_numpy(model.projector.steps[-1].kernel)
        losses.append([model.train_on_batch(images)[0] for _ in range(2)])
        assert np.abs(to_numpy(model.projector.steps[-1].kernel) - before).max() > 0
    assert losses[0] == losses[1]
    assert np.isfinite(losses).all()
    assert losses[0][0] != losses[0][1]
