"""Policies: laws over all of them, and distributions against the authors' code."""

import dataclasses
import inspect
import itertools
import json
import warnings

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

from keras_kssl import _fusing, augment
from keras_kssl.augment import image_ops, views

HEIGHT, WIDTH, SIZE = 31, 45, 24
POLICIES = {
    "byol": augment.byol(SIZE),
    "vicreg": augment.vicreg(SIZE),
    "simclr": augment.simclr(SIZE),
    "auh": augment.auh(SIZE),
    "center_crop": augment.center_crop(SIZE),
}
RANDOM = [name for name in POLICIES if name != "center_crop"]
every_policy = pytest.mark.parametrize("name", POLICIES)
every_random_policy = pytest.mark.parametrize("name", RANDOM)


def to_numpy(tree):
    return keras.tree.map_structure(ops.convert_to_numpy, tree)


def random_images(batch=6, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((batch, HEIGHT, WIDTH, channels), dtype=np.float32)


def compiled(function):
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    tf = pytest.importorskip("tensorflow")
    return tf.function(function, jit_compile=True)


def draw(policy, batch=4000, height=256, width=256, channels=3, seed=0):
    return to_numpy(policy.draw(batch, height, width, channels, seed))


# Laws of every policy.


@every_policy
def test_views_are_float32_squares_in_the_unit_range(name):
    policy = POLICIES[name]
    views = policy(random_images(), seed=3)
    assert len(views) == policy.num_views == (1 if name == "center_crop" else 2)
    for view in views:
        assert tuple(view.shape) == (6, policy.size, policy.size, 3)
        assert keras.backend.standardize_dtype(view.dtype) == "float32"
        view = to_numpy(view)
        assert np.isfinite(view).all()
        assert view.min() >= 0.0
        assert view.max() <= 1.0
        assert view.std() > 0.05


@pytest.mark.parametrize(
    "name",
    # Of the second style, one with every operation.
    ["byol", "vicreg", *(pytest.param(n, marks=pytest.mark.slow) for n in RANDOM[2:])],
)
def test_drawing_and_applying_compile_as_one(name):
    policy, images = POLICIES[name], random_images()

    def draw_and_apply(images):
        parameters = policy.draw(6, HEIGHT, WIDTH, 3, seed=7)
        return parameters, policy.apply(images, parameters)

    # Compared with the eager views of the parameters drawn in the program: on
    # TensorFlow a compiled generator draws other numbers than an eager one.
    parameters, views = compiled(draw_and_apply)(ops.convert_to_tensor(images))
    eager = to_numpy(policy.apply(images, to_numpy(parameters)))
    for one, other in zip(eager, to_numpy(views), strict=True):
        assert np.mean(np.abs(one - other) > 1e-4) < 1e-3


@pytest.mark.any_backend
@every_policy
def test_each_image_depends_on_its_own_row_alone(name):
    policy, images = POLICIES[name], random_images()
    parameters = draw(policy, 6, HEIGHT, WIDTH, seed=1)
    views = to_numpy(policy.apply(images, parameters))
    rows = np.array([4, 0, 5, 5, 5, 0])
    some = keras.tree.map_structure(lambda array: array[rows], parameters)
    for view, part in zip(
        views, to_numpy(policy.apply(images[rows], some)), strict=True
    ):
        np.testing.assert_allclose(part, view[rows], atol=1e-5)


@pytest.mark.any_backend
@every_random_policy
def test_every_parameter_has_the_batch_as_leading_axis(name):
    for parameters in draw(POLICIES[name], 6, HEIGHT, WIDTH):
        assert parameters
        for array in parameters.values():
            assert array.shape[0] == 6


@every_random_policy
def test_images_of_a_batch_and_views_of_an_image_differ(name):
    image = random_images(1)
    view_1, view_2 = to_numpy(POLICIES[name](np.repeat(image, 6, axis=0), seed=0))
    for one, other in itertools.combinations([*view_1, *view_2], 2):
        assert np.abs(one - other).mean() > 0.01


@every_random_policy
def test_equal_seeds_give_equal_views_and_others_do_not(name):
    policy, images = POLICIES[name], random_images()
    first, again, other = (to_numpy(policy(images, seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first[0] - other[0]).mean() > 0.01


@every_random_policy
def test_a_seed_generator_advances_and_can_be_repeated(name):
    policy, images = POLICIES[name], random_images()
    generator = keras.random.SeedGenerator(1)
    first, second = (to_numpy(policy(images, generator)) for _ in range(2))
    assert np.abs(first[0] - second[0]).mean() > 0.01
    again = to_numpy(policy(images, keras.random.SeedGenerator(1)))
    np.testing.assert_array_equal(first, again)


@pytest.mark.any_backend
@every_policy
def test_uint8_and_float_images_give_the_same_views(name):
    images = np.random.default_rng(0).integers(0, 256, (6, 31, 45, 3), dtype=np.uint8)
    parameters = draw(POLICIES[name], 6, HEIGHT, WIDTH)
    from_bytes = to_numpy(POLICIES[name].apply(images, parameters))
    from_floats = to_numpy(
        POLICIES[name].apply((images / 255.0).astype("float32"), parameters)
    )
    for one, other in zip(from_bytes, from_floats, strict=True):
        assert np.mean(np.abs(one - other) > 1e-5) < 1e-3


@pytest.mark.any_backend
@every_policy
def test_a_policy_survives_serialisation(name):
    policy = POLICIES[name]
    config = keras.saving.serialize_keras_object(policy)
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    assert again == policy
    assert hash(again) == hash(policy)
    assert set(policy.get_config()) == set(inspect.signature(type(policy)).parameters)


# Images that are not RGB.


@pytest.mark.any_backend
@every_policy
@pytest.mark.parametrize("channels", [1, 5])
def test_other_images_get_all_that_needs_no_color(name, channels):
    policy = type(POLICIES[name])(POLICIES[name].views)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        views = policy(random_images(channels=channels), seed=0)
        parameters = policy.draw(6, HEIGHT, WIDTH, channels, seed=0)
    for view in to_numpy(views):
        assert view.shape == (6, SIZE, SIZE, channels)
        assert np.isfinite(view).all()
    for drawn in parameters:
        assert not {"saturation", "hue", "grayscale"} & set(drawn)
        assert ("contrast" in drawn) == (name != "center_crop")


@pytest.mark.any_backend
def test_what_is_left_out_is_said_once():
    policy = augment.byol(SIZE)
    assert policy.left_out(5) == ("saturation", "hue", "grayscale")
    with pytest.warns(UserWarning, match="saturation, hue, grayscale.*5 channels"):
        policy(random_images(channels=5), seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy(random_images(channels=5), seed=1)
        policy(random_images(), seed=1)


@pytest.mark.any_backend
def test_nothing_is_left_out_that_was_not_asked_for():
    assert augment.byol(SIZE).left_out(3) == ()
    assert augment.center_crop(SIZE).left_out(1) == ()
    gray = augment.Policy([augment.View(SIZE, grayscale=0.1, hue=0.1, jitter=0.0)])
    assert gray.left_out(4) == ("grayscale",)


# What is applied, from parameters chosen by hand.


def neutral(name, batch=6):
    ones, zeros = np.ones(batch, "float32"), np.zeros(batch, "float32")
    boxes = np.tile(np.float32([0, 0, HEIGHT, HEIGHT]), (batch, 1))
    return {
        "boxes": boxes,
        "flip": zeros > 0,
        "brightness": zeros if name == "byol" else ones,
        "contrast": ones,
        "saturation": ones,
        "hue": zeros,
        "order": np.tile(np.arange(4), (batch, 1)),
        "grayscale": zeros > 0,
        "blur_sigma": zeros,
        "solarize": zeros > 0,
    }


@pytest.mark.any_backend
@every_random_policy
def test_neutral_parameters_return_the_image(name):
    policy = augment.Policy([getattr(augment, name)(HEIGHT).views[0]])
    images = random_images()
    (view,) = to_numpy(policy.apply(images, [neutral(name)]))
    np.testing.assert_allclose(view, images[:, :, :HEIGHT], atol=1e-5)


def byol_operation(index, image, parameters):
    operation = (
        image_ops.adjust_brightness,
        image_ops.adjust_contrast,
        image_ops.adjust_saturation,
        image_ops.adjust_hue,
    )[index]
    return operation(image, parameters[views.JITTER[index]])


def torchvision_operation(index, image, parameters):
    operation = (
        image_ops.scale_brightness,
        image_ops.adjust_gray_contrast,
        image_ops.blend_saturation,
        image_ops.adjust_hue,
    )[index]
    return operation(image, parameters[views.JITTER[index]])


@pytest.mark.parametrize(
    ("style", "operation"),
    [("byol", byol_operation), ("torchvision", torchvision_operation)],
)
def test_jitter_in_any_order_is_the_operations_one_by_one(style, operation):
    orders = np.array(list(itertools.permutations(range(4))))
    rng = np.random.default_rng(0)
    images = random_images(len(orders))
    parameters = {
        "order": orders,
        "brightness": rng.uniform(-0.4, 0.4, len(orders)) + (style != "byol"),
        "contrast": rng.uniform(0.6, 1.4, len(orders)),
        "saturation": rng.uniform(0.5, 1.5, len(orders)),
        "hue": rng.uniform(-0.3, 0.3, len(orders)),
    }
    parameters = {
        name: array if name == "order" else array.astype("float32")
        for name, array in parameters.items()
    }
    planes = np.moveaxis(images, -1, 1)
    actual = to_numpy(views.apply_jitter(style, planes, parameters))
    actual = np.moveaxis(actual, 1, -1)
    for i, order in enumerate(orders):
        image = images[i : i + 1]
        own = {name: array[i : i + 1] for name, array in parameters.items()}
        for index in order:
            image = image_ops.clip(operation(index, image, own))
        np.testing.assert_allclose(actual[i], to_numpy(image)[0], atol=2e-5)


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ["byol", "vicreg"])
def test_a_view_is_crop_flip_jitter_gray_blur_solarize_in_that_order(name):
    view = getattr(augment, name)(20).views[1]
    images = random_images(2)
    parameters = neutral(name, 2) | {
        "boxes": np.float32([[3, 5, 25, 30], [0, 1, 31, 33]]),
        "flip": np.array([True, False]),
        "contrast": np.float32([0.7, 1.3]),
        "grayscale": np.array([True, False]),
        "blur_sigma": np.float32([0.8, 1.6]),
        "solarize": np.array([True, True]),
    }
    radius, padding = (1, "zeros") if name == "byol" else (6, "edge")
    x = image_ops.crop_and_resize(
        images, parameters["boxes"], 20, antialias=name != "byol"
    )
    x = to_numpy(image_ops.clip(x)).copy()
    x[0] = x[0, :, ::-1]
    contrast = {
        "byol": image_ops.adjust_contrast,
        "vicreg": image_ops.adjust_gray_contrast,
    }[name]
    x = to_numpy(image_ops.clip(contrast(x, parameters["contrast"]))).copy()
    x[0] = to_numpy(image_ops.grayscale(x))[0]
    x = image_ops.gaussian_blur(x, parameters["blur_sigma"], radius, padding)
    expected = to_numpy(image_ops.clip(image_ops.solarize(x)))
    actual = to_numpy(views.apply_view(view, images, parameters))
    assert np.mean(np.abs(actual - expected) > 1e-4) < 1e-3


@pytest.mark.any_backend
@every_random_policy
def test_an_image_alone_is_changed_as_in_a_batch(name):
    # Of a single one what it does without is not computed.
    policy = augment.Policy([getattr(augment, name)(20).views[-1]])
    images = random_images(24)
    parameters = to_numpy(policy.draw(24, HEIGHT, WIDTH, 3, seed=5))
    (together,) = to_numpy(policy.apply(images, parameters))
    for i in range(24):
        rows = [{name: array[i : i + 1] for name, array in parameters[0].items()}]
        (alone,) = to_numpy(policy.apply(images[i : i + 1], rows))
        np.testing.assert_allclose(alone[0], together[i], atol=1e-5)


def test_crops_made_before_skip_the_resampling():
    view = augment.byol(SIZE).views[0]
    crops = random_images()[:, :SIZE, :SIZE]
    parameters = neutral("byol")
    del parameters["boxes"]
    actual = to_numpy(views.apply_view(view, crops, parameters))
    np.testing.assert_allclose(actual, crops, atol=1e-5)
    with pytest.raises(ValueError, match="24 x 24 pixels"):
        views.apply_view(view, random_images(), parameters)


# Distributions.


def assert_uniform(values, low, high):
    assert stats.kstest(values, "uniform", (low, high - low)).pvalue > 1e-3


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("name", "probability", "strengths"),
    [
        ("byol", 0.8, {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2}),
        ("vicreg", 0.8, {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2}),
        ("simclr", 0.8, {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8}),
        ("auh", 1.0, {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4}),
    ],
)
def test_jitter_has_one_coin_and_uniform_strengths(name, probability, strengths):
    strengths["hue"] = {"simclr": 0.2, "auh": 0.4}.get(name, 0.1)
    for parameters in draw(POLICIES[name]):
        on = parameters["contrast"] != 1.0
        assert abs(on.mean() - probability) < 0.026  # 4 standard errors
        for operation, strength in strengths.items():
            center = float(
                operation != "hue" and (operation, name) != ("brightness", "byol")
            )
            values = parameters[operation]
            np.testing.assert_array_equal(values != center, on)
            assert_uniform(values[on], center - strength, center + strength)
        _, counts = np.unique(parameters["order"], axis=0, return_counts=True)
        assert len(counts) == 24
        assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.any_backend
def test_what_only_a_view_made_alike_does_changes_nothing():
    plain = augment.View(SIZE)
    everything = augment.View(
        SIZE,
        flip=1.0,
        jitter=1.0,
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        hue=0.1,
        grayscale=1.0,
        blur=1.0,
        solarize=1.0,
    )
    for style in ("byol", "torchvision"):
        plain, everything = (
            dataclasses.replace(view, style=style) for view in (plain, everything)
        )
        alone, _ = augment.Policy([plain, plain])(random_images(), seed=3)
        beside, changed = augment.Policy([plain, everything])(random_images(), seed=3)
        np.testing.assert_allclose(to_numpy(beside), to_numpy(alone), atol=1e-6)
        assert np.abs(to_numpy(changed) - to_numpy(beside)).max() > 0.1


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("name", "blur", "solarize"),
    [
        ("byol", (1.0, 0.1), (0.0, 0.2)),
        ("vicreg", (1.0, 0.1), (0.0, 0.2)),
        ("simclr", (0.5, 0.5), (0.0, 0.0)),
        ("auh", (0.0, 0.0), (0.0, 0.0)),
    ],
)
def test_coins_fall_with_their_probabilities(name, blur, solarize):
    for view, parameters in enumerate(draw(POLICIES[name])):
        assert abs(parameters["flip"].mean() - 0.5) < 0.032
        assert abs(parameters["grayscale"].mean() - 0.2) < 0.026
        if blur[view] == 0.0:
            assert "blur_sigma" not in parameters
        else:
            on = parameters["blur_sigma"] > 0
            assert abs(on.mean() - blur[view]) < 0.032
            assert_uniform(parameters["blur_sigma"][on], 0.1, 2.0)
        if max(solarize) == 0.0:
            assert "solarize" not in parameters
        else:
            # Both views are made by one program, of which one does without.
            spread = 0.026 if solarize[view] > 0.0 else 1e-9
            assert abs(parameters["solarize"].mean() - solarize[view]) < spread


@pytest.mark.any_backend
def test_parameters_of_an_image_are_independent():
    columns = {}
    for view, parameters in enumerate(draw(POLICIES["auh"])):
        for name, array in parameters.items():
            array = array.reshape(len(array), -1).astype("float64")
            array = array[:, :1] / array[:, 2:3] if name == "boxes" else array[:, :1]
            columns[view, name] = array[:, 0]
    correlations = np.corrcoef(list(columns.values())) - np.eye(len(columns))
    assert np.abs(correlations).max() < 5 / np.sqrt(4000)


@pytest.mark.any_backend
@pytest.mark.parametrize("view", [0, 1])
@pytest.mark.parametrize(
    ("name", "recorded"),
    [("vicreg", "VICReg"), ("simclr", "SimCLR"), ("auh", "AUH_stl10")],
)
def test_crops_are_distributed_as_the_authors(golden, name, recorded, view):
    theirs = golden("augment_sfrik")[f"{recorded}/view{view + 1}/crop_ijhw"]
    mine = draw(POLICIES[name])[view]["boxes"]
    top, left, height, width = mine.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 256).all()
    assert (left + width <= 256).all()
    for describe in (
        lambda y, x, h, w: h * w,
        lambda y, x, h, w: w / h,
        lambda y, x, h, w: y / np.maximum(256 - h, 1),
        lambda y, x, h, w: x / np.maximum(256 - w, 1),
    ):
        sample = describe(*theirs.T.astype("float64"))
        assert stats.ks_2samp(describe(*mine.T), sample).pvalue > 1e-3


def rejection_crops(height, width, scale, ratio, count):
    """Torchvision's loop of ten tries, written from its documentation."""
    rng = np.random.default_rng(0)
    boxes = []
    for _ in range(count):
        for _ in range(10):
            area = height * width * rng.uniform(*scale)
            aspect = np.exp(rng.uniform(*np.log(ratio)))
            w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
                break
        else:
            w = min(width, round(height * ratio[1]))
            h = min(height, round(width / ratio[0]))
            top, left = (height - h) // 2, (width - w) // 2
        boxes.append((top, left, h, w))
    return np.array(boxes)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [
        (31, 45, (0.08, 1.0)),
        (20, 30, (0.8, 1.0)),  # about one candidate in ten fits
        (20, 64, (0.5, 1.0)),
        (64, 20, (0.5, 1.0)),
    ],
)
def test_crops_of_long_images_follow_the_loop_of_ten_tries(height, width, scale):
    policy = augment.vicreg(SIZE, crop_scale=scale)
    mine = draw(policy, 3000, height, width)[0]["boxes"]
    theirs = rejection_crops(height, width, scale, (3 / 4, 4 / 3), 3000)
    for one, other in zip(mine.T, theirs.T, strict=True):
        assert stats.ks_2samp(one, other).pvalue > 1e-3


@pytest.mark.any_backend
def test_byol_crops_are_clipped_to_the_image_instead():
    height, width = 20, 64
    policy = augment.byol(SIZE, crop_scale=(0.5, 1.0))
    top, left, h, w = draw(policy, 3000, height, width)[0]["boxes"].T
    rng = np.random.default_rng(0)
    area = height * width * rng.uniform(0.5, 1.0, 3000)
    aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3), 3000))
    assert stats.ks_2samp(w, np.round(np.sqrt(area * aspect))).pvalue > 1e-3
    np.testing.assert_array_equal(h, 20)
    np.testing.assert_array_equal(top, 0)
    fraction = left / (width - w)
    assert fraction.max() == 1.0
    assert abs(fraction.mean() - 0.5) < 0.025


@pytest.mark.any_backend
@pytest.mark.parametrize("view", [0, 1])
@pytest.mark.parametrize(
    ("name", "recorded"), [("auh", "AUH_stl10"), ("vicreg", "VICReg")]
)
def test_channel_statistics_of_views_are_the_authors(golden, name, recorded, view):
    arrays = golden("augment_sfrik")
    settings = json.loads((golden.folder / "augment_sfrik.json").read_text())
    settings = settings["configured"][recorded]
    # Means hardly depend on the resolution; spreads do, so 64 px there as recorded.
    policy = augment.Policy([getattr(augment, name)(64).views[view]])
    make = compiled(lambda images, parameters: policy.apply(images, parameters)[0])
    images = ops.convert_to_tensor(np.repeat(arrays["image"][None], 100, axis=0))
    views = np.concatenate(
        [
            to_numpy(make(images, policy.draw(100, 256, 256, 3, seed)))
            for seed in range(8)
        ]
    )
    views = (views - np.float32(settings["mean"])) / np.float32(settings["std"])
    means, spreads = views.mean((1, 2)), views.std((1, 2))
    recorded = f"{recorded}/view{view + 1}"
    for channel in range(3):
        theirs = arrays[f"{recorded}/out_mean"][:, channel]
        assert stats.ks_2samp(means[:, channel], theirs).pvalue > 1e-3
        if name == "auh":
            theirs = arrays[f"{recorded}/out_std"][:, channel]
            assert stats.ks_2samp(spreads[:, channel], theirs).pvalue > 1e-3


# Evaluation and errors.


@pytest.mark.any_backend
def test_one_image_is_a_batch():
    (view,) = to_numpy(augment.center_crop(SIZE)(random_images(1), seed=0))
    assert view.shape == (1, SIZE, SIZE, 3)
    views = compiled(lambda images: augment.byol(SIZE)(images, seed=0))(
        ops.convert_to_tensor(random_images(1))
    )
    for view in to_numpy(views):
        assert view.shape == (1, SIZE, SIZE, 3)


def test_center_crop_keeps_a_small_image_whole_where_told_to():
    images = random_images()[:, :, :HEIGHT]
    (view,) = to_numpy(augment.center_crop(HEIGHT, fraction=1.0)(images, seed=0))
    np.testing.assert_allclose(view, images, atol=1e-6)


@pytest.mark.any_backend
def test_center_crop_draws_nothing():
    policy = augment.center_crop(SIZE)
    assert policy.draw(4, HEIGHT, WIDTH, 3, seed=0) == [{}]


def test_views_of_one_policy_may_differ_in_size():
    policy = augment.Policy([augment.View(24), augment.View(12, crop_scale=(0.1, 0.2))])
    views = policy(random_images(), seed=0)
    assert [view.shape[1] for view in views] == [24, 12]
    assert policy.size == 24


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"size": 0}, "`size` must be an integer of at least 1"),
        ({"crop_scale": (0.5, 0.1)}, "`crop_scale` must be two numbers"),
        ({"crop_scale": (0.0, 1.0)}, "`crop_scale` must be two numbers"),
        ({"crop_scale": (0.5, 1.5)}, "`crop_scale` must be two numbers"),
        ({"blur": 1.1}, "`blur` must be .* between 0.0 and 1.0"),
        ({"hue": 0.6}, "`hue` must be"),
        ({"contrast": -0.1}, "`contrast` must be"),
        ({"style": "tourchvision"}, "Did you mean 'torchvision'"),
        ({"interpolation": "cubic"}, "Did you mean 'bicubic'"),
        ({"center_fraction": 0.0}, "`center_fraction` must be"),
    ],
)
def test_wrong_settings_are_refused(arguments, match):
    with pytest.raises(ValueError, match=match):
        augment.View(**{"size": 8} | arguments)


@pytest.mark.any_backend
def test_wrong_arguments_are_refused():
    policy = augment.byol(SIZE)
    with pytest.raises(TypeError, match="`crop_scale` must be two numbers"):
        augment.byol(SIZE, crop_scale=0.2)
    with pytest.raises(TypeError, match=r"`images` must be uint8.*int32.*Divide"):
        policy(np.zeros((2, 8, 8, 3), "int32"), seed=0)
    with pytest.raises(ValueError, match="`images` must have 4 axes"):
        policy(np.zeros((8, 8, 3), "float32"), seed=0)
    with pytest.raises(TypeError, match="`seed` must be an integer"):
        policy(random_images(), seed=None)
    with pytest.raises(ValueError, match="a list of 2 dictionaries"):
        policy.apply(random_images(), [{}])
    with pytest.raises(ValueError, match="one View or more"):
        augment.Policy([])
    with pytest.raises(TypeError, match="one View or more"):
        augment.Policy(["byol"])


@pytest.mark.parametrize(
    "make",
    [augment.byol, pytest.param(augment.multi_crop_obow, marks=pytest.mark.slow)],
)
def test_steps_on_a_cpu_make_views_of_large_batches_image_by_image(make, monkeypatch):
    policy, images = make(SIZE), random_images(12)
    expected = policy(images, seed=3)
    monkeypatch.setattr(_fusing, "_FEWEST_NUMBERS", images.size)
    monkeypatch.setattr(_fusing, "num_cores", lambda: 1)
    views, loops = looped(lambda images: policy(images, seed=3), images)
    for view, whole in zip(views, expected, strict=True):
        np.testing.assert_allclose(view, whole, atol=1e-5)
    # One loop, over all images, for each of the settings.
    assert loops == len(policy.views)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="JAX compiles the step as a whole"
)
def test_views_that_are_made_alike_are_compiled_once(monkeypatch):
    views = [
        augment.View(SIZE, flip=0.5),
        augment.View(SIZE, solarize=0.2, blur=0.5, crop_scale=(0.5, 1.0)),
        augment.View(SIZE, flip=0.5, interpolation="bilinear"),
    ]
    policy, images = augment.Policy(views), random_images(12)
    expected = policy(images, seed=3)
    monkeypatch.setattr(_fusing, "_FEWEST_NUMBERS", images.size)
    monkeypatch.setattr(_fusing, "num_cores", lambda: 5)
    programs = xla_calls(lambda images: policy(images, seed=3), images)
    # Four of the five cores, which 12 images do not divide among, have three each.
    assert len(programs) == 3 * 4
    assert len(set(programs)) == 2
    made, _ = looped(lambda images: policy(images, seed=3), images)
    for view, whole in zip(made, expected, strict=True):
        np.testing.assert_allclose(view, whole, atol=1e-5)


def looped(function, images):
    """What a compiled function of images gives, and its number of loops over them."""
    if keras.backend.backend() == "jax":
        import jax

        program = str(jax.make_jaxpr(function)(images))
        return jax.jit(function)(images), program.count(f"length={len(images)}\n")
    import tensorflow as tf

    calls = xla_calls(function, images)
    return tf.function(function)(tf.constant(images)), len(calls)


def xla_calls(function, images):
    """Names of the programs that a function of images runs by XLA, call by call."""
    import tensorflow as tf

    concrete = tf.function(function).get_concrete_function(tf.constant(images))
    return [
        node.attr["f"].func.name
        for node in concrete.graph.as_graph_def().node
        if node.attr["_XlaMustCompile"].b and node.op.endswith("PartitionedCall")
    ]
