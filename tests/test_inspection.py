"""What `kssl doctor --data` and `kssl preview` tell and draw of a user's images."""

import numpy as np
import pytest
from PIL import Image

from keras_kssl import cli, data, inspection, pictures, preview
from keras_kssl.augment import vicreg
from keras_kssl.recipes import Recipe
from tests.photos import encoded, picture, write_folder

SMALL = Recipe(
    method="sfrik",
    encoder="resnet10",
    width=0.125,
    projector=(16, 8),
    epochs=2,
    batch_size=4,
    size=16,
)


@pytest.fixture
def folder(tmp_path):
    files = {f"a/{i}.png": encoded(picture(20 + i, 30, i), "PNG") for i in range(12)}
    files["b/copy.png"] = files["a/0.png"]
    files["b/photo.jpg"] = encoded(picture(50, 60, 9))
    files["b/half.png"] = files["a/1.png"][:150]
    return write_folder(tmp_path / "photos", files)


@pytest.mark.any_backend
def test_a_report_tells_sizes_formats_labels_copies_and_what_is_broken(folder):
    lines = inspection.report(f"folder:{folder}", SMALL)
    text = "\n".join(lines)
    assert "15 images" in lines[0]
    assert "14 PNG, 1 JPEG" in text
    assert "20 x 30 to 50 x 60" in text
    assert "3 channels, uint8" in text
    assert "2 classes of 3 to 12 images, 0 images without" in text
    assert "cannot be read: 1" in text
    assert "b/half.png: " in text
    assert "copies of another image: 1" in text
    assert "a/0.png = b/copy.png" in text
    assert "views of 16 x 16, batch 4, 2 epochs of 3 steps" in text
    assert "images/s" in text
    assert "repair or remove" in text


@pytest.mark.any_backend
@pytest.mark.parametrize("kept", [0, 60])
def test_a_report_on_a_folder_with_nothing_to_train_on(kept, tmp_path):
    """Broken headers, and broken pixels behind good ones."""
    content = encoded(picture(20, 20), "PNG")[:kept]
    write_folder(tmp_path, {"a.png": content, "b.png": content})
    text = "\n".join(inspection.report(f"folder:{tmp_path}", Recipe()))
    assert "nothing to train on" in text
    assert "cannot be read: 2" in text


@pytest.mark.any_backend
def test_a_report_on_images_without_known_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "_cost", lambda source, recipe: [])
    content = encoded(picture(20, 20), "PNG")
    write_folder(tmp_path, {f"{name}.png": content for name in "abc"})
    (tmp_path / "labels.csv").write_text("file,label\nc.png,x\n")
    text = "\n".join(inspection.report(f"folder:{tmp_path}", Recipe(limit=2)))
    assert "1 classes of 0 to 0 images, 2 images without" in text


@pytest.mark.any_backend
def test_moments_are_those_of_all_pixels(folder):
    source = data.open_source(f"folder:{folder}")
    good = [i for i in range(len(source)) if source.name_of(i) != "b/half.png"]
    images = [source.decode(i)[0] for i in good]
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]) / 255.0
    mean, deviation = data.channel_moments(source)
    np.testing.assert_allclose(mean, pixels.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(deviation, pixels.std(axis=0), rtol=1e-4)


@pytest.mark.any_backend
def test_moments_of_arrays_take_part_of_many_images():
    images = np.random.default_rng(0).random((50, 4, 5, 2), dtype="float32")
    source = data.ArraySource(images)
    mean, deviation = data.channel_moments(source)
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(deviation, images.std(axis=(0, 1, 2)), rtol=1e-4)
    some, _ = data.channel_moments(source, count=2)
    np.testing.assert_allclose(some, images[[0, 49]].mean(axis=(0, 1, 2)), rtol=1e-5)


@pytest.mark.any_backend
def test_the_command_reports_on_the_machine_and_on_the_data(
    folder, capsys, monkeypatch
):
    monkeypatch.setattr(
        inspection, "_cost", lambda source, recipe: [f"{recipe.method}"]
    )
    arguments = ["doctor", "--data", f"folder:{folder}", "--limit", "2"]
    assert cli.main([*arguments, "--method", "sfrik"]) == 0
    said = capsys.readouterr().out
    assert "Keras backend" in said
    assert "2 images" in said
    assert "sfrik" in said
    assert "2 images are few" in said


@pytest.mark.any_backend
def test_a_preview_of_one_image(tmp_path):
    images = np.random.default_rng(0).random((3, 9, 9, 3), dtype="float32")
    drawn = []
    draw_grid = pictures.draw_grid

    def draw(rows, *arguments):
        drawn.append([len(row) for row in rows])
        return draw_grid(rows, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "draw_grid", draw)
        preview.draw(images, vicreg(size=8), tmp_path / "a.png", count=1)
    assert drawn == [[1, 1, 1]]


@pytest.mark.any_backend
def test_a_preview_shows_the_image_that_stands_for_a_broken_one(folder, tmp_path):
    source = data.open_source(f"folder:{folder}", max_broken=0.5)
    broken = source.files.index("b/half.png")
    shown = data.Batches(source, 15, policy=vicreg(size=8)).images_at(0)[1]
    assert broken not in shown
    preview.draw(source, vicreg(size=8), tmp_path / "a.png", count=15)


@pytest.mark.any_backend
def test_a_preview_shows_images_and_two_views_of_each(folder, tmp_path, capsys):
    path = tmp_path / "out" / "views.png"
    arguments = ["preview", "--data", f"folder:{folder}", "--out", str(path)]
    assert cli.main([*arguments, "--size", "20", "--images", "4"]) == 0
    assert str(path) in capsys.readouterr().out
    picture_ = np.asarray(Image.open(path).convert("RGB"))
    # Three rows of four pictures: wider than high, and not one colour.
    assert picture_.shape[1] > picture_.shape[0]
    assert len(np.unique(picture_.reshape(-1, 3), axis=0)) > 1000
    other = tmp_path / "other.png"
    assert cli.main([*arguments[:3], "--out", str(other), "--seed", "1"]) == 0
    assert other.read_bytes() != path.read_bytes()


@pytest.mark.any_backend
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_images_of_other_channels_can_be_looked_at(channels, tmp_path):
    images = np.random.default_rng(0).random((3, 9, 9, channels), dtype="float32")
    with pytest.warns(UserWarning, match="leaves out"):
        path = preview.draw(images, vicreg(size=8), tmp_path / "views.png", count=2)
    assert path.is_file()
