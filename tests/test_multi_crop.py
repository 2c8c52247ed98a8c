"""Multi-crop policies: sizes, places of crops and patches, and what they share."""

import json

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

from keras_kssl import augment, data, models
from keras_kssl.augment import View, image_ops
from keras_kssl.data import cutting
from tests.photos import encoded, picture, write_folder

HEIGHT, WIDTH, SIZE = 31, 45, 28
POLICIES = {
    "swav": augment.multi_crop_swav(SIZE),
    "obow": augment.multi_crop_obow(SIZE),
}
every_policy = pytest.mark.parametrize("name", POLICIES)


def to_numpy(tree):
    return keras.tree.map_structure(ops.convert_to_numpy, tree)


def random_images(batch=4, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((batch, HEIGHT, WIDTH, channels), dtype=np.float32)


def draw(policy, batch=2000, side=256, seed=0):
    return to_numpy(policy.draw(batch, side, side, 3, seed))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("size", "swav", "obow", "whole"),
    [
        (224, [224] * 2 + [96] * 6, [224, 160, 160] + [96] * 5, 256),
        (96, [96] * 2 + [41] * 6, [96, 69, 69] + [41] * 5, 110),
        (32, [32] * 2 + [14] * 6, [32, 23, 23] + [14] * 5, 37),
        (1, [1] * 8, [1] * 8, 1),
    ],
)
def test_sizes_are_the_published_ones_and_shrink_with_the_first(
    size, swav, obow, whole
):
    policies = augment.multi_crop_swav(size), augment.multi_crop_obow(size)
    for policy, sizes, num_global in zip(policies, (swav, obow), (2, 1), strict=True):
        assert policy.sizes == tuple(sizes)
        assert (policy.num_views, policy.num_global_views) == (8, num_global)
        assert policy.size == size
    assert policies[1].views[-1].size == whole


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("obow", 3),
        pytest.param("obow", 5, marks=pytest.mark.any_backend),
        pytest.param("swav", 3, marks=pytest.mark.any_backend),
        pytest.param("swav", 5, marks=pytest.mark.any_backend),
    ],
)
def test_views_have_their_sizes_and_lie_in_the_unit_range(name, channels):
    # Another one of the same views, which has not warned yet.
    policy = augment.Policy(POLICIES[name].views)
    images = random_images(channels=channels)
    if channels == 5:
        with pytest.warns(UserWarning, match="saturation, hue, grayscale"):
            views = to_numpy(policy(images, seed=3))
    else:
        views = to_numpy(policy(images, seed=3))
    assert [view.shape for view in views] == [
        (4, size, size, channels) for size in policy.sizes
    ]
    for view in views:
        assert view.min() >= 0.0
        assert view.max() <= 1.0
        assert view.std() > 0.05
    for i, one in enumerate(views):
        for other in views[i + 1 :]:
            if one.shape == other.shape:
                assert np.abs(one - other).mean() > 0.01


@pytest.mark.any_backend
@every_policy
def test_each_image_depends_on_its_own_row_alone(name):
    policy, images = POLICIES[name], random_images()
    parameters = to_numpy(policy.draw(4, HEIGHT, WIDTH, 3, seed=1))
    rows = np.array([3, 0, 3])
    some = keras.tree.map_structure(lambda array: array[rows], parameters)
    views = to_numpy(policy.apply(images, parameters))
    for view, part in zip(
        views, to_numpy(policy.apply(images[rows], some)), strict=True
    ):
        np.testing.assert_allclose(part, view[rows], atol=1e-5)


@pytest.mark.any_backend
@every_policy
def test_a_policy_survives_serialisation(name):
    policy = POLICIES[name]
    config = keras.saving.serialize_keras_object(policy)
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    assert again == policy
    assert again.sizes == policy.sizes
    assert again != augment.Policy(policy.views[:-1])


def test_squares_are_cut_pixel_by_pixel():
    images = random_images(3)
    tops, lefts = np.int32([0, 24, 11]), np.int32([38, 0, 5])
    squares = to_numpy(image_ops.cut_square(images, tops, lefts, 7))
    for square, image, top, left in zip(squares, images, tops, lefts, strict=True):
        np.testing.assert_array_equal(square, image[top : top + 7, left : left + 7])


def test_patches_are_parts_of_one_view_with_its_mirroring_and_colours():
    policy = POLICIES["obow"]
    (view,) = [view for view in policy.views if view.patches]
    settings = {**policy.get_config()["views"][-1], "patches": None}
    whole_policy = augment.Policy([{**settings, "is_small": False}])
    images = random_images()
    parameters = to_numpy(policy.draw(4, HEIGHT, WIDTH, 3, seed=2))[-1]
    patches = to_numpy(
        augment.Policy([{**policy.get_config()["views"][-1], "is_small": False}]).apply(
            images, [parameters]
        )
    )
    (whole,) = to_numpy(whole_policy.apply(images, [parameters]))
    count, side, _ = view.patches
    assert len(patches) == count == 5
    for k, patch in enumerate(patches):
        for i, (top, left) in enumerate(parameters["patches"][:, k]):
            expected = whole[i, top : top + side, left : left + side]
            np.testing.assert_allclose(patch[i], expected, atol=1e-6)


@pytest.mark.any_backend
def test_patches_lie_on_five_places_of_the_grid_each_moved_at_random():
    places = draw(augment.multi_crop_obow(224))[-1]["patches"]
    # By the released program: 0, 68 or 136, and 0 to 24 more.
    cells, moved = np.divmod(places, 68)
    assert cells.min() == 0
    assert cells.max() == 2
    assert moved.max() == 24
    numbers = 3 * cells[..., 0] + cells[..., 1]
    for of_image in numbers:
        assert len(set(of_image)) == 5
    for counts in (
        np.bincount(numbers[:, 0], minlength=9),
        np.bincount(numbers.ravel(), minlength=9),
        np.bincount(moved[:, 1, 0], minlength=25),
        np.bincount(moved[:, 4, 1], minlength=25),
    ):
        assert stats.chisquare(counts).pvalue > 1e-3
    columns = np.concatenate([places[:, :, 0] % 68, places[:, :, 1] % 68], axis=1)
    correlations = np.corrcoef(columns.T) - np.eye(10)
    assert np.abs(correlations).max() < 5 / np.sqrt(2000)


RECORDED = {
    "SwAV/global224": ("swav", 1),
    "SwAV/local96": ("swav", 4),
    "OBoW/crop160": ("obow", 2),
    "OBoW/patches96": ("obow", 3),
}


@pytest.mark.any_backend
@pytest.mark.parametrize("recorded", RECORDED)
def test_crops_are_distributed_as_the_authors(golden, recorded):
    name, view = RECORDED[recorded]
    theirs = golden("augment_sfrik")[f"{recorded}/crop_ijhw"].astype("float64")
    mine = draw(POLICIES[name])[view]["boxes"]
    for describe in (
        lambda y, x, h, w: h * w,
        lambda y, x, h, w: w / h,
        lambda y, x, h, w: y / np.maximum(256 - h, 1),
        lambda y, x, h, w: x / np.maximum(256 - w, 1),
    ):
        both = describe(*mine.T), describe(*theirs.T)
        assert stats.ks_2samp(*both).pvalue > 1e-3


@pytest.mark.any_backend
@pytest.mark.parametrize("recorded", ["OBoW/original", *RECORDED])
def test_channel_means_of_views_are_the_authors(golden, recorded):
    arrays = golden("augment_sfrik")
    settings = json.loads((golden.folder / "augment_sfrik.json").read_text())
    settings = settings["configured"][recorded.split("/")[0]]
    name, view = RECORDED.get(recorded, ("obow", 0))
    # Means hardly depend on the resolution.
    (view,) = [
        {"swav": augment.multi_crop_swav, "obow": augment.multi_crop_obow}[name](
            56
        ).views[view]
    ]
    policy = augment.Policy([{**vars(view), "is_small": False}])
    images = np.repeat(arrays["image"][None], 100, axis=0)
    means = []
    for seed in range(1 if recorded == "OBoW/original" else 5):
        views = to_numpy(policy(images, seed=seed))
        means.append(np.mean([v.mean(axis=(1, 2)) for v in views], axis=0))
    means = np.concatenate(means) - np.float32(settings["mean"])
    means = means / np.float32(settings["std"])
    theirs = arrays[f"{recorded}/out_mean"]
    if recorded == "OBoW/original":
        # Nothing about it is random but the mirroring.
        np.testing.assert_allclose(means, theirs[:100], atol=0.02)
        return
    for channel in range(3):
        both = means[:, channel], theirs[:, channel]
        assert stats.ks_2samp(*both).pvalue > 1e-3


@pytest.mark.any_backend
def test_colours_are_the_published_ones_or_those_of_another_policy():
    swav, obow = POLICIES["swav"].views, POLICIES["obow"].views
    for view in swav:
        assert (view.jitter, view.brightness, view.hue, view.blur) == (
            0.8,
            0.8,
            0.2,
            0.5,
        )
    assert (obow[0].jitter, obow[0].grayscale, obow[0].flip) == (0.0, 0.0, 0.5)
    for view, blur in zip(obow[1:], (0.5, 0.5, 0.0), strict=True):
        assert (view.jitter, view.brightness, view.hue, view.blur) == (
            0.8,
            0.4,
            0.4,
            blur,
        )
        assert (view.grayscale, view.solarize) == (0.2, 0.0)
    byol = augment.byol(SIZE)
    views = augment.multi_crop_swav(SIZE, colors=byol).views
    assert [view.blur for view in views] == [1.0, 0.1] * 4
    assert [view.solarize for view in views] == [0.0, 0.2] * 4
    assert {view.style for view in views} == {"byol"}
    assert [view.crop_scale for view in views] == [v.crop_scale for v in swav]
    original, first, second, patches = augment.multi_crop_obow(SIZE, colors=byol).views
    assert original == obow[0]
    assert (first.blur, second.blur, patches.blur) == (1.0, 0.1, 0.0)
    assert (first.solarize, second.solarize, patches.solarize) == (0.0, 0.2, 0.0)


@pytest.mark.any_backend
@every_policy
def test_photos_of_many_sizes_are_cut_once_for_all_views(name, tmp_path):
    policy = POLICIES[name]
    files = {f"{i}.png": encoded(picture(40 + i, 60 - i, i), "PNG") for i in range(4)}
    source = data.open_source(f"folder:{write_folder(tmp_path / 'photos', files)}")
    batches = data.Batches(source, 4, policy=policy)
    cuts, _ = batches.images_at(0)
    assert [cut.shape[1] for cut in cuts] == [view.size for view in policy.views]
    views = to_numpy(policy(cuts, seed=0))
    assert [view.shape[1] for view in views] == list(policy.sizes)
    numbers = np.random.default_rng(0).random(
        (1, len(policy.views), cutting.NUMBERS_PER_VIEW)
    )
    (last,) = [cut[0] for cut in source.views([2], policy.views, numbers)[0][-1:]]
    image, (height, width) = source.decode(2)
    box = cutting.boxes_of_views(policy.views, numbers[0], height, width)[-1]
    np.testing.assert_array_equal(last, cutting.cut(image, box, policy.views[-1]))


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("patches", "error", "match"),
    [
        ((10, 4, 1), ValueError, "of 1 to 9 patches"),
        ((0, 4, 1), ValueError, "of 1 to 9 patches"),
        ((5, 20, 5), ValueError, "fit into the view"),
        ((5, 4, -1), ValueError, "fit into the view"),
        ((5, 4), TypeError, "three integers"),
        (5, TypeError, "three integers"),
        ((5, 4.0, 1), TypeError, "an integer"),
    ],
)
def test_wrong_patches_are_refused(patches, error, match):
    with pytest.raises(error, match=f"View: `patches` must be .*{match}"):
        View(24, patches=patches)


@pytest.mark.any_backend
def test_wrong_policies_and_encoders_are_refused():
    large, small = View(24), View(12, is_small=True)
    for views in ([small], [small, large], [large, small, large]):
        with pytest.raises(ValueError, match="`views` must be one that is not small"):
            augment.Policy(views)
    with pytest.raises(ValueError, match="`num_small` must be"):
        augment.multi_crop_swav(24, num_small=0)
    images = keras.Input((24, 24, 3))
    encoder = keras.Model(images, keras.layers.Conv2D(4, 3)(images))
    with pytest.raises(
        ValueError, match=r"`encoder` must be .* any size.*keras\.Input"
    ):
        models.SFRIK(
            encoder,
            augment=augment.multi_crop_swav(24),
            projector=models.MLPHead((4,), 3),
        )
