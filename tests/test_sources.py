"""Sources of images: what is read, and what is refused with a clear sentence."""

import io

import numpy as np
import pytest
from PIL import Image

from keras_kssl.data import ArraySource, open_source
from keras_kssl.data.arrays import unit_images

pytestmark = pytest.mark.any_backend

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 31, 45, 3)).astype("uint8")
LABELS = np.array([0, 1, 2, 0, 1, 2, 0])


def encode(image, mode="RGB", size=None, form="JPEG"):
    picture = Image.fromarray(image).convert(mode)
    if size:
        picture = picture.resize(size)
    stream = io.BytesIO()
    picture.save(stream, form)
    return stream.getvalue()


def write_encoded(path, files, **others):
    offsets = np.cumsum([0] + [len(file) for file in files])
    jpeg = np.frombuffer(b"".join(files), np.uint8)
    np.savez(path, jpeg=jpeg, offsets=offsets, **others)
    return f"npz:{path}"


def test_source_gives_examples_by_position():
    source = ArraySource(IMAGES, LABELS, class_names=["a", "b", "c", "d"])
    images, indices = source.read(np.array([5, 0]))
    np.testing.assert_array_equal(images, IMAGES[[5, 0]])
    assert indices.tolist() == [5, 0]
    assert source.labels[indices].tolist() == [2, 0]
    assert source.labels.dtype == np.int32
    assert (len(source), source.image_shape, source.num_classes) == (7, (31, 45, 3), 4)
    assert len(source.take(3)) == 3
    assert source.take(3).num_classes == 4
    assert len(source.take(99)) == 7


def test_uint8_images_are_not_copied():
    assert np.shares_memory(ArraySource(IMAGES).images, IMAGES)


def test_without_labels_there_are_no_classes():
    source = ArraySource(IMAGES)
    assert source.num_classes is None
    assert source.labels is None


@pytest.mark.parametrize("label", [2**31, -(2**31) - 1])
def test_labels_that_32_bits_do_not_hold_are_refused(label):
    with pytest.raises(ValueError, match="fit into 32 bits"):
        open_source((IMAGES[:1], [label]))


def test_unknown_labels_do_not_count_as_a_class():
    assert ArraySource(IMAGES, [-1, 1, -1, 0, 0, 1, -1]).num_classes == 2


def test_unit_images_divides_uint8_and_leaves_float_alone():
    np.testing.assert_allclose(unit_images(IMAGES), IMAGES / 255.0, rtol=1e-6)
    assert unit_images(IMAGES).dtype == np.float32
    floats = np.float32(IMAGES / 255.0)
    assert unit_images(floats) is floats


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_float_images_become_float32(dtype):
    source = ArraySource(np.linspace(0, 1, 24).reshape(2, 2, 2, 3).astype(dtype))
    assert source.images.dtype == np.float32


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (IMAGES[0], ValueError, r"4 axes.*\(31, 45, 3\).*newaxis"),
        (IMAGES[0, 0], ValueError, "4 axes"),
        (IMAGES[:0], ValueError, r"at least one image.*\(0, 31, 45, 3\)"),
        (IMAGES[:, :, :0], ValueError, "no empty axis"),
        (IMAGES.astype("uint16"), TypeError, "dtype uint16"),
        (IMAGES.astype("int64"), TypeError, "dtype int64"),
        (IMAGES > 9, TypeError, "dtype bool"),
        (IMAGES.astype(object), TypeError, "dtype object"),
        (IMAGES.astype("float32"), ValueError, "Divide by 255"),
        (IMAGES / 255.0 - 0.5, ValueError, r"\[0, 1\].*-0\.5"),
        (np.full((2, 3, 3, 1), np.inf), ValueError, "to inf"),
        (np.where(IMAGES == 3, np.nan, 0.5), ValueError, "free of NaN.*7 of 7 images"),
    ],
)
def test_images_of_another_kind_are_refused(images, error, words):
    with pytest.raises(error, match=words):
        ArraySource(images)


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        (LABELS[:5], ValueError, r"shape \(7,\).*\(5,\)"),
        (LABELS[:, None], ValueError, r"\(7, 1\)"),
        (LABELS.astype("float32"), TypeError, "integers.*float32"),
        (np.array(list("abcabca")), TypeError, "Number the classes from 0"),
        (LABELS > 0, TypeError, "bool"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, error, words):
    with pytest.raises(error, match=words):
        open_source((IMAGES, labels))


def test_too_few_class_names_are_refused():
    with pytest.raises(ValueError, match=r"name for every label.*Largest label: 2"):
        ArraySource(IMAGES, LABELS, class_names=["a", "b"])


def test_open_source_takes_arrays_pairs_and_sources():
    source = ArraySource(IMAGES)
    assert open_source(source) is source
    assert open_source(IMAGES).labels is None
    assert open_source((IMAGES, None)).labels is None
    assert open_source((IMAGES, LABELS), limit=2).labels.tolist() == [0, 1]


def test_npz_of_arrays_is_read(tmp_path):
    path = tmp_path / "odd:name.npz"
    np.savez(path, images=IMAGES, labels=LABELS, class_names=["x", "y", "z"])
    source = open_source(f"npz:{path}", limit=4)
    np.testing.assert_array_equal(source.images, IMAGES[:4])
    assert source.labels.tolist() == [0, 1, 2, 0]
    assert source.class_names == ["x", "y", "z"]


def test_encoded_images_are_decoded_as_pil_does_in_order(tmp_path):
    files = [encode(image) for image in np.repeat(IMAGES, 90, axis=0)]
    text = write_encoded(tmp_path / "a.npz", files, labels=np.arange(len(files)))
    source = open_source(text)
    assert len(source) == 630
    for index in (0, 255, 256, 629):
        expected = np.asarray(Image.open(io.BytesIO(files[index])))
        np.testing.assert_array_equal(source.images[index], expected)
    assert source.labels.tolist() == list(range(630))


def test_grey_cmyk_and_png_files_become_rgb(tmp_path):
    files = [
        encode(IMAGES[0], "L"),
        encode(IMAGES[1], "CMYK"),
        encode(IMAGES[2], "RGBA", form="PNG"),
    ]
    images = open_source(write_encoded(tmp_path / "a.npz", files)).images
    assert images.shape == (3, 31, 45, 3)
    np.testing.assert_array_equal(images[0, ..., 0], images[0, ..., 2])
    np.testing.assert_array_equal(images[2], IMAGES[2])


def test_limit_decodes_no_further(tmp_path):
    files = [encode(IMAGES[0]), encode(IMAGES[1]), b"broken"]
    text = write_encoded(tmp_path / "a.npz", files, labels=[4, 5, 6])
    assert open_source(text, limit=2).labels.tolist() == [4, 5]


@pytest.mark.parametrize("broken", [b"", b"no picture", "cut"])
def test_a_broken_file_is_named_by_its_index(tmp_path, broken):
    good = encode(IMAGES[0])
    broken = good[: len(good) // 2] if broken == "cut" else broken
    text = write_encoded(tmp_path / "a.npz", [good, good, broken, good])
    with pytest.raises(ValueError, match=r"a\.npz: image 2 cannot be decoded"):
        open_source(text)


def test_files_of_two_sizes_are_refused(tmp_path):
    files = [encode(IMAGES[0]), encode(IMAGES[1], size=(31, 45))]
    text = write_encoded(tmp_path / "a.npz", files)
    with pytest.raises(ValueError, match=r"image 1 of \(45, 31\).*0 of \(31, 45\)"):
        open_source(text)


@pytest.mark.parametrize(
    "offsets", [[0, 9999], [4, 2], [-1, 5], [0.0, 5.0], [[0, 5]], [], [0]]
)
def test_offsets_that_point_nowhere_are_refused(tmp_path, offsets):
    np.savez(tmp_path / "a.npz", jpeg=np.zeros(10, "uint8"), offsets=offsets)
    with pytest.raises(ValueError, match="`offsets` must be"):
        open_source(f"npz:{tmp_path / 'a.npz'}")


def test_labels_of_encoded_images_are_counted_before_decoding(tmp_path):
    text = write_encoded(tmp_path / "a.npz", [b"broken", b"too"], labels=[1])
    with pytest.raises(ValueError, match="one label per image"):
        open_source(text, limit=1)


def test_npz_without_images_lists_what_it_has(tmp_path):
    np.savez(tmp_path / "a.npz", pictures=IMAGES, labels=LABELS)
    with pytest.raises(ValueError, match="with the arrays pictures, labels"):
        open_source(f"npz:{tmp_path / 'a.npz'}")


def test_missing_file_is_a_file_not_found_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file.*none\.npz"):
        open_source(f"npz:{tmp_path / 'none.npz'}")


def test_python_objects_are_never_unpickled(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, images=IMAGES, labels=np.array([None] * 7, object))
    with pytest.raises(ValueError, match=r"`labels`.*Python objects"):
        open_source(f"npz:{path}")


@pytest.mark.parametrize("damage", ["empty", "text", "half", "flipped", "npy"])
def test_a_damaged_archive_is_a_clear_error(tmp_path, damage):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, images=IMAGES)
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        for position in range(2000, 2100):
            content[position] ^= 255
    elif damage == "npy":
        stream = io.BytesIO()
        np.save(stream, IMAGES)
        content = stream.getvalue()
    else:
        content = {"empty": b"", "text": b"hello", "half": content[:5000]}[damage]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz.*(no readable|cannot be read)"):
        open_source(f"npz:{path}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nzp:a.npz", "Did you mean 'npz:FILE.npz'"),
        ("photos/a.npz", "Did you mean 'npz:photos/a.npz'"),
        ("built-in:shapes", "Did you mean 'builtin:NAME"),
        ("photos:a", r"known kinds, folder:DIR or files:LIST or npz:FILE\.npz or "),
        ("npz:", "known kinds"),
        ("", "known kinds"),
    ],
)
def test_an_unknown_kind_is_answered_with_the_known_ones(text, words):
    with pytest.raises(ValueError, match=words):
        open_source(text)


@pytest.mark.parametrize("source", [None, 3, (IMAGES,), {"images": IMAGES}])
def test_what_is_no_source_is_a_type_error(source):
    with pytest.raises(TypeError, match="`source` must be a text"):
        open_source(source)


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_is_at_least_one(limit):
    with pytest.raises(ValueError, match="`limit` must be an integer of at least 1"):
        open_source(IMAGES, limit=limit)


def test_the_first_images_of_each_class_are_taken_in_their_order():
    labels = np.array([2, 0, 2, -1, 2, 0, 0])
    source = open_source((IMAGES, labels), per_class=2)
    assert source.labels.tolist() == [2, 0, 2, 0]
    np.testing.assert_array_equal(source.images, IMAGES[[0, 1, 2, 5]])
    few = open_source((IMAGES, labels), limit=2, per_class=2)
    assert few.labels.tolist() == [2, 0]
    assert len(open_source((IMAGES, labels), per_class=9)) == 6


def test_the_first_files_of_each_folder_are_taken_by_name(tmp_path):
    names = ("b/2.png", "b/10.png", "b/1.png", "a/x.png", "c/1.png", "c/0.png")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encode(IMAGES[0], form="PNG"))
    source = open_source(f"folder:{tmp_path}", per_class=2)
    expected = ["a/x.png", "b/1.png", "b/10.png", "c/0.png", "c/1.png"]
    assert [source.name_of(index) for index in range(len(source))] == expected


@pytest.mark.parametrize("labels", [None, np.eye(7, dtype=int)])
def test_classes_are_needed_to_take_some_of_each(labels):
    source = ArraySource(IMAGES)
    source.labels = labels
    with pytest.raises(ValueError, match="`per_class` must be left out for images"):
        open_source(source, per_class=2)
    with pytest.raises(ValueError, match="`per_class` must be an integer of at least"):
        open_source((IMAGES, LABELS), per_class=0)
