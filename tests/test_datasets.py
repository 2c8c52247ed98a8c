"""Public sets: every command of docs/datasets.md, on made sets of the same form."""

import dataclasses
import importlib.util
import pathlib
import re
import shlex
import subprocess
import types

import keras
import numpy as np
import pytest

from keras_kssl import cli, evaluation, sweeping
from keras_kssl.cli import judging, training
from keras_kssl.data import labels_like, open_source
from keras_kssl.evaluation.protocols import settings_of
from keras_kssl.evaluation.task import Task
from keras_kssl.pretraining.preparing import prepare
from tests.photos import encoded, picture

pytestmark = pytest.mark.any_backend

GUIDE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "datasets.md"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
WNIDS = ("n01440764", "n02102040")
PER_CLASS = 525  # more than the 521 that IN20% and its validation part take
HAS_TFDS = all(map(importlib.util.find_spec, ("tensorflow_datasets", "tensorflow")))


def blocks(language):
    return [body for kind, body in FENCE.findall(GUIDE.read_text()) if kind == language]


def commands(name):
    lines = [line for body in blocks("sh") for line in body.splitlines()]
    return [line for line in lines if line.startswith(name)]


def photo(seed, size=24):
    return encoded(picture(size, size, seed))


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A folder with all sets that need no package."""
    root = tmp_path_factory.mktemp("disk")
    known = [photo(seed) for seed in range(4)]
    train = {
        f"imagenet/train/{wnid}/{wnid}_{i:04d}.JPEG": known[i % 4]
        for wnid in WNIDS
        for i in range(PER_CLASS)
    }
    write(root, train)
    for number, wnid in enumerate(WNIDS):
        names = [f"{i}" for i in range(12)]
        parts = (
            ("imagenet/val", "ILSVRC2012_val_"),
            ("imagenette2-320/train", f"{wnid}_"),
            ("imagenette2-320/val", f"{wnid}_"),
        )
        for part, start in parts:
            files = {f"{part}/{wnid}/{start}{n}{number}.JPEG": known[0] for n in names}
            write(root, files)
        images = f"tiny-imagenet-200/train/{wnid}/images/{wnid}_"
        write(root, {f"{images}{i}.JPEG": known[i % 4] for i in range(12)})
        boxes = f"tiny-imagenet-200/train/{wnid}/{wnid}_boxes.txt"
        write(root, {boxes: f"{wnid}_0.JPEG\t0\t10\t63\t58\n".encode()})
    rows = [f"val_{i}.JPEG\t{WNIDS[i % 3 == 0]}\t0\t32\t44\t62\n" for i in range(6)]
    folder = "tiny-imagenet-200/val"
    write(root, {f"{folder}/val_annotations.txt": "".join(rows).encode()})
    write(root, {f"{folder}/images/val_{i}.JPEG": known[1] for i in range(6)})
    write(root, {f"{p}percent.txt": b"\n".join(listed(p)) for p in (1, 10)})
    rng = np.random.default_rng(0)
    folder = root / "stl10_binary"
    folder.mkdir()
    (folder / "class_names.txt").write_text("airplane\nbird\ncar\n")
    for part, count in (("train", 21), ("test", 6), ("unlabeled", 5)):
        rng.integers(0, 256, (count, 3, 96, 96), "uint8").tofile(
            folder / f"{part}_X.bin"
        )
        if part != "unlabeled":
            labels = np.arange(count, dtype="uint8") % 3 + 1
            labels.tofile(folder / f"{part}_y.bin")
    return root


def listed(percent):
    """Names of a list of files, as SimCLR's are."""
    count = 5 * percent
    return [f"{w}_{7 * i:04d}.JPEG".encode() for w in WNIDS for i in range(count)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Folder with sets as TensorFlow Datasets' own builders would leave them."""
    import tensorflow_datasets as tfds

    folder = tmp_path_factory.mktemp("tfds")
    names = {
        "cifar10": ("train", "test"),
        "cifar100": ("train", "test"),
        "stl10": ("train", "test", "unlabelled"),
        "imagenette/320px-v2": ("train", "validation"),
        "imagenet2012": ("train", "validation"),
        "imagenet2012_subset/1pct": ("train", "validation"),
    }
    for name, splits in names.items():
        real = tfds.builder_cls(name.partition("/")[0])
        # A class of the same name, with the same features, version and parts.
        body = {
            "_split_generators": lambda self, manager, splits=splits: {
                split: self._generate_examples(split) for split in splits
            },
            "_generate_examples": examples,
            "name": real.name,
            "pkg_dir_path": real.pkg_dir_path,
        }
        options = {"skip_registration": True}
        made = types.new_class("Made", (real,), options, lambda s, b=body: s.update(b))
        config = name.partition("/")[2] or None
        builder = made(data_dir=folder, config=config, file_format="array_record")
        builder.download_and_prepare()
    return folder


def examples(self, split):
    keys = self.info.features.keys()
    shape = self.info.features["image"].shape
    size = shape[0] or 40
    for i in range(24):
        image = picture(size, size, i)
        # Classes of different sizes: 16 and 8.
        number = -1 if split == "unlabelled" else int(i % 3 == 0)
        example = {"image": image, "label": number, "file_name": f"{i}.JPEG"}
        example |= {"id": f"{split}_{i}", "coarse_label": 0}
        yield i, {key: example[key] for key in keys}


@pytest.fixture
def here(disk, monkeypatch, request):
    monkeypatch.chdir(disk)
    if not HAS_TFDS:
        return disk
    import tensorflow_datasets as tfds

    folder = request.getfixturevalue("prepared")
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(folder))
    monkeypatch.setenv("TFDS_DATA_DIR", str(folder))
    return disk


@pytest.fixture
def converted(here, monkeypatch):
    """The folder, with the .npz files that the guide's programs write."""
    arrays = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), "uint8")
    labels = (np.arange(40) % 10)[:, np.newaxis]
    parts = ((arrays[:30], labels[:30]), (arrays[30:], labels[30:]))
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: parts)
    programs = blocks("python")
    assert len(programs) == 2
    for program in programs:
        exec(compile(program, "datasets.md", "exec"), {})
    return here


def taken(monkeypatch):
    """What the commands ask the library for, in place of doing it."""
    asked = []
    monkeypatch.setattr(
        training, "pretrain", lambda recipe, *a, **o: asked.append(recipe)
    )
    monkeypatch.setattr(judging, "load_encoder", lambda path: lambda images: images)
    monkeypatch.setattr(evaluation, "evaluate", lambda *a, **o: asked.append(a))

    def run(plan, *arguments, **options):
        asked.append(plan)
        raise KeyboardInterrupt

    monkeypatch.setattr(sweeping, "sweep", run)
    return asked


@pytest.mark.skipif(not HAS_TFDS, reason="TensorFlow Datasets is not installed")
def test_every_command_finds_its_images_and_their_classes(converted, monkeypatch):
    asked = taken(monkeypatch)
    found = commands("kssl ")
    assert len(found) > 15
    for line in found:
        words = shlex.split(line)[1:]
        code = cli.main(words)
        assert code == (130 if words[0] == "sweep" else 0), line
        made = asked.pop()
        if words[0] == "pretrain":
            # What is checked before training: images, labels, classes, sizes.
            prepare(dataclasses.replace(made, batch_size=2, per_class=made.per_class))
        elif words[0] == "evaluate":
            _, train, test, protocols, validation, _, changes, *_ = made
            for protocol in protocols:
                settings_of(protocol, changes.get(protocol, {}))
            task = Task(lambda x: x, train, test, validation, size=32)
            assert task.num_classes >= 2, line
            if "finetune-1.files" in line:
                for name, percent in zip(protocols, (1, 10), strict=True):
                    rows = evaluation.listed_subset(task.train, f"{percent}percent.txt")
                    names = [task.train.files[i].partition("/")[2] for i in rows]
                    assert [n.encode() for n in names] == listed(percent), name
        else:
            for row in made.rows:
                prepare(dataclasses.replace(row.run(0), batch_size=2))
            assert len(open_source(made.validation)) == 2 * 260


@pytest.mark.skipif(not HAS_TFDS, reason="TensorFlow Datasets is not installed")
def test_a_part_that_is_a_set_of_its_own_is_taken_as_a_whole(here):
    source = open_source("tfds:imagenet2012_subset/1pct")
    rows = evaluation.balanced_subset(source.labels, fraction=1)
    assert rows.tolist() == list(range(24))
    half = evaluation.balanced_subset(source.labels, fraction=0.5)
    assert np.bincount(source.labels[half]).tolist()[:2] == [6, 6]


def test_stl10_is_turned_upright(converted):
    planes = np.fromfile("stl10_binary/test_X.bin", "uint8")
    image = open_source("npz:stl10_test.npz").images[2]
    # Image after image, plane after plane, column after column.
    assert image[10, 50, 1] == planes[2 * 27648 + 1 * 9216 + 50 * 96 + 10]
    source = open_source("npz:stl10_test.npz")
    assert source.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert source.class_names == ["airplane", "bird", "car"]
    assert open_source("npz:stl10_unlabeled.npz").labels is None


def test_the_validation_part_of_in20_leaves_out_one_file_of_each_class(disk):
    text = f"folder:{disk}/imagenet/train"
    train, validation = (
        open_source(f"each:{part}:{text}") for part in ("0:260", "261:521")
    )
    whole = open_source(text)
    assert len(train) == len(validation) == 2 * 260
    assert train.name == f"each:0:260:{text}"
    for number, wnid in enumerate(WNIDS):
        files = [file for file in whole.files if file.startswith(wnid)]
        assert [f for f in train.files if f.startswith(wnid)] == files[:260]
        assert [f for f in validation.files if f.startswith(wnid)] == files[261:521]
        assert (train.labels[: number * 260] < number).all()
    assert train.files == open_source(text, per_class=260).files


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("each:3:3:builtin:digits", "each:START:STOP:SOURCE with 0 <= START < STOP"),
        ("each:-1:3:builtin:digits", "each:START:STOP:SOURCE with 0"),
        ("each:2:builtin:digits", "each:START:STOP:SOURCE with 0"),
        ("each:0:3:", "each:START:STOP:SOURCE with 0"),
        ("each:0:3:digits", "known kinds"),
        ("each:9000:9001:builtin:digits", "such that there are images in the range"),
    ],
)
def test_ranges_that_are_none_are_refused(text, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        open_source(text)


def test_tiny_imagenet_has_its_classes_from_folders_and_from_its_table(disk):
    folder = f"folder:{disk}/tiny-imagenet-200"
    train, val = (open_source(f"{folder}/{part}") for part in ("train", "val"))
    assert train.class_names == list(WNIDS)
    assert np.bincount(train.labels).tolist() == [12, 12]
    assert val.files == [f"images/val_{i}.JPEG" for i in range(6)]
    assert labels_like(val, train).tolist() == [1, 0, 0, 1, 0, 0]


def test_a_table_of_another_set_is_refused(tmp_path):
    write(tmp_path, {"val_annotations.txt": b"a.JPEG\tn1\t0\n", "b.png": photo(0)})
    with pytest.raises(ValueError, match=r"`val_annotations.txt` must be a table"):
        open_source(f"folder:{tmp_path}")


def test_validation_images_in_one_folder_are_labelled_by_a_line_of_awk(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    rows = [f"ILSVRC2012_val_{i},{WNIDS[i % 2]} 85 1 499 272 \n" for i in range(4)]
    text = "ImageId,PredictionString\n" + "".join(rows)
    pathlib.Path("LOC_val_solution.csv").write_text(text)
    folder = pathlib.Path("imagenet/val")
    write(folder, {f"ILSVRC2012_val_{i}.JPEG": photo(i) for i in range(4)})
    (line,) = commands("awk ")
    subprocess.run(line, shell=True, check=True)
    source = open_source("folder:imagenet/val")
    assert source.class_names == list(WNIDS)
    assert source.labels.tolist() == [0, 1, 0, 1]
