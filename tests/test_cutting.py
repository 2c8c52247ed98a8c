"""Views cut on the host: against the same operations on the device, and their laws."""

import threading

import keras
import numpy as np
import pytest
from PIL import Image

from keras_kssl import augment, models
from keras_kssl.augment import image_ops
from keras_kssl.augment.views import View
from keras_kssl.data import cutting, load, open_source
from keras_kssl.data.encoded import TooManyBroken
from tests.photos import encoded, picture, write_folder

POLICIES = {
    "byol": augment.byol(size=20),
    "vicreg": augment.vicreg(size=20),
    "simclr": augment.simclr(size=20),
    "auh": augment.auh(size=20),
}
ROUNDING = 0.501 / 255


def on_device(image, box, view):
    images = (image[np.newaxis] / 255.0).astype("float32")
    resizing = {"interpolation": view.interpolation, "antialias": view.antialias}
    if box is None:
        size, fraction = view.size, view.center_fraction
        cut = image_ops.center_crop(images, size, fraction, **resizing)
    else:
        boxes = np.float32([box])
        cut = image_ops.crop_and_resize(images, boxes, view.size, **resizing)
    return np.clip(keras.ops.convert_to_numpy(cut)[0], 0.0, 1.0)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    "box",
    [(0, 0, 61, 45), (3, 5, 40, 37), (10, 2, 7, 30), (60, 44, 1, 1), (7, 9, 20, 20)],
)
def test_parts_equal_those_cut_on_the_device(box, interpolation, antialias):
    image = picture(61, 45, seed=3)
    view = View(size=20, interpolation=interpolation, antialias=antialias)
    expected = on_device(image, box, view)
    as_bytes = cutting.cut(image, box, view)
    assert as_bytes.dtype == np.uint8
    np.testing.assert_allclose(as_bytes / 255.0, expected, atol=ROUNDING)
    floats = cutting.cut((image / 255.0).astype("float32"), box, view)
    np.testing.assert_allclose(floats, expected, atol=1e-5)


@pytest.mark.any_backend
@pytest.mark.parametrize("shape", [(2, 700), (700, 2), (300, 1), (1, 1), (35, 683)])
def test_antialiased_parts_of_any_shape_are_those_of_pil(shape):
    image = picture(*shape, seed=5)
    cut = cutting.cut(image, (0, 0, *shape), View(size=33))
    by_pil = Image.fromarray(image).resize((33, 33), Image.Resampling.BICUBIC)
    # PIL rounds and cuts off between the two axes too.
    assert np.abs(cut.astype(int) - np.asarray(by_pil)).max() <= 2


@pytest.mark.any_backend
@pytest.mark.parametrize("shape", [(61, 45), (45, 61), (20, 33), (9, 9)])
@pytest.mark.parametrize("fraction", [224 / 256, 1.0, 0.5])
def test_the_centre_is_that_of_the_device(shape, fraction):
    image = picture(*shape, seed=4)
    view = View(size=20, center_fraction=fraction)
    expected = on_device(image, None, view)
    # PIL rounds and cuts off between rows and columns too, which shows in enlarging.
    atol = 3 * ROUNDING if min(shape) >= 20 else 0.03
    cut = cutting.cut(image, None, view)
    np.testing.assert_allclose(cut / 255.0, expected, atol=atol)


@pytest.mark.any_backend
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_images_may_be_views_of_others_and_stay_as_they_are(dtype):
    image = picture(45, 61)
    if dtype == "float32":
        image = (image / 255.0).astype(dtype)
    image.flags.writeable = False
    view = View(size=20)
    turned = cutting.cut(image.transpose(1, 0, 2)[::-1], (3, 2, 40, 33), view)
    copied = np.ascontiguousarray(image.transpose(1, 0, 2)[::-1])
    np.testing.assert_array_equal(turned, cutting.cut(copied, (3, 2, 40, 33), view))


@pytest.mark.any_backend
def test_weights_of_long_axes_are_not_kept():
    cutting._weights.cache_clear()
    for length in (1024, 1025):
        image = np.full((length, 1, 3), 7, "uint8")
        cut = cutting.cut(image, (0, 0, length, 1), View(size=5))
        np.testing.assert_array_equal(cut, 7)
    # Of rows of 1024 pixels, and of columns of one.
    assert cutting._weights.cache_info().currsize == 2


@pytest.mark.any_backend
def test_images_of_many_channels_are_cut_channel_by_channel():
    # More than is made floats at a time.
    image, view = picture(31, 145, channels=5), View(size=20)
    whole = cutting.cut(image, (2, 3, 25, 131), view)
    for channel in range(5):
        alone = cutting.cut(image[..., channel : channel + 1], (2, 3, 25, 131), view)
        np.testing.assert_array_equal(whole[..., channel : channel + 1], alone)


@pytest.mark.any_backend
@pytest.mark.parametrize("name", POLICIES)
def test_boxes_are_those_that_the_policy_draws_from_the_same_numbers(name, monkeypatch):
    policy = POLICIES[name]
    rng = np.random.default_rng(0)
    numbers = rng.random((200, 2, cutting.NUMBERS_PER_VIEW)).astype("float32")
    others = np.zeros((200, 2, 100), "float32")
    monkeypatch.setattr(
        keras.random,
        "uniform",
        lambda shape, **options: keras.ops.convert_to_tensor(
            np.concatenate([numbers, others], axis=2)[..., : shape[-1]]
        ),
    )
    drawn = policy.draw(200, 61, 45, 3, seed=0)
    for view in (0, 1):
        mine = [
            cutting.boxes_of_views(policy.views, row, 61, 45)[view] for row in numbers
        ]
        theirs = keras.ops.convert_to_numpy(drawn[view]["boxes"])
        # A product that falls on a whole number may round either way.
        assert (np.abs(np.array(mine) - theirs).max(axis=1) > 0).mean() < 0.03


OF_ODD_RATIOS = (
    View(size=8, crop_ratio=(0.2, 0.4)),
    View(size=8, crop_ratio=(2.5, 5.0)),
)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "views", [*(policy.views for policy in POLICIES.values()), OF_ODD_RATIOS]
)
@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (7, 3), (4000, 20)])
def test_boxes_lie_inside_images_of_any_shape(views, shape):
    rng = np.random.default_rng(0)
    for _ in range(50):
        numbers = rng.random((2, cutting.NUMBERS_PER_VIEW))
        for box in cutting.boxes_of_views(views, numbers, *shape):
            top, left, height, width = box
            assert 0 <= top < top + height <= shape[0]
            assert 0 <= left < left + width <= shape[1]


@pytest.mark.any_backend
def test_an_image_shrinks_only_while_every_view_has_pixels_enough():
    views = (View(size=20), View(size=10))
    assert cutting.largest_shrink(views, [(0, 0, 80, 90), (0, 0, 50, 40)], 99, 99) == 4
    assert cutting.largest_shrink(views, [(0, 0, 79, 90), (0, 0, 50, 40)], 99, 99) == 2
    assert cutting.largest_shrink(views, [(0, 0, 80, 90), (0, 0, 5, 40)], 99, 99) == 1
    centre = (View(size=20, center_fraction=0.5),)
    assert cutting.largest_shrink(centre, [None], 80, 200) == 2


@pytest.mark.any_backend
def test_boxes_follow_the_image_when_it_shrinks():
    assert cutting.scale_box((10, 20, 41, 60), (100, 200), (50, 100)) == (5, 10, 20, 30)
    assert cutting.scale_box((99, 199, 1, 1), (100, 200), (13, 25)) == (12, 24, 1, 1)
    assert cutting.scale_box(None, (100, 200), (50, 100)) is None


@pytest.mark.any_backend
def test_views_of_large_jpegs_hardly_change_by_shrinking(tmp_path):
    path = tmp_path / "large.jpg"
    path.write_bytes(encoded(picture(900, 1200), quality=95))
    source = open_source(f"folder:{tmp_path}")
    policy = POLICIES["vicreg"]
    numbers = np.random.default_rng(1).random((1, 2, cutting.NUMBERS_PER_VIEW))
    shrunk, _ = source.views([0], policy.views, numbers)
    whole, _ = source.decode(0)
    boxes = cutting.boxes_of_views(policy.views, numbers[0], 900, 1200)
    for cut, box, view in zip(shrunk, boxes, policy.views, strict=True):
        expected = cutting.cut(whole, box, view)
        assert np.abs(cut[0].astype(float) - expected).mean() < 4
        assert np.abs(cut[0].astype(float) - expected).max() < 30


@pytest.fixture
def folder(tmp_path):
    files = {
        f"{i // 6}/{i:02d}.png": encoded(picture(30 + i, 50 - i, i), "PNG")
        for i in range(18)
    }
    return write_folder(tmp_path / "photos", files)


@pytest.mark.any_backend
def test_a_step_is_a_function_of_the_seed_and_its_number(folder):
    policy = POLICIES["vicreg"]
    batches = load(f"folder:{folder}", 4, seed=3, policy=policy)
    again = load(f"folder:{folder}", 4, seed=3, policy=policy)
    other = load(f"folder:{folder}", 4, seed=4, policy=policy)
    for step in (7, 0, 3):
        (views, labels), (same, same_labels) = batches.at(step), again.at(step)
        for a, b, c in zip(views, same, other.at(step)[0], strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.shape == (4, 20, 20, 3)
            assert a.dtype == np.uint8
            assert not np.array_equal(a, c)
        np.testing.assert_array_equal(labels, same_labels)
        assert not np.array_equal(views[0], views[1])
    assert not np.array_equal(batches.at(0)[0][0], batches.at(1)[0][0])


@pytest.mark.any_backend
def test_batches_show_the_images_of_their_labels(folder):
    """Each view is all of one image's own colours: here, a whole one, resized."""
    policy = augment.Policy([View(size=8, center_fraction=1.0)] * 2)
    source = open_source(f"folder:{folder}")
    batches = load(source, 6, policy=policy)
    (view, _), labels = batches.at(0)
    order = batches._epoch_order(0)[:6]
    np.testing.assert_array_equal(labels, source.labels[order])
    for row, index in zip(view, order, strict=True):
        expected = cutting.cut(source.decode(index)[0], None, policy.views[0])
        np.testing.assert_array_equal(row, expected)


@pytest.mark.any_backend
def test_what_breaks_later_is_replaced_by_the_next_and_named(folder):
    policy = POLICIES["vicreg"]
    source = open_source(f"folder:{folder}", max_broken=0.5)
    (folder / "0" / "03.png").write_bytes(b"\x89PNG\r\n\x1a\n broken now")
    (folder / "0" / "04.png").unlink()
    numbers = np.random.default_rng(0).random((3, 2, cutting.NUMBERS_PER_VIEW))
    views, shown = source.views([2, 3, 17], policy.views, numbers)
    assert shown.tolist() == [2, 5, 17]
    assert set(source.broken) == {"0/03.png", "0/04.png"}
    again, _ = source.views([2, 5, 17], policy.views, numbers)
    np.testing.assert_array_equal(views[0], again[0])


@pytest.mark.any_backend
def test_too_many_that_break_later_stop_with_the_list(folder):
    batches = load(f"folder:{folder}", 4, policy=POLICIES["vicreg"], max_broken=0.1)
    for path in sorted(folder.glob("*/*.png"))[:3]:
        path.write_bytes(b"no image")
    with pytest.raises(TooManyBroken, match=r"2 of 18.*\n  0/0\d\.png: no image of"):
        _ = [batches.at(step) for step in range(4)]


@pytest.mark.any_backend
def test_a_set_with_nothing_left_to_read_ends(folder):
    source = open_source(f"folder:{folder}", max_broken=1.0)
    for path in folder.glob("*/*.png"):
        path.unlink()
    numbers = np.zeros((1, 2, cutting.NUMBERS_PER_VIEW))
    with pytest.raises(TooManyBroken, match="no image can be read"):
        source.views([0], POLICIES["vicreg"].views, numbers)


def test_each_fit_takes_the_policy_of_its_own_model(folder):
    batches = load(f"folder:{folder}", 4)
    for size in (12, 16):
        batches.feed(augment.byol(size=size))
        assert batches.at(0)[0][0].shape[1:3] == (size, size)
    chosen = load(f"folder:{folder}", 4, policy=augment.byol(size=8))
    chosen.feed(augment.byol(size=12))
    assert chosen.at(0)[0][0].shape[1:3] == (8, 8)


@pytest.mark.any_backend
def test_sources_of_one_size_are_not_for_training(folder):
    source = open_source(f"folder:{folder}").at_size(16)
    assert len(open_source(source, limit=2)) == 2
    assert source.fingerprint() == open_source(f"folder:{folder}").fingerprint()
    with pytest.raises(ValueError, match="replaces what cannot be read"):
        load(source, 4)


def test_no_thread_outlives_a_fit_that_is_interrupted(folder, monkeypatch):
    threads, kept = [], []

    def fit(self, batches, **options):
        kept.append(iter(batches))
        next(kept[0])
        threads.extend(t for t in threading.enumerate() if t.name == "kssl_batches")
        raise KeyboardInterrupt

    monkeypatch.setattr(keras.Model, "fit", fit)
    encoder = models.ResNet(10, width=0.125, stem="cifar")
    head = models.MLPHead((8,), 8)
    model = models.SFRIK(encoder, augment.byol(size=8), projector=head)
    # Who keeps the error keeps the stream that it came through.
    with pytest.raises(KeyboardInterrupt):
        model.fit(load(f"folder:{folder}", 4))
    assert threads
    for thread in threads:
        thread.join(timeout=5)
        assert not thread.is_alive()


@pytest.mark.any_backend
def test_images_of_many_sizes_need_a_policy(folder):
    with pytest.raises(ValueError, match="`policy` must be given for folder:"):
        load(f"folder:{folder}", 4).at(0)
