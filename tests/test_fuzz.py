"""Whatever bytes users have: a result or one sentence, never a traceback or a hang."""

import dataclasses
import json
import time

import numpy as np
import pytest

from keras_kssl import recipes
from keras_kssl.data import decoding, files, open_source
from tests.photos import broken_files, encoded, odd_files, picture

pytestmark = pytest.mark.any_backend

IMAGES = 10_000
ARCHIVES = 2000
TABLES = 2000
RECIPES = 2000
# The slowest of the images below takes a hundredth of this.
SECONDS = 5.0


def spoiled(content, rng):
    """The content with some bytes changed, left out, doubled or cut off."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        if not content:
            return rng.bytes(8)
        start = int(rng.integers(0, len(content)))
        if rng.random() < 0.3:
            # Most of what decides is in the header.
            start = int(rng.integers(0, min(len(content), 64)))
        stop = start + int(rng.integers(1, 9))
        kind = rng.integers(0, 10) % 4
        if kind == 0:
            part = content[start:stop]
            content[start:stop] = rng.bytes(len(part))
        elif kind == 1:
            del content[start:stop]
        elif kind == 2:
            content[start:start] = content[start:stop]
        else:
            del content[start:]
    return bytes(content)


def test_spoiled_images_are_read_or_broken_with_a_reason():
    rng = np.random.default_rng(0)
    array = decoding.io.BytesIO()
    np.save(array, picture(9, 7, channels=5))
    whole = [*odd_files().values(), *broken_files().values(), array.getvalue()]
    outcomes = {"read": 0, "broken": 0}
    for number in range(IMAGES):
        content = spoiled(whole[number % len(whole)], rng)
        began = time.monotonic()
        try:
            image, _ = decoding.decode(content)
        except decoding.BrokenImage as error:
            outcomes["broken"] += 1
            is_sentence = 0 < len(str(error)) < 500 and "\n" not in str(error)
        else:
            outcomes["read"] += 1
            is_sentence = True
            assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)
        assert is_sentence
        assert time.monotonic() - began < SECONDS
    # Both happen often: the images are spoiled, and not beyond all recognition.
    assert min(outcomes.values()) > IMAGES / 10


def test_spoiled_archives_are_read_or_refused_in_a_sentence(tmp_path):
    rng = np.random.default_rng(3)
    content = decoding.io.BytesIO()
    jpeg = encoded(picture(9, 8))
    np.savez_compressed(
        content,
        jpeg=np.frombuffer(jpeg * 3, np.uint8),
        offsets=np.arange(4) * len(jpeg),
        labels=np.arange(3),
    )
    path = tmp_path / "a.npz"
    outcomes = {"read": 0, "refused": 0}
    for _ in range(ARCHIVES):
        path.write_bytes(spoiled(content.getvalue(), rng))
        try:
            open_source(f"npz:{path}")
        except (ValueError, TypeError) as error:
            outcomes["refused"] += 1
            names_file = str(path) in str(error)
        else:
            outcomes["read"] += 1
            names_file = True
        assert names_file
    assert min(outcomes.values()) > ARCHIVES / 50


def test_spoiled_tables_are_read_or_refused_in_a_sentence(tmp_path):
    rng = np.random.default_rng(1)
    (tmp_path / "a.png").write_bytes(encoded(picture(5, 6), "PNG"))
    whole = b'file,label\r\n"a.png",dog\r\na.png,"cat, ""big"""\r\na.png,\r\n'
    path = tmp_path / "list.csv"
    outcomes = {"read": 0, "refused": 0}
    for _ in range(TABLES):
        path.write_bytes(spoiled(whole, rng))
        try:
            source = files.open_list(path)
        except (ValueError, OSError) as error:
            outcomes["refused"] += 1
            names_file = str(path) in str(error)
        else:
            outcomes["read"] += 1
            names_file = len(source) > 0
        assert names_file
    assert min(outcomes.values()) > TABLES / 20


def test_spoiled_recipes_are_read_or_refused_in_a_sentence():
    rng = np.random.default_rng(2)
    facts = recipes.Facts(1000, 64, False)
    recipe = recipes.Recipe(data="folder:photos").resolved(facts)
    values = [None, True, -1, 0, 3, 1e300, "x", "", [], ["a"], [1, None], {}, {"a": 1}]
    outcomes = {"read": 0, "refused": 0}
    for number in range(RECIPES):
        if number % 2:
            text = spoiled(recipe.to_json().encode(), rng).decode("latin-1")
        else:
            changed = dataclasses.asdict(recipe)
            name = list(changed)[int(rng.integers(len(changed)))]
            changed[name] = values[int(rng.integers(len(values)))]
            text = json.dumps(changed)
        try:
            read = recipes.Recipe.from_json(text)
        except (ValueError, TypeError) as error:
            outcomes["refused"] += 1
            is_sentence = str(error).startswith("recipe: ")
        else:
            outcomes["read"] += 1
            try:
                is_sentence = isinstance(read.resolved(facts), recipes.Recipe)
            except ValueError as error:
                # Wrong only beside the number of images.
                is_sentence = str(error).startswith("recipe: ")
        assert is_sentence, text[-400:]
    assert min(outcomes.values()) > RECIPES / 20


@pytest.mark.parametrize("text", ["folder:\0", "files:\0", "npz:\0", "tfds:\0", "\0"])
def test_names_with_zeros_are_refused(text):
    with pytest.raises((ValueError, OSError, ImportError)):
        open_source(text)
