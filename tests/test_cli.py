"""The command line: whole runs on a tiny set, and wrong input refused in a sentence."""

import csv
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_kssl import cli
from keras_kssl.cli import training

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
TINY = ["--encoder", "resnet10", "--width", "0.125", "--projector", "16", "8"]
TINY += ["--batch-size", "16", "--num-features", "16", "--target", "True"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Image sets good and bad, in files."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
    labels = np.arange(64) % 4
    sets = {
        "good": {"images": images, "labels": labels},
        "unlabelled": {"images": images},
        "empty": {"images": images[:0], "labels": labels[:0]},
        "few": {"images": images[:8], "labels": labels[:8]},
        "grey": {"images": images[..., :1], "labels": labels},
        "small": {"images": images[:, :5], "labels": labels},
        "flat": {"images": images[..., 0], "labels": labels},
        "int64": {"images": images.astype("int64"), "labels": labels},
        "loud": {"images": images.astype("float32"), "labels": labels},
        "short": {"images": images, "labels": labels[:-1]},
        "one_hot": {"images": images, "labels": np.eye(4)[labels]},
        "other_classes": {"images": images, "labels": labels + 1},
    }
    for name, arrays in sets.items():
        np.savez(folder / f"{name}.npz", **arrays)
    (folder / "broken.npz").write_bytes(b"PK\x03\x04 no archive")
    return folder


def pretrain(files, out, *options, data="good"):
    arguments = ["pretrain", "--data", f"npz:{files / data}.npz", "--out", str(out)]
    return cli.main([*arguments, *TINY, *options])


def losses(run):
    with open(run / "metrics.csv", newline="") as file:
        return [row["loss"] for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def run_folder(files, tmp_path_factory):
    """A finished run of two epochs, judged on its own images."""
    run = tmp_path_factory.mktemp("runs") / "a"
    judges = ["--eval-test", f"npz:{files / 'good.npz'}"]
    assert pretrain(files, run, "--epochs", "2", *judges) == 0
    return run


def test_run_folder_holds_what_the_documentation_lists(run_folder):
    names = {path.name for path in run_folder.iterdir()}
    expected = {"recipe.json", "metrics.csv", "summary.json", "log.txt"}
    expected |= {"encoder.keras", "pictures", "checkpoints", ".lock"}
    expected |= {"data.json", "versions.json"}
    if ON_TENSORFLOW:
        expected |= {"saved_model"}
    assert expected <= names <= expected | {"tensorboard"}
    pictures = {path.name for path in (run_folder / "pictures").iterdir()}
    assert pictures == {"curves.png", "embeddings.png", "views.png"}


@pytest.mark.any_backend
def test_recipe_of_a_run_is_resolved(run_folder, files):
    recipe = json.loads((run_folder / "recipe.json").read_text())
    left = {name for name, value in recipe.items() if value is None}
    assert left == {
        "limit",
        "per_class",
        "base_learning_rate",
        "eval_train",
        "jit_compile",
        "steps_per_execution",
        "mean",
        "std",
        "temperature",
        "variance_weight",
        "covariance_weight",
        "redundancy_weight",
    }
    assert recipe["data"] == f"npz:{files / 'good.npz'}"
    assert (recipe["size"], recipe["stem"]) == (16, "cifar")
    assert (recipe["augment"], recipe["learning_rate"]) == ("byol", 2e-3)


def test_summary_holds_accuracies_before_and_after_seed_and_versions(run_folder):
    summary = json.loads((run_folder / "summary.json").read_text())
    assert set(summary["accuracies"]) == {"raw_pixels", "untrained", "trained"}
    for scores in summary["accuracies"].values():
        assert all(0.0 <= value <= 1.0 for value in scores.values())
    assert set(summary["accuracies"]["trained"]) == {"knn_20", "linear"}
    assert summary["seed"] == 0
    assert summary["seconds"] > 0
    assert summary["images_per_second"] > 0
    assert summary["versions"]["backend"] == keras.backend.backend()
    assert (
        f"{summary['last_epoch']['loss']:.5f}" == f"{float(losses(run_folder)[1]):.5f}"
    )


def test_trained_encoder_loads_with_plain_keras(run_folder):
    encoder = keras.saving.load_model(run_folder / "encoder.keras")
    features = encoder.predict_on_batch(np.zeros((2, 16, 16, 3), "float32"))
    assert np.isfinite(features).all()


def test_evaluate_finds_what_the_run_reported(run_folder, files, tmp_path, capsys):
    source = f"npz:{files / 'good.npz'}"
    out = tmp_path / "new" / "evaluation.json"
    arguments = ["evaluate", str(run_folder), "--train", source, "--test", source]
    assert cli.main([*arguments, "--protocols", "knn", "--out", str(out)]) == 0
    assert "knn, top-1, k=10/20" in capsys.readouterr().out
    (result,) = json.loads(out.read_text())["results"]
    summary = json.loads((run_folder / "summary.json").read_text())
    reported = summary["accuracies"]["trained"]["knn_20"]
    assert result["scores"]["knn_20"]["mean"] == reported


def test_report_is_written_on_every_backend(run_folder, tmp_path, capsys):
    out = tmp_path / "page.html"
    assert cli.main(["report", str(run_folder), "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Written: {out}"
    page = out.read_text(encoding="utf-8")
    for figure in ("curve loss", "map", "spectrum", "neighbour 1", "views"):
        assert f'"{figure}"' in page


def test_settings_and_seeds_of_protocols_are_options(run_folder, files, capsys):
    source = f"npz:{files / 'good.npz'}"
    arguments = ["evaluate", str(run_folder), "--train", source, "--test", source]
    options = ["--protocols", "knn, few-shot", "--seeds", "3,4"]
    changes = ["--change", "knn.k=3", "few-shot.shots=1,2", "few-shot.draws=2"]
    assert cli.main([*arguments, *options, *changes]) == 0
    out = capsys.readouterr().out
    assert "k=3 (changed)" in out
    assert "shots=1/2 (changed), draws=2 (changed)" in out
    found = json.loads((run_folder / "evaluation.json").read_text())
    knn, few_shot = found["results"]
    assert list(knn["scores"]) == ["knn_3"]
    assert few_shot["seeds"] == [3, 4]
    assert len(few_shot["scores"]["few_shot_2"]["values"]) == 4
    assert found["train"] == found["test"] == source
    assert found["versions"]["keras"] == keras.__version__
    # Another evaluation loses nothing of the first.
    assert cli.main([*arguments, "--protocols", "knn"]) == 0
    assert json.loads((run_folder / "evaluation.json").read_text()) == found
    (result,) = json.loads((run_folder / "evaluation_2.json").read_text())["results"]
    assert result["protocol"] == "knn"


def test_export_writes_the_formats_asked_for(run_folder, tmp_path, capsys):
    formats = "saved_model,keras" if ON_TENSORFLOW else "keras"
    arguments = ["export", str(run_folder), "--out", str(tmp_path / "a")]
    assert cli.main([*arguments, "--formats", formats]) == 0
    assert (tmp_path / "a" / "encoder.keras").is_file()
    assert (tmp_path / "a" / "saved_model.pb").is_file() == ON_TENSORFLOW
    capsys.readouterr()
    assert cli.main([*arguments, "--formats", formats]) == 2
    assert "overwrite" in one_sentence(capsys)
    assert cli.main([*arguments, "--formats", "keras", "--overwrite"]) == 0


def test_all_formats_are_those_that_can_be_written_here(run_folder, tmp_path, capsys):
    arguments = ["export", str(run_folder), "--out", str(tmp_path / "a")]
    assert cli.main([*arguments, "--formats", "all"]) == 0
    said = capsys.readouterr().out
    written = said.count("Written, loaded again and compared")
    # Of KerasHub's ResNets none is this narrow.
    assert said.count("Not written: ") == 4 - written >= 1
    assert f"{tmp_path / 'a' / 'encoder.keras'}\n" in said
    assert not (tmp_path / "a" / "keras_hub").exists()
    if not ON_TENSORFLOW:
        return
    # The side of the run's views is that of the photos.
    import tensorflow as tf

    module = tf.saved_model.load(tmp_path / "a")
    photo = tf.io.encode_png(tf.zeros((31, 45, 3), tf.uint8))
    features = module.signatures["serving_bytes"](encoded=photo[tf.newaxis])["features"]
    np.testing.assert_allclose(features, module(tf.zeros((1, 16, 16, 3))), atol=1e-5)


@pytest.mark.any_backend
def test_a_format_that_cannot_be_written_is_refused_before_any_work(
    run_folder, tmp_path, capsys
):
    arguments = ["export", str(run_folder), "--out", str(tmp_path / "a")]
    assert cli.main([*arguments, "--formats", "keras,keras_hub"]) == 2
    assert "to_keras_hub" in one_sentence(capsys)
    assert cli.main([*arguments, "--formats", "keras,tflite"]) == 2
    assert "'keras_hub', 'all'" in one_sentence(capsys)
    assert not (tmp_path / "a").exists()


def test_saved_models_are_refused_where_they_cannot_be_written(
    run_folder, tmp_path, capsys
):
    if ON_TENSORFLOW:
        pytest.skip("TensorFlow writes them")
    assert cli.main(["export", str(run_folder), "--out", str(tmp_path / "a")]) == 2
    assert "KERAS_BACKEND=tensorflow" in one_sentence(capsys)


@pytest.mark.slow
def test_a_seed_gives_the_same_losses_again_and_another_seed_others(files, tmp_path):
    options = ("--method", "sfrik", "--epochs", "1", "--invariance-weight", "1")
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        code = pretrain(files, tmp_path / name, *options, "--seed", str(seed))
        assert code == 0
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert losses(tmp_path / "a") != losses(tmp_path / "c")
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert summary["accuracies"] is None
    assert json.loads((tmp_path / "a" / "recipe.json").read_text())["method"] == "sfrik"


def one_sentence(capsys):
    """What went to stderr: one line of the program's own, and no traceback."""
    said = capsys.readouterr().err
    assert said.startswith("kssl: ")
    assert said.count("\n") == 1, said
    return said


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("data", "options", "expected"),
    [
        ("missing", (), "there is no file"),
        ("broken", (), "no readable .npz"),
        ("empty", (), "at least one image"),
        ("flat", (), "4 axes"),
        ("int64", (), "uint8"),
        ("loud", (), "Divide by 255"),
        ("short", (), "one label per image"),
        ("one_hot", (), "must be integers"),
        ("good", ("--batch-size", "1"), "`batch_size` must be at least 2"),
        ("good", ("--batch-size", "65"), "at most the number of images, 64"),
        ("good", ("--limit", "8"), "at most the number of images, 8"),
        ("good", ("--stem", "imagenet"), "'imagenet' stem"),
        ("good", ("--epochs", "0"), "`epochs`"),
        ("good", ("--projector", "1"), "`projector`"),
        ("good", ("--eval-test", "UNLABELLED"), "labels"),
        ("good", ("--eval-train", "GOOD"), "`eval_test` must be given"),
        ("good", ("--eval-train", "UNLABELLED", "--eval-test", "GOOD"), "labels"),
        ("good", ("--eval-train", "FEW", "--eval-test", "GOOD"), "at least 20"),
        ("good", ("--eval-test", "GREY"), "channels"),
        ("good", ("--eval-test", "SMALL"), "shape"),
        ("good", ("--eval-test", "OTHER_CLASSES"), "Not among them: [4]"),
        ("unlabelled", ("--eval-test", "GOOD"), "labels"),
    ],
)
def test_wrong_input_ends_before_training_in_one_sentence(
    files, tmp_path, capsys, data, options, expected
):
    options = [f"npz:{files / o.lower()}.npz" if o.isupper() else o for o in options]
    assert pretrain(files, tmp_path / "run", *options, data=data) == 2
    assert expected in one_sentence(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.any_backend
@pytest.mark.parametrize("source", ["photos", "npy:a.npy", "builtin:digit", "npz:"])
def test_unknown_sources_are_refused(tmp_path, capsys, source):
    arguments = ["pretrain", "--data", source, "--out", str(tmp_path / "run")]
    assert cli.main(arguments) == 2
    assert repr(source.removeprefix("builtin:")) in one_sentence(capsys)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--method", "moco"), "moco"),
        (("--encoder", "resnet19"), "resnet19"),
        (("--epoch", "3"), "--epoch"),
        (("--epochs", "many"), "many"),
        (("--size", "wide"), "wide"),
    ],
)
def test_unknown_flags_and_values_are_named(tmp_path, capsys, options, named):
    with pytest.raises(SystemExit) as caught:
        cli.main(["pretrain", "--out", str(tmp_path / "run"), *options])
    assert caught.value.code == 2
    assert named in capsys.readouterr().err


@pytest.mark.any_backend
@pytest.mark.parametrize("arguments", [[], ["pretrian"], ["evaluate"], ["extract"]])
def test_missing_or_unknown_commands_end_in_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err


@pytest.mark.any_backend
def test_another_run_is_kept_unless_it_is_to_be_replaced(files, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.json").write_text("{}")
    assert pretrain(files, run) == 2
    assert "another run" in one_sentence(capsys)
    # Wrong input does not cost the old run either.
    assert pretrain(files, run, "--overwrite", "--batch-size", "65") == 2
    one_sentence(capsys)
    assert (run / "recipe.json").read_text() == "{}"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Augmentation leaves out")
def test_images_of_five_channels_train_by_their_own_moments(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "cubes"
    folder.mkdir()
    cubes = rng.integers(0, 65536, (20, 18, 21, 5), dtype=np.uint16)
    cubes[..., 1] //= 4
    for i, cube in enumerate(cubes):
        np.save(folder / f"{i}.npy", cube)
    run = tmp_path / "run"
    arguments = ["pretrain", "--data", f"folder:{folder}", "--out", str(run), *TINY]
    assert cli.main([*arguments, "--epochs", "1"]) == 0
    recipe = json.loads((run / "recipe.json").read_text())
    unit = cubes / 65535.0
    np.testing.assert_allclose(recipe["mean"], unit.mean(axis=(0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(recipe["std"], unit.std(axis=(0, 1, 2)), rtol=1e-4)
    encoder = keras.saving.load_model(run / "encoder.keras")
    assert encoder.input_shape[-1] == 5
    assert (run / "pictures" / "views.png").is_file()


@pytest.mark.any_backend
def test_pretraining_wants_images(tmp_path, capsys):
    assert cli.main(["pretrain", "--out", str(tmp_path / "run")]) == 2
    assert "`data` must be given" in one_sentence(capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.any_backend
def test_runs_without_a_name_get_folders_of_their_own(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = []
    monkeypatch.setattr(
        training, "pretrain", lambda recipe, out, *a, **o: asked.append(out)
    )
    arguments = ["pretrain", "--data", f"npz:{files / 'good.npz'}"]
    assert cli.main(arguments) == 0
    asked[0].mkdir(parents=True)
    assert cli.main(arguments) == 0
    assert [str(out) for out in asked] == ["runs/ssl_hsic_good", "runs/ssl_hsic_good_2"]


@pytest.mark.any_backend
def test_other_files_are_never_replaced(files, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "thesis.tex").write_text("words")
    assert pretrain(files, run, "--overwrite") == 2
    assert "other files" in one_sentence(capsys)
    assert (run / "thesis.tex").read_text() == "words"


@pytest.mark.any_backend
def test_recipe_comes_from_flags_or_from_a_file(files, tmp_path, capsys):
    file = tmp_path / "recipe.json"
    out = ["--out", str(tmp_path / "run"), "--recipe-file", str(file)]
    assert cli.main(["pretrain", *out]) == 2
    assert str(file) in one_sentence(capsys)
    file.write_text(json.dumps({"epoch": 3}))
    assert cli.main(["pretrain", *out]) == 2
    assert "Did you mean 'epochs'" in one_sentence(capsys)
    assert cli.main(["pretrain", *out, "--seed", "1"]) == 2
    assert "without a preset and options of the recipe" in one_sentence(capsys)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--protocols", "knn,liner"), "Did you mean 'linear'"),
        (("--train", "UNLABELLED"), "`train` must have labels"),
        (("--test", "UNLABELLED"), "`test` must have labels"),
        (("--test", "MISSING"), "there is no file"),
        (("--train", "FEW"), "`k` must be at most"),
        (("--seeds", "0;1"), "`seeds` must be integers separated by commas"),
        (("--change", "knn=3"), "`change` must be PROTOCOL.SETTING=VALUE"),
        (("--change", "knn.temperature=hot"), "`temperature` must be a number"),
    ],
)
def test_evaluate_refuses_wrong_input(run_folder, files, capsys, options, expected):
    good = f"npz:{files / 'good.npz'}"
    options = [f"npz:{files / o.lower()}.npz" if o.isupper() else o for o in options]
    capsys.readouterr()
    arguments = ["evaluate", str(run_folder), "--train", good, "--test", good]
    assert cli.main([*arguments, *options]) == 2
    assert expected in one_sentence(capsys)


@pytest.mark.any_backend
def test_export_and_evaluate_want_a_finished_run(tmp_path, capsys):
    assert cli.main(["export", str(tmp_path), "--out", str(tmp_path / "a")]) == 2
    assert "must be a finished run" in one_sentence(capsys)


def test_doctor_tells_versions_backend_and_devices(capsys):
    assert cli.main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert f"keras {keras.__version__}" in said
    assert f"Keras backend: {keras.backend.backend()}" in said
    assert "devices: " in said


@pytest.mark.any_backend
def test_help_lists_the_commands():
    done = subprocess.run(
        [sys.executable, "-m", "keras_kssl.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for command in ("quickstart", "pretrain", "evaluate", "export", "doctor"):
        assert command in done.stdout


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("setting", "variable", "begins_anew"),
    [
        ("always [madvise] never", None, True),
        ("always [madvise] never", "glibc.malloc.check=1", False),
        ("[always] madvise never", None, False),
        (None, None, False),
    ],
)
def test_the_command_takes_large_pages_where_it_must_ask_for_them(
    setting, variable, begins_anew, tmp_path, monkeypatch
):
    begun, file = [], tmp_path / "enabled"
    if setting is not None:
        file.write_text(setting)
    monkeypatch.setattr(cli, "_LARGE_PAGES", file)
    monkeypatch.setattr(os, "execv", lambda *command: begun.append(command))
    monkeypatch.setattr(sys, "argv", ["kssl", "--help"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-I", "kssl", "--help"])
    # So that what is set in between is taken back.
    monkeypatch.setenv("GLIBC_TUNABLES", variable or "")
    if variable is None:
        monkeypatch.delenv("GLIBC_TUNABLES")
    with pytest.raises(SystemExit):
        cli.main()
    anew = (sys.executable, [sys.executable, "-I", "kssl", "--help"])
    assert begun == [anew] * begins_anew
    asked = "glibc.malloc.hugetlb=1" if begins_anew else variable
    assert os.environ.get("GLIBC_TUNABLES") == asked
    # A caller with arguments of its own is a program that is not ours.
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert len(begun) == begins_anew
