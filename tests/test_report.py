"""Reports: pages that hold what the files of a run say, whole by themselves."""

import base64
import csv
import html
import io
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import keras
import numpy as np
import pytest
from PIL import Image

from keras_kssl import cli, evaluation, export, pretraining, recipes, report
from keras_kssl.report import (
    charts,
    figures,
    images,
    looking,
    neighbours,
    parts,
    reading,
    wording,
)
from keras_kssl.report import spectrum as spectra

SECTIONS = ("accuracies", "facts", "curves", "protocols", "map", "neighbours")
SECTIONS += ("spectrum", "views", "broken", "recipe")
CLASSES = ["<script>alert('class')</script>", "b & c", '"quoted"']
HOSTILE = "<script>alert('file')</script>.jpg & co"
NONE = "\N{EN DASH}"
VOID = {"meta", "img", "br"}
EVALUATION = {
    "format": 1,
    "encoder": "runs/a",
    "train": "npz:<b>train.npz",
    "test": "npz:test.npz",
    "date": "2026-11-21T12:34:00+00:00",
    "versions": {"keras": "3.99.1"},
    "results": [
        {
            "protocol": "knn",
            "title": "weighted nearest neighbours",
            "settings": {"k": [10, 20], "temperature": 0.07},
            "seeds": [],
            "scores": {"knn_20": {"mean": 0.6131, "std": 0.0, "values": [0.6131]}},
            "seconds": 3.2,
        },
        {
            "protocol": "dense",
            "title": "depth <i>of</i> pixels",
            "settings": {"note": "</details><script>"},
            "seeds": [0, 1],
            "scores": {
                "depth_rms": {"mean": 0.71234, "std": 0.01, "values": [0.7, 0.72468]},
                "close": {"mean": 0.25, "std": 0.015, "values": [0.235, 0.265]},
            },
            "chosen": {"learning_rate": [0.1, 0.3]},
            "metric": "mean_per_class",
            "changed": ["epochs"],
            "seconds": 130.0,
        },
    ],
}


class Page(HTMLParser):
    """A page taken apart; fails where tags are not closed in order."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open, self.tags, self.figures = [], [], {}
        self.texts, self.section = {None: []}, None
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.note(tag, attributes)
        if tag in ("td", "th", "small"):
            self.handle_data(" ")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.note(tag, attributes)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        if tag == "section":
            self.section = None

    def handle_data(self, data):
        self.texts[self.section].append(data)

    def note(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag == "section":
            self.section = attributes["id"]
            self.texts[self.section] = []
        if "data-figure" in attributes:
            found = self.figures.setdefault(attributes["data-figure"], [])
            found.append((self.section, tag, attributes))

    def text(self, section):
        """Words of a section, with one space between them."""
        return " ".join("".join(self.texts[section]).split())

    @property
    def whole_text(self):
        return " ".join(" ".join(self.text(section) for section in self.texts).split())


def arrays(seed, count):
    """Images of three classes, each about a colour of its own."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    colours = (
        rng.integers(0, 120, (count, 1, 1, 3)) + 60 * np.eye(3)[labels][:, None, None]
    )
    pixels = colours + rng.integers(0, 75, (count, 16, 16, 3))
    return {"images": pixels.astype("uint8"), "labels": labels, "class_names": CLASSES}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with images whose name is hostile."""
    folder = tmp_path_factory.mktemp("report") / "a<script>&'b"
    folder.mkdir()
    np.savez(folder / "train.npz", **arrays(0, 64))
    np.savez(folder / "test.npz", **arrays(1, 64))
    return folder


@pytest.fixture(scope="module")
def run(folder):
    """A finished run of two epochs, measured, with broken files."""
    # Of the sizes that other tests train with: what JAX has compiled for them serves.
    recipe = recipes.Recipe(
        data=f"npz:{folder / 'train.npz'}",
        eval_test=f"npz:{folder / 'test.npz'}",
        encoder="resnet10",
        width=0.125,
        projector=(16, 8),
        num_features=16,
        target=True,
        epochs=2,
        batch_size=16,
    )
    with pytest.MonkeyPatch.context() as patch:
        # No report reads it, and it takes longer than the training.
        patch.setattr(export, "saved_model", lambda encoder, path, **options: path)
        pretraining.pretrain(recipe, folder / "run", say=lambda line: None)
    (folder / "run" / "evaluation.json").write_text(json.dumps(EVALUATION))
    lines = [f"{i:03d} {HOSTILE}: cut short" for i in range(205)]
    (folder / "run" / "broken_images.txt").write_text("\n".join(lines) + "\n")
    return folder / "run"


@pytest.fixture(scope="module")
def page(run):
    assert report.write(run, say=lambda line: None) == run / "report.html"
    return Page(run / "report.html")


@pytest.fixture
def copy(run, tmp_path):
    """A copy of the run without the files that no report reads."""
    left_out = shutil.ignore_patterns(
        "saved_model", "checkpoints", "tensorboard", "*.html"
    )
    return shutil.copytree(run, tmp_path / "copy", ignore=left_out)


def written(runs, out=None):
    return Page(report.write(runs, out, images=12, say=lambda line: None))


def change_recipe(run, **options):
    recipe = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps(recipe | options))


def columns(run):
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [row[name] for row in rows] for name in rows[0]}


@pytest.mark.any_backend
def test_page_has_every_section_with_its_figures(page, run):
    assert [name for name in page.texts if name is not None] == list(SECTIONS)
    metrics = {n for n, v in columns(run).items() if n != "epoch" and "NA" not in v}
    expected = {f"curve {name}" for name in metrics} | {"map", "spectrum", "views"}
    expected |= {f"query {i}" for i in (1, 2, 3)}
    expected |= {f"neighbour {i}" for i in range(1, 7)}
    assert set(page.figures) == expected
    assert {section for section, *_ in page.figures["curve loss"]} == {"curves"}
    assert {section for section, *_ in page.figures["map"]} == {"map"}
    assert len(page.figures["neighbour 6"]) == 3


@pytest.mark.any_backend
def test_page_needs_nothing_else_and_runs_nothing(page):
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "base")
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "srcset", "data"):
            assert attributes.get(name, "#").startswith(("data:image/", "#"))
    assert "url(" not in page.source
    assert "@import" not in page.source
    (policy,) = [a["content"] for t, a in page.tags if "http-equiv" in a]
    assert "default-src 'none'" in policy
    assert "script" not in policy


@pytest.mark.any_backend
def test_numbers_of_the_page_are_those_of_the_files(page, run):
    summary = json.loads((run / "summary.json").read_text())
    shares = summary["accuracies"]
    text = page.text("accuracies")
    for stage, words in (
        ("raw_pixels", "raw pixels"),
        ("untrained", "before training"),
        ("trained", "after training"),
    ):
        values = [f"{100 * value:.1f} %" for value in shares[stage].values()]
        assert f"{words} {' '.join(values)}" in text
    for name, values in columns(run).items():
        if name != "epoch" and "NA" not in values:
            last = f"{float(values[-1]):.4g}"
            assert f"{name.replace('_', ' ')} {last}" in page.text("curves")
    facts = page.text("facts")
    assert "64 images" in facts
    assert "Seed 0" in facts
    assert "2 of 2, batch 16" in facts
    assert f"Ended {summary['date'][:10]} {summary['date'][11:16]} UTC" in facts


@pytest.mark.any_backend
def test_tables_of_protocols_show_means_over_seeds_and_settings(page):
    text = page.text("protocols")
    assert "npz:<b>train.npz, tested on npz:test.npz, 2026-11-21 12:34 UTC" in text
    assert f"weighted nearest neighbours 3 s kNN (k = 20) 61.3 % {NONE}" in text
    remarks = "mean per class, with other epochs, 2 min 10 s"
    assert f"depth <i>of</i> pixels {remarks} depth rms 0.7123 ± 0.01 2" in text
    assert "close 25.0 ± 1.5 % 2" in text
    assert "temperature 0.07" in text
    assert "keras 3.99.1" in text
    assert "learning_rate, chosen [0.1, 0.3]" in text
    titles = [a["title"] for tag, a in page.tags if tag == "td" and "title" in a]
    assert titles == ["61.3\xa0%", "0.7, 0.7247", "23.5\xa0%, 26.5\xa0%"]


@pytest.mark.any_backend
def test_hostile_names_are_shown_and_do_nothing(page, run):
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.source.count("<script") == 0
    for name in (CLASSES[0], "</details><script>", str(run), HOSTILE):
        assert name in page.whole_text
    titles = [a["title"] for t, a in page.tags if t == "img" and "title" in a]
    assert any(title.startswith(CLASSES[0]) for title in titles)


@pytest.mark.any_backend
def test_broken_files_are_listed_up_to_two_hundred(page):
    text = page.text("broken")
    assert text.startswith("Broken files 205 of the images")
    assert f"199 {HOSTILE}" in text
    assert f"200 {HOSTILE}" not in text
    assert "and 5 more" in text


@pytest.mark.any_backend
def test_recipe_is_shown_in_groups_with_the_command_that_repeats_it(page, run):
    text = page.text("recipe")
    command = re.search(r"kssl (pretrain --recipe-file .* --out) NEW_FOLDER", text)
    assert "recipe.json" in command[1]
    recipe = recipes.Recipe.read(run / "recipe.json")
    groups = parts.options(recipe)
    shown = [name for pairs in groups.values() for name, _ in pairs]
    assert sorted(shown) == sorted(json.loads(recipe.to_json()))
    names = {group: {name for name, _ in pairs} for group, pairs in groups.items()}
    assert names["chosen"] == {"data", "eval_test", "width", "num_features"}
    assert {"batch_size", "projector", "stem", "size"} <= names["resolved"]
    assert {"seed", "flip", "mean", "limit"} <= names["default"]
    assert ("projector", "[16, 8]") in groups["resolved"]
    versions = json.loads((run / "versions.json").read_text())
    assert f"keras {versions['keras']}" in text


@pytest.mark.any_backend
def test_map_shows_every_image_once_in_the_colour_of_its_class(page):
    dots = [a for t, a in page.tags if t == "circle" and "fill" in a]
    frames = [a for t, a in page.tags if t == "rect"]
    pictures = [a for t, a in page.tags if t == "image"]
    assert len(dots) + len(frames) == 64
    assert len(frames) == len(pictures) > 10
    colours = [a["fill"] for a in dots + frames]
    assert sorted(map(colours.count, set(colours))) == [21, 21, 22]
    swatches = [a["style"] for t, a in page.tags if a.get("class") == "swatch"]
    assert {s.removeprefix("background: ") for s in swatches} == set(colours)


@pytest.mark.any_backend
def test_views_are_the_picture_of_the_run(page, run):
    ((_, _, attributes),) = page.figures["views"]
    content = base64.b64decode(attributes["src"].partition(",")[2])
    assert content == (run / "pictures" / "views.png").read_bytes()


@pytest.mark.any_backend
def test_gallery_counts_right_neighbours_and_marks_them_by_sign_and_word(page):
    marks = [a["aria-label"] for t, a in page.tags if a.get("class") == "sign"]
    assert len(marks) == 18
    text = page.text("neighbours")
    assert f"{marks.count('right')} of 18 are of the class" in text
    assert text.count("✓") == marks.count("right") + 1
    assert text.count("✗") == marks.count("wrong")


@pytest.mark.any_backend
def test_untrained_encoder_is_the_one_that_the_run_began_with(run, page):
    record = reading.read(run)
    encoder = looking.untrained_encoder(record, 3)
    found = evaluation.knn(encoder, record.recipe.data, record.recipe.eval_test, k=20)
    assert found["knn_20"] == record.summary["accuracies"]["untrained"]["knn_20"]
    sample = looking.open_sample(record, 64)
    for words, one in (("after", looking.load_encoder(record)), ("before", encoder)):
        rank = spectra.spectrum_of(looking.features_of(one, sample)).effective_rank
        assert f"{words} training {rank:.1f} of 64" in page.text("spectrum")


@pytest.mark.any_backend
def test_untrained_encoder_computes_as_the_trained_one_does(copy):
    change_recipe(copy, precision="mixed_bfloat16")
    encoder = looking.untrained_encoder(reading.read(copy), 3)
    assert "mixed_bfloat16" in {layer.dtype_policy.name for layer in encoder.layers}
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.any_backend
def test_images_come_at_equal_distances_from_the_test_source(run, folder):
    record = reading.read(run)
    with np.load(folder / "test.npz") as test:
        pixels, labels = test["images"], test["labels"]
    sample = looking.open_sample(record, 12)
    places = np.linspace(0, 63, 12).round().astype(int)
    np.testing.assert_array_equal(sample.images, pixels[places] / np.float32(255))
    np.testing.assert_array_equal(sample.labels, labels[places])
    assert (len(sample), sample.total) == (12, 64)
    assert sample.class_of(0) == CLASSES[0]


@pytest.mark.any_backend
def test_unlabelled_images_of_training_do_without_a_test_source(copy, tmp_path):
    np.savez(tmp_path / "plain.npz", images=arrays(2, 14)["images"])
    change_recipe(copy, data=f"npz:{tmp_path / 'plain.npz'}", eval_test=None)
    summary = json.loads((copy / "summary.json").read_text())
    (copy / "summary.json").write_text(json.dumps(summary | {"accuracies": None}))
    found = written(copy)
    assert "no labelled test images" in found.text("accuracies")
    assert f"kssl evaluate {copy} --train SOURCE" in found.text("accuracies")
    assert "12 of the 14 images" in found.text("map")
    assert "no labels" in found.text("map")
    assert "✓" not in found.text("neighbours")
    assert len(found.figures["query 8"]) == 1


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("gone", "section", "words"),
    [
        ("encoder.keras", "map", "encoder.keras is not there"),
        ("encoder.keras", "neighbours", "encoder.keras is not there"),
        ("encoder.keras", "spectrum", "kssl pretrain --resume --out"),
        ("summary.json", None, "has not ended: 2 of 2 epochs are done."),
        ("summary.json", "accuracies", "measured when the run ends"),
        ("metrics.csv", "curves", "No epoch has ended yet"),
        ("evaluation.json", "protocols", "kssl evaluate"),
        ("versions.json", "recipe", "versions.json is not there"),
        ("broken_images.txt", "broken", "None: no image was found"),
    ],
)
def test_what_a_run_lacks_is_named(copy, gone, section, words):
    (copy / gone).unlink()
    (copy / "encoder.keras").unlink(missing_ok=True)
    assert words in written(copy).text(section)


@pytest.mark.any_backend
def test_a_run_that_was_just_begun_has_a_report(copy, tmp_path):
    (tmp_path / "begun").mkdir()
    shutil.copy(copy / "recipe.json", tmp_path / "begun")
    (tmp_path / "begun" / "log.txt").write_text("one line\nkssl: Stopped. <b>\n\n")
    found = written(tmp_path / "begun")
    assert "0 of 2 epochs are done. Its log ends: “kssl: Stopped. <b>”" in found.text(
        None
    )
    assert set(found.figures) == {"views"}


@pytest.mark.any_backend
def test_images_that_are_gone_are_named_and_views_cannot_be_drawn_anew(copy):
    gone = "npz:/nowhere/images.npz"
    change_recipe(copy, data=gone, eval_test=None)
    (copy / "pictures" / "views.png").unlink()
    found = written(copy)
    for section in ("map", "neighbours", "spectrum"):
        assert f"{gone}, cannot be opened" in found.text(section)
    assert "cannot be drawn anew" in found.text("views")


@pytest.mark.any_backend
def test_views_are_drawn_anew_where_the_picture_is_gone(copy):
    (copy / "pictures" / "views.png").unlink()
    (copy / "encoder.keras").unlink()
    ((_, _, attributes),) = written(copy).figures["views"]
    content = base64.b64decode(attributes["src"].partition(",")[2])
    with Image.open(io.BytesIO(content)) as picture:
        assert len(np.unique(np.asarray(picture))) > 50


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("old.json", '{"accuracies": {"knn_20": 0.5}}', "old.json is no evaluation"),
        (
            "new.json",
            json.dumps(EVALUATION | {"format": 2}),
            "new.json is no evaluation",
        ),
        ("part.json", '{"format": 1, "results": [{}]}', "part.json is no evaluation"),
        ("half.json", '{"format": 1, ', "half.json is no JSON"),
        ("summary.json", "[]", "summary.json holds no JSON object"),
        ("data.json", "nonsense", "data.json is no JSON"),
        ("encoder.keras", "nonsense", "encoder.keras cannot be loaded"),
    ],
)
def test_files_that_cannot_be_read_are_named(copy, name, content, words):
    (copy / "encoder.keras").unlink()
    (copy / name).write_text(content)
    assert words in written(copy).whole_text


@pytest.mark.any_backend
def test_other_json_files_and_names_that_are_no_text_do_no_harm(copy):
    (copy / "encoder.keras").unlink()
    (copy / "list.json").write_text("[1]")
    (copy / "other.json").write_text('{"health": "good"}')
    change_recipe(copy, data="folder:/nowhere/\udcff")
    found = written(copy)
    assert "no evaluation" not in found.whole_text
    assert "folder:/nowhere/\\udcff" in found.text("facts")


@pytest.mark.any_backend
def test_metrics_leave_out_half_rows_and_columns_without_numbers(copy):
    (copy / "metrics.csv").write_text(
        "epoch,alignment,loss,val_loss\n0,1.5,nan,NA\n1,NA,2.0,NA\n2,1.25,1.0,NA\n3,1."
    )
    record = reading.read(copy)
    assert record.epochs == [1, 2, 3]
    assert list(record.metrics) == ["loss", "alignment"]
    np.testing.assert_array_equal(record.metrics["loss"], [math.nan, 2.0, 1.0])
    np.testing.assert_array_equal(record.metrics["alignment"], [1.5, math.nan, 1.25])


@pytest.mark.any_backend
def test_a_folder_without_a_run_is_refused_in_a_sentence(tmp_path, capsys):
    assert cli.main(["report", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("kssl: report: `runs` must be run folders")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.any_backend
def test_a_recipe_that_is_no_runs_is_refused(tmp_path, capsys):
    (tmp_path / "recipe.json").write_text(recipes.Recipe(data="folder:a").to_json())
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "leaves open: encoder, augment" in capsys.readouterr().err


@pytest.mark.any_backend
def test_command_writes_where_it_is_told_and_prints_the_path_last(
    copy, tmp_path, monkeypatch, capsys
):
    (copy / "encoder.keras").unlink()
    out = tmp_path / "new" / "page.html"
    assert cli.main(["report", str(copy), "--out", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"Written: {out}"
    assert Page(out).text("facts")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", str(copy), str(copy)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Written: report.html"
    assert "2 runs" in (tmp_path / "report.html").read_text()


@pytest.mark.any_backend
def test_wrong_arguments_are_refused(copy):
    for arguments, words in (
        (([copy] * 9,), "up to 8"),
        (([],), "one run folder"),
        ((copy, copy), "`out` must be a file"),
        ((copy, None, 9), "at least 10"),
    ):
        with pytest.raises(ValueError, match=words):
            report.write(*arguments)


@pytest.fixture(scope="module")
def comparison(run, tmp_path_factory):
    """The run beside another one of other options, which has no encoder."""
    folder = tmp_path_factory.mktemp("comparison")
    left_out = shutil.ignore_patterns("saved_model", "checkpoints", "encoder.keras")
    other = shutil.copytree(run, folder / "other", ignore=left_out)
    change_recipe(other, seed=7, flip=0.25)
    summary = json.loads((run / "summary.json").read_text())
    summary["accuracies"]["trained"] = {"knn_20": 0.4321}
    (other / "summary.json").write_text(json.dumps(summary))
    measured = json.loads(json.dumps(EVALUATION))
    measured["results"][0]["scores"]["knn_20"]["mean"] = 0.1234
    measured["results"][1]["settings"] = {"note": "another"}
    (other / "evaluation.json").write_text(json.dumps(measured))
    return written([run, other], folder / "both.html")


@pytest.mark.any_backend
def test_comparison_shows_options_that_differ_and_no_others(comparison):
    assert (
        comparison.text("options")
        == "Options that differ Option A B flip 0.5 0.25 seed 0 7"
    )


@pytest.mark.any_backend
def test_comparison_of_equal_recipes_says_so(copy, tmp_path):
    (copy / "encoder.keras").unlink()
    found = written([copy, copy], tmp_path / "both.html")
    assert found.text("options").endswith("None: all runs have the same recipe.")


@pytest.mark.any_backend
def test_comparison_puts_accuracies_side_by_side(comparison, run):
    trained = json.loads((run / "summary.json").read_text())["accuracies"]["trained"]
    own = [f"{100 * trained[name]:.1f} %" for name in ("knn_20", "linear")]
    text = comparison.text("accuracies")
    assert f"after training kNN (k = 20) {own[0]} 43.2 %" in text
    assert f"after training linear {own[1]} {NONE}" in text


@pytest.mark.any_backend
def test_comparison_lines_up_only_what_was_measured_alike(comparison):
    text = comparison.text("protocols")
    assert "kNN (k = 20) 61.3 % 12.3 %" in text
    assert f"depth rms 0.7123 ± 0.01 {NONE} close" in text
    assert f"depth rms {NONE} 0.7123 ± 0.01 close" in text


@pytest.mark.any_backend
def test_comparison_overlays_curves_in_lines_of_their_own_style(comparison, run):
    ((section, _, _),) = comparison.figures["curve loss"]
    assert section == "curves"
    last = f"{float(columns(run)['loss'][-1]):.4g}"
    assert f"A {last} B {last}" in comparison.text("curves")
    paths = [(a["class"], a["d"]) for t, a in comparison.tags if t == "path"]
    key = "M0 4L36 4"
    for kind in (key, None):
        styles = {style for style, path in paths if (path == key) == (kind == key)}
        assert styles == {"curve s0", "curve s1"}
    dashes = re.findall(r"\.s\d \{[^}]*stroke-dasharray: ([^;]*);", comparison.source)
    assert len(set(dashes)) == len(dashes) == charts.NUM_STYLES - 1


@pytest.mark.any_backend
def test_comparison_names_the_run_without_an_encoder(comparison):
    text = comparison.text("spectrum")
    assert "B encoder.keras is not there" in text
    assert re.search(r"A \d+\.\d of 64", text)


@pytest.mark.any_backend
def test_nearest_neighbours_are_those_of_a_loop_over_all_pairs():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(23, 5)).astype("float32") + 0.5
    for found in neighbours.find_neighbours(features, [4, 22], 6):
        cosines = {}
        for i, row in enumerate(features.astype("float64")):
            query = features[found.query].astype("float64")
            if i != found.query:
                cosines[i] = row @ query / math.sqrt((row @ row) * (query @ query))
        expected = sorted(cosines, key=cosines.get, reverse=True)[:6]
        assert found.positions.tolist() == expected
        np.testing.assert_allclose(
            found.similarities, [cosines[i] for i in expected], rtol=1e-12
        )


@pytest.mark.any_backend
def test_neighbours_of_few_images_are_all_the_others():
    (found,) = neighbours.find_neighbours(np.eye(3), [1], 6)
    assert sorted(found.positions) == [0, 2]


@pytest.mark.any_backend
def test_queries_are_of_different_known_classes():
    labels = np.array([-1, 5, 5, 2, -1, 9, 2, 9, 0, 7])
    queries = neighbours.choose_queries(10, labels, 3)
    assert labels[queries].tolist() == [0, 5, 9]
    assert neighbours.choose_queries(10, labels, 8) == [8, 3, 1, 9, 5]
    assert neighbours.choose_queries(10, None, 4) == [0, 3, 6, 9]
    assert neighbours.choose_queries(3, np.array([-1, 1, 1]), 2) == [0, 2]


@pytest.mark.any_backend
@pytest.mark.parametrize("shape", [(40, 7), (7, 40)])
def test_spectrum_sums_to_the_trace_of_the_covariance(shape):
    x = np.random.default_rng(0).normal(size=shape) * np.arange(1, shape[1] + 1) + 3.0
    found = spectra.spectrum_of(x)
    covariance = np.cov(x, rowvar=False)
    assert found.eigenvalues.sum() == pytest.approx(np.trace(covariance), rel=1e-12)
    expected = np.sort(np.linalg.eigvalsh(covariance))[::-1][: min(shape)]
    np.testing.assert_allclose(found.eigenvalues, expected, rtol=1e-9, atol=1e-9)
    assert found.width == shape[1]


@pytest.mark.any_backend
def test_effective_rank_counts_the_directions_in_use():
    corners = np.concatenate([np.eye(6), -np.eye(6)])
    padded = np.pad(corners, [(0, 0), (0, 4)]) + 5.0
    found = spectra.spectrum_of(padded)
    assert found.effective_rank == pytest.approx(6.0, rel=1e-5)
    assert len(found.shares) == 6
    assert found.directions_for(0.5) == 3
    assert found.directions_for(0.9) == 6
    scales = np.array([4.0, 2.0, 1.0])
    share = scales / scales.sum()
    found = spectra.spectrum_of(np.concatenate([np.diag(scales), -np.diag(scales)]))
    entropy = -np.sum(share * np.log(share))
    assert found.effective_rank == pytest.approx(math.exp(entropy), rel=1e-5)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("encoder", "words"),
    [
        (lambda x: np.ones((len(x), 8), "float32"), "has collapsed"),
        (lambda x: np.full((len(x), 8), np.nan, "float32"), "not finite"),
    ],
)
def test_features_that_say_nothing_are_named(run, encoder, words):
    sample = looking.open_sample(reading.read(run), 12)
    with pytest.raises(reading.Missing, match=words):
        looking.features_of(encoder, sample)


def sample_of(labels):
    count = len(labels)
    return looking.Sample(
        source="arrays",
        total=count,
        images=np.zeros((count, 4, 4, 1), "float32"),
        names=[str(i) for i in range(count)],
        labels=np.asarray(labels),
        class_names=None,
    )


@pytest.mark.any_backend
def test_gallery_judges_known_classes_alone():
    labels = [0] * 7 + [1] * 7
    found = figures.gallery(sample_of(labels), np.eye(2)[labels])
    assert (found["right"], found["judged"]) == (12, 12)
    found = figures.gallery(sample_of([0, 1, -1, 0]), np.eye(4))
    assert (found["right"], found["judged"]) == (1, 4)


@pytest.mark.any_backend
@pytest.mark.parametrize("classes", [10, 20, 21])
def test_classes_have_colours_of_their_own_and_few_of_them_a_legend(classes):
    labels = [*range(classes), *range(classes), -1]
    features = np.random.default_rng(0).normal(size=(len(labels), 3))
    found = figures.feature_map(sample_of(labels), features)
    points = found["dots"] + found["thumbnails"]
    colours = {
        int(point["name"].rpartition(" ")[2]): point["colour"] for point in points
    }
    assert len(set(colours.values())) == classes + 1
    assert all(colours[i] == colours[i + classes] for i in range(classes))
    names = [str(i) for i in range(classes)] if classes <= 20 else []
    assert list(found["legend"]) == names


@pytest.mark.any_backend
def test_thumbnails_do_not_overlap_and_fill_the_map():
    points = np.random.default_rng(0).normal(size=(400, 2)) * [3.0, 1.0]
    layout = images.lay_out(points)
    side = layout.side
    placed = layout.places[layout.shown]
    for i, (x, y) in enumerate(placed):
        assert side / 2 <= x <= layout.width - side / 2
        assert side / 2 <= y <= layout.height - side / 2
        for u, v in placed[:i]:
            assert max(abs(x - u), abs(y - v)) >= side
    assert len(placed) == 150 or all(
        np.abs(placed - place).max(axis=1).min() < side + 4 for place in layout.places
    )
    # One scale for both directions: the map does not stretch what t-SNE has found.
    scale = np.ptp(layout.places, axis=0) / np.ptp(points, axis=0)
    assert scale[0] == pytest.approx(scale[1], rel=1e-3)


@pytest.mark.any_backend
def test_thumbnails_stop_at_the_number_that_is_wanted():
    places = np.arange(40.0).reshape(20, 2) * 10
    assert len(images.without_overlap(places, 5, 7, seed=0)) == 7
    assert len(images.without_overlap(places, 1000, 7, seed=0)) == 1


@pytest.mark.any_backend
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_pictures_in_the_page_show_the_image(channels):
    ramp = np.linspace(0.2, 0.8, 30, dtype="float32")
    image = np.broadcast_to(ramp[:, None, None], (30, 60, channels))
    uri = images.picture(image, 40)
    kind, _, content = uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        assert picture.size == (40, 20)
        found = np.asarray(picture.convert("RGB")) / 255
    # Means of three pixels of the ramp in two of the picture.
    expected = np.linspace(0.205, 0.795, 20)
    np.testing.assert_allclose(found.mean(axis=(1, 2)), expected, atol=0.02)


def places(path):
    return [
        tuple(map(float, pair.split())) for pair in re.findall(r"[ML]([^ML]+)", path)
    ]


@pytest.mark.any_backend
def test_points_of_a_chart_stand_at_the_ticks_of_their_values():
    line = charts.Line("a", [1, 2, 3, 4, 5], [0.0, 2.0, 4.0, 3.0, 1.0])
    chart = charts.chart("title", [line], "epoch")
    x_ticks = {text: place for place, text in chart.x_ticks}
    y_ticks = {text: place for place, text in chart.y_ticks}
    ((_, path),) = chart.paths
    for (x, y), epoch, value in zip(places(path), line.x, line.y, strict=True):
        assert x == x_ticks[str(epoch)]
        assert y == y_ticks[str(int(value))]
    assert y_ticks["4"] < y_ticks["0"]
    assert {mark.text for mark in chart.marks} >= {"a, epoch 3: 4"}


@pytest.mark.any_backend
def test_logarithmic_charts_give_each_decade_the_same_space():
    line = charts.Line("a", [1, 10, 100, 1000], [1.0, 1e-2, 0.0, 1e-4])
    chart = charts.chart("title", [line], "direction", log=True)
    ((_, path),) = chart.paths
    (x_1, y_1), (x_2, y_2), (x_3, y_3) = places(path)
    assert x_3 - x_1 == pytest.approx(3 * (x_2 - x_1), abs=0.2)
    assert y_3 - y_1 == pytest.approx(2 * (y_2 - y_1), abs=0.2)
    assert len(chart.marks) == 3
    assert [text for _, text in chart.x_ticks][::-1] == ["1", "10", "100", "1000"]
    assert "10⁻⁴" in [text for _, text in chart.y_ticks]


@pytest.mark.any_backend
def test_lines_of_a_chart_go_on_over_epochs_without_a_number():
    values = [1.0, 2.0, math.nan, 3.0, math.inf, 2.0]
    chart = charts.chart("title", [charts.Line("a", list(range(6)), values)], "epoch")
    ((_, path),) = chart.paths
    assert re.sub(r"[^ML]", "", path) == "MLLL"
    ticks = {text: place for place, text in chart.x_ticks}
    assert [x for x, _ in places(path)] == [ticks[x] for x in "0135"]
    assert len(chart.marks) == 4
    assert wording.last_number([1.0, 2.5, math.nan]) == "2.5"


@pytest.mark.any_backend
@pytest.mark.parametrize("values", [[3.0], [0.0, 0.0, 0.0], [-2e6, -2e6], [1e-9, 2e-9]])
def test_charts_of_little_change_have_ticks(values):
    line = charts.Line("a", list(range(1, len(values) + 1)), values)
    chart = charts.chart("title", [line], "epoch")
    assert 2 <= len(chart.y_ticks) <= 8
    assert len({text for _, text in chart.y_ticks}) == len(chart.y_ticks)
    for mark in chart.marks:
        assert chart.left <= mark.x <= chart.width - chart.right
        assert chart.top <= mark.y <= chart.height - chart.bottom


@pytest.mark.any_backend
def test_long_curves_keep_their_last_point_under_the_mouse():
    line = charts.Line("a", list(range(1, 1001)), np.linspace(5, 1, 1000).tolist())
    chart = charts.chart("title", [line], "epoch")
    assert len(chart.marks) <= 60
    assert chart.marks[0].text == "a, epoch 1000: 1"
    assert not chart.has_dots


@pytest.mark.any_backend
def test_numbers_and_names_read_well():
    assert wording.score_name("knn_20") == "kNN (k = 20)"
    assert wording.score_name("top_1") == "top 1"
    assert wording.score_text("linear", 0.6131, 0.0042) == "61.3 ±\xa00.4\xa0%"
    assert wording.score_text("depth_rel", 0.123456) == "0.1235"
    assert wording.duration(59.6) == "1 min 0 s"
    assert wording.duration(7265) == "2 h 1 min"
    assert wording.date_text("yesterday") == "yesterday"
    assert wording.value_text((0.5, None)) == "[0.5, null]"
    assert wording.meaning("val_knn_20").startswith("Accuracy of the vote")
    assert wording.meaning("effective_rank").startswith("Directions")
    assert wording.meaning("knnx") == ""
    assert wording.method_name("ssl_hsic") == "SSL-HSIC"


BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
in_a_browser = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic")
OPTIONS += ("--no-first-run", "--disable-background-networking", "--disable-sync")
OPTIONS += ("--disable-component-update", "--hide-scrollbars")
# Looks into the page from outside: the page itself runs no script.
LOOK = """
addEventListener("load", async () => {
  const page = document.querySelector("iframe").contentDocument;
  const found = [];
  for (const figure of page.querySelectorAll("[data-figure]")) {
    const box = figure.getBoundingClientRect();
    found.push({name: figure.dataset.figure, natural: figure.naturalWidth ?? null,
                left: box.left, width: box.width, height: box.height});
  }
  const thumbnails = [];
  for (const image of page.querySelectorAll("image")) {
    const loaded = new Image();
    await new Promise((done) => {
      loaded.onload = loaded.onerror = done;
      loaded.src = image.href.baseVal;
    });
    thumbnails.push(loaded.naturalWidth);
  }
  const root = page.documentElement;
  document.querySelector("pre").textContent = JSON.stringify(
    {found, thumbnails, wide: root.scrollWidth, seen: root.clientWidth});
});
"""


def browse(tmp_path, *options):
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    return subprocess.run(
        [BROWSER, *OPTIONS, profile, *options],
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    ).stdout


@pytest.mark.any_backend
@in_a_browser
@pytest.mark.parametrize("width", [400, 1200])
def test_a_browser_draws_every_figure_inside_the_window(page, tmp_path, width):
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe style="border: 0; width: {width}px; height: 900px" '
        f'srcdoc="{html.escape(page.source)}"></iframe><pre></pre>'
        f"<script>{LOOK}</script>",
        encoding="utf-8",
    )
    wait = "--virtual-time-budget=20000"
    text = browse(tmp_path, wait, "--dump-dom", frame.as_uri())
    look = json.loads(html.unescape(re.search(r"<pre>(.*?)</pre>", text, re.DOTALL)[1]))
    assert look["seen"] == width
    assert look["wide"] <= width
    expected = sorted(n for n, all_ in page.figures.items() for _ in all_)
    assert sorted(figure["name"] for figure in look["found"]) == expected
    for figure in look["found"]:
        assert min(figure["width"], figure["height"]) > 30
        assert figure["left"] >= 0
        assert figure["left"] + figure["width"] <= width
        assert figure["natural"] is None or figure["natural"] > 0
    assert len(look["thumbnails"]) > 10
    assert min(look["thumbnails"]) > 0


@pytest.mark.any_backend
@in_a_browser
def test_a_browser_shows_ink_on_the_page(page, run, tmp_path):
    picture = tmp_path / "page.png"
    size = "--window-size=1000,1400"
    path = shutil.copy(run / "report.html", tmp_path / "page.html")
    browse(tmp_path, size, f"--screenshot={picture}", path.as_uri())
    with Image.open(picture) as shot:
        pixels = np.asarray(shot.convert("L"))
    background = np.bincount(pixels.ravel()).argmax()
    ink = np.abs(pixels.astype(int) - background) > 60
    assert 0.005 < ink.mean() < 0.5
    # On every quarter of the page's height.
    assert all(quarter.any() for quarter in np.array_split(ink, 4))
