"""Recipes: plain data that survive a file, with every default written out."""

import dataclasses
import json
import subprocess
import sys

import pytest

from keras_kssl.recipes import Recipe, quickstart

METHODS = ("ssl_hsic", "sfrik")
# What stays None in a resolved recipe: it depends on the data or the machine.
OPEN = {"limit", "eval_train", "eval_test", "size", "jit_compile"}


@pytest.mark.parametrize("method", METHODS)
def test_resolved_recipes_leave_nothing_to_the_method(method):
    recipe = Recipe(method=method).resolved()
    left = {name for name, value in dataclasses.asdict(recipe).items() if value is None}
    assert left == OPEN
    assert recipe.resolved() == recipe


def test_methods_defaults_are_their_authors():
    hsic, sfrik = (Recipe(method=method).resolved() for method in METHODS)
    assert (hsic.augment, hsic.projector) == ("byol", (4096, 256))
    assert (hsic.learning_rate, hsic.average_decay) == (0.4, 0.999)
    assert (sfrik.augment, sfrik.projector) == ("vicreg", (8192, 8192, 8192))
    assert (sfrik.learning_rate, sfrik.average_decay) == (1.2, 0.0)
    assert (hsic.final_fraction, sfrik.final_fraction) == (0.0, 0.001)


def test_learning_rate_grows_with_the_batch_for_lars_alone():
    assert Recipe(batch_size=1024).resolved().learning_rate == pytest.approx(1.6)
    assert Recipe(batch_size=64, optimizer="adam").resolved().learning_rate == 2e-3
    assert Recipe(batch_size=1024, learning_rate=0.3).resolved().learning_rate == 0.3


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 0.1), (50, 5.0), (1000, 10.0)])
def test_warmup_takes_a_tenth_of_a_run_and_at_most_10_epochs(epochs, warmup):
    assert Recipe(epochs=epochs).resolved().warmup_epochs == warmup


def test_what_is_chosen_stays_even_where_it_is_zero():
    chosen = {"warmup_epochs": 0.0, "average_decay": 0.0, "final_fraction": 0.5}
    recipe = Recipe(projector=(7,), augment="simclr", **chosen).resolved()
    assert {name: getattr(recipe, name) for name in chosen} == chosen
    assert (recipe.projector, recipe.augment) == ((7,), "simclr")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [quickstart, lambda m: Recipe(method=m).resolved()])
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
        ("augment", "none"),
        ("optimizer", "sgd"),
        ("estimator", "exact"),
        ("precision", "float64"),
        ("limit", 1),
        ("size", 0),
        ("epochs", 0),
        ("batch_size", 1),
        ("num_features", 0),
        ("seed", -1),
        ("width", 0.0),
        ("crop_min", 0.0),
        ("crop_min", 1.5),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("warmup_epochs", 101),
        ("final_fraction", -0.1),
        ("weight_decay", -1.0),
        ("target_decay", 1.1),
        ("average_decay", -0.1),
        ("projector", ()),
        ("projector", (1,)),
        ("eval_train", "builtin:digits"),
    ],
)
def test_values_out_of_range_are_refused_when_the_recipe_is_made(option, value):
    named = "eval_test" if option == "eval_train" else option
    with pytest.raises(ValueError, match=f"recipe: `{named}` must be"):
        Recipe(**{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [("epochs", 1.5), ("epochs", None), ("batch_size", "64"), ("seed", True)],
)
def test_wrong_kinds_are_refused_when_the_recipe_is_made(option, value):
    with pytest.raises(TypeError, match=f"recipe: `{option}` must be an integer"):
        Recipe(**{option: value})


def test_recipes_and_command_line_load_no_framework():
    code = (
        "import sys, keras_kssl.cli; "
        "print([m for m in ('keras', 'tensorflow', 'jax') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
