"""Sweeps: what is run, what is chosen and on what, what is kept, what tables say."""

import csv
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from keras_kssl import _machine, cli, data, distribution, evaluation, sweeping
from keras_kssl.recipes import Facts, Recipe
from keras_kssl.sweeping import course, process, worker
from keras_kssl.sweeping.judgement import Judgement
from keras_kssl.sweeping.plan import Plan, Row, grid_rows, read_plan

GUIDE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "sweeps.md"
BASE = {"data": "npz:a.npz", "eval_test": "npz:test.npz", "epochs": 2}
RATES = (1e-3, 2e-3, 4e-3)
# What a run of a method reaches on validation images at each rate.
VALIDATION = {"ssl_hsic": (0.3, 0.5, 0.4), "sfrik": (0.6, 0.2, 0.1)}
# Test images would choose otherwise.
TEST = {"ssl_hsic": (0.9, 0.3, 0.1), "sfrik": (0.1, 0.2, 0.9)}


def plan_of(rows=None, **options):
    if rows is None:
        rows = [Row(m, Recipe(**BASE, method=m), RATES) for m in ("ssl_hsic", "sfrik")]
    options = {"protocols": ("knn", "linear"), "baselines": False} | options
    return Plan(tuple(rows), **options)


class Workers:
    """Leaves behind what the processes of a sweep would, and keeps their jobs."""

    def __init__(self, monkeypatch):
        self.jobs, self.fails = [], lambda recipe: None
        monkeypatch.setattr(course, "do", self.do)

    def do(self, job, log, say):
        recipe = Recipe(**job["recipe"])
        folder = pathlib.Path(job["folder"])
        self.jobs.append((job["kind"], folder.name, recipe, job["judgements"]))
        if self.fails(recipe):
            return self.fails(recipe)
        folder.mkdir(parents=True, exist_ok=True)
        summary = folder / "summary.json"
        if job["kind"] == "run" and not summary.exists():
            resolved = recipe.resolved(Facts(6400, 32, False))
            (folder / "recipe.json").write_text(resolved.to_json())
            facts = {"seconds": 60.0 * (recipe.seed + 1), "images_per_second": 512.0}
            facts |= {"peak_memory": 10**9 + recipe.seed, "peak_device_memory": None}
            summary.write_text(json.dumps(facts))
        for values in job["judgements"]:
            judgement = Judgement(**values | {"recipe": Recipe(**values["recipe"])})
            results = [self.result(recipe, judgement, p) for p in judgement.protocols]
            kept = {"asked": judgement.asked(), "results": results}
            (folder / judgement.file).write_text(json.dumps(kept))
        return ""

    def result(self, recipe, judgement, protocol):
        table = VALIDATION if judgement.chooses else TEST
        rate = recipe.learning_rate
        value = table[recipe.method][RATES.index(rate)] if rate else 0.05
        value += 0.01 * recipe.seed**2
        names = ("knn_10", "knn_20", "knn_200") if protocol == "knn" else (protocol,)
        scores = {
            n: {"mean": value + 0.1 * i, "std": 0.0, "values": [value + 0.1 * i]}
            for i, n in enumerate(names)
        }
        return {"protocol": protocol, "scores": scores}

    def names(self):
        return [name for _, name, _, _ in self.jobs]


@pytest.fixture
def workers(monkeypatch):
    return Workers(monkeypatch)


def swept(plan, out):
    lines = []
    return sweeping.sweep(plan, out, say=lines.append), lines


@pytest.mark.any_backend
def test_each_row_takes_the_rate_that_is_best_on_validation_images(workers, tmp_path):
    lines, said = swept(plan_of(seeds=(0, 3)), tmp_path)
    assert [line.rate for line in lines] == ["0.002", "0.001"]
    assert list(lines[0].tried) == list(RATES)
    # kNN of 20 neighbours stands for kNN.
    np.testing.assert_allclose(list(lines[0].tried.values()), [0.4, 0.6, 0.5])
    tries = ["rate_0.001_seed_0", "rate_0.002_seed_0", "rate_0.004_seed_0"]
    assert workers.names()[:3] == tries
    # The first seed was trained with the chosen rate already: it is judged, once.
    assert workers.names()[3:5] == ["rate_0.002_seed_0", "rate_0.002_seed_3"]
    assert [j["file"] for j in workers.jobs[3][3]] == ["evaluation.json"]
    assert "ssl_hsic: learning rate 0.002 is chosen" in said
    assert said[0] == "[1/8] ssl_hsic, seed 0, learning rate 0.001"
    # 7 of 8 are left, a minute each so far.
    assert (
        said[2] == "[2/8] ssl_hsic, seed 0, learning rate 0.002; about 7 min 0 s left"
    )


@pytest.mark.any_backend
def test_no_run_and_no_choice_is_given_test_images(workers, tmp_path):
    swept(plan_of(), tmp_path)
    choices = 0
    for _, _, recipe, judgements in workers.jobs:
        assert recipe.eval_test is recipe.eval_train is recipe.eval_every is None
        for values in judgements:
            judgement = Judgement(**values | {"recipe": Recipe(**values["recipe"])})
            assert ("eval_test" in judgement.asked()["images"]) != judgement.chooses
            choices += judgement.chooses
    assert choices == 6


@pytest.mark.any_backend
def test_a_seed_of_its_own_keeps_the_choice_apart_from_the_table(workers, tmp_path):
    lines, _ = swept(plan_of(tuning_seed=9), tmp_path)
    assert workers.names()[:3] == [f"rate_{rate:g}_seed_9" for rate in RATES]
    assert [run["seed"] for run in lines[0].runs] == [0, 1, 2]
    assert len(workers.jobs) == 2 * (3 + 3)


@pytest.mark.any_backend
def test_tables_say_what_the_folders_of_the_runs_hold(workers, tmp_path):
    lines, _ = swept(plan_of(), tmp_path)
    with open(tmp_path / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    with open(tmp_path / "runs.csv", newline="") as file:
        runs = list(csv.DictReader(file))
    assert [row["row"] for row in rows] == ["ssl_hsic", "sfrik"]
    assert len(runs) == 6
    for row in rows:
        own = [run for run in runs if run["row"] == row["row"]]
        found = []
        for run in own:
            kept = json.loads(
                (pathlib.Path(run["folder"]) / "evaluation.json").read_text()
            )
            knn = kept["results"][0]["scores"]["knn_20"]["mean"]
            assert float(run["knn_20"]) == knn
            found.append(knn)
        assert float(row["knn_20"]) == pytest.approx(np.mean(found), rel=1e-12)
        deviation = np.std(found, ddof=1)
        assert float(row["knn_20_std"]) == pytest.approx(deviation, rel=1e-12)
        # 512 images a second in batches of 256; 1, 2 and 3 minutes.
        assert float(row["seconds_per_step"]) == 0.5
        assert float(row["minutes"]) == 2.0
        assert int(row["peak_memory"]) == 10**9 + 2
        assert (row["tried"], row["seeds"]) == ("3", "0 1 2")
    text = (tmp_path / "table.md").read_text()
    # Seeds 0, 1 and 2 reach 40, 41 and 44 per cent.
    expected = "| ssl_hsic | 0.002 | 3 | 0, 1, 2 | 41.7 ± 2.1 | 31.7 ± 2.1 | 0.500"
    assert expected in text
    assert "| 1000 | 2.0 ± 1.0 |" in text
    assert "| row | learning rate | tried | seeds | kNN (k = 20) | linear |" in text
    assert "- sfrik: 0.001: 70.0, 0.002: 30.0, 0.004: 20.0" in text
    assert (tmp_path / "scores.png").stat().st_size > 1000
    assert len(lines) == 2


@pytest.mark.any_backend
def test_what_is_known_is_kept_and_what_is_new_alone_is_done(workers, tmp_path):
    first, _ = swept(plan_of(seeds=(0, 1)), tmp_path)
    before = len(workers.jobs)
    again, said = swept(plan_of(seeds=(0, 1)), tmp_path)
    assert len(workers.jobs) == before
    assert [dataclasses.asdict(a) for a in again] == [
        dataclasses.asdict(b) for b in first
    ]
    swept(plan_of(seeds=(0, 1, 2)), tmp_path)
    assert workers.names()[before:] == ["rate_0.002_seed_2", "rate_0.001_seed_2"]
    # Another protocol judges all again and trains none; nor is a rate chosen anew.
    before = len(workers.jobs)
    stamps = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("summary.json")}
    lines, _ = swept(plan_of(protocols=("knn", "logreg")), tmp_path)
    assert len(workers.jobs) == before + 6
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("summary.json")} == stamps
    assert list(lines[0].runs[0]["scores"]) == ["knn", "logreg"]
    del said


@pytest.mark.any_backend
def test_a_row_with_another_recipe_is_refused_and_named(workers, tmp_path):
    swept(plan_of(seeds=(0,)), tmp_path)
    before = len(workers.jobs)
    rows = [Row("sfrik", Recipe(**BASE | {"epochs": 3}, method="sfrik"), RATES)]
    with pytest.raises(ValueError, match=r"sfrik with epochs=3 \(its runs have 2\)"):
        swept(plan_of(rows, seeds=(0,)), tmp_path)
    # An option that goes back to its default is another recipe too.
    rows = [Row("sfrik", Recipe(**BASE | {"epochs": None}, method="sfrik"), RATES)]
    with pytest.raises(ValueError, match=r"epochs=None \(its runs have 2\)"):
        swept(plan_of(rows, seeds=(0,)), tmp_path)
    assert len(workers.jobs) == before
    # Other judges change no run.
    base = BASE | {"eval_test": "npz:other.npz", "method": "sfrik"}
    _, said = swept(plan_of([Row("sfrik", Recipe(**base), RATES)]), tmp_path)
    assert f"{tmp_path}/runs/ssl_hsic is of no row" in said[0]


@pytest.mark.any_backend
def test_a_run_that_fails_leaves_the_others_and_is_tried_again(workers, tmp_path):
    workers.fails = lambda recipe: (
        "Training was lost." * (recipe.seed == 1 and recipe.method == "sfrik")
    )
    lines, said = swept(plan_of(), tmp_path)
    assert lines[0].failed == []
    assert lines[1].failed == ["seed 1: Training was lost."]
    assert [run["seed"] for run in lines[1].runs] == [0, 2]
    assert "  failed: Training was lost." in said
    text = (tmp_path / "table.md").read_text()
    assert "sfrik failed: seed 1: Training was lost." in text
    workers.fails = lambda recipe: None
    before = len(workers.jobs)
    lines, _ = swept(plan_of(), tmp_path)
    assert workers.names()[before:] == ["rate_0.001_seed_1"]
    assert lines[1].failed == []


@pytest.mark.any_backend
def test_a_rate_that_fails_is_not_chosen(workers, tmp_path):
    workers.fails = lambda recipe: (
        "lost" * (recipe.learning_rate == 1e-3 or recipe.method == "ssl_hsic")
    )
    lines, _ = swept(plan_of(seeds=(0,)), tmp_path)
    assert lines[0].runs == []
    assert lines[0].failed == [f"learning rate {rate:g}: lost" for rate in RATES]
    assert lines[1].rate == "0.002"
    assert lines[1].failed == ["learning rate 0.001: lost"]
    assert "| ssl_hsic |  |  |  |  |" in (tmp_path / "table.md").read_text()


@pytest.mark.any_backend
def test_rows_without_rates_run_with_their_own(workers, tmp_path):
    rows = grid_rows(BASE, ["method=ssl_hsic,sfrik"])
    lines, _ = swept(plan_of(rows, seeds=(5,)), tmp_path)
    assert workers.names() == ["seed_5", "seed_5"]
    # Where a base learning rate is left out, such short runs take Adam's.
    assert [line.rate for line in lines] == ["0.002", "0.002"]
    rows = grid_rows(BASE, ["method=sfrik"], (0.4,), "base_learning_rate")
    workers.jobs.clear()
    swept(plan_of(rows, seeds=(5,)), tmp_path / "b")
    assert [recipe.base_learning_rate for _, _, recipe, _ in workers.jobs] == [0.4]


@pytest.mark.any_backend
def test_baselines_are_judged_once_for_each_kind_of_encoder(workers, tmp_path):
    rows = grid_rows(BASE, ["method=ssl_hsic,sfrik", "width=0.5,1"])
    protocols = ("knn", "finetune-1")
    plan = plan_of(rows, baselines=True, seeds=(0, 1), protocols=protocols)
    lines, _ = swept(plan, tmp_path)
    assert [line.name for line in lines[:3]] == [
        "raw pixels",
        "untrained encoder (ssl_hsic, width=0.5, sfrik, width=0.5)",
        "untrained encoder (ssl_hsic, width=1, sfrik, width=1)",
    ]
    kinds = [kind for kind, *_ in workers.jobs]
    assert kinds == ["raw_pixels"] + 4 * ["untrained"] + 8 * ["run"]
    # Raw pixels cannot be fine-tuned.
    assert list(lines[0].runs[0]["scores"]) == ["knn"]
    assert lines[1].facts("minutes") == []


@pytest.mark.any_backend
def test_a_file_says_what_the_guide_says(tmp_path):
    (text,) = re.findall(r"^```toml\n(.*?)^```", GUIDE.read_text(), re.M | re.S)
    (tmp_path / "grid.toml").write_text(text)
    plan = read_plan(tmp_path / "grid.toml")
    assert [row.name for row in plan.rows] == ["SSL-HSIC", "SFRIK", "SFRIK, degree 2"]
    assert {row.rates for row in plan.rows} == {RATES}
    assert plan.rows[2].recipe.coefficients == (1, 40, 0)
    assert {row.recipe.epochs for row in plan.rows} == {100}
    assert plan.changes == {"finetune-1": {"epochs": 10}}
    assert (plan.seeds, plan.tuning_seed, plan.choose_by) == ((0, 1, 2), 0, "knn")
    import tomllib

    (tmp_path / "grid.json").write_text(json.dumps(tomllib.loads(text)))
    assert read_plan(tmp_path / "grid.json") == plan
    other = read_plan(tmp_path / "grid.json", {"epochs": 1}, seeds=(4,))
    assert {row.recipe.epochs for row in other.rows} == {1}
    assert (other.seeds, other.tuning_seed) == ((4,), 4)


FILE = {"recipe": BASE, "rows": {"a": {}}}


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"sedes": [1]}, ValueError, "Did you mean 'seeds'"),
        ({"rows": {}}, ValueError, "`rows` must be one or more"),
        ({"rows": 3}, TypeError, "`rows` must be a table"),
        ({"rows": {"a": 3}}, TypeError, "`a` must be a table"),
        ({"rows": {"a": {"epoch": 3}}}, ValueError, "sweep a: .*mean 'epochs'"),
        ({"rows": {"a": {"epochs": 0}}}, ValueError, "sweep a: recipe: `epochs`"),
        ({"rows": {"a": {"seed": 1}}}, ValueError, "`seed` must be left out"),
        ({"rows": {"a/b": {}, "a b": {}}}, ValueError, "`rows` must be different"),
        ({"rows": {"..": {}}}, ValueError, "`row` must be a name"),
        ({"rows": {"a": {"learning_rates": 1}}}, TypeError, "a list of numbers"),
        ({"rows": {"a": {"learning_rates": [0]}}}, ValueError, "above 0"),
        (
            {"rows": {"a": {"learning_rates": [1], "base_learning_rates": [1]}}},
            ValueError,
            "one of learning_rates and base_learning_rates",
        ),
        ({"seeds": [1, 1]}, ValueError, "`seeds` must be different"),
        ({"seeds": [-1]}, ValueError, "`seeds` must be an integer of at least 0"),
        ({"recipe": {"data": "npz:a.npz"}}, ValueError, "sweep a: `eval_test` must"),
        ({"recipe": {"eval_test": "npz:a.npz"}}, ValueError, "sweep a: `data` must"),
    ],
)
def test_wrong_files_are_refused_before_anything_is_run(
    tmp_path, changes, error, words
):
    (tmp_path / "grid.json").write_text(json.dumps(FILE | changes))
    with pytest.raises(error, match=words):
        read_plan(tmp_path / "grid.json")


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"protocols": ("segmentation",)}, "those of whole images"),
        ({"protocols": ("lineal",)}, "Did you mean 'linear'"),
        ({"choose_by": "depth"}, "those of whole images"),
        ({"changes": {"logreg": {"strengths": 1.0}}}, "`changes` must be one of"),
        ({"changes": {"knn": {"kk": 1}}}, "Did you mean 'k'"),
    ],
)
def test_wrong_protocols_are_refused_before_anything_is_run(
    workers, tmp_path, options, words
):
    with pytest.raises(ValueError, match=words):
        swept(plan_of(**options), tmp_path / "out")
    assert workers.jobs == []
    assert not (tmp_path / "out").exists()


@pytest.mark.any_backend
def test_text_that_is_no_file_of_rows_is_named(tmp_path):
    (tmp_path / "grid.toml").write_text("rows = [")
    with pytest.raises(ValueError, match=r"grid.toml' must be TOML or JSON"):
        read_plan(tmp_path / "grid.toml")
    with pytest.raises(ValueError, match="OPTION=VALUE"):
        grid_rows(BASE, ["method"])


@pytest.mark.any_backend
def test_the_command_runs_a_grid_or_a_file_and_says_what_failed(
    workers, tmp_path, capsys
):
    out = tmp_path / "out"
    words = ["sweep", "--data", "npz:a.npz", "--eval-test", "npz:t.npz", "--epochs"]
    words += ["2", "--grid", "method=ssl_hsic,sfrik", "--learning-rates", "1e-3,2e-3"]
    words += ["--seeds", "0,1", "--protocols", "knn", "--no-baselines"]
    workers.fails = lambda recipe: "lost" * (recipe.seed == 1)
    assert cli.main([*words, "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert "| ssl_hsic | 0.002 | 2 | 0 | 40.0 |" in said.out
    assert "Runs have failed, of ssl_hsic, sfrik. The same command" in said.err
    workers.fails = lambda recipe: None
    assert cli.main([*words, "--out", str(out)]) == 0
    file = tmp_path / "grid.json"
    file.write_text(json.dumps({"recipe": BASE, "rows": {"one": {}}, "seeds": [1, 2]}))
    words = ["sweep", str(file), "--out", str(tmp_path / "b"), "--epochs", "7"]
    workers.jobs.clear()
    assert cli.main([*words, "--seeds", "3", "--protocols", "knn"]) == 0
    assert {(r.epochs, r.seed) for _, _, r, _ in workers.jobs} == {(7, 3)}
    assert cli.main([*words, "--grid", "method=sfrik"]) == 2
    assert "`grid` must be left out" in capsys.readouterr().err
    assert cli.main([*words, "--seed", "3"]) == 2
    assert "`seed` must be left out" in capsys.readouterr().err


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Makes processes run a program of the test in place of the worker."""

    def write(text):
        (tmp_path / "stand_in.py").write_text(f"import os, sys, time\n{text}")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.setattr(process, "_MODULE", "stand_in")

    return write


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("print('epoch 1')", ""),
        ("print('kssl: The disk is full.'); sys.exit(1)", "The disk is full."),
        ("sys.exit(3)", "its process ended with code 3; see "),
        ("os.kill(os.getpid(), 9)", "its process was killed (SIGKILL, as where there"),
        ("os.close(0); sys.exit(1)", "its process ended with code 1; see "),
    ],
)
def test_a_process_that_ends_says_why_or_its_end_is_named(
    script, tmp_path, text, reason
):
    script(text)
    said, log = [], tmp_path / "logs" / "a.log"
    found = process.do({"kind": "run"}, log, said.append)
    assert found.startswith(reason)
    assert bool(found) == bool(reason)
    assert said == ["epoch 1"] * ("epoch 1" in text)
    assert ("epoch 1" in log.read_text()) == ("epoch 1" in text)


@pytest.mark.any_backend
def test_a_stop_reaches_the_process_and_waits_for_its_last_step(
    script, tmp_path, monkeypatch
):
    script(
        "import signal\n"
        "def end(*_):\n"
        "    time.sleep(0.3); open('ended', 'w').close(); sys.exit(130)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    monkeypatch.chdir(tmp_path)

    def stop(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process.do({}, tmp_path / "a.log", stop)
    assert (tmp_path / "ended").exists()


@pytest.mark.any_backend
def test_a_worker_ends_when_the_sweep_is_gone(tmp_path):
    text = (
        "import sys, threading, time\n"
        "from keras_kssl.sweeping.worker import _end_with_input\n"
        "threading.Thread(target=_end_with_input, daemon=True).start()\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", text]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as running:
        assert running.stdout.readline() == b"ready\n"
        running.stdin.close()
        assert running.wait(30) == -signal.SIGTERM


@pytest.mark.any_backend
def test_peak_memory_is_that_of_this_process_alone():
    code = (
        "import numpy, keras_kssl._machine as m; a = m.peak_memory();"
        "x = numpy.ones(25_000_000); del x; print(a, m.peak_memory())"
    )
    # As a child of one that holds more.
    held = np.ones(60_000_000)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    before, after = map(int, done.stdout.split())
    assert 190e6 < after - before < 260e6
    assert after < held.nbytes < _machine.peak_memory()


def test_memory_of_devices_is_that_of_the_fullest(monkeypatch):
    assert distribution.peak_device_memory() is None
    if keras.backend.backend() == "jax":
        import jax

        class Device:
            def __init__(self, stats):
                self.memory_stats = lambda: stats

        stats = ({"peak_bytes_in_use": 5}, None, {"peak_bytes_in_use": 7}, {})
        monkeypatch.setattr(jax, "local_devices", lambda: map(Device, stats))
    else:
        import tensorflow as tf

        monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: [kind] * 2)
        peaks = {"GPU:0": {"peak": 7}, "GPU:1": {"peak": 5}}
        monkeypatch.setattr(tf.config.experimental, "get_memory_info", peaks.get)
    assert distribution.peak_device_memory() == 7


@pytest.fixture
def sets(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("train", "test"):
        images = rng.integers(0, 256, (48, 16, 16, 3), dtype=np.uint8)
        labels = np.arange(48) % 3
        images[np.arange(48), ..., labels] //= 4
        np.savez(tmp_path / f"{name}.npz", images=images, labels=labels)
    return tmp_path


def options_of(sets, **more):
    return {
        "data": f"npz:{sets / 'train.npz'}",
        "eval_test": f"npz:{sets / 'test.npz'}",
        "encoder": "resnet10",
        "width": 0.125,
        "projector": (16, 8),
        "batch_size": 16,
        "epochs": 1,
        **more,
    }


@pytest.mark.slow
def test_a_worker_trains_and_judges_and_goes_on_with_what_is_there(sets, monkeypatch):
    monkeypatch.setattr(worker, "_say", lambda line: None)
    asked = Recipe(**options_of(sets))
    # What test images are is no matter for a choice.
    blind = dataclasses.replace(asked, eval_test="npz:missing.npz")
    changes = {"knn": {"k": (3, 5)}}
    judgements = [
        Judgement("evaluation.json", asked, ("knn",), (0,), changes),
        Judgement("choice.json", blind, ("knn",), (0,), changes, chooses=True),
    ]
    folder = sets / "run"
    folder.mkdir()
    (folder / "data.json").write_text("{}")  # of a process killed as it began
    job = {
        "recipe": dataclasses.asdict(Row("a", asked).run(0)),
        "folder": str(folder),
        "checkpoint_seconds": 300.0,
        "distribute": "none",
    }

    def again(kind="run", **changes):
        values = [dataclasses.asdict(judgement) for judgement in judgements]
        worker._do(**{"kind": kind, "judgements": values, **job, **changes})

    again()
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["accuracies"] is None
    assert 10**8 < summary["peak_memory"] < 10**11
    encoder = keras.saving.load_model(folder / "encoder.keras")
    found = evaluation.knn(encoder, asked.data, asked.eval_test, k=5)
    (result,) = judgements[0].results(folder)
    assert result["scores"]["knn_5"]["mean"] == found["knn_5"]
    kept = json.loads((folder / "choice.json").read_text())
    assert kept["test"] == f"a tenth of {asked.data}"
    # A second time there is nothing to do; of what is missing that alone is done.
    stamps = {p: p.stat().st_mtime_ns for p in folder.rglob("*.json")}
    (folder / "choice.json").unlink()
    again()
    now = {p: p.stat().st_mtime_ns for p in folder.rglob("*.json")}
    assert {p for p in now if now[p] != stamps[p]} == {folder / "choice.json"}
    again_kept = json.loads((folder / "choice.json").read_text())
    assert again_kept["results"][0]["scores"] == kept["results"][0]["scores"]
    # Baselines leave no run behind.
    del judgements[1]
    again("raw_pixels", folder=str(sets / "raw"))
    (result,) = judgements[0].results(sets / "raw")
    sources = [data.open_source(s) for s in (asked.data, asked.eval_test)]
    arrays = [(np.float32(s.images.reshape(48, -1)) / 255, s.labels) for s in sources]
    expected = evaluation.knn_accuracy(*arrays[0], *arrays[1], k=3)
    assert result["scores"]["knn_3"]["mean"] == expected["knn_3"]
    again("untrained", folder=str(sets / "untrained"))
    assert {p.name for p in (sets / "untrained").iterdir()} == {"evaluation.json"}


@pytest.mark.slow
def test_a_sweep_that_is_stopped_goes_on_to_the_table_of_one_that_was_not(sets):
    environment = os.environ | {"KERAS_BACKEND": keras.backend.backend()}
    options = options_of(sets, epochs=3)
    words = ["--projector", "16", "8", "--change", "knn.k=5", "--seeds", "0,1"]
    for name, value in options.items():
        if name != "projector":
            words += [f"--{name.replace('_', '-')}", str(value)]
    words += ["--grid", "method=ssl_hsic,sfrik", "--learning-rates", "1e-3,3e-3"]
    words += ["--protocols", "knn,linear", "--checkpoint-seconds", "0"]

    def sweep(out, until=None, stop=None):
        """Exit code of a sweep; of one that is stopped at the first such line."""
        command = [sys.executable, "-m", "keras_kssl.cli", "sweep", "--out", str(out)]
        with subprocess.Popen(
            command + words, env=environment, text=True, stdout=subprocess.PIPE
        ) as running:
            for line in running.stdout:
                if until is not None and until(line):
                    stop(running)
                    break
            return running.wait(1500)

    whole, stopped = sets / "whole", sets / "stopped"
    assert sweep(whole) == 0

    def is_in_sfrik(line):
        return line.startswith("  epoch 1/3") and (stopped / "runs" / "sfrik").exists()

    def begins_sfrik(line):
        return line.startswith("[") and "sfrik" in line

    def kill(running):
        time.sleep(1.0)
        running.kill()

    code = sweep(stopped, is_in_sfrik, subprocess.Popen.terminate)
    assert code == 128 + signal.SIGTERM
    # Killed, it leaves no process behind.
    assert sweep(stopped, begins_sfrik, kill) == -signal.SIGKILL
    assert sweep(stopped) == 0
    tables = []
    for out in (whole, stopped):
        with open(out / "runs.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        names = ("row", "learning_rate", "seed", "knn_5", "linear")
        tables.append([[row[name] for name in names] for row in rows])
    assert tables[0] == tables[1]
    assert len(tables[0]) == 1 + 2 + 4
