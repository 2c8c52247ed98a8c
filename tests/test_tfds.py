"""Sets of TensorFlow Datasets: both layouts read alike, from any position."""

import importlib.util
import shutil
import types

import numpy as np
import pytest

from keras_kssl import augment, cli, data
from keras_kssl.data import open_source
from keras_kssl.data import tfds as tfds_source

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("tensorflow_datasets", "tensorflow"))),
    reason="TensorFlow Datasets or TensorFlow, which writes sets, is not installed",
)
COUNT = 23
LAYOUTS = ("tfrecord", "array_record")


def image_of(index):
    rng = np.random.default_rng(index)
    return rng.integers(0, 256, (12 + index, 20, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A set of images and one of texts, prepared in both layouts; their folder."""
    import tensorflow_datasets as tfds

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.2.0")
        # Where TFDS looks for a description of the set.
        pkg_dir_path = tmp_path_factory.getbasetemp()
        features = None

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(self.features)
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

    class KsslTiles(Builder, skip_registration=True):
        features = {  # noqa: RUF012
            "picture": tfds.features.Image(encoding_format="png"),
            "kind": tfds.features.ClassLabel(names=["flat", "steep"]),
        }

        def _generate_examples(self):
            for i in range(COUNT):
                yield i, {"picture": image_of(i), "kind": i % 2}

    class KsslTexts(Builder, skip_registration=True):
        features = {"text": tfds.features.Text()}  # noqa: RUF012

        def _generate_examples(self):
            yield 0, {"text": "a"}

    folder = tmp_path_factory.mktemp("tfds")
    options = tfds.download.DownloadConfig(num_shards=3)
    for layout in LAYOUTS:
        for kind in (KsslTiles, KsslTexts):
            builder = kind(data_dir=folder / layout, file_format=layout)
            builder.download_and_prepare(
                download_config=options if kind is KsslTiles else None
            )
    return folder


@pytest.fixture(params=LAYOUTS)
def layout(request, sets, monkeypatch):
    choose(monkeypatch, sets, request.param)
    return request.param


def choose(monkeypatch, sets, layout):
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(sets / layout))
    monkeypatch.setenv("TFDS_DATA_DIR", str(sets / layout))


def test_every_image_is_found_once_with_its_label(layout):
    source = open_source("tfds:kssl_tiles")
    assert len(source) == COUNT
    assert source.class_names == ["flat", "steep"]
    # TFDS shuffles by key while it writes: heights tell which is which.
    heights = [source.decode(i)[0].shape[0] - 12 for i in range(COUNT)]
    assert sorted(heights) == list(range(COUNT))
    for position, index in enumerate(heights):
        np.testing.assert_array_equal(source.decode(position)[0], image_of(index))
        assert source.labels[position] == index % 2


def test_both_layouts_give_the_same_batches_from_any_step(sets, monkeypatch):
    batches = {}
    for layout in LAYOUTS:
        choose(monkeypatch, sets, layout)
        options = {"seed": 3, "policy": augment.vicreg(size=8)}
        batches[layout] = [
            data.load("tfds:kssl_tiles:train", 4, **options) for _ in range(2)
        ]
    for step in (0, 7, 3):
        views, labels = batches["tfrecord"][0].at(step)
        for others in (batches["tfrecord"][1], *batches["array_record"]):
            same, same_labels = others.at(step)
            np.testing.assert_array_equal(views, same)
            np.testing.assert_array_equal(labels, same_labels)


@pytest.mark.parametrize("split", ["train[:30%]", "train[5:9]", "train[-3:]"])
def test_parts_of_splits_are_those_of_tfds(layout, split):
    whole, part = (
        open_source("tfds:kssl_tiles"),
        open_source(f"tfds:kssl_tiles:{split}"),
    )
    kept = {"train[:30%]": range(7), "train[5:9]": range(5, 9)}.get(
        split, range(COUNT - 3, COUNT)
    )
    assert len(part) == len(kept)
    for mine, theirs in enumerate(kept):
        np.testing.assert_array_equal(part.decode(mine)[0], whole.decode(theirs)[0])
    assert part.labels.tolist() == whole.labels[list(kept)].tolist()


def test_a_version_and_a_limit_may_be_given(layout):
    source = open_source("tfds:kssl_tiles:1.2.0:train", limit=4)
    assert len(source) == 4
    assert len(source.labels) == 4
    assert len(open_source("tfds:kssl_tiles:1.2.0")) == COUNT


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tfds:kssl_tiels", "kssl_tiels"),
        ("tfds:cifar10", "must have been prepared"),
        ("tfds:kssl_tiles:test", "Known: train"),
        ("tfds:kssl_tiles:train[:x]", "split"),
        ("tfds:kssl_tiles:9.9.9", "tfds:kssl_tiles:9.9.9"),
        ("tfds:kssl_texts", "set of images"),
        ("tfds:", "known kinds"),
    ],
)
def test_wrong_names_end_in_a_sentence(layout, text, words, tmp_path, capsys):
    arguments = ["pretrain", "--data", text, "--out", str(tmp_path / "run")]
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_records_that_are_spoiled_are_named_and_replaced(sets, tmp_path, monkeypatch):
    shutil.copytree(sets / "tfrecord", tmp_path / "tfrecord")
    choose(monkeypatch, tmp_path, "tfrecord")
    source = open_source("tfds:kssl_tiles", max_broken=0.1)
    filename, offsets = source._records._files[0]
    with open(filename, "r+b") as file:
        start, length = offsets[1]
        file.seek(start)
        file.write(bytes(255 for _ in range(length)))
    batches = data.Batches(source, 8, policy=augment.byol(size=8))
    images = [batches.at(step)[0][0] for step in range(2)]
    assert all(image.shape == (8, 8, 8, 3) for image in images)
    assert source.labels[1] == -1
    assert list(source.broken) == ["record 1"]


def test_images_of_floats_are_refused(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    image = tfds.features.Image(shape=(None, None, 1), dtype=np.float32)
    info = types.SimpleNamespace(
        features={"image": image}, supervised_keys=None, full_name="floats/1.0.0"
    )
    builder = types.SimpleNamespace(info=info)
    with pytest.raises(ValueError, match=r"unsigned.*float32"):
        tfds_source._keys(builder)


def test_a_file_that_is_cut_off_is_noticed(sets, tmp_path, monkeypatch):
    import shutil

    shutil.copytree(sets / "tfrecord", tmp_path / "tfrecord")
    choose(monkeypatch, tmp_path, "tfrecord")
    path = next((tmp_path / "tfrecord").glob("kssl_tiles/*/*tfrecord*"))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="cut off"):
        open_source("tfds:kssl_tiles")
