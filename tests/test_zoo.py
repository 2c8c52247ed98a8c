"""The zoo: presets against the papers' numbers, cards, and encoders by name."""

import base64
import contextlib
import dataclasses
import hashlib
import json
import marshal
import math
import pathlib
import re
import shlex
import subprocess
import sys
import types
import zipfile

import keras
import numpy as np
import pytest
import tyro

import keras_kssl
from keras_kssl import cli, convert, export, models, zoo
from keras_kssl.cli.training import Pretrain
from keras_kssl.cli.words import size_of_run
from keras_kssl.convert import torch_resnet
from keras_kssl.pretraining.building import build_encoder
from keras_kssl.recipes import METHOD_OPTIONS, Facts, Recipe
from keras_kssl.zoo import catalogue, loading, text
from tests.web_server import File, serving

ROOT = pathlib.Path(__file__).resolve().parent.parent
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
IMAGENET = Facts(count=1_281_167, shorter_side=375, has_accelerator=True)
IN20 = Facts(count=260_000, shorter_side=375, has_accelerator=True)
STL10 = Facts(count=100_000, shorter_side=96, has_accelerator=True)

# The papers' settings. Learning rates are peaks: 0.4 * 4096 / 256 = 6.4 and so on.
_ALL = {"optimizer": "lars", "weight_decay": 1e-6, "warmup_epochs": 10.0}
_ALL |= {"crop_min": 0.08, "crop_max": 1.0, "flip": 0.5, "stem": "imagenet"}
_ALL |= {"width": 1.0, "mean": None, "std": None, "precision": "float32"}
_HSIC = _ALL | {
    "method": "ssl_hsic",
    "encoder": "resnet50",
    "projector": (4096, 256),
    "augment": "byol",
    "size": 224,
    "epochs": 1000,
    "batch_size": 4096,
    "learning_rate": 6.4,
    "final_fraction": 0.0,
    "average_decay": 0.999,
    "target_decay": 0.99,
    "regularizer_weight": 3.0,
    "estimator": "random_features",
    "num_features": 512,
    "normalize_output": True,
    "padding": "same",
}
_SFRIK = _ALL | {
    "method": "sfrik",
    "batch_size": 2048,
    "coefficients": (1.0, 40.0, 40.0),
    "weight_per_pair": False,
    "padding": "symmetric",
    "final_fraction": 0.001,
    "average_decay": 0.0,
}
_SFRIK_18 = _SFRIK | {
    "encoder": "resnet18",
    "projector": (8192, 8192, 8192),
    "invariance_weight": 4000.0,
    "learning_rate": 9.6,
    "epochs": 100,
}
PUBLISHED = {
    "ssl_hsic_resnet50_imagenet": (IMAGENET, _HSIC | {"target": True}),
    "ssl_hsic_resnet50_imagenet_no_target": (IMAGENET, _HSIC | {"target": False}),
    "sfrik_resnet50_imagenet": (
        IMAGENET,
        _SFRIK
        | {
            "encoder": "resnet50",
            "projector": (8192, 8192, 32768),
            "invariance_weight": 40000.0,
            "augment": "vicreg",
            "size": 224,
            "learning_rate": 3.2,
            "epochs": 200,
        },
    ),
    "sfrik_resnet18_imagenet20": (
        IN20,
        _SFRIK_18 | {"augment": "vicreg", "size": 224, "per_class": 260},
    ),
    "sfrik_resnet18_stl10": (STL10, _SFRIK_18 | {"augment": "auh", "size": 64}),
}
_BASELINE = {
    name: _SFRIK_18[name] for name in (*_ALL, "encoder", "projector", "epochs")
}
_BASELINE |= {"batch_size": 2048, "augment": "vicreg", "size": 224, "per_class": 260}
_BASELINE |= {"padding": "symmetric", "final_fraction": 0.001, "average_decay": 0.0}
# 0.8 * 2048 / 256 = 6.4 and so on.
PUBLISHED |= {
    f"{method}_resnet18_imagenet20": (IN20, _BASELINE | {"method": method} | options)
    for method, options in {
        "simclr": {"learning_rate": 6.4, "temperature": 0.15},
        "vicreg": {
            "learning_rate": 5.6,
            "invariance_weight": 10.0,
            "variance_weight": 10.0,
            "covariance_weight": 1.0,
        },
        "auh": {
            "learning_rate": 8.0,
            "invariance_weight": 3000.0,
            "weight_per_pair": False,
        },
    }.items()
}
RECIPES = [preset.name for preset in catalogue.PUBLISHED]
every_recipe = pytest.mark.parametrize("name", RECIPES)


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    for name in ("KSSL_OFFLINE", "KSSL_MIRROR", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KSSL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def encoder():
    return models.ResNet(depth=10, width=0.125, stem="cifar", seed=0)


@pytest.fixture(scope="module")
def file(encoder, tmp_path_factory):
    """The encoder as a .keras file."""
    path = tmp_path_factory.mktemp("file") / "encoder.keras"
    return pathlib.Path(export.keras_file(encoder, path))


def same(loaded, encoder):
    images = np.random.default_rng(0).random((2, 16, 16, 3), dtype="float32")
    expected, found = encoder(images), loaded(images)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    return True


# Presets.


@pytest.mark.any_backend
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_presets_train_as_the_papers_say(name):
    facts, expected = PUBLISHED[name]
    recipe = zoo.presets()[name].recipe.resolved(facts)
    found = {option: getattr(recipe, option) for option in expected}
    assert found == expected


@pytest.mark.any_backend
def test_published_presets_are_the_same_on_every_machine():
    for name, (facts, _) in PUBLISHED.items():
        recipe = zoo.presets()[name].recipe
        small = dataclasses.replace(facts, count=4096, has_accelerator=False)
        changes = recipe.resolved(small).differences(recipe.resolved(facts))
        # To most methods a target network means nothing, nor the weight of SFRIK.
        others = {"target", "invariance_weight", "weight_per_pair"}
        assert set(changes) <= others - set(METHOD_OPTIONS[recipe.method])


@pytest.mark.any_backend
@every_recipe
def test_learning_rate_and_warmup_follow_a_batch_and_epochs_of_ones_own(name):
    preset = zoo.presets()[name]
    recipe = dataclasses.replace(preset.recipe, batch_size=128, epochs=20)
    resolved = recipe.resolved(IN20)
    assert resolved.warmup_epochs == 2.0
    assert resolved.learning_rate == recipe.base_learning_rate / 2


@pytest.mark.any_backend
@every_recipe
def test_cards_come_back_from_their_json_as_they_were(name):
    preset = zoo.presets()[name]
    assert zoo.Preset.from_json(preset.to_json()) == preset
    assert preset.name == name
    assert re.match(rf"{preset.recipe.method}_{preset.recipe.encoder}_", name)


@pytest.mark.any_backend
@every_recipe
def test_a_number_is_the_sources_or_has_a_date_and_weights(name):
    preset = zoo.presets()[name]
    card = zoo.markdown(preset)
    published = [r for r in preset.results if r.is_published]
    assert card.count(zoo.AS_PUBLISHED) == len(published)
    for result in preset.results:
        assert result.is_published or (preset.weights and result.date)
    assert (zoo.NO_WEIGHTS in card) == (preset.weights is None)
    assert preset.recipe.data is None or preset.recipe.data in preset.data
    assert preset.licence
    assert all(not s.startswith("http") for s in preset.source)


@pytest.mark.any_backend
def test_headlines_are_those_of_the_released_programs():
    found = {
        name: preset.headline.mean
        for name, preset in zoo.presets().items()
        if preset.headline is not None and preset.headline.is_published
    }
    assert found == {
        "ssl_hsic_resnet50_imagenet": 0.748,
        "sfrik_resnet50_imagenet": 0.703,
    }


def count_parameters(depth, width=1.0, cifar=False):
    """Weights of convolutions and batch normalisations, from the definition."""
    stages = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}[depth]
    growth = 4 if depth == 50 else 1
    channels = int(64 * width)
    total, inputs = 3 * channels * (9 if cifar else 49) + 2 * channels, channels
    for stage, blocks in enumerate(stages):
        middle = channels * 2**stage
        outputs = middle * growth
        for _ in range(blocks):
            if growth == 4:
                kernels = inputs * middle + 9 * middle**2 + middle * outputs
                norms = 2 * (middle + middle + outputs)
            else:
                kernels = 9 * inputs * middle + 9 * middle * outputs
                norms = 2 * (middle + outputs)
            if inputs != outputs:
                kernels, norms = kernels + inputs * outputs, norms + 2 * outputs
            total, inputs = total + kernels + norms, outputs
    return total, inputs


@pytest.mark.any_backend
@every_recipe
def test_sizes_are_those_of_the_encoders(name):
    preset = zoo.presets()[name]
    depth = int(preset.recipe.encoder.removeprefix("resnet"))
    cifar = preset.recipe.stem == "cifar"
    expected = count_parameters(depth, preset.recipe.width, cifar)
    assert (preset.parameters, preset.num_features) == expected


@every_recipe
def test_encoders_of_presets_can_be_built(name):
    preset = zoo.presets()[name]
    recipe = preset.recipe.resolved(STL10)
    # Shapes alone take a fraction of the time.
    with keras.StatelessScope(initialize_variables=False):
        encoder = build_encoder(recipe, channels=3)
    sizes = [math.prod(variable.shape) for variable in encoder.trainable_variables]
    assert (sum(sizes), encoder.num_features) == (
        preset.parameters,
        preset.num_features,
    )
    encoder.check_image_size(recipe.size, recipe.size)


def test_what_is_shipped_is_small_and_whole():
    for name, folder in catalogue.shipped_folders().items():
        card = zoo.Preset.read(folder / "card.json")
        assert card.name == name
        assert zoo.Preset.from_json(card.to_json()) == card
        assert zoo.markdown(card) == (folder / "README.md").read_text()
        assert all(result.date for result in card.results)
        encoder = zoo.load(name)
        sizes = [math.prod(v.shape) for v in encoder.trainable_variables]
        assert (card.parameters, card.num_features) == (
            sum(sizes),
            encoder.num_features,
        )
        assert build_encoder(card.recipe, 3).num_features == card.num_features
        assert all(path.stat().st_size <= 5e6 for path in folder.rglob("*"))


@pytest.mark.any_backend
def test_presets_cannot_be_changed():
    with pytest.raises(TypeError):
        zoo.presets()["mine"] = None


# Cards.

CARD = {
    "name": "mine_resnet10_photos",
    "description": "An encoder.",
    "recipe": Recipe(method="sfrik", encoder="resnet10", data="folder:photos"),
    "data": "Photos of mine (folder:photos).",
    "licence": "CC BY 4.0",
    "source": ("A run.",),
}


@pytest.mark.any_backend
@every_recipe
def test_a_recipe_as_a_command_is_that_recipe(name):
    recipe = zoo.presets()[name].recipe
    kssl, command, *options = shlex.split(text.command(recipe))
    config = (tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes)
    assert (kssl, command) == ("kssl", "pretrain")
    assert tyro.cli(Pretrain, args=options, config=config).recipe == recipe


@pytest.mark.any_backend
def test_unknown_names_in_a_card_are_refused_with_the_nearest():
    card = json.loads(zoo.Preset(**CARD).to_json())
    for change, named in (
        ({"licens": "x"}, "licence"),
        ({"weights": {"fil": "x"}}, "file"),
        ({"recipe": {"epoch": 3}}, "epochs"),
        ({"results": [{"protocl": "x"}]}, "protocol"),
    ):
        with pytest.raises(ValueError, match=f"Did you mean '{named}'"):
            zoo.Preset.from_json(json.dumps(card | change))
    with pytest.raises(ValueError, match="format"):
        zoo.Preset.from_json(json.dumps(card | {"format": 2}))


@pytest.mark.any_backend
@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', '{"format": 1, "x": 2}'])
def test_what_is_no_card_is_named_by_its_file(tmp_path, text):
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(ValueError, match=r"card\.json is no card of a preset"):
        zoo.Preset.read(tmp_path / "card.json")


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ["", "a/b", "..\\a", "a b"])
def test_names_of_cards_are_plain(name):
    with pytest.raises(ValueError, match="card: `name` must be letters"):
        zoo.Preset(**CARD | {"name": name})


@pytest.mark.any_backend
def test_text_of_others_breaks_no_table():
    result = zoo.Result("kNN | of\nlines", "photos", "top-1", 0.5, date="2026-01-01")
    card = zoo.markdown(zoo.Preset(**CARD, results=(result,)))
    (row,) = [line for line in card.splitlines() if "50.0" in line]
    assert r"kNN \| of lines" in row
    assert "measured 2026-01-01" in row


@pytest.mark.any_backend
def test_scores_that_are_no_shares_are_not_told_in_per_cent():
    result = zoo.Result("depth head", "rooms", "rms", 0.5, std=0.25, seeds=3)
    card = zoo.markdown(zoo.Preset(**CARD, results=(result,)))
    assert "| rms 0.5 ± 0.25 over 3 seeds |" in card


def write_run(folder, encoder_file, accuracies=True, evaluation=True):
    """The files of a finished run, as far as a card reads them."""
    folder.mkdir(parents=True)
    recipe = Recipe(data="npz:a.npz", eval_test="npz:b.npz", epochs=3, batch_size=16)
    (folder / "recipe.json").write_text(recipe.resolved(Facts(64, 16, False)).to_json())
    (folder / "encoder.keras").write_bytes(encoder_file.read_bytes())
    facts = {"name": "npz:a.npz", "images": 64, "content": "00ff"}
    (folder / "data.json").write_text(json.dumps(facts))
    versions = {"keras_kssl": "0.1.0", "platform": "Linux-x", "keras": "3.15"}
    (folder / "versions.json").write_text(json.dumps(versions))
    summary = {"date": "2026-11-21T10:00:00+00:00", "seconds": 130.0}
    if accuracies:
        summary["accuracies"] = {
            "raw_pixels": {"knn_20": 0.1},
            "untrained": {"knn_20": 0.2, "linear": 0.3},
            "trained": {"knn_20": 0.4, "linear": 0.5},
        }
    (folder / "summary.json").write_text(json.dumps(summary))
    if evaluation:
        score = {"mean": 0.61, "std": 0.02, "values": [0.59, 0.61, 0.63]}
        result = {
            "title": "linear probe",
            "metric": "top_1",
            "settings": {"epochs": 5},
            "changed": ["epochs"],
            "seeds": [0, 1, 2],
            "scores": {"linear": score},
            "seconds": 1.0,
        }
        record = {"format": 1, "train": "npz:c.npz", "test": "npz:d.npz"}
        record |= {"date": "2026-11-22T10:00:00+00:00", "results": [result]}
        (folder / "evaluation.json").write_text(json.dumps(record))
    return folder


@pytest.mark.any_backend
def test_card_of_a_run_tells_what_its_files_tell(tmp_path, file, encoder):
    run = write_run(tmp_path / "runs" / "my run", file)
    card = zoo.card_of_run(run, licence="CC0", encoder=encoder)
    assert card.name == "my_run"
    assert card.recipe == Recipe.read(run / "recipe.json")
    assert card.licence == "CC0"
    assert card.parameters == count_parameters(10, 0.125, cifar=True)[0]
    assert card.num_features == 64
    assert card.data == "npz:a.npz, 64 images, fingerprint 00ff."
    assert card.trained["machine"] == "Linux-x"
    assert card.headline == zoo.Result(
        protocol="linear probe, epochs=5",
        data="npz:c.npz, tested on npz:d.npz",
        score="linear top-1",
        mean=0.61,
        std=0.02,
        seeds=3,
        date="2026-11-22",
    )
    own = {(r.protocol, r.subject): r.mean for r in card.results[1:]}
    assert own == {
        ("kNN (k = 20) at the end of the run", "encoder"): 0.4,
        ("linear at the end of the run", "encoder"): 0.5,
        ("kNN (k = 20) at the end of the run", "untrained encoder"): 0.2,
        ("linear at the end of the run", "untrained encoder"): 0.3,
        ("kNN (k = 20) at the end of the run", "raw pixels"): 0.1,
    }
    assert zoo.Preset.from_json(card.to_json()) == card
    assert "Time: 2 min 10 s" in zoo.markdown(card)


@pytest.mark.any_backend
def test_card_of_a_run_that_nobody_judged_says_so(tmp_path, file):
    run = write_run(tmp_path / "run", file, accuracies=False, evaluation=False)
    card = zoo.card_of_run(run)
    text = zoo.markdown(card)
    assert card.results == ()
    assert "No numbers: nothing was measured." in text
    assert f"kssl evaluate {run}" in text
    assert "not stated" in card.licence


@pytest.mark.any_backend
def test_export_puts_the_card_beside_the_encoder(tmp_path, file, capsys):
    run = write_run(tmp_path / "run", file)
    out = tmp_path / "out"
    arguments = ["export", str(run), "--out", str(out), "--formats", "keras"]
    assert cli.main([*arguments, "--name", "mine_resnet10_x", "--licence", "CC0"]) == 0
    card = zoo.Preset.read(out / "card.json")
    content = (out / "encoder.keras").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert card.weights == zoo.Weights("encoder.keras", len(content), digest)
    assert (card.name, card.licence) == ("mine_resnet10_x", "CC0")
    assert (out / "README.md").read_text() == zoo.markdown(card)
    assert "not stated" not in capsys.readouterr().out
    # Written again, without a licence and a name.
    assert cli.main([*arguments, "--overwrite"]) == 0
    assert "give --licence" in capsys.readouterr().out
    assert zoo.Preset.read(out / "card.json").name == "out"


@pytest.mark.any_backend
def test_an_exported_preset_keeps_its_card(shipped, tmp_path, file, capsys):
    out = tmp_path / "mine"
    words = ["export", CARD["name"], "--out", str(out), "--formats", "keras"]
    assert cli.main(words) == 0
    card = zoo.Preset.read(out / "card.json")
    original = zoo.presets()[CARD["name"]]
    assert card.weights.num_bytes == (out / "encoder.keras").stat().st_size
    assert card == dataclasses.replace(original, name="mine", weights=card.weights)
    assert "not stated" not in capsys.readouterr().out


@pytest.mark.any_backend
def test_a_mere_file_has_no_card(file, tmp_path, capsys):
    words = ["export", str(file), "--out", str(tmp_path), "--formats", "keras"]
    assert cli.main(words) == 0
    assert "No card" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.keras"]


@pytest.mark.slow
@pytest.mark.skipif(not ON_TENSORFLOW, reason="TensorFlow writes SavedModels")
def test_export_replaces_a_saved_model_and_its_card(tmp_path, file):
    run = write_run(tmp_path / "run", file)
    out = tmp_path / "out"
    words = ["export", str(run), "--out", str(out), "--licence"]
    assert cli.main([*words, "CC0"]) == 0
    assert cli.main([*words, "CC BY 4.0", "--overwrite"]) == 0
    card = zoo.Preset.read(out / "card.json")
    size = sum(part.stat().st_size for part in out.glob("variables/*"))
    size += (out / "saved_model.pb").stat().st_size
    assert card.licence == "CC BY 4.0"
    assert card.weights == zoo.Weights("saved_model.pb", size)
    assert "tensorflow.saved_model.load" in (out / "README.md").read_text()


@pytest.mark.any_backend
def test_export_leaves_a_readme_of_ones_own_alone(tmp_path, file, capsys):
    run = write_run(tmp_path / "run", file)
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("mine")
    arguments = ["export", str(run), "--out", str(out), "--formats", "keras"]
    assert cli.main([*arguments, "--overwrite"]) == 2
    assert "README.md" in capsys.readouterr().err
    assert [path.name for path in out.iterdir()] == ["README.md"]
    assert (out / "README.md").read_text() == "mine"


# Loading.


def rewritten(file, path, change):
    """A `.keras` file whose configuration was changed."""
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                content = json.dumps(change(json.loads(content)))
            target.writestr(name, content)


def named(module, name, config):
    return {"module": module, "class_name": name, "config": config}


@pytest.mark.any_backend
def test_nothing_that_a_keras_file_names_is_run(file, tmp_path):
    victim, path = tmp_path / "victim", tmp_path / "hostile.keras"
    code = compile(f"open({str(victim)!r}, 'w')", "a", "eval")
    raw = base64.b64encode(marshal.dumps(code)).decode()
    function = named("builtins", "__lambda__", {"code": raw})
    layer = named("keras.layers", "Lambda", {"function": function, "name": "a"})
    loader = named("keras.layers", "TFSMLayer", {"filepath": str(tmp_path)})
    for config in (
        named("os", "mkdir", {"path": str(victim)}),
        named("os", "\x1b[2J", {}),
        named("keras", "Sequential", {"layers": [layer]}),
        named("keras", "Sequential", {"layers": [loader]}),
        named("keras", "Sequential", {"layers": [named("os", "mkdir", {})]}),
    ):
        rewritten(file, path, lambda _, config=config: config)
        with pytest.raises(ValueError, match=r"zoo\.load: `name` must be") as caught:
            zoo.load(path)
        assert str(caught.value).isprintable()
        assert not victim.exists()


@pytest.mark.any_backend
def test_a_keras_file_that_points_out_of_itself_writes_nothing(file, tmp_path):
    path = tmp_path / "a" / "hostile.keras"
    path.parent.mkdir()
    rewritten(file, path, lambda config: config)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("assets/../../victim", b"")
        archive.writestr("../victim", b"")
    with contextlib.suppress(ValueError):
        zoo.load(path)
    assert sorted(each.name for each in tmp_path.rglob("*")) == ["a", "hostile.keras"]


@pytest.fixture
def shipped(tmp_path, monkeypatch, file):
    """A folder of shipped encoders with one in it."""
    root = tmp_path / "saved_models"
    folder = root / CARD["name"]
    folder.mkdir(parents=True)
    (folder / "encoder.keras").write_bytes(file.read_bytes())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    weights = zoo.Weights("encoder.keras", file.stat().st_size, digest)
    zoo.write_card(zoo.Preset(**CARD, weights=weights), folder)
    monkeypatch.setattr(catalogue, "_roots", lambda: [root])
    return folder


@pytest.mark.any_backend
def test_shipped_encoders_are_presets_and_load_by_name(shipped, encoder):
    preset = zoo.presets()[CARD["name"]]
    assert preset == zoo.Preset.read(shipped / "card.json")
    assert preset.licence == "CC BY 4.0"
    assert same(zoo.load(CARD["name"]), encoder)


@pytest.mark.any_backend
def test_shipped_encoders_take_the_place_of_recipes_of_their_name(
    shipped, encoder, monkeypatch
):
    name = "sfrik_resnet18_stl10"
    shipped.rename(shipped.with_name(name))
    assert zoo.presets()[name].name == name
    assert same(zoo.load(name), encoder)


@pytest.mark.any_backend
def test_a_damaged_shipped_encoder_is_refused(shipped):
    with open(shipped / "encoder.keras", "ab") as damaged:
        damaged.write(b"x")
    with pytest.raises(ValueError, match="`sha256` must be that of the file"):
        zoo.load(CARD["name"])


@pytest.mark.any_backend
def test_a_shipped_saved_model_without_a_file_of_keras_says_so(shipped):
    weights = zoo.Weights("saved_model.pb")
    zoo.write_card(zoo.Preset(**CARD, weights=weights), shipped)
    with pytest.raises(ValueError, match=r"file that ends in \.keras"):
        zoo.load(CARD["name"])


@pytest.mark.any_backend
def test_presets_of_the_clone_are_looked_for_beside_its_setup(tmp_path, monkeypatch):
    module = tmp_path / "keras_kssl" / "__init__.py"
    monkeypatch.setattr(keras_kssl, "__file__", str(module))
    within, beside = module.parent / "saved_models", tmp_path / "saved_models"
    assert catalogue._roots() == [within]
    (tmp_path / "setup.cfg").write_text("")
    assert catalogue._roots() == [within, beside]


def test_encoders_load_from_folders_and_files(file, encoder, monkeypatch):
    assert same(zoo.load(file), encoder)
    assert same(zoo.load(file.parent), encoder)
    monkeypatch.chdir(file.parent)
    assert same(zoo.load("encoder.keras"), encoder)
    assert same(zoo.load("."), encoder)


@pytest.mark.any_backend
def test_a_local_file_must_have_the_digest_that_is_given(file):
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    zoo.load(file, sha256=digest.upper())
    with pytest.raises(ValueError, match="`sha256` must be that of the file"):
        zoo.load(file, sha256="00")


@pytest.mark.any_backend
def test_encoders_load_from_an_address_and_from_a_path_object_of_it(file, encoder):
    said = []
    with serving() as (site, root):
        site.files["/a/encoder.keras"] = File(file.read_bytes())
        loaded = zoo.load(f"{root}/a/encoder.keras", say=said.append)
        # As the command line has it, where positions are paths.
        again = zoo.load(pathlib.Path(f"{root}/a/encoder.keras"), say=said.append)
    assert same(loaded, encoder)
    assert same(again, encoder)
    assert len(site.requests) == 1
    assert "SHA-256" in said[-1]


def test_the_authors_weights_of_sfrik_are_fetched_and_converted(
    encoder, monkeypatch, tmp_path
):
    # A small network in a file as theirs.
    name = "sfrik_32k_in1000_200ep_r50_backbone.pth"
    path = convert.torch_file(encoder, tmp_path / name)
    said = []
    with serving() as (site, root):
        where = f"/valeoai/sfrik/releases/download/v0.1.0/{name}"
        site.files[where] = File(pathlib.Path(path).read_bytes())
        monkeypatch.setenv("KSSL_MIRROR", root)
        loaded = zoo.load("sfrik_resnet50_imagenet", say=said.append)
    assert same(loaded, encoder)
    assert "not known" in said[-1]


@pytest.mark.any_backend
def test_files_of_pytorch_are_those_that_can_be_converted():
    assert loading._TORCH == torch_resnet.SUFFIXES


def preset_at(monkeypatch, address, sha256=None):
    preset = zoo.Preset(**CARD, weights=zoo.Weights(address, sha256=sha256))
    monkeypatch.setattr(catalogue, "PUBLISHED", (preset,))


@pytest.mark.any_backend
def test_a_preset_loads_from_its_address_and_keeps_to_its_digest(
    file, encoder, monkeypatch
):
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    with serving() as (site, root):
        site.files["/encoder.keras"] = File(file.read_bytes())
        preset_at(monkeypatch, f"{root}/encoder.keras", digest)
        assert same(zoo.load(CARD["name"]), encoder)
        preset_at(monkeypatch, f"{root}/encoder.keras", "00")
        with pytest.raises(ValueError, match="put aside"):
            zoo.load(CARD["name"])


@pytest.mark.any_backend
def test_unknown_names_are_refused_with_near_ones():
    with pytest.raises(ValueError, match=r"Did you mean .*sfrik_resnet50_imagenet"):
        zoo.load("sfrk_resnet50")
    with pytest.raises(ValueError, match="List them: kssl zoo"):
        zoo.load("qqqq")


@pytest.mark.any_backend
def test_recipes_without_weights_say_how_to_train_them():
    with pytest.raises(ValueError, match=zoo.NO_WEIGHTS) as caught:
        zoo.load("sfrik_resnet18_stl10")
    assert "kssl pretrain --preset sfrik_resnet18_stl10" in str(caught.value)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        (3, TypeError, "`name` must be the name of a preset"),
        ("missing/encoder.keras", FileNotFoundError, "not there"),
        ("missing.pth", FileNotFoundError, "not there"),
        ("EMPTY", FileNotFoundError, "Is the run finished"),
        ("SAVED", FileNotFoundError, "tensorflow.saved_model.load"),
        ("TEXT", ValueError, "file that ends in .keras"),
        ("BROKEN", ValueError, "file that Keras loads"),
        ("s3://bucket/encoder.keras", ValueError, "https://, hf:// or kaggle://"),
        ("https://example.invalid/encoder.zip", ValueError, "file that ends in"),
        ("hf://user/encoder.keras", ValueError, "hf://USER/REPO/FILE"),
        ("hf://user/repo/../encoder.keras", ValueError, "plain names"),
        ("kaggle://a/b/c/encoder.keras", ValueError, "kaggle://OWNER/MODEL"),
    ],
)
def test_what_cannot_be_loaded_is_told_in_a_sentence(tmp_path, name, kind, expected):
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "SAVED").mkdir()
    (tmp_path / "SAVED" / "saved_model.pb").write_bytes(b"")
    (tmp_path / "TEXT").write_text("")
    (tmp_path / "BROKEN.keras").write_bytes(b"no archive")
    if isinstance(name, str) and name.isupper():
        name = tmp_path / name.replace("BROKEN", "BROKEN.keras")
    with pytest.raises(kind, match=re.escape(expected)):
        zoo.load(name)


@pytest.fixture
def hubs(monkeypatch, file):
    """Stand-ins for the hubs' clients; the arguments that they were called with."""
    calls = []

    def answer(*arguments, **options):
        calls.append((arguments, options))
        return str(file)

    client = types.SimpleNamespace(hf_hub_download=answer)
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    client = types.SimpleNamespace(model_download=answer)
    monkeypatch.setitem(sys.modules, "kagglehub", client)
    return calls


@pytest.mark.any_backend
def test_hugging_face_is_asked_through_its_client(hubs, encoder, tmp_path, monkeypatch):
    assert same(zoo.load("hf://user/repo/a/encoder.keras"), encoder)
    options = {"revision": None, "local_files_only": False}
    options["cache_dir"] = str(tmp_path / "cache" / "huggingface")
    assert hubs.pop() == (("user/repo", "a/encoder.keras"), options)
    monkeypatch.setenv("KSSL_OFFLINE", "1")
    zoo.load("hf://user/repo@v1.0/encoder.keras")
    options |= {"revision": "v1.0", "local_files_only": True}
    assert hubs.pop() == (("user/repo", "encoder.keras"), options)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("address", "handle", "path"),
    [
        ("a/b/keras/d/encoder.keras", "a/b/keras/d", "encoder.keras"),
        ("a/b/keras/d/3/encoder.keras", "a/b/keras/d/3", "encoder.keras"),
        ("a/b/keras/d/3/e/encoder.keras", "a/b/keras/d/3", "e/encoder.keras"),
    ],
)
def test_kaggle_is_asked_through_its_client(
    hubs, encoder, tmp_path, address, handle, path
):
    assert same(zoo.load(f"kaggle://{address}"), encoder)
    folder = str(tmp_path / "cache" / "kaggle" / handle)
    assert hubs == [((handle,), {"path": path, "output_dir": folder})]


@pytest.mark.any_backend
def test_kaggle_offline_takes_whole_files_from_the_cache_alone(
    hubs, file, encoder, tmp_path, monkeypatch
):
    monkeypatch.setenv("KSSL_OFFLINE", "1")
    folder = tmp_path / "cache" / "kaggle" / "a" / "b" / "keras" / "d"
    folder.mkdir(parents=True)
    (folder / "encoder.keras").write_bytes(file.read_bytes())
    with pytest.raises(FileNotFoundError, match="KSSL_OFFLINE"):
        zoo.load("kaggle://a/b/keras/d/encoder.keras")
    # As the client marks a file that has come in whole.
    mark = folder / ".complete" / "models" / "a" / "encoder.keras.complete"
    mark.parent.mkdir(parents=True)
    mark.touch()
    assert same(zoo.load("kaggle://a/b/keras/d/encoder.keras"), encoder)
    assert hubs == []


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("address", "package", "extra"),
    [
        ("hf://user/repo/encoder.keras", "huggingface_hub", "huggingface"),
        ("kaggle://a/b/c/d/encoder.keras", "kagglehub", "kaggle"),
    ],
)
def test_hubs_say_what_to_install_and_what_went_wrong(
    monkeypatch, address, package, extra
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'keras_kssl\[{extra}\]'"):
        zoo.load(address)

    def fail(*arguments, **options):
        raise RuntimeError("401\nno such\nrepository")

    client = types.SimpleNamespace(hf_hub_download=fail, model_download=fail)
    monkeypatch.setitem(sys.modules, package, client)
    with pytest.raises(ConnectionError, match="401 no such repository"):
        zoo.load(address)
    assert re.search(
        rf"^{extra} =\n    {package}", (ROOT / "setup.cfg").read_text(), re.M
    )


# The command line.


@pytest.mark.any_backend
def test_views_are_of_the_size_that_a_preset_was_trained_on(tmp_path):
    assert size_of_run(pathlib.Path("sfrik_resnet18_stl10")) == 64
    assert size_of_run(tmp_path) is None
    (tmp_path / "recipe.json").write_text(Recipe(size=48).to_json())
    assert size_of_run(tmp_path) == 48


@pytest.mark.any_backend
def test_zoo_lists_and_searches(capsys):
    assert cli.main(["zoo"]) == 0
    listed = capsys.readouterr().out
    for name, preset in zoo.presets().items():
        (row,) = [line for line in listed.splitlines() if line.startswith(f"{name} ")]
        assert re.search(" yes( |$)" if preset.weights else " no( |$)", row)
    assert zoo.AS_PUBLISHED in listed
    assert cli.main(["zoo", "STL10", "sfrik"]) == 0
    found = capsys.readouterr().out
    assert "sfrik_resnet18_stl10" in found
    assert "imagenet" not in found
    assert cli.main(["zoo", "qqqq"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.any_backend
def test_zoo_takes_one_line_for_each_preset_on_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["zoo"]) == 0
    rows = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 1 + len(zoo.presets()) + 1
    for name, preset in zoo.presets().items():
        if preset.headline is not None:
            (row,) = [row for row in rows if row.startswith(f"{name} ")]
            assert row.rstrip("*").endswith(f"{100 * preset.headline.mean:.1f}%")


@pytest.mark.any_backend
def test_zoo_show_prints_the_card(capsys):
    assert cli.main(["zoo", "show", "sfrik_resnet18_stl10"]) == 0
    card = zoo.markdown(zoo.presets()["sfrik_resnet18_stl10"])
    assert capsys.readouterr().out == card
    for words in (["show"], ["show", "a", "b"], ["show", "sfrik_resnet18_stl"]):
        assert cli.main(["zoo", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture
def pretrained(monkeypatch):
    """What pretrain would have run: recipe, out and options."""
    ran = []

    def note(recipe, out, overwrite, **options):
        ran.append((recipe, out, options))

    monkeypatch.setattr("keras_kssl.cli.training.pretrain", note)
    return ran


@pytest.mark.any_backend
def test_options_of_a_preset_hold_unless_they_are_typed(pretrained):
    name = "sfrik_resnet18_stl10"
    typed = ["--data", "folder:a", "--epochs", "5", "--flip", "0.5"]
    assert cli.main(["pretrain", "--preset", name, *typed]) == 0
    ((recipe, out, options),) = pretrained
    preset = zoo.presets()[name].recipe
    assert recipe == dataclasses.replace(preset, data="folder:a", epochs=5)
    assert out == pathlib.Path("runs") / name
    assert "asked" not in options


@pytest.mark.any_backend
def test_presets_train_as_published_where_nothing_is_typed(pretrained):
    for name in PUBLISHED:
        preset = zoo.presets()[name]
        pretrained.clear()
        code = cli.main(["pretrain", "--preset", name])
        assert code == (0 if preset.recipe.data else 2)
        assert [recipe for recipe, *_ in pretrained] == [preset.recipe] * (code == 0)


@pytest.mark.any_backend
def test_a_run_is_gone_on_with_by_the_preset_that_began_it(pretrained):
    words = ["--preset", "sfrik_resnet18_imagenet20", "--resume", "--out", "runs/a"]
    assert cli.main(["pretrain", *words]) == 0
    ((recipe, _, options),) = pretrained
    assert {"per_class", "base_learning_rate", "invariance_weight"} < {
        *options["asked"]
    }
    assert recipe.per_class == 260


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--preset", "sfrik_resnet18_stl"), "Did you mean sfrik_resnet18_stl10"),
        (("--preset", "sfrik_resnet18_imagenet20"), "class folders"),
        (
            ("--preset", "sfrik_resnet18_stl10", "--recipe-file", "a"),
            "without a preset",
        ),
        (("--preset", "sfrik_resnet18_stl10", "--epochs", "0"), "`epochs`"),
        (("--preset", "sfrik_resnet18_stl10", "--data", "folder:qqq"), "not there"),
    ],
)
def test_presets_that_cannot_be_trained_say_so_in_a_sentence(
    words, expected, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["pretrain", *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert expected in said
    assert not (tmp_path / "runs").is_dir() or not any((tmp_path / "runs").iterdir())


@pytest.mark.slow
def test_the_small_preset_trains_with_all_parts_of_the_method(tmp_path):
    out = tmp_path / "run"
    words = ["pretrain", "--preset", "ssl_hsic_resnet10_digits_test"]
    assert cli.main([*words, "--out", str(out), "--limit", "256"]) == 0
    recipe = Recipe.read(out / "recipe.json")
    assert (recipe.target, recipe.optimizer) == (True, "lars")
    assert recipe.learning_rate == 0.1
    assert zoo.load(out).num_features == 128


@pytest.mark.slow
def test_a_built_package_brings_its_encoders_along(tmp_path, file):
    pytest.importorskip("setuptools")
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for path in (ROOT / "keras_kssl").rglob("*.py"):
        copied = source / path.relative_to(ROOT)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_bytes(path.read_bytes())
    folder = source / "saved_models" / CARD["name"]
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"large")
    (folder / "encoder.keras").write_bytes(file.read_bytes())
    zoo.write_card(zoo.Preset(**CARD, weights=zoo.Weights("encoder.keras")), folder)
    build = [sys.executable, "setup.py", "-q", "build", "--build-lib", str(target)]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    built = target / "keras_kssl" / "saved_models" / CARD["name"]
    assert sorted(path.name for path in built.iterdir()) == [
        "README.md",
        "card.json",
        "encoder.keras",
    ]
    code = (
        "from keras_kssl import zoo, __file__ as f; "
        f"print(f, zoo.load({CARD['name']!r}).num_features)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=target, capture_output=True, text=True
    )
    assert done.stdout.split() == [
        str(target / "keras_kssl" / "__init__.py"),
        "64",
    ], done.stderr
