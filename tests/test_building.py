"""What reaches the compiled model of each option of a recipe."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

from keras_kssl import augment, kernels, models, objectives, optimizers
from keras_kssl.pretraining import building
from keras_kssl.recipes import Facts, Recipe

FACTS = Facts(count=80, shorter_side=16, has_accelerator=False)
STEPS_PER_EPOCH = 5
TOTAL_STEPS = 10 * STEPS_PER_EPOCH
# No value is one that some part of the library has by default.
SHARED = {
    "encoder": "resnet10",
    "width": 0.125,
    "stem": "cifar",
    "padding": "same",
    "projector": (12, 10, 6),
    "mean": (0.1, 0.2, 0.3),
    "std": (0.4, 0.5, 0.6),
    "augment": "simclr",
    "size": 16,
    "crop_min": 0.3,
    "crop_max": 0.7,
    "flip": 0.25,
    "epochs": 10,
    "batch_size": 16,
    "optimizer": "lars",
    "learning_rate": 0.7,
    "warmup_epochs": 2.0,
    "final_fraction": 0.05,
    "weight_decay": 1e-3,
    "average_decay": 0.5,
    "jit_compile": False,
    "steps_per_execution": 5,
    "seed": 3,
}
OF_HSIC = {
    "regularizer_weight": 2.5,
    "target": True,
    "target_decay": 0.75,
    "estimator": "random_features",
    "num_features": 33,
}
OF_SFRIK = {
    "invariance_weight": 7.0,
    "weight_per_pair": True,
    "coefficients": (0.5, 2.0),
}
RECIPES = {
    "ssl_hsic": Recipe(method="ssl_hsic", **SHARED, **OF_HSIC).resolved(FACTS),
    "sfrik": Recipe(method="sfrik", **SHARED, **OF_SFRIK).resolved(FACTS),
}
METHODS = tuple(RECIPES)


def built(method, channels=3, **changes):
    recipe = dataclasses.replace(RECIPES[method], **changes)
    return building.build_model(recipe, channels, STEPS_PER_EPOCH)


@pytest.fixture(scope="module")
def of():
    """The models of both recipes as they are, by method."""
    return {method: built(method) for method in METHODS}


def config_of(part, *names):
    config = part.get_config()
    return {name: config[name] for name in names}


def seeds_of(model):
    seeds = [model.encoder.seed, model.seed, model.projector.seed]
    if isinstance(model, models.SSLHSIC):
        seeds += [model.objective.seed, model.predictor.seed]
    return seeds


@pytest.mark.any_backend
@pytest.mark.parametrize("method", METHODS)
def test_encoder_is_that_of_the_recipe(of, method):
    encoder = of[method].encoder
    names = ("depth", "width", "stem", "padding", "input_channels")
    assert config_of(encoder, *names) == {
        "depth": 10,
        "width": 0.125,
        "stem": "cifar",
        "padding": "same",
        "input_channels": 3,
    }
    normalize = encoder.get_layer("normalize")
    assert normalize.mean == (0.1, 0.2, 0.3)
    assert normalize.std == (0.4, 0.5, 0.6)


@pytest.mark.any_backend
def test_encoder_takes_the_channels_of_the_data():
    model = built("sfrik", channels=1, mean=(0.2,), std=(0.3,), augment="auh")
    assert model.encoder.input_shape == (None, None, None, 1)
    assert model.encoder.get_layer("normalize").mean == (0.2,)


@pytest.mark.any_backend
@pytest.mark.parametrize("method", METHODS)
def test_views_are_those_of_the_recipe(of, method):
    expected = augment.simclr(16, crop_scale=(0.3, 0.7), flip=0.25)
    assert of[method].augment == expected
    assert expected != augment.byol(16, crop_scale=(0.3, 0.7), flip=0.25)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("name", "policy"),
    [("swav", augment.multi_crop_swav), ("obow", augment.multi_crop_obow)],
)
def test_small_crops_and_parts_are_those_of_the_recipe(of, name, policy):
    model = built(
        "sfrik", augment=name, size=24, regularize_small=True, micro_batches=4
    )
    assert model.augment == policy(24, crop_scale=(0.3, 0.7), flip=0.25)
    assert model.objective.regularize_small is True
    assert model.micro_batches == 4
    assert of["sfrik"].micro_batches == 1
    assert of["sfrik"].objective.regularize_small is False
    with pytest.raises(ValueError, match="image size` must be at least 8 x 8"):
        built("sfrik", augment=name, size=16)


@pytest.mark.any_backend
@pytest.mark.parametrize("method", ["ssl_hsic", "sfrik", "vicreg", "auh"])
def test_small_crops_are_regularised_where_the_recipe_says_so(method):
    for small in (False, True):
        recipe = Recipe(method=method, augment="swav", regularize_small=small)
        objective = building.build_objective(recipe.resolved(FACTS))
        assert objective.regularize_small is small


@pytest.mark.any_backend
@pytest.mark.parametrize("method", METHODS)
def test_average_is_that_of_the_recipe_and_none_where_its_decay_is_0(of, method):
    model = of[method]
    assert model.average_decay == 0.5
    assert len(model.averages) == len(model.encoder.trainable_variables)
    plain = built(method, average_decay=0.0)
    assert plain.average_decay is None
    assert plain.averages == []


@pytest.mark.any_backend
def test_ssl_hsic_has_the_objective_of_the_recipe(of):
    names = ("regularizer_weight", "estimator", "num_features")
    expected = {name: OF_HSIC[name] for name in names}
    assert config_of(of["ssl_hsic"].objective, *names) == expected


@pytest.mark.any_backend
def test_sfrik_has_the_objective_of_the_recipe(of):
    assert config_of(of["sfrik"].objective, *OF_SFRIK) == OF_SFRIK
    published = built("sfrik", weight_per_pair=False)
    assert published.objective.weight_per_pair is False


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("method", "options", "expected"),
    [
        ("simclr", {"temperature": 0.7}, objectives.SimCLR(0.7)),
        ("simclr", {}, objectives.SimCLR()),
        (
            "vicreg",
            {
                "invariance_weight": 2.0,
                "variance_weight": 3.0,
                "covariance_weight": 4.0,
            },
            objectives.VICReg(2.0, 3.0, 4.0),
        ),
        ("vicreg", {}, objectives.VICReg()),
        (
            "auh",
            {"invariance_weight": 5.0},
            objectives.AlignmentUniformity(5.0),
        ),
        (
            "auh",
            {},
            objectives.AlignmentUniformity(3000.0 / 8192.0, weight_per_pair=True),
        ),
        (
            "barlow_twins",
            {"redundancy_weight": 0.2},
            objectives.BarlowTwins(0.2),
        ),
        ("barlow_twins", {}, objectives.BarlowTwins()),
        ("byol", {}, objectives.BYOL()),
    ],
)
def test_baselines_have_the_objective_of_the_recipe(method, options, expected):
    recipe = Recipe(method=method, **options).resolved(FACTS)
    found = building.build_objective(recipe)
    assert type(found) is type(expected)
    assert {**found.get_config(), "name": None} == {
        **expected.get_config(),
        "name": None,
    }


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("options", "kernel"),
    [
        ({}, kernels.InverseMultiquadric(1.0)),
        ({"kernel_scale": 0.3}, kernels.InverseMultiquadric(0.3)),
        ({"kernel": "gaussian", "kernel_scale": 0.3}, kernels.Gaussian(0.3)),
        ({"kernel": "linear"}, kernels.Linear()),
    ],
)
def test_ssl_hsic_has_the_kernel_of_the_recipe(options, kernel):
    recipe = Recipe(**options).resolved(FACTS)
    objective = building.build_objective(recipe)
    assert objective.kernel == kernel
    assert objective.learn_scale is (recipe.kernel == "imq")
    fixed = dataclasses.replace(recipe, learn_scale=False)
    assert building.build_objective(fixed).learn_scale is False


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("method", "kind"),
    [
        ("simclr", models.SimCLR),
        ("vicreg", models.VICReg),
        ("auh", models.AlignmentUniformity),
        ("barlow_twins", models.BarlowTwins),
        ("byol", models.BYOL),
    ],
)
def test_baselines_are_built_with_heads_of_their_own_kind(method, kind):
    recipe = Recipe(method=method, **SHARED).resolved(FACTS)
    model = building.build_model(recipe, 3, STEPS_PER_EPOCH)
    assert type(model) is kind
    assert not model.projector.normalize_output
    assert model.projector.output_units == 6
    if method == "byol":
        assert not model.predictor.normalize_output
        assert model.predictor.hidden_units == (12,)
        assert float(model.target_decay(0)) == pytest.approx(0.99)


@pytest.mark.any_backend
def test_target_network_moves_ever_more_slowly(of):
    decay = of["ssl_hsic"].target_decay
    # Half a cosine from 0.75 to 1.
    values = [float(decay(step)) for step in (0, TOTAL_STEPS // 2, TOTAL_STEPS)]
    assert values == pytest.approx([0.75, 0.875, 1.0], rel=1e-6)


@pytest.mark.any_backend
def test_model_without_a_target_network_has_no_predictor():
    model = built("ssl_hsic", target=False)
    assert not model.target
    assert model.predictor is None
    assert not hasattr(model, "target_encoder")


@pytest.mark.any_backend
def test_heads_have_the_widths_of_the_recipe(of):
    for model in of.values():
        assert model.projector.hidden_units == (12, 10)
        assert model.projector.output_units == 6
    predictor = of["ssl_hsic"].predictor
    assert (predictor.hidden_units, predictor.output_units) == ((12,), 6)


@pytest.mark.any_backend
def test_heads_are_normalised_for_ssl_hsic_alone_and_unless_told_otherwise(of):
    assert RECIPES["sfrik"].normalize_output
    assert not of["sfrik"].projector.normalize_output
    for normalize, model in (
        (True, of["ssl_hsic"]),
        (False, built("ssl_hsic", normalize_output=False)),
    ):
        assert model.projector.normalize_output is normalize
        assert model.predictor.normalize_output is normalize


@pytest.mark.any_backend
@pytest.mark.parametrize("method", METHODS)
def test_one_seed_gives_every_part_a_seed_of_its_own(of, method):
    same, other = built(method), built(method, seed=4)
    assert seeds_of(same) == seeds_of(of[method])
    seeds = seeds_of(same) + seeds_of(other)
    assert None not in seeds
    assert len(set(seeds)) == len(seeds)
    ours, again, others = (
        ops.convert_to_numpy(model.encoder.get_layer("stem_conv").kernel)
        for model in (of[method], same, other)
    )
    np.testing.assert_array_equal(ours, again)
    assert not np.array_equal(ours, others)


@pytest.mark.any_backend
@pytest.mark.parametrize("optimizer", ["lars", "adam"])
def test_learning_rate_rises_to_its_peak_and_falls_to_the_final_fraction(optimizer):
    used = built("sfrik", optimizer=optimizer).optimizer
    rates = []
    # Two of ten epochs of warm-up: steps 0 to 10 of 50.
    for step in (0, 5, 10, 30, TOTAL_STEPS):
        used.iterations.assign(step)
        rates.append(float(used.learning_rate))
    middle = 0.7 * (0.05 + 0.95 / 2)
    assert rates == pytest.approx([0.0, 0.35, 0.7, middle, 0.05 * 0.7], rel=1e-5)


@pytest.mark.any_backend
@pytest.mark.parametrize("method", METHODS)
def test_optimizer_is_that_of_the_recipe(of, method):
    lars, adam = of[method].optimizer, built(method, optimizer="adam").optimizer
    assert type(lars) is optimizers.LARS
    assert lars.get_config()["weight_decay"] == 1e-3
    assert type(adam) is optimizers.Adam
    assert adam.weight_decay is None


def test_step_is_compiled_by_xla_on_jax_or_where_it_is_asked_for():
    default = keras.backend.backend() == "jax"
    for chosen, expected in ((None, default), (True, True), (False, False)):
        assert built("sfrik", jit_compile=chosen).jit_compile is expected


def test_several_steps_at_a_time_divide_an_epoch(monkeypatch):
    assert built("sfrik").steps_per_execution == 5
    assert built("sfrik", steps_per_execution=None).steps_per_execution == 1
    with pytest.raises(ValueError, match=r"divisor .* 5\. Received: .*=4\. Such as 1"):
        built("sfrik", steps_per_execution=4)
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["tpu:0", "tpu:1"])
    chosen = [
        building._steps_per_execution(Recipe(), steps_per_epoch)
        for steps_per_epoch in (120, 100, 53, 7)
    ]
    assert chosen == [40, 50, 1, 7]


@pytest.mark.any_backend
def test_views_too_small_for_the_encoder_are_refused():
    with pytest.raises(ValueError, match=r"at least 32 x 32 .*'imagenet'.*16"):
        built("sfrik", stem="imagenet")
