"""Features on disk: every image once, in order, whatever interrupts the writing."""

import json
import os
import signal

import keras
import numpy as np
import pytest

from keras_kssl import cli, evaluation, export, models
from keras_kssl.data import ArraySource, open_source
from keras_kssl.evaluation import extraction
from tests.photos import encoded, picture, write_folder

IMAGES = np.random.default_rng(0).random((23, 9, 7, 3), dtype="float32")
LABELS = np.arange(23, dtype=np.int32) % 4 - 1


def encoder(images):
    return images.reshape(len(images), -1)[:, :5]


def test_the_folder_holds_what_extract_features_returns(tmp_path):
    source = ArraySource(IMAGES, LABELS)
    out = evaluation.extract(encoder, source, tmp_path / "a", part_size=7, batch_size=3)
    features, labels = evaluation.extract_features(encoder, source)
    written = np.load(out / "features.npy", mmap_mode="r")
    np.testing.assert_array_equal(written, features)
    assert written.dtype == np.float32
    np.testing.assert_array_equal(np.load(out / "labels.npy"), labels)
    assert (out / "names.txt").read_text().split() == [str(i) for i in range(23)]
    facts = json.loads((out / "extraction.json").read_text())
    assert (facts["rows"], facts["width"], facts["complete"]) == (23, 5, True)
    expected = {"features.npy", "labels.npy", "names.txt", "extraction.json", ".lock"}
    assert {path.name for path in out.iterdir()} == expected


def test_an_interrupted_extraction_goes_on_without_doing_anything_twice(tmp_path):
    seen, limits = [], [2]

    def counting(images):
        if len(seen) == limits[0]:
            raise KeyboardInterrupt
        seen.append(len(images))
        return encoder(images)

    options = {"batch_size": 7, "part_size": 7}
    out = tmp_path / "a"
    with pytest.raises(KeyboardInterrupt):
        evaluation.extract(counting, IMAGES, out, **options)
    assert not (out / "features.npy").exists()
    (out / "parts" / "000000000014.npz.99.partial").write_bytes(b"half")
    limits[0] = 99
    evaluation.extract(counting, IMAGES, out, **options)
    assert len(seen) == 4
    np.testing.assert_array_equal(np.load(out / "features.npy"), encoder(IMAGES))
    # Killed between the last two things that it does.
    (out / "parts").mkdir()
    evaluation.extract(counting, IMAGES, out, **options)
    assert len(seen) == 4
    assert not (out / "parts").exists()


def test_broken_images_have_no_row_and_the_rest_keep_their_names(tmp_path):
    files = {f"{i}.png": encoded(picture(20, 20, i), "PNG") for i in range(9)}
    folder = write_folder(tmp_path / "photos", files)
    source = open_source(f"folder:{folder}", max_broken=0.5)
    for name in ("0.png", "4.png"):
        (folder / name).write_bytes(files[name][:60])
    out = evaluation.extract(encoder, source, tmp_path / "a", size=8, part_size=1)
    names = (out / "names.txt").read_text().split()
    assert names == [f"{i}.png" for i in range(9) if i not in (0, 4)]
    assert len(np.load(out / "features.npy")) == 7
    assert not (out / "labels.npy").exists()


def test_other_features_are_never_mixed_in(tmp_path):
    out = evaluation.extract(encoder, IMAGES, tmp_path / "a")
    with pytest.raises(FileExistsError, match="content is of another extraction"):
        evaluation.extract(encoder, IMAGES[::-1], out)
    with pytest.raises(FileExistsError, match="labels is of another extraction"):
        evaluation.extract(encoder, (IMAGES, LABELS), out)
    for other in (lambda x: x[:, 0, :2, 0], lambda x: x[:, 0, :3, 0]):
        other.__name__ = "encoder"
        with pytest.raises(FileExistsError, match="encoder is of another extraction"):
            evaluation.extract(other, IMAGES, out)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("words")
    with pytest.raises(ValueError, match="a new or an empty folder"):
        evaluation.extract(encoder, IMAGES, tmp_path / "b")


def test_a_wrong_batch_size_leaves_the_folder_as_it_was(tmp_path):
    with pytest.raises(ValueError, match="batch_size"):
        evaluation.extract(encoder, IMAGES, tmp_path / "a", batch_size=-1)
    assert not (tmp_path / "a").exists()
    # What is left of a folder that was emptied by hand.
    write_folder(tmp_path, {"a/.lock": b"1"})
    evaluation.extract(encoder, IMAGES, tmp_path / "a")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no limit on files to set")
def test_a_full_disk_raises_an_error_that_says_so(tmp_path):
    """A limit on the size of files stands in for the end of a disk."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    parts = {"batch_size": 7, "part_size": 7}
    wide = lambda images: np.repeat(images[:, :1, :1, 0], 500, axis=2)[:, 0]  # noqa: E731
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            evaluation.extract(wide, IMAGES, tmp_path / "a", **parts)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "a" / "features.npy").exists()
    out = evaluation.extract(wide, IMAGES, tmp_path / "a", **parts)
    assert np.load(out / "features.npy").shape == (23, 500)


def test_encoders_are_told_apart_by_their_weights():
    first, second = (
        models.ResNet(10, width=0.125, stem="cifar", seed=s) for s in (0, 1)
    )
    again = models.ResNet(10, width=0.125, stem="cifar", seed=0)
    assert extraction.fingerprint(first) == extraction.fingerprint(again)
    assert extraction.fingerprint(first) != extraction.fingerprint(second)


def test_images_of_many_sizes_need_a_size(tmp_path):
    folder = write_folder(tmp_path, {"a.png": encoded(picture(20, 20), "PNG")})
    with pytest.raises(ValueError, match="`size` must be given"):
        evaluation.extract(encoder, f"folder:{folder}", tmp_path / "out")


def test_the_command_writes_features_of_a_folder(tmp_path, capsys):
    net = models.ResNet(10, width=0.125, stem="cifar", seed=0)
    export.keras_file(net, tmp_path / "encoder.keras")
    files = {f"{i}.jpg": encoded(picture(20, 30, i)) for i in range(5)}
    folder = write_folder(tmp_path / "photos", files)
    arguments = ["extract", str(tmp_path / "encoder.keras"), "--size", "16"]
    arguments += ["--data", f"folder:{folder}", "--out", str(tmp_path / "features")]
    assert cli.main(arguments) == 0
    assert "5 features of width 64" in capsys.readouterr().out
    images = open_source(f"folder:{folder}").at_size(16).read(range(5))[0]
    expected = keras.ops.convert_to_numpy(net(images / np.float32(255)))
    written = np.load(tmp_path / "features" / "features.npy")
    np.testing.assert_allclose(written, expected, rtol=1e-4, atol=1e-5)
