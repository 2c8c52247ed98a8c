"""The harness that times variants in processes of their own."""

import json
import re

import keras
import pytest

from benchmarks import harness, memory, objective

pytestmark = pytest.mark.any_backend


@pytest.fixture(scope="module")
def result():
    return harness.run("tests.benchmark_suite", ["sleep"], rounds=3)


def test_only_the_cases_that_were_asked_for_are_timed(result):
    assert [case["case"] for case in result["cases"]] == ["sleep"]
    with pytest.raises(SystemExit, match="no case or variant is called missing"):
        harness.run("tests.benchmark_suite", ["missing"])


def test_variants_can_be_chosen():
    result = harness.run(
        "tests.benchmark_suite", ["sleep"], rounds=1, variants=["single"]
    )
    assert list(result["cases"][0]["variants"]) == ["single"]
    with pytest.raises(SystemExit, match="no case or variant is called sleep or twins"):
        harness.run("tests.benchmark_suite", ["sleep"], variants=["twins"])


def test_seconds_are_those_of_one_action(result):
    found = result["cases"][0]["variants"]
    assert 0.02 <= found["single"]["fastest"] < 0.04
    assert 0.04 <= found["double"]["fastest"] < 0.08
    for variant in ("single", "double"):
        times = [found[variant][key] for key in ("fastest", "seconds", "slowest")]
        assert times == sorted(times)


def test_peak_memory_is_that_of_the_variant_alone(result):
    found = result["cases"][0]["variants"]
    more = found["large"]["peak_mb"] - found["single"]["peak_mb"]
    assert 250 < more < 700


def test_variants_that_cannot_run_are_named_and_the_others_go_on(result):
    found = result["cases"][0]["variants"]
    assert found["away"] == {"failure": "the library is not installed"}
    assert found["gone"] == {"failure": "ended with code 3"}
    assert found["killed"] == {"failure": "ended with code -9"}


def test_the_table_gives_ratios_to_the_last_variant(result):
    lines = harness.table(result).splitlines()
    cells = {
        line.split("|")[2].strip(): [cell.strip() for cell in line.split("|")[3:-1]]
        for line in lines[2:]
    }
    assert cells["single"][2] == "1.00"
    assert 1.3 < float(cells["double"][2]) < 3.0
    assert cells["gone"][0] == "ended with code 3"
    assert len({line.count("|") for line in lines}) == 1


def test_a_result_is_kept_with_machine_and_versions(result, tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "HISTORY", tmp_path / "history")
    path = harness.write(result)
    assert json.loads(path.read_text()) == result
    assert result["machine"]["cores"] >= 1
    assert result["machine"]["versions"]["numpy"]
    assert result["rates"]["flops_per_second"] > 1e9


def test_every_variant_of_the_objectives_is_known():
    names = {case.name for case in objective.CASES}
    assert len(names) == len(objective.CASES)
    for case in objective.CASES:
        assert set(case.variants) <= set(objective.VARIANTS)


def test_memory_is_that_of_views_gradients_and_what_lies_between(capsys):
    variant = {"tensorflow": "ours tf", "jax": "ours jax"}[keras.backend.backend()]
    memory.step(variant, 4096, 2048)
    said = capsys.readouterr().out
    (held,) = re.findall(rf"{variant}: (-?[\d.]+) GB, loss \d+\.\d+, \d+ s", said)
    needed = 4 * 4096 * 2048 * 4 / 1e9
    assert needed - 0.05 < float(held) < 5 * needed + 0.3
