"""Folders and lists of image files: what is found, read, labelled and left out."""

import errno
import io
import os

import numpy as np
import pytest
from PIL import Image, ImageOps

from keras_kssl.data import FileSource, TooManyBroken, decoding, open_source
from keras_kssl.data.decoding import BrokenImage, decode, read_header
from tests.photos import broken_files, encoded, odd_files, picture, turned, write_folder

pytestmark = pytest.mark.any_backend

RGB = picture(40, 48)


def as_pil(content):
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


# What Pillow's own conversion to RGB does right: oracle for these.
@pytest.mark.parametrize(
    "name",
    [
        "plain.jpg",
        "gray.jpg",
        "cmyk.jpg",
        "turned.jpg",
        "rgb.png",
        "palette.png",
        "bits.png",
        "photo.webp",
        "old.bmp",
        "moving.gif",
        "scan.tif",
        "wrong_ending.png",
        "tiny.png",
        "thin.png",
    ],
)
def test_photos_become_rgb_as_pillow_makes_them(name, tmp_path):
    content = odd_files()[name]
    path = tmp_path / name
    path.write_bytes(content)
    expected = as_pil(content)
    for file in (content, path):
        image, shape = decode(file)
        np.testing.assert_array_equal(image, expected)
        header = read_header(file)
        assert shape == (header.height, header.width) == expected.shape[:2]
        assert (header.channels, header.is_deep) == (3, False)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_are_undone(orientation, form):
    """The tag tells how a viewer turns the picture: against NumPy's own turns."""
    seen = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, -1),
        7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
        8: lambda x: np.rot90(x),
    }[orientation](RGB)
    content = turned(RGB, orientation, form)
    image, shape = decode(content)
    header = read_header(content)
    assert image.shape == seen.shape == (*shape, 3)
    assert (header.height, header.width) == shape
    assert np.abs(image.astype(float) - seen).mean() < 6  # lossy


def test_the_header_of_a_png_costs_no_decoding(monkeypatch):
    content = encoded(picture(30, 20), "PNG")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", None)
    assert read_header(content).height == 30


def test_deep_images_keep_their_depth_as_floats_and_are_scaled_to_bytes():
    deep = np.linspace(0, 65535, 40 * 48).astype(np.uint16).reshape(40, 48)
    for form in ("PNG", "TIFF"):
        content = encoded(deep, form)
        image, _ = decode(content, dtype="float32")
        expected = np.repeat(deep[..., None] / 65535, 3, axis=2)
        np.testing.assert_allclose(image, expected, atol=1e-7)
        as_bytes, _ = decode(content)
        assert np.abs(as_bytes - expected * 255).max() <= 0.5 + 1e-4
        assert read_header(content).is_deep


def test_transparent_parts_show_white_paper():
    alpha = np.zeros((4, 4, 4), np.uint8)
    alpha[:, 2:] = (10, 20, 30, 255)
    image, _ = decode(encoded(alpha, "PNG"))
    assert (image[:, :2] == 255).all()
    assert (image[:, 2:] == (10, 20, 30)).all()
    half = np.full((2, 2, 4), (0, 0, 0, 128), np.uint8)
    assert abs(int(decode(encoded(half, "PNG"))[0][0, 0, 0]) - 127) <= 1


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_arrays_keep_their_channels(dtype, tmp_path):
    rng = np.random.default_rng(0)
    values = rng.random((9, 7, 5))
    if dtype.startswith("u"):
        values = np.floor(values * np.iinfo(dtype).max)
    array = values.astype(dtype)
    np.save(tmp_path / "a.npy", array)
    content = (tmp_path / "a.npy").read_bytes()
    largest = np.iinfo(dtype).max if dtype.startswith("u") else 1.0
    for file in (tmp_path / "a.npy", content):
        assert read_header(file).channels == 5
        image, _ = decode(file, channels=5, dtype="float32")
        np.testing.assert_allclose(image, array / largest, atol=1e-7)
        as_bytes, _ = decode(file, channels=5)
        assert np.abs(as_bytes - array / largest * 255).max() <= 0.5 + 1e-4


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((3, 3, 2), 2.0), "floats from 2 to 2"),
        (np.full((3, 3, 2), np.nan), "floats from nan"),
        (np.zeros((3, 3, 2), np.int64), "values of type int64"),
        (np.zeros((3,), np.uint8), "shape"),
        (np.zeros((0, 3, 2), np.uint8), "shape"),
        (np.array([["a"]]), "values of type"),
    ],
)
def test_arrays_that_are_no_images_say_why(array, words, tmp_path):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(BrokenImage, match=words):
        decode(tmp_path / "a.npy", channels=2)


def test_arrays_of_python_objects_are_not_read(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    with pytest.raises(BrokenImage, match=r"[Pp]ython objects|pickle"):
        decode(tmp_path / "a.npy")


def test_multi_channel_tiffs_are_read_or_the_package_is_named(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    array = np.random.default_rng(0).integers(0, 65536, (9, 7, 6), dtype=np.uint16)
    options = {"photometric": "minisblack", "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    image, _ = decode(tmp_path / "a.tif", channels=6, dtype="float32")
    np.testing.assert_allclose(image, array / 65535, atol=1e-7)


@pytest.mark.parametrize(
    "options",
    [
        {"photometric": "minisblack", "planarconfig": "separate"},
        {"photometric": "minisblack", "planarconfig": "contig", "tile": (16, 16)},
        {"photometric": "rgb", "planarconfig": "contig"},
        {"photometric": "rgb", "planarconfig": "separate"},
    ],
)
def test_tiffs_keep_all_their_channels_however_they_are_laid_out(options, tmp_path):
    tifffile = pytest.importorskip("tifffile")
    array = np.random.default_rng(0).integers(0, 256, (9, 7, 6), dtype=np.uint8)
    is_planar = options["planarconfig"] == "separate"
    stored = array.transpose(2, 0, 1) if is_planar else array
    if options["photometric"] == "rgb":
        options = {**options, "extrasamples": [0, 0, 0]}
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    header = read_header(tmp_path / "a.tif")
    assert (header.height, header.width, header.channels) == array.shape
    image, _ = decode(tmp_path / "a.tif", channels=6)
    np.testing.assert_array_equal(image, array)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    with pytest.raises(BrokenImage, match="no regular file"):
        read_header(tmp_path / "a.jpg")


def test_too_many_open_files_say_nothing_of_an_image():
    def fail():
        raise OSError(errno.EMFILE, "Too many open files")

    with pytest.raises(OSError, match="Too many"):
        decoding.checked(fail)


def test_an_array_that_was_cut_off_after_its_header_was_read_is_broken(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((300, 300, 4), np.uint8))
    read_header(path)

    def cut(height, width):
        os.truncate(path, 5000)

    with pytest.raises(BrokenImage):
        decode(path, channels=4, prepare=cut)


@pytest.mark.parametrize("name", broken_files())
def test_broken_files_raise_one_error_with_a_reason(name, tmp_path):
    content = broken_files()[name]
    path = tmp_path / name
    path.write_bytes(content)
    for file in (content, path):
        with pytest.raises(BrokenImage) as caught:
            decode(file)
        assert 3 < len(str(caught.value)) < 200
        assert "\n" not in str(caught.value)


def test_files_that_are_gone_or_folders_are_broken_images(tmp_path):
    for path in (tmp_path / "gone.jpg", tmp_path):
        with pytest.raises(BrokenImage):
            decode(path)


def test_jpegs_shrink_while_they_are_decoded_when_asked():
    content = encoded(picture(320, 400), quality=95)
    asked = []
    image, shape = decode(content, prepare=lambda *s: asked.append(s) or 4)
    assert asked == [(320, 400)]
    assert (image.shape, shape) == ((80, 100, 3), (320, 400))
    whole, _ = decode(content)
    means = whole.reshape(80, 4, 100, 4, 3).mean(axis=(1, 3))
    assert np.abs(image - means).max() < 12


def test_folder_finds_all_images_in_the_order_of_their_names(tmp_path):
    files = odd_files()
    write_folder(tmp_path / "deep" / "er", files)
    others = ("deep/notes.txt", ".hidden/a.jpg", "deep/.a.jpg", "__MACOSX/b.jpg")
    write_folder(tmp_path, dict.fromkeys(others, b"no image"))
    source = open_source(f"folder:{tmp_path}")
    assert source.files == sorted(f"deep/er/{name}" for name in files)
    assert source.labels is None
    assert not source.broken
    assert (source.image_shape, source.dtype) == ((None, None, 3), "uint8")
    assert source.formats["JPEG"] == 7
    images = [source.decode(i)[0] for i in range(len(source))]
    assert all(image.dtype == np.uint8 and image.shape[2] == 3 for image in images)


def test_links_in_a_circle_end(tmp_path):
    write_folder(tmp_path, {"a/x.jpg": encoded(RGB)})
    os.symlink(tmp_path, tmp_path / "a" / "again", target_is_directory=True)
    assert len(open_source(f"folder:{tmp_path}")) == 1


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_folders_count_under_their_own_names(names, tmp_path):
    folder, link = names
    write_folder(tmp_path, {f"{folder}/x.jpg": encoded(RGB)})
    os.symlink(tmp_path / folder, tmp_path / link, target_is_directory=True)
    os.symlink(tmp_path / "loop.jpg", tmp_path / "loop.jpg")
    source = open_source(f"folder:{tmp_path}", max_broken=0.5)
    assert source.files == [f"{folder}/x.jpg"]
    assert set(source.broken) == {"loop.jpg"}


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    write_folder(tmp_path, {"a/x.jpg": encoded(RGB), "b/y.jpg": encoded(RGB)})
    usual = os.scandir

    def scandir(path):
        if str(path).endswith("b"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return usual(path)

    monkeypatch.setattr(os, "scandir", scandir)
    source = open_source(f"folder:{tmp_path}", max_broken=0.5)
    assert source.broken == {"b/": "a folder: Permission denied"}


@pytest.mark.parametrize(
    "name", [b"caf\xe9.png", b"two\nlines.png", "ä ö.png".encode()]
)
def test_names_of_any_bytes_are_read_and_can_be_printed(name, tmp_path):
    try:
        (tmp_path / os.fsdecode(name)).write_bytes(encoded(RGB, "PNG"))
    except OSError:
        pytest.skip("this file system has no such names")
    source = open_source(f"folder:{tmp_path}")
    np.testing.assert_array_equal(source.decode(0)[0], RGB)
    assert source.fingerprint() == open_source(f"folder:{tmp_path}").fingerprint()
    source.name_of(0).encode("utf-8")
    assert len(source.name_of(0).splitlines()) == 1


def test_a_part_counts_what_is_broken_of_its_own(tmp_path):
    good = {f"{i:02d}.png": encoded(picture(20, 30, i), "PNG") for i in range(20)}
    write_folder(tmp_path, {**good, **{f"x{i}.png": b"" for i in range(2)}})
    part = open_source(f"folder:{tmp_path}").take(10)
    assert part.broken == {}
    part._note("00.png", "gone")
    with pytest.raises(TooManyBroken, match="2 of 10"):
        part._note("01.png", "gone")
    with pytest.raises(ValueError, match="count"):
        part.take(0)


def test_class_folders_give_labels(tmp_path):
    names = ["10/a.png", "10/deep/b.png", "9/c.png", "9/d.png"]
    write_folder(tmp_path, {name: encoded(RGB, "PNG") for name in names})
    source = open_source(f"folder:{tmp_path}")
    assert source.class_names == ["9", "10"]
    assert source.labels.tolist() == [1, 1, 0, 0]
    assert source.labels.dtype == np.int32
    # A limit changes which images there are, not what their classes are called.
    for part in (open_source(f"folder:{tmp_path}", limit=2), source.take(2)):
        assert part.class_names == ["9", "10"]
        assert part.labels.tolist() == [1, 1]
    (tmp_path / "top.png").write_bytes(encoded(RGB, "PNG"))
    assert open_source(f"folder:{tmp_path}").labels is None


def test_a_table_of_labels_comes_before_the_folders(tmp_path):
    names = ["x/a.png", "x/b.png", "y/c.png"]
    write_folder(tmp_path, {name: encoded(RGB, "PNG") for name in names})
    (tmp_path / "labels.csv").write_text(
        "\ufefffile, label\nx/a.png, dog\ny/c.png,cat\ngone.png,cow\n", encoding="utf-8"
    )
    source = open_source(f"folder:{tmp_path}")
    assert source.class_names == ["cat", "dog"]
    assert source.labels.tolist() == [1, -1, 0]
    assert source.num_classes == 2


def test_lists_name_files_beside_them_or_anywhere(tmp_path):
    write_folder(tmp_path / "photos", {"b.png": encoded(RGB, "PNG")})
    write_folder(tmp_path / "photos", {"a.png": encoded(255 - RGB, "PNG")})
    (tmp_path / "list.txt").write_text(f"photos/b.png\n\n{tmp_path}/photos/a.png\n")
    source = open_source(f"files:{tmp_path}/list.txt")
    np.testing.assert_array_equal(source.decode(0)[0], RGB)
    np.testing.assert_array_equal(source.decode(1)[0], 255 - RGB)
    (tmp_path / "list.csv").write_text("label,file\n1,photos/b.png\n0,photos/a.png\n")
    source = open_source(f"files:{tmp_path}/list.csv")
    assert source.labels.tolist() == [1, 0]
    assert open_source(f"files:{tmp_path}/list.csv", limit=1).files == ["photos/b.png"]


def test_broken_files_are_left_out_and_named(tmp_path):
    good = {f"{i:02d}.png": encoded(picture(20, 30, i), "PNG") for i in range(40)}
    write_folder(tmp_path, {**good, "half.png": good["00.png"][:20], "none.png": b""})
    source = open_source(f"folder:{tmp_path}")
    assert source.files == sorted(good)
    assert set(source.broken) == {"half.png", "none.png"}
    assert source.broken["none.png"] == "an empty file"
    with pytest.raises(TooManyBroken, match=r"2 of 42.*\n.*half\.png: "):
        open_source(f"folder:{tmp_path}", max_broken=0.04)


def test_files_of_other_channels_than_most_are_left_out(tmp_path):
    for i in range(12):
        np.save(tmp_path / f"{i:02d}.npy", np.zeros((5, 6, 4 if i else 3), np.uint8))
    source = open_source(f"folder:{tmp_path}")
    assert (len(source), source.channels) == (11, 4)
    assert source.broken == {"00.npy": "3 channels, where most have 4"}


@pytest.mark.parametrize(
    ("files", "text", "error", "words"),
    [
        ({}, "folder:.", ValueError, "must hold image files"),
        ({"a.txt": b"x"}, "folder:.", ValueError, r"\.jpg"),
        ({"a.png": b"x"}, "folder:a.png", FileNotFoundError, "is a file"),
        ({}, "folder:gone", FileNotFoundError, "not there"),
        ({}, "files:gone.txt", FileNotFoundError, "no file"),
        ({"l.txt": b""}, "files:l.txt", ValueError, "must hold image files"),
        ({"l.txt": b"\xff\xfe\x00"}, "files:l.txt", ValueError, "UTF-8"),
        ({"l.csv": b""}, "files:l.csv", ValueError, "column `file`"),
        ({"l.csv": b"path\nx"}, "files:l.csv", ValueError, r"columns \['path'\]"),
        ({"l.csv": b'file\n"x'}, "files:l.csv", ValueError, "table in CSV"),
        ({"l.csv": b"file\n\0"}, "files:l.csv", ValueError, "must be text"),
        ({"l.txt": b"gone.jpg\n"}, "files:l.txt", TooManyBroken, "1 of 1"),
        (
            {"labels.csv": b"file,label\nb.png,x", "a.png": b"?"},
            "folder:.",
            ValueError,
            "names files of the folder",
        ),
    ],
)
def test_sources_without_images_are_refused(
    files, text, error, words, tmp_path, monkeypatch
):
    write_folder(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        open_source(text)


def test_a_part_of_a_source_keeps_its_labels(tmp_path):
    names = ["a/1.png", "a/2.png", "b/3.png"]
    write_folder(tmp_path, {name: encoded(RGB, "PNG") for name in names})
    source = open_source(f"folder:{tmp_path}")
    assert source.take(2).files == names[:2]
    assert source.take(2).num_classes == 2
    assert source.only([2, 0]).labels.tolist() == [1, 0]
    assert len(source.take(99)) == 3
    assert isinstance(source.take(1), FileSource)


def test_known_endings_cover_what_is_made_here():
    endings = {os.path.splitext(name)[1].lower() for name in odd_files()}
    assert endings <= decoding.EXTENSIONS
