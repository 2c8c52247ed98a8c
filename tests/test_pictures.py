"""Pictures: written where they should be, from what the file and the features say."""

import numpy as np
import pytest
from PIL import Image

from keras_kssl import pictures

pytestmark = pytest.mark.any_backend


@pytest.fixture
def figures(monkeypatch):
    """The figures that were drawn, to look at what is in them."""
    drawn = []
    write = pictures._write

    def record(figure, path):
        drawn.append(figure)
        return write(figure, path)

    monkeypatch.setattr(pictures, "_write", record)
    return drawn


def test_curves_show_each_column_over_the_epochs_loss_first(tmp_path, figures):
    csv = tmp_path / "metrics.csv"
    csv.write_text("epoch,alignment,loss,val_loss\n0,1.5,3.0,NA\n1,1.25,2.0,NA\n")
    path = pictures.draw_curves(csv, tmp_path / "new" / "curves.png", title="a run")
    axes = figures[0].axes
    assert [panel.get_title() for panel in axes] == ["loss", "alignment"]
    np.testing.assert_array_equal(axes[0].lines[0].get_xdata(), [1, 2])
    np.testing.assert_array_equal(axes[0].lines[0].get_ydata(), [3.0, 2.0])
    assert figures[0].get_suptitle() == "a run"
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert len(np.unique(np.asarray(image))) > 2


def test_epochs_that_were_not_measured_are_left_out_of_a_curve(tmp_path, figures):
    csv = tmp_path / "metrics.csv"
    rows = "0,3.0,nan\n1,2.0,0.25\n2,2.0,nan\n3,1.0,0.5\n"
    csv.write_text("epoch,loss,val_knn_20\n" + rows)
    pictures.draw_curves(csv, tmp_path / "curves.png")
    loss, accuracy = (panel.lines[0] for panel in figures[0].axes)
    np.testing.assert_array_equal(loss.get_xdata(), [1, 2, 3, 4])
    np.testing.assert_array_equal(accuracy.get_xdata(), [2, 4])
    np.testing.assert_array_equal(accuracy.get_ydata(), [0.25, 0.5])
    assert accuracy.get_marker() == "."


def test_curves_of_a_single_epoch_are_drawn(tmp_path, figures):
    csv = tmp_path / "metrics.csv"
    csv.write_text("epoch,loss\n0,3.0\n")
    assert pictures.draw_curves(csv, tmp_path / "curves.png").is_file()


def test_maps_give_each_class_a_colour_and_a_name(tmp_path, figures):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 2], 15)
    features = rng.normal(size=(30, 5)) + 8.0 * np.eye(5)[labels]
    path = pictures.draw_maps(
        {"before": rng.normal(size=(30, 3)), "after": features},
        labels,
        tmp_path / "maps.png",
        class_names=["cat", "dog", "owl"],
    )
    before, after = figures[0].axes
    assert (before.get_title(), after.get_title()) == ("before", "after")
    assert [text.get_text() for text in after.get_legend().get_texts()] == [
        "cat",
        "owl",
    ]
    cat, owl = (points.get_offsets() for points in after.collections)
    assert len(cat) == len(owl) == 15
    # Classes 8 standard deviations apart stay apart on the map.
    gap = np.linalg.norm(cat.mean(axis=0) - owl.mean(axis=0))
    assert gap > cat.std() + owl.std()
    assert path.stat().st_size > 1000


def test_maps_show_the_first_thousand_images_and_no_legend_for_many_classes(
    tmp_path, figures, monkeypatch
):
    seen = []
    monkeypatch.setattr(
        pictures, "_map", lambda x, seed: seen.append(len(x)) or x[:, :2]
    )
    labels = np.arange(1200) % 50
    features = np.random.default_rng(0).normal(size=(1200, 3))
    pictures.draw_maps({"one": features}, labels, tmp_path / "maps.png")
    assert seen == [1000]
    assert figures[0].axes[0].get_legend() is None


@pytest.mark.parametrize("count", [4, 7])
def test_maps_of_a_handful_of_images_are_drawn(tmp_path, count):
    features = np.random.default_rng(0).normal(size=(count, 60)).astype("float32")
    path = pictures.draw_maps(
        {"few": features}, np.arange(count), tmp_path / "maps.png"
    )
    assert path.read_bytes().startswith(b"\x89PNG")
