"""Recipes: plain data that survive a file, with every default written out."""

import dataclasses
import json
import subprocess
import sys

import pytest

from keras_kssl.recipes import METHOD_OPTIONS, Facts, Recipe, quickstart

pytestmark = pytest.mark.any_backend

METHODS = ("ssl_hsic", "sfrik")
BASELINES = ("simclr", "vicreg", "auh", "barlow_twins", "byol")
every_method = pytest.mark.parametrize("method", METHODS + BASELINES)
# What stays None in a resolved recipe: it is optional, or the data's channels or the
# backend tell.
OPEN = {
    "limit",
    "per_class",
    "base_learning_rate",
    "eval_train",
    "eval_test",
    "mean",
    "std",
    "jit_compile",
    "steps_per_execution",
}
# Options that are refused for all methods but one.
REFUSED = {
    "kernel": ("ssl_hsic", "gaussian"),
    "kernel_scale": ("ssl_hsic", 0.5),
    "learn_scale": ("ssl_hsic", False),
    "temperature": ("simclr", 0.5),
    "variance_weight": ("vicreg", 2.0),
    "covariance_weight": ("vicreg", 2.0),
    "redundancy_weight": ("barlow_twins", 0.1),
}
# A hundred steps of 256 images in an epoch.
CPU = Facts(count=25_600, shorter_side=80, has_accelerator=False)
GPU = Facts(count=25_600, shorter_side=80, has_accelerator=True)
FEW_STEPS, MANY_STEPS = {"epochs": 99}, {"epochs": 100}
every_machine = pytest.mark.parametrize("facts", [CPU, GPU], ids=["cpu", "gpu"])


@pytest.mark.parametrize("option", REFUSED)
def test_options_of_one_method_are_refused_for_the_others(option):
    owner, value = REFUSED[option]
    assert getattr(Recipe(method=owner, **{option: value}), option) == value
    for method in set(METHODS + BASELINES) - {owner}:
        assert option not in METHOD_OPTIONS[method]
        rule = rf"recipe: `{option}` must be left out for {method}"
        with pytest.raises(ValueError, match=rule):
            Recipe(method=method, **{option: value})


@pytest.mark.parametrize(
    ("option", "options"),
    [
        ("kernel_scale", {"kernel": "linear", "kernel_scale": 1.0}),
        ("learn_scale", {"kernel": "gaussian", "learn_scale": True}),
        ("learn_scale", {"kernel": "linear", "learn_scale": True}),
        ("estimator", {"kernel": "linear", "estimator": "random_features"}),
        ("kernel_scale", {"kernel_scale": 0.0}),
        ("kernel", {"kernel": "zonal"}),
        ("weight_per_pair", {"method": "vicreg", "weight_per_pair": True}),
        (
            "regularize_small",
            {"method": "simclr", "augment": "swav", "regularize_small": True},
        ),
        ("temperature", {"method": "simclr", "temperature": 0.0}),
        ("redundancy_weight", {"method": "barlow_twins", "redundancy_weight": -1.0}),
    ],
)
def test_options_that_contradict_each_other_are_refused(option, options):
    with pytest.raises(ValueError, match=f"recipe: `{option}` must be"):
        Recipe(**options)


@pytest.mark.parametrize(
    ("kernel", "scale", "learned"),
    [
        (None, 1.0, True),
        ("imq", 1.0, True),
        ("gaussian", 1.0, False),
        ("linear", None, False),
    ],
)
def test_scale_is_learned_for_the_inverse_multiquadric_alone(kernel, scale, learned):
    recipe = Recipe(kernel=kernel).resolved(CPU)
    assert recipe.kernel == (kernel or "imq")
    assert (recipe.kernel_scale, recipe.learn_scale) == (scale, learned)
    assert recipe.resolved(CPU) == recipe
    fixed = Recipe(learn_scale=False, kernel_scale=0.5).resolved(CPU)
    assert (fixed.kernel_scale, fixed.learn_scale) == (0.5, False)


def test_baselines_have_their_authors_settings_in_runs_of_10_000_steps():
    found = {
        method: Recipe(method=method, **MANY_STEPS).resolved(CPU)
        for method in BASELINES
    }
    names = ("augment", "learning_rate", "projector", "average_decay")
    wide = (8192, 8192, 8192)
    assert {
        method: tuple(getattr(recipe, name) for name in names)
        for method, recipe in found.items()
    } == {
        "simclr": ("simclr", 0.3, (2048, 128), 0.0),
        "vicreg": ("vicreg", 0.2, wide, 0.0),
        "auh": ("vicreg", 1.0, wide, 0.0),
        "barlow_twins": ("vicreg", 0.2, wide, 0.0),
        "byol": ("byol", 0.2, (4096, 256), 0.0),
    }
    assert found["simclr"].temperature == 0.1
    assert found["barlow_twins"].redundancy_weight == 0.005
    vicreg, auh = found["vicreg"], found["auh"]
    weights = (vicreg.variance_weight, vicreg.covariance_weight)
    assert (vicreg.invariance_weight, *weights) == (25.0, 25.0, 1.0)
    assert vicreg.weight_per_pair is False
    assert (auh.invariance_weight, auh.weight_per_pair) == (3000 / 8192, True)


@every_machine
@every_method
def test_resolved_recipes_leave_nothing_to_the_method(method, facts):
    recipe = Recipe(method=method, data="builtin:digits").resolved(facts)
    left = {name for name, value in dataclasses.asdict(recipe).items() if value is None}
    others = {name for name, (owner, _) in REFUSED.items() if owner != method}
    assert left == OPEN | others
    assert recipe.stem != "auto"
    assert recipe.resolved(facts) == recipe


def test_methods_defaults_are_their_authors_in_runs_of_10_000_steps():
    hsic, sfrik = (
        Recipe(method=method, **MANY_STEPS).resolved(CPU) for method in METHODS
    )
    assert (hsic.augment, hsic.projector) == ("byol", (4096, 256))
    assert (hsic.learning_rate, hsic.average_decay) == (0.4, 0.999)
    assert (hsic.target_decay, hsic.regularizer_weight) == (0.99, 3.0)
    assert (sfrik.augment, sfrik.projector) == ("vicreg", (8192, 8192, 8192))
    assert (sfrik.learning_rate, sfrik.average_decay) == (1.2, 0.0)
    assert sfrik.coefficients == (1.0, 40.0, 40.0)
    assert (hsic.final_fraction, sfrik.final_fraction) == (0.0, 0.001)
    for recipe in (hsic, sfrik):
        assert (recipe.optimizer, recipe.weight_decay) == ("lars", 1e-6)
        assert (recipe.crop_min, recipe.crop_max) == (0.08, 1.0)
        assert recipe.target


def test_runs_of_fewer_than_10_000_steps_are_smaller_and_without_target():
    hsic, sfrik = (
        Recipe(method=method, **FEW_STEPS).resolved(CPU) for method in METHODS
    )
    assert (hsic.augment, hsic.projector) == ("byol", (512, 128))
    assert (sfrik.augment, sfrik.projector) == ("vicreg", (512, 512, 512))
    assert (hsic.average_decay, sfrik.average_decay) == (0.99, 0.0)
    assert (hsic.final_fraction, sfrik.final_fraction) == (0.0, 0.001)
    for recipe in (hsic, sfrik):
        assert (recipe.optimizer, recipe.learning_rate) == ("adam", 2e-3)
        assert (recipe.crop_min, recipe.crop_max) == (0.2, 1.0)
        assert recipe.target is False


@every_method
@pytest.mark.parametrize("epochs", [FEW_STEPS, MANY_STEPS], ids=["few", "many"])
def test_a_base_learning_rate_is_that_of_lars_for_256_images(method, epochs):
    based = Recipe(method=method, base_learning_rate=0.5, batch_size=128, **epochs)
    recipe = based.resolved(CPU)
    assert (recipe.optimizer, recipe.learning_rate) == ("lars", 0.25)
    recipe = dataclasses.replace(based, learning_rate=0.7).resolved(CPU)
    assert (recipe.optimizer, recipe.learning_rate) == ("lars", 0.7)
    recipe = dataclasses.replace(based, optimizer="adam").resolved(CPU)
    assert (recipe.optimizer, recipe.learning_rate) == ("adam", 2e-3)


@pytest.mark.parametrize(
    ("count", "batch_size", "optimizer"),
    [(2_000, 2, "lars"), (2_000, 4, "adam"), (1_999, 2, "adam")],
)
def test_short_runs_are_told_by_whole_steps(count, batch_size, optimizer):
    facts = Facts(count, shorter_side=80, has_accelerator=True)
    recipe = Recipe(epochs=10, batch_size=batch_size).resolved(facts)
    assert recipe.optimizer == optimizer


@pytest.mark.parametrize(
    ("count", "on_cpu", "on_gpu"),
    [
        (25_600, 30, 500),
        (256 * 70, 43, 714),
        (256 * 6, 100, 800),
        (256 * 4_000, 5, 12),
        (256 * 9_000, 5, 10),
        (1, 100, 800),
    ],
)
def test_epochs_make_a_number_of_steps_within_bounds(count, on_cpu, on_gpu):
    for has_accelerator, epochs in ((False, on_cpu), (True, on_gpu)):
        facts = Facts(count, 80, has_accelerator)
        assert Recipe().resolved(facts).epochs == epochs
    halved = Recipe(batch_size=512).resolved(dataclasses.replace(CPU, count=51_200))
    assert halved.epochs == 30


@pytest.mark.parametrize(
    ("count", "batch_size"),
    [
        (10**6, 256),
        (1024, 256),
        (1023, 128),
        (512, 128),
        (511, 64),
        (17, 4),
        (15, 2),
        (8, 2),
        (2, 2),
    ],
)
def test_batches_are_powers_of_two_that_make_four_steps(count, batch_size):
    facts = dataclasses.replace(GPU, count=count)
    assert Recipe().resolved(facts).batch_size == batch_size


@pytest.mark.parametrize(
    ("shorter_side", "on_cpu", "on_gpu"),
    [(28, 28, 28), (96, 96, 96), (97, 96, 97), (224, 96, 224), (375, 96, 224)],
)
def test_views_are_as_large_as_the_images_up_to_a_bound(shorter_side, on_cpu, on_gpu):
    for facts, size in ((CPU, on_cpu), (GPU, on_gpu)):
        facts = dataclasses.replace(facts, shorter_side=shorter_side)
        assert Recipe().resolved(facts).size == size


@pytest.mark.parametrize(
    ("count", "has_accelerator", "encoder"),
    [
        (99_999, False, "resnet10"),
        (100_000, False, "resnet10"),
        (99_999, True, "resnet18"),
        (100_000, True, "resnet50"),
    ],
)
def test_encoder_grows_with_machine_and_data(count, has_accelerator, encoder):
    facts = Facts(count, 80, has_accelerator)
    assert Recipe().resolved(facts).encoder == encoder


def test_stem_follows_the_size_of_the_views_unless_it_is_chosen():
    for size, stem in ((63, "cifar"), (64, "imagenet")):
        assert Recipe(size=size).resolved(CPU).stem == stem
        facts = dataclasses.replace(CPU, shorter_side=size)
        assert Recipe().resolved(facts).stem == stem
    assert Recipe(size=64, stem="cifar").resolved(CPU).stem == "cifar"
    assert Recipe(size=63, stem="imagenet").resolved(CPU).stem == "imagenet"


@pytest.mark.parametrize("length", [FEW_STEPS, MANY_STEPS])
def test_smallest_crop_is_no_larger_than_the_largest(length):
    assert Recipe(crop_max=0.05, **length).resolved(CPU).crop_min == 0.05
    assert Recipe(crop_min=0.3, **length).resolved(CPU).crop_min == 0.3


def test_learning_rate_grows_with_the_batch_for_lars_alone():
    def rate(**options):
        return Recipe(**options).resolved(CPU).learning_rate

    assert rate(batch_size=1024, optimizer="lars") == pytest.approx(1.6)
    assert rate(batch_size=64, optimizer="adam") == 2e-3
    assert rate(batch_size=256, epochs=1000, optimizer="adam") == 2e-3
    assert rate(batch_size=1024, learning_rate=0.3) == 0.3


def test_invariance_weight_is_the_published_one_at_the_published_batch():
    recipe = Recipe(method="sfrik", batch_size=2048).resolved(GPU)
    assert recipe.weight_per_pair is True
    assert recipe.invariance_weight == 4000 / 8192
    recipe = Recipe(method="sfrik", batch_size=64).resolved(GPU)
    assert recipe.invariance_weight == 1000 / 64


def test_a_chosen_invariance_weight_is_per_coordinate_unless_told_otherwise():
    for chosen, expected in ((None, False), (True, True), (False, False)):
        recipe = Recipe(invariance_weight=4000.0, weight_per_pair=chosen).resolved(GPU)
        assert recipe.invariance_weight == 4000.0
        assert recipe.weight_per_pair is expected


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0.1), (50, 5.0), (1000, 10.0)])
def test_warmup_takes_a_tenth_of_a_run_and_at_most_10_epochs(epochs, warmup):
    assert Recipe(epochs=epochs).resolved(CPU).warmup_epochs == warmup


@pytest.mark.parametrize(
    ("epochs", "every"), [(4, 0), (5, 1), (10, 1), (11, 2), (26, 3), (100, 10)]
)
def test_runs_with_a_test_set_are_judged_about_ten_times(epochs, every):
    recipe = Recipe(epochs=epochs, eval_test="builtin:digits:test")
    assert recipe.resolved(CPU).eval_every == every
    assert 5 <= -(-epochs // every) <= 10 if every else epochs < 5
    chosen = dataclasses.replace(recipe, eval_every=7)
    assert chosen.resolved(CPU).eval_every == 7
    never = dataclasses.replace(recipe, eval_every=0)
    assert never.resolved(CPU).eval_every == 0
    without = dataclasses.replace(recipe, eval_test=None)
    assert without.resolved(CPU).eval_every == 0


@pytest.mark.parametrize("length", [FEW_STEPS, MANY_STEPS])
def test_what_is_chosen_stays_even_where_it_is_zero(length):
    chosen = {
        "encoder": "resnet34",
        "projector": (7,),
        "augment": "simclr",
        "size": 40,
        "batch_size": 100,
        "optimizer": "adam",
        "warmup_epochs": 0.0,
        "final_fraction": 0.5,
        "invariance_weight": 0.0,
        "average_decay": 0.0,
        "jit_compile": False,
        **length,
    }
    for target in (False, True):
        recipe = Recipe(target=target, **chosen).resolved(GPU)
        assert {name: getattr(recipe, name) for name in chosen} == chosen
        assert recipe.target is target


def test_differences_are_what_was_asked_for_and_is_otherwise():
    run = Recipe(epochs=7, seed=3).resolved(CPU)
    assert Recipe().differences(run) == {}
    assert Recipe(epochs=7, seed=3).differences(run) == {}
    asked = Recipe(epochs=8, flip=0.0, limit=100, seed=3)
    assert asked.differences(run) == {
        "epochs": (8, 7),
        "flip": (0.0, 0.5),
        "limit": (100, None),
    }


@pytest.mark.parametrize("method", METHODS)
def test_quickstart_chooses_these_options_and_leaves_the_others(method):
    given = {
        field.name: getattr(quickstart(method, seed=5), field.name)
        for field in dataclasses.fields(Recipe)
        if getattr(quickstart(method, seed=5), field.name) != field.default
    }
    expected = {
        "method": method,
        "data": "builtin:digits:train",
        "eval_test": "builtin:digits:test",
        "eval_every": 7,
        "encoder": "resnet10",
        "width": 0.25,
        "projector": {"ssl_hsic": (512, 128), "sfrik": (512, 512, 512)}[method],
        "augment": "auh",
        "size": 20,
        "crop_min": 0.2,
        "crop_max": 0.5,
        "flip": 0.0,
        "epochs": 20,
        "batch_size": 64,
        "optimizer": "adam",
        "learning_rate": 0.006,
        "target": False,
        "regularizer_weight": 2.0,
        "invariance_weight": 8.0,
        "weight_per_pair": True,
        "average_decay": 0.99,
        "seed": 5,
    }
    if method == Recipe().method:
        del expected["method"]
    assert given == expected


@pytest.mark.parametrize(
    ("augment", "size", "crops", "stem"),
    [
        ("swav", 96, (0.14, 1.0), "imagenet"),
        ("swav", 74, (0.14, 1.0), "cifar"),
        ("obow", 75, (0.08, 0.6), "imagenet"),
        ("byol", 74, (0.2, 1.0), "imagenet"),
    ],
)
def test_small_crops_have_the_published_areas_and_pixels_enough(
    augment, size, crops, stem
):
    # Few steps, for which two views would be cut larger.
    recipe = Recipe(augment=augment, size=size, epochs=5).resolved(CPU)
    assert (recipe.crop_min, recipe.crop_max) == crops
    assert recipe.stem == stem


def test_parts_of_a_batch_are_equal_and_compare_images():
    for batch_size, parts in ((64, 3), (64, 64)):
        with pytest.raises(ValueError, match="`micro_batches` must be a divisor of"):
            Recipe(batch_size=batch_size, micro_batches=parts).resolved(CPU)
    assert Recipe(batch_size=64, micro_batches=32).resolved(CPU).micro_batches == 32


@every_method
@pytest.mark.parametrize(
    "make", [quickstart, lambda method: Recipe(method=method).resolved(CPU)]
)
def test_recipes_come_back_from_a_file_as_they_were(tmp_path, make, method):
    recipe = make(method)
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    assert Recipe.read(tmp_path / "recipe.json") == recipe


def test_unknown_option_in_a_file_is_named_with_the_nearest():
    with pytest.raises(ValueError, match="Did you mean 'batch_size'"):
        Recipe.from_json(json.dumps({"batchsize": 64}))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("method", "sfrk"),
        ("encoder", "resnet19"),
        ("stem", "cifer"),
        ("padding", "valid"),
        ("augment", "none"),
        ("optimizer", "sgd"),
        ("estimator", "exact"),
        ("precision", "float64"),
        ("limit", 1),
        ("per_class", 0),
        ("size", 0),
        ("epochs", 0),
        ("batch_size", 1),
        ("num_features", 0),
        ("micro_batches", 0),
        ("regularize_small", True),
        ("seed", -1),
        ("width", 0.0),
        ("crop_min", 0.0),
        ("crop_min", 1.5),
        ("base_learning_rate", 0.0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("warmup_epochs", -1.0),
        ("max_broken", 1.1),
        ("flip", 1.5),
        ("crop_max", 1.1),
        ("regularizer_weight", -1.0),
        ("invariance_weight", -1.0),
        ("final_fraction", -0.1),
        ("weight_decay", -1.0),
        ("target_decay", 1.1),
        ("average_decay", -0.1),
        ("projector", ()),
        ("projector", (1,)),
        ("eval_train", "builtin:digits"),
        ("eval_every", 1),
    ],
)
def test_values_out_of_range_are_refused_when_the_recipe_is_made(option, value):
    named = "eval_test" if option.startswith("eval_") else option
    with pytest.raises(ValueError, match=f"recipe: `{named}` must be"):
        Recipe(**{option: value})


def test_bounds_that_hang_on_other_options_hold_for_chosen_and_for_default_ones():
    for epochs in (7, None):
        with pytest.raises(ValueError, match=r"recipe: `warmup_epochs` must be"):
            Recipe(warmup_epochs=101, epochs=epochs).resolved(CPU)
    with pytest.raises(ValueError, match=r"recipe: `crop_min` must be"):
        Recipe(crop_min=0.6, crop_max=0.5)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("epochs", 1.5),
        ("num_features", None),
        ("batch_size", "64"),
        ("seed", True),
        ("eval_every", 1.5),
    ],
)
def test_wrong_kinds_are_refused_when_the_recipe_is_made(option, value):
    with pytest.raises(TypeError, match=f"recipe: `{option}` must be an integer"):
        Recipe(**{option: value})


def test_recipes_and_command_line_load_no_framework():
    code = (
        "import sys, keras_kssl.cli.running; "
        "print([m for m in ('keras', 'tensorflow', 'jax') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
