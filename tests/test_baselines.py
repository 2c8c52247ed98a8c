"""The models of methods to compare with: their parts, a step of each, their files."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_kssl import models, objectives

MODELS = {
    "simclr": (models.SimCLR, objectives.SimCLR, ((2048,), 128)),
    "vicreg": (models.VICReg, objectives.VICReg, ((8192, 8192), 8192)),
    "uniformity": (
        models.AlignmentUniformity,
        objectives.AlignmentUniformity,
        ((8192, 8192), 8192),
    ),
    "barlow_twins": (
        models.BarlowTwins,
        objectives.BarlowTwins,
        ((8192, 8192), 8192),
    ),
    "byol": (models.BYOL, objectives.BYOL, ()),
}
every_model = pytest.mark.parametrize("file", MODELS)
EAGER = {"run_eagerly": keras.backend.backend() != "jax"}


def make_encoder():
    images = keras.Input((8, 8, 3))
    initializer = keras.initializers.GlorotUniform(0)
    x = layers.Conv2D(4, 3, strides=2, kernel_initializer=initializer)(images)
    x = layers.BatchNormalization(momentum=0.9)(x)
    return keras.Model(images, layers.GlobalAveragePooling2D()(x))


def head(name, seed=1):
    return models.MLPHead((6,), 5, seed=seed, name=name)


def make_model(file, **options):
    model_class = MODELS[file][0]
    if file == "byol":
        options = {"predictor": head("predictor", 2), "target_decay": 0.5, **options}
    model = model_class(make_encoder(), projector=head("projector"), seed=0, **options)
    model.compile(keras.optimizers.SGD(0.05), jit_compile=None, **EAGER)
    return model


def views_of_batch():
    rng = np.random.default_rng(0)
    images = rng.uniform(size=(8, 8, 8, 3))
    noise = 0.2 * rng.uniform(size=(2, *images.shape))
    return tuple((0.8 * images + n).astype("float32") for n in noise)


def arrays_of(variables):
    return [np.array(ops.convert_to_numpy(v)) for v in variables]


@every_model
def test_parts_are_the_documented_ones_by_default(file, monkeypatch):
    asked = []

    def small_head(*widths, **options):
        asked.append((*widths, options["name"], options.pop("seed")))
        return models.MLPHead((4,), 3, **options)

    monkeypatch.setattr(f"keras_kssl.models.{file}.MLPHead", small_head)
    model_class, objective_class, widths = MODELS[file]
    model = model_class(make_encoder(), seed=3)
    assert asked[0] == (*widths, "projector", 3)
    assert model.average_decay is None
    expected = objective_class(name=model.objective.name)
    assert type(model.objective) is objective_class
    assert model.objective.get_config() == expected.get_config()
    if file == "byol":
        assert model.target_decay == 0.996
        assert asked[1][0] == "predictor"
        assert asked[1][1] != 3


@every_model
def test_a_step_lowers_the_loss_and_the_file_goes_on_with_it(file, tmp_path):
    model = make_model(file)
    views = views_of_batch()
    before = arrays_of(model.trainable_variables)
    first = model.train_on_batch(views, return_dict=True)
    assert set(model.objective.term_names) <= set(first)
    moved = [
        np.abs(after - value).max() > 0
        for value, after in zip(
            before, arrays_of(model.trainable_variables), strict=True
        )
    ]
    # Biases before batch normalisation have no gradient but rounding.
    assert sum(moved) >= len(moved) - 3
    config = model.get_config()
    arguments = inspect.signature(type(model).__init__).parameters
    assert set(config) == set(arguments) - {"self"}
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    for one in (model, loaded):
        one.reset_metrics()
    second, again = (
        float(one.train_on_batch(views, return_dict=True)["loss"])
        for one in (model, loaded)
    )
    assert again == pytest.approx(second, rel=1e-6)
    assert second < float(first["loss"])


def test_byols_target_network_follows_and_has_no_gradient():
    model = make_model("byol")

    def target():
        parts = (model.target_encoder, model.target_projector)
        return [v for part in parts for v in part.variables if "moving" not in v.path]

    online = model.encoder.trainable_variables + model.projector.trainable_variables
    start = arrays_of(online)
    for old, copied in zip(start, arrays_of(target()), strict=True):
        np.testing.assert_array_equal(copied, old)
    model.train_on_batch(views_of_batch())
    model.settle_averages()
    for old, new, copied in zip(
        start, arrays_of(online), arrays_of(target()), strict=True
    ):
        np.testing.assert_allclose(copied, (old + new) / 2.0, rtol=1e-5, atol=1e-7)
    trained = {id(v) for v in model.trainable_variables}
    assert not trained & {id(v) for v in target()}
