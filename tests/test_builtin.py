"""The built-in set: the same each time, its splits apart, and not solved by pixels."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from keras_kssl.data import builtin, open_source
from keras_kssl.evaluation import knn_accuracy

pytestmark = pytest.mark.any_backend

# Above this a set would be too easy to show what an encoder adds to pixels.
RAW_PIXEL_BOUND = 0.5


@pytest.fixture(scope="module")
def splits():
    return {name: open_source(f"builtin:digits:{name}") for name in ("train", "test")}


@pytest.mark.parametrize("split", ["train", "test"])
def test_images_are_small_colour_images_of_ten_classes(splits, split):
    source = splits[split]
    assert source.images.dtype == np.uint8
    assert source.image_shape == (28, 28, 3)
    assert source.labels.dtype == np.int32
    assert np.unique(source.labels).tolist() == list(range(10))
    assert source.class_names == [str(digit) for digit in range(10)]
    assert len(source) >= 2000


def test_train_is_the_split_by_default(splits):
    np.testing.assert_array_equal(
        open_source("builtin:digits").images, splits["train"].images
    )


def test_images_are_made_anew_bit_by_bit(splits):
    builtin._written_digits.cache_clear()
    again = builtin.load_builtin("digits", "test")
    assert again.images is not splits["test"].images
    np.testing.assert_array_equal(again.images, splits["test"].images)
    np.testing.assert_array_equal(again.labels, splits["test"].labels)


@pytest.mark.parametrize("number", [0, 499, 500, 1203])
def test_an_image_is_a_scan_drawn_nine_times(splits, number):
    # Published accuracies are on these images, which must stay what they are.
    copy, index = divmod(number, 500)
    scan = load_digits().images[1297 + index] * (255 / 16)
    scan = Image.fromarray(scan.astype("uint8"))
    rng = np.random.default_rng([1, index, copy])
    page = np.full((28, 28), 0.5)
    for place in range(9):
        ink = 0.25 * rng.random()
        if rng.random() < 0.5:
            ink = 1 - ink
        down, right = rng.uniform(-3, 3, size=2)
        row = (place // 3 + 0.5) * 28 / 3 + down
        column = (place % 3 + 0.5) * 28 / 3 + right
        angle, scale = rng.uniform(-0.5, 0.5), 8 / rng.uniform(8, 12)
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        matrix = (cos, sin, 4 - cos * column - sin * row)
        matrix += (-sin, cos, 4 + sin * column - cos * row)
        placed = scan.transform(
            (28, 28), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
        )
        page += np.asarray(placed) / 255 * (ink - page)
    page = page[..., None] + rng.normal(0, 0.04, (28, 28, 3))
    expected = (page.clip(0, 1) * 255).round()
    np.testing.assert_array_equal(splits["test"].images[number], expected)


def test_no_scan_serves_both_splits(monkeypatch):
    seen = {"train": set(), "test": set()}
    for split, scans in seen.items():

        def record(images, *numbers, scans=scans):
            scans.update(image.tobytes() for image in images)
            return np.zeros((len(images), 28, 28, 3), "uint8")

        monkeypatch.setattr(builtin, "_pages", record)
        builtin._written_digits.__wrapped__(split)
    assert len(seen["train"]) > 1000
    assert len(seen["test"]) > 400
    assert not seen["train"] & seen["test"]


def test_pixels_say_little_about_the_class(splits):
    flat = {
        name: source.images.reshape(len(source), -1) / np.float32(255)
        for name, source in splits.items()
    }
    accuracy = knn_accuracy(
        flat["train"], splits["train"].labels, flat["test"], splits["test"].labels, k=20
    )["knn_20"]
    chance = np.bincount(splits["test"].labels).max() / len(splits["test"])
    assert chance < accuracy < RAW_PIXEL_BOUND


def test_classes_have_about_as_many_images(splits):
    for source in splits.values():
        counts = np.bincount(source.labels)
        assert counts.max() < 1.25 * counts.min()


@pytest.mark.parametrize(
    ("name", "split", "said"),
    [("digit", "train", "Did you mean 'digits'"), ("digits", "tset", "'test'")],
)
def test_unknown_name_or_split_is_refused_by_name(name, split, said):
    with pytest.raises(ValueError, match=said):
        builtin.load_builtin(name, split)
