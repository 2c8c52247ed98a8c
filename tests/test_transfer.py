"""Many sets in one table: where they are, what is missing, what is known already."""

import csv
import json
import shutil

import numpy as np
import pytest

from keras_kssl import cli, data, models
from keras_kssl.evaluation import transfer
from tests.photos import encoded, write_folder

CHANGES = {
    "logreg": {"strengths": (0.01, 1.0)},
    "finetune-100": {
        "steps": 12,
        "batch_size": 12,
        "learning_rates": 0.05,
        "weight_decays": 0.0,
    },
}


def photo(colour, seed):
    noise = np.random.default_rng(seed).uniform(0, 90, (20, 24, 3))
    noise[..., colour] += 120
    return encoded(noise.astype(np.uint8))


def write_set(folder, parts, count=12):
    for number, part in enumerate(parts):
        files = {
            f"{name}/{i}.png": photo(colour, 100 * number + 10 * i + colour)
            for colour, name in enumerate(("red", "green"))
            for i in range(count)
        }
        write_folder(folder / part, files)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    write_set(root / "mine", ("train", "test"))
    write_set(root / "birdsnap", ("train", "validation", "test"))
    (root / "half" / "train").mkdir(parents=True)
    return root


@pytest.fixture(scope="module")
def encoder():
    return models.ResNet(10, width=0.125, stem="cifar", seed=0)


def judged(encoder, out, folder, sets, **options):
    lines = []
    options = {"protocols": ("logreg",), "changes": {"logreg": CHANGES["logreg"]}} | (
        options
    )
    found = transfer.transfer_suite(
        encoder, out, sets, folder, size=16, say=lines.append, **options
    )
    return found, lines


@pytest.mark.any_backend
def test_sets_are_judged_and_what_is_missing_is_named(encoder, folder, tmp_path):
    found, lines = judged(
        encoder,
        tmp_path / "out",
        folder,
        ("mine:mean_per_class", "aircraft", "half", "birdsnap"),
        protocols=tuple(CHANGES),
        changes=CHANGES,
    )
    assert found["mine:mean_per_class"][0]["metric"] == "mean_per_class"
    assert found["birdsnap"][0]["metric"] == "top_1"
    for name in ("mine:mean_per_class", "birdsnap"):
        for result in found[name]:
            (score,) = result["scores"].values()
            assert score["mean"] > 0.9
    for name in ("aircraft", "half"):
        assert f"{folder / name}/train" in found[name]
    assert sum("left out" in line for line in lines) == 2
    table = (tmp_path / "out" / "table.md").read_text()
    assert "| birdsnap | top 1 | 100.0 | 100.0 |" in table
    assert "aircraft was left out: the set is not on this machine" in table
    with open(tmp_path / "out" / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["protocol"] for row in rows] == ["logreg", "finetune-100"] * 2
    assert (
        float(rows[0]["mean"])
        == found["mine:mean_per_class"][0]["scores"]["logreg"]["mean"]
    )


@pytest.mark.any_backend
def test_validation_images_choose_and_are_then_learned_from(
    encoder, folder, tmp_path, monkeypatch
):
    seen = {}
    usual = transfer.evaluate

    def watched(*arguments, **options):
        seen.update({k: len(options[k]) for k in ("train", "validation", "test")})
        return usual(*arguments, **options)

    monkeypatch.setattr(transfer, "evaluate", watched)
    judged(encoder, tmp_path, folder, ("birdsnap",))
    assert seen == {"train": 24, "validation": 24, "test": 24}
    sources = [
        data.open_source(f"folder:{folder}/birdsnap/{p}") for p in ("train", "test")
    ]
    joined = data.join(*sources)
    assert len(joined) == 48
    assert joined.labels.tolist() == [0] * 12 + [1] * 12 + [0] * 12 + [1] * 12
    part = joined.only([47, 0])
    np.testing.assert_array_equal(part.decode(0)[0], sources[1].decode(23)[0])
    np.testing.assert_array_equal(part.decode(1)[0], sources[0].decode(0)[0])
    assert part.labels.tolist() == [1, 0]
    assert part.fingerprint() != joined.fingerprint()


@pytest.mark.any_backend
def test_what_is_known_is_not_judged_again_and_what_changed_is(
    encoder, folder, tmp_path
):
    first, _ = judged(encoder, tmp_path, folder, ("mine", "birdsnap"))
    (tmp_path / "mine.json").unlink()
    again, lines = judged(encoder, tmp_path, folder, ("mine", "birdsnap"))
    assert lines.count("  known already") == 1
    for name in first:
        assert first[name][0]["scores"] == again[name][0]["scores"]
    _, lines = judged(encoder, tmp_path, folder, ("mine",), seeds=(1,))
    assert "  known already" not in lines
    other = models.ResNet(10, width=0.125, stem="cifar", seed=1)
    _, lines = judged(other, tmp_path, folder, ("mine",), seeds=(1,))
    assert "  known already" not in lines
    # Half of a set's protocols is not the whole.
    record = json.loads((tmp_path / "mine.json").read_text())
    record["results"].clear()
    (tmp_path / "mine.json").write_text(json.dumps(record))
    _, lines = judged(other, tmp_path, folder, ("mine",), seeds=(1,))
    assert "  known already" not in lines


@pytest.mark.any_backend
def test_names_of_sets_and_protocols_are_checked_before_anything_is_done(
    encoder, folder, tmp_path
):
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="`sets` must be of food101"):
        judged(encoder, out, None, ("food102",))
    with pytest.raises(ValueError, match="`protocols` must be one of"):
        judged(encoder, out, folder, ("mine",), protocols=("linaer",))
    with pytest.raises(ValueError, match="`sets` must be one of 'top_1'"):
        judged(encoder, out, folder, ("mine:top_5",))
    assert not out.exists()


@pytest.mark.any_backend
def test_the_twelve_sets_are_those_of_tensorflow_datasets():
    # Without TensorFlow the list of sets cannot be had.
    pytest.importorskip("tensorflow")
    datasets = pytest.importorskip("tensorflow_datasets")
    known = datasets.list_builders()
    names = {s.tfds.partition("/")[0] for s in transfer.SETS.values() if s.tfds}
    assert len(transfer.SETS) == 12
    assert names <= set(known)


@pytest.fixture
def several_classes(tmp_path_factory, monkeypatch):
    """A prepared set of the form of voc/2007: images of several classes."""
    pytest.importorskip("tensorflow")
    tfds = pytest.importorskip("tensorflow_datasets")

    class KsslMany(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            kind = tfds.features.ClassLabel(names=["red", "green", "blue"])
            many = tfds.features.Sequence(kind)
            features = {"image": tfds.features.Image(shape=(None, None, 3))}
            features |= {"labels": many, "labels_no_difficult": many}
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, manager):
            del manager
            return {"train": self._examples(0), "test": self._examples(1)}

        def _generate_examples(self):
            return

        def _examples(self, part):
            for i in range(24):
                shown = [c for c in range(3) if (i >> c) & 1]
                image = np.random.default_rng(i + 100 * part).uniform(
                    0, 90, (16, 16, 3)
                )
                image[..., shown] += 120
                sure = [c for c in shown if (i + c) % 5]
                example = {"image": image.astype("uint8"), "labels": shown}
                yield i, {**example, "labels_no_difficult": sure}

    folder = tmp_path_factory.mktemp("many")
    builder = KsslMany(data_dir=folder, file_format="array_record")
    builder.download_and_prepare()
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(folder))
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))


@pytest.mark.any_backend
def test_images_of_several_classes_are_judged_by_mean_average_precision(
    several_classes, encoder, tmp_path, monkeypatch
):
    source = data.open_source("tfds:kssl_many")
    assert source.labels.shape == (24, 3)
    for position in range(24):
        image, _ = source.decode(position)
        shown = image.mean(axis=(0, 1)) > 100
        assert ((source.labels[position] != 0) == shown).all()
    assert (source.labels == -1).any()
    many = transfer.TransferSet("kssl_many", metric="map_11")
    monkeypatch.setitem(transfer.SETS, "voc2007", many)
    found, _ = judged(
        encoder,
        tmp_path,
        None,
        ("voc2007",),
        protocols=tuple(CHANGES),
        changes=CHANGES,
    )
    for result in found["voc2007"]:
        (score,) = result["scores"].values()
        assert score["mean"] > 0.7, result


@pytest.mark.any_backend
def test_transfer_is_a_command(encoder, folder, tmp_path, capsys):
    encoder.save(tmp_path / "encoder.keras")
    arguments = ["transfer", str(tmp_path / "encoder.keras"), "--folder", str(folder)]
    arguments += ["--sets", "mine,cars", "--out", str(tmp_path / "out"), "--size", "16"]
    arguments += ["--protocols", "logreg", "--change", "logreg.strengths=0.01,1"]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert "| mine | top 1 |" in out
    assert "cars was left out" in out
    assert (tmp_path / "out" / "table.md").is_file()
    shutil.rmtree(tmp_path / "out")
    assert cli.main([*arguments[:-4], "--protocols", "logrge"]) == 2
