"""Dense tasks: feature maps, heads, losses, and learning on tiny sets."""

import importlib

import keras
import numpy as np
import pytest
from keras import ops
from scipy.signal import correlate2d

from keras_kssl.evaluation import dense
from keras_kssl.evaluation.dense import (
    average_precision_50,
    box_iou,
    depth_errors,
    dilated,
    feature_maps,
)
from keras_kssl.evaluation.dense.boxes import (
    BACKGROUND,
    IGNORED,
    cell_targets,
    decode,
    suppress,
)
from keras_kssl.evaluation.dense.heads import Upsample
from keras_kssl.evaluation.dense.maps import copied, strides
from keras_kssl.evaluation.dense.training import Plan, adamw, sgd
from keras_kssl.models import ResNet
from tests.photos import encoded, picture
from tests.shapes import NAMES, shapes

# Their names are those of functions, too.
depth_module, detection_module, segmentation_module = (
    importlib.import_module(f"keras_kssl.evaluation.dense.{name}")
    for name in ("depth", "detection", "segmentation")
)
# Heads of Keras's own layers, trained by Keras's own fit: one backend is enough.
pytestmark = pytest.mark.any_backend
TRAIN, TEST = shapes(64, seed=0, most=2), shapes(32, seed=1, most=2)


def small(stem="cifar", **options):
    return ResNet(10, width=0.25, stem=stem, seed=0, **options)


def trained(encoder):
    """An encoder whose statistics and scales are not those of a new one."""
    generator = np.random.default_rng(0)
    for weight in encoder.weights:
        if len(weight.shape) == 1:
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
    return encoder


def plan(size, **changes):
    settings = {"epochs": 1, "batch_size": 2, "learning_rate": 0.1, "seed": 0}
    return Plan.checked(
        "here", **{**settings, "size": size, "frozen": False, **changes}
    )


# Feature maps.


@pytest.mark.parametrize(
    ("stem", "expected"), [("imagenet", [4, 8, 16, 32]), ("cifar", [1, 2, 4, 8])]
)
def test_maps_of_a_resnet_are_those_of_its_stages(stem, expected):
    encoder = trained(small(stem))
    maps = feature_maps(encoder)
    assert strides(maps) == expected
    images = np.random.default_rng(0).random((2, 64, 45, 3), dtype="float32")
    found = maps(images)
    for output, stride in zip(found, expected, strict=True):
        assert tuple(output.shape[1:3]) == (64 // stride, -(-45 // stride))
    # The features are the mean of the last of them.
    np.testing.assert_allclose(
        ops.convert_to_numpy(found[-1]).mean(axis=(1, 2)),
        ops.convert_to_numpy(encoder(images)),
        rtol=1e-4,
    )
    assert maps.get_layer("stem_conv") is encoder.get_layer("stem_conv")


def other_encoder():
    """One whose maps are not where its strides are, with a model inside."""
    inner_in = keras.Input((None, None, 8))
    inner = keras.layers.ZeroPadding2D(1)(inner_in)
    inner = keras.layers.Conv2D(12, 3, strides=2)(inner)
    inner = keras.Model(inner_in, keras.layers.Conv2D(6, 1, name="in")(inner))
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(inputs)
    x = keras.layers.Conv2D(8, 1, name="last_at_2")(2.0 * x)
    x = inner(x)
    x = keras.layers.Dense(5)(keras.layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, x)


def test_maps_of_other_encoders_are_the_last_at_every_stride():
    encoder = other_encoder()
    maps = feature_maps(encoder)
    assert strides(maps) == [2, 4]
    assert [output.shape[-1] for output in maps.outputs] == [8, 6]
    images = np.random.default_rng(0).random((1, 32, 32, 3), dtype="float32")
    expected = keras.Model(encoder.inputs[0], encoder.get_layer("last_at_2").output)
    np.testing.assert_array_equal(maps(images)[0], expected(images))
    # A copy has other weights of the same values.
    copy = copied(encoder)
    for first, second in zip(maps(images), feature_maps(copy)(images), strict=True):
        np.testing.assert_array_equal(first, second)
    copy.weights[0].assign(0.0 * copy.weights[0])
    assert np.any(encoder.get_weights()[0] != 0.0)


def test_maps_of_sequential_encoders_are_found_too():
    encoder = keras.Sequential(
        [keras.Input((30, 30, 1)), keras.layers.Conv2D(4, 3, 2, padding="same")]
    )
    assert strides(feature_maps(encoder)) == [2]


def test_encoders_without_maps_are_refused():
    flat = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    with pytest.raises(ValueError, match="layers whose outputs are maps"):
        feature_maps(flat)
    for wrong in (lambda images: images, keras.layers.Conv2D(4, 3), None):
        with pytest.raises(TypeError, match="`encoder` must be a functional or seq"):
            feature_maps(wrong)
    vectors = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    with pytest.raises(TypeError, match="`encoder` must be a functional or seq"):
        feature_maps(vectors)


def test_the_dilated_last_stage_is_that_of_kernels_with_holes():
    encoder = trained(small())
    images = np.random.default_rng(1).random((1, 24, 20, 3), dtype="float32")
    before = [ops.convert_to_numpy(m)[0] for m in feature_maps(encoder)(images)]
    copy = feature_maps(dilated(encoder))
    assert strides(copy) == [1, 2, 4, 4]
    after = [ops.convert_to_numpy(m)[0] for m in copy(images)]
    for first, second in zip(before[:3], after[:3], strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-5, atol=1e-6)

    def conv(x, name, holes):
        kernel = ops.convert_to_numpy(encoder.get_layer(f"stage4_{name}").kernel)
        if holes:
            spread = np.zeros((5, 5, *kernel.shape[2:]))
            spread[::2, ::2] = kernel
            kernel = spread
        return np.stack(
            [
                sum(
                    correlate2d(x[..., i], kernel[..., i, o], "same")
                    for i in range(x.shape[-1])
                )
                for o in range(kernel.shape[-1])
            ],
            axis=-1,
        )

    def bn(x, name):
        layer = encoder.get_layer(f"stage4_{name}")
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        gamma, beta, mean, variance = (
            ops.convert_to_numpy(getattr(layer, n)) for n in names
        )
        return gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta

    x = before[2].astype(np.float64)
    y = np.maximum(bn(conv(x, "block1_conv1", True), "block1_bn1"), 0.0)
    y = bn(conv(y, "block1_conv2", True), "block1_bn2")
    shortcut = bn(conv(x, "block1_shortcut_conv", False), "block1_shortcut_bn")
    expected = np.maximum(y + shortcut, 0.0)
    assert expected.shape == (6, 5, 128)
    np.testing.assert_allclose(after[3], expected, rtol=1e-3, atol=1e-4)


def test_dilation_works_for_bottlenecks_and_leaves_the_encoder_alone():
    encoder = ResNet(50, width=0.125, stem="imagenet", seed=0)
    before = encoder.get_weights()
    copy = dilated(encoder)
    assert strides(feature_maps(copy)) == [4, 8, 16, 16]
    for name, weights in (("encoder", encoder), ("copy", copy)):
        for first, second in zip(before, weights.get_weights(), strict=True):
            np.testing.assert_array_equal(first, second, err_msg=name)
    assert encoder.get_layer("stage4_block1_conv2").strides == (2, 2)
    assert copy.get_layer("stage4_block3_conv2").dilation_rate == (2, 2)
    assert copy.get_layer("stage4_block3_conv3").dilation_rate == (1, 1)


def test_only_resnets_can_be_dilated():
    for wrong in (other_encoder(), dilated(small())):
        with pytest.raises(TypeError, match=r"keras_kssl\.models\.ResNet"):
            dilated(wrong)


# Layers and losses.


def test_upsampling_interpolates_cells_at_multiples_of_the_stride():
    generator = np.random.default_rng(0)
    maps = generator.random((2, 3, 5, 2)).astype("float32")
    found = ops.convert_to_numpy(Upsample(20, 37, stride=8)(maps))
    rows, columns = np.arange(20) / 8, np.arange(37) / 8
    # np.interp repeats the last value beyond the last cell.
    expected = np.empty((2, 20, 37, 2))
    for b in range(2):
        for d in range(2):
            tall = [np.interp(rows, range(3), maps[b, :, i, d]) for i in range(5)]
            tall = np.stack(tall, axis=1)
            expected[b, :, :, d] = [np.interp(columns, range(5), row) for row in tall]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_segmentation_head_is_that_of_the_papers():
    model = segmentation_module.build(plan(65), small("imagenet"), 3, 21)
    assert model.output_shape == (None, 65, 65, 21)
    for number in (1, 2):
        conv = model.get_layer(f"fcn{number}_conv")
        assert (conv.filters, conv.kernel_size) == (256, (3, 3))
        assert (conv.dilation_rate, conv.use_bias) == ((6, 6), False)
        # One in each corner and in the middle.
        assert conv.output.shape[1:3] == (5, 5)
    assert model.get_layer("fcn_classes").kernel_size == (1, 1)


def test_the_depth_head_is_that_of_the_papers():
    model = depth_module.build(plan((64, 96)), small("imagenet"), 3)
    shapes_found = [
        tuple(model.get_layer(f"up{n}_output").output.shape[1:]) for n in (1, 2, 3, 4)
    ]
    assert shapes_found == [(4, 6, 512), (8, 12, 256), (16, 24, 128), (32, 48, 64)]
    assert model.output_shape == (None, 64, 96, 1)
    # Of a map at stride 8, three blocks lead to the image's own size.
    model = depth_module.build(plan(32), small("cifar"), 3)
    assert model.get_layer("up3_output").output.shape[1:] == (32, 32, 128)
    assert "up4_output" not in [layer.name for layer in model.layers]


def test_pixel_loss_is_the_mean_cross_entropy_of_known_pixels():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(2, 3, 4, 5)).astype("float32")
    masks = generator.integers(0, 5, (2, 3, 4, 1))
    masks[0, :2] = 255
    losses = []
    for place in zip(*np.nonzero(masks[..., 0] != 255), strict=True):
        row = logits[place].astype(float)
        losses.append(np.log(np.exp(row).sum()) - row[masks[(*place, 0)]])
    assert len(losses) == 16
    found = float(segmentation_module.pixel_loss(ops.array(masks), logits))
    assert found == pytest.approx(np.mean(losses), rel=1e-5)
    void = ops.full((1, 2, 2, 1), 255)
    assert float(segmentation_module.pixel_loss(void, ops.zeros((1, 2, 2, 3)))) == 0.0


def test_reverse_huber_is_linear_then_squared():
    true = np.array([1.0, 2.0, 3.0, 4.0, 0.0], "float32").reshape(1, 5, 1, 1)
    error = np.array([0.1, -0.5, 0.9, 5.0, 100.0], "float32").reshape(1, 5, 1, 1)
    # The last is not known; a fifth of the largest error is 1.
    expected = (0.1 + 0.5 + 0.9 + (25.0 + 1.0) / 2.0) / 4.0
    found = float(depth_module.reverse_huber(ops.array(true), ops.array(true + error)))
    assert found == pytest.approx(expected, rel=1e-5)
    assert float(depth_module.reverse_huber(ops.array(true), ops.array(true))) == 0.0


def test_cell_loss_is_focal_loss_and_log_iou():
    generator = np.random.default_rng(0)
    targets = np.zeros((1, 2, 3, 5), "float32")
    targets[..., 0] = [[[BACKGROUND, 1, 0], [IGNORED, BACKGROUND, 1]]]
    targets[..., 1:] = generator.uniform(0.5, 3.0, (1, 2, 3, 4))
    outputs = generator.normal(size=(1, 2, 3, 6)).astype("float32")
    focal = box = 0.0
    for place in np.ndindex(1, 2, 3):
        label, true = int(targets[place][0]), targets[place][1:]
        if label == IGNORED:
            continue
        for c in range(2):
            p = 1.0 / (1.0 + np.exp(-outputs[place][c]))
            if c == label:
                focal -= 0.25 * (1 - p) ** 2 * np.log(p)
            else:
                focal -= 0.75 * p**2 * np.log(1 - p)
        if label >= 0:
            far = np.exp(outputs[place][2:])
            around = [np.concatenate([-d[:2], d[2:]]) for d in (true, far)]
            box -= np.log(box_iou(around[0], around[1][np.newaxis])[0])
    found = float(detection_module.cell_loss(ops.array(targets), ops.array(outputs)))
    assert found == pytest.approx((focal + box) / 3, rel=1e-5)


def test_weight_decay_spares_biases_and_norms():
    kernel, gamma = (
        keras.Variable(np.ones(3, "float32"), name=name) for name in ("kernel", "gamma")
    )
    for optimizer, decay in ((sgd(0.1, 0.01), 0.1), (adamw(0.1, 0.01), 0.01)):
        kernel.assign(np.ones(3))
        optimizer.build([kernel, gamma])
        optimizer.apply([ops.zeros(3), ops.zeros(3)])
        np.testing.assert_allclose(kernel, 1.0 - 0.1 * decay, rtol=1e-6)
        np.testing.assert_array_equal(gamma, np.ones(3))


def test_the_rate_of_segmentation_falls_at_70_and_90_per_cent():
    rate = segmentation_module._rate(0.5, 1000)
    found = [float(rate(step)) for step in (0, 699, 700, 899, 900, 999)]
    np.testing.assert_allclose(found, [0.5, 0.5, 0.05, 0.05, 0.005, 0.005], rtol=1e-6)


# Boxes and cells.


def objects_of(boxes, labels=None, difficult=None):
    count = len(boxes)
    return {
        "boxes": np.array(boxes, np.float64).reshape(count, 4),
        "labels": np.zeros(count, int) if labels is None else np.array(labels),
        "difficult": np.array(difficult or [False] * count),
    }


def test_cells_that_say_what_they_are_to_say_give_the_boxes_back():
    boxes = [[3, 5, 20, 30], [24, 2, 60, 40], [40, 44, 61, 62]]
    labels = [0, 1, 1]
    targets = cell_targets(objects_of(boxes, labels), (16, 16), 4)
    scores = targets[..., :1] == np.arange(2)
    found = decode(scores * 0.9, targets[..., 1:], 4, (64, 64))
    assert len(found["labels"]) == 3
    order = np.lexsort(found["boxes"].T[::-1])
    expected = sorted(zip(boxes, labels, strict=True))
    np.testing.assert_allclose(
        found["boxes"][order], [box for box, _ in expected], rtol=1e-5
    )
    assert found["labels"][order].tolist() == [label for _, label in expected]


def test_the_nearest_cell_answers_for_an_object_between_the_points():
    targets = cell_targets(objects_of([[5.2, 49.2, 8, 52]], [1]), (16, 16), 4)
    assert np.argwhere(targets[..., 0] == 1).tolist() == [[13, 2]]
    far = targets[13, 2, 1:]
    # The point (8.5, 52.5) lies to the right of the box and below it.
    np.testing.assert_allclose(far, [3.3 / 4, 3.3 / 4, 0.01, 0.01], rtol=1e-6)


def test_cells_answer_near_the_centre_of_the_smallest_box():
    boxes = [[0, 0, 64, 64], [24, 24, 40, 40]]
    targets = cell_targets(objects_of(boxes, [0, 1]), (16, 16), 4)
    points = np.arange(16) * 4 + 0.5
    near = np.abs(points - 32) <= 6
    expected = np.where(near[:, None] & near, 1, BACKGROUND)
    np.testing.assert_array_equal(targets[..., 0], expected)
    assert (targets[..., 0] == 1).sum() == 9
    i, j = 7, 8
    far = [points[j] - 24, points[i] - 24, 40 - points[j], 40 - points[i]]
    np.testing.assert_allclose(targets[i, j, 1:], np.array(far) / 4)


def test_difficult_boxes_are_ignored_unless_another_object_is_there():
    boxes = [[10, 10, 50, 50], [12, 12, 30, 30]]
    plain = cell_targets(objects_of(boxes[1:]), (16, 16), 4)
    both = cell_targets(objects_of(boxes, difficult=[True, False]), (16, 16), 4)
    turned = cell_targets(objects_of(boxes, difficult=[False, True]), (16, 16), 4)
    mine = plain[..., 0] == 0
    assert (both[mine] == plain[mine]).all()
    assert (both[..., 0] == IGNORED).any()
    # The smaller one is difficult now, and does not take cells from the other.
    alone = cell_targets(objects_of(boxes[:1]), (16, 16), 4)
    mine = alone[..., 0] == 0
    assert (turned[mine] == alone[mine]).all()


def test_suppression_keeps_what_no_better_box_of_its_class_covers():
    generator = np.random.default_rng(0)
    corners = generator.uniform(0, 20, (60, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(4, 12, (60, 2))], 1)
    labels, scores = generator.integers(0, 2, 60), generator.random(60)
    expected = []
    for i in sorted(range(60), key=lambda i: -scores[i]):
        rivals = [j for j in expected if labels[j] == labels[i]]
        if all(box_iou(boxes[i], boxes[j : j + 1])[0] <= 0.5 for j in rivals):
            expected.append(i)
    assert suppress(boxes, labels, scores).tolist() == expected
    assert 10 < len(expected) < 55


def test_decoding_cuts_boxes_off_at_the_image_and_drops_what_is_outside():
    scores = np.full((2, 2, 1), 0.9)
    far = np.full((2, 2, 4), 3.0)
    found = decode(scores, far, 8, (6, 16))
    assert found["boxes"].tolist() == [[0, 0, 16, 6]]
    nothing = decode(0.0 * scores, far, 8, (16, 16))
    assert nothing["boxes"].shape == (0, 4)
    beyond = decode(scores, far / 100, 8, (6, 6))
    assert len(beyond["boxes"]) == 1


# From end to end.


def test_segmentation_learns_what_a_majority_does_not_tell():
    encoder = small()
    before = encoder.get_weights()
    found = dense.segmentation(
        encoder,
        dense.DenseSet("segmentation", *TRAIN[:2], class_names=["ground", *NAMES]),
        TEST[:2],
        epochs=3,
        batch_size=8,
        learning_rate=0.03,
        size=32,
    )
    assert set(found) == {"mean_iou", "iou_ground", "iou_disk", "iou_square"}
    scores = [found[f"iou_{name}"] for name in ("ground", *NAMES)]
    assert found["mean_iou"] == pytest.approx(np.mean(scores))
    majority = (TEST[1] == 0).mean() / 3
    assert majority < 0.3
    assert found["mean_iou"] > 0.6
    for first, second in zip(before, encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_detection_learns_to_find_objects():
    found = dense.detection(
        small("imagenet"),
        dense.DenseSet("detection", TRAIN[0], TRAIN[2], class_names=NAMES),
        (TEST[0], TEST[2]),
        epochs=12,
        batch_size=8,
        learning_rate=0.003,
        size=32,
    )
    assert set(found) == {"ap50", "ap50_disk", "ap50_square"}
    assert found["ap50"] == pytest.approx(
        (found["ap50_disk"] + found["ap50_square"]) / 2
    )
    # No boxes score 0; the best single box in every image, of both classes, little.
    boxes = [one["boxes"] for one in TEST[2]]
    mean = np.concatenate(boxes).mean(axis=0)
    guess = {"boxes": [mean, mean], "labels": [0, 1], "scores": [0.5, 0.5]}
    guessed = average_precision_50([guess] * len(boxes), TEST[2], 2).mean()
    assert guessed < 0.2
    assert found["ap50"] > 0.4


@pytest.mark.slow
def test_depth_learns_more_than_the_mean(monkeypatch):
    monkeypatch.setattr(depth_module, "_FILTERS", (32, 32, 16))
    found = dense.depth(
        small(),
        (TRAIN[0], TRAIN[3]),
        (TEST[0], TEST[3]),
        epochs=8,
        batch_size=8,
        learning_rate=0.03,
        size=32,
    )
    mean = depth_errors(TEST[3], np.full_like(TEST[3], TRAIN[3].mean()))
    assert set(found) == set(mean)
    assert found["rms"] < 0.75 * mean["rms"]
    assert found["rel"] < 0.75 * mean["rel"]
    assert found["delta_1"] > mean["delta_1"]


def quick_encoder():
    """Of one convolution, since most of the time goes into compiling layers."""
    images = keras.Input((None, None, 3))
    conv = keras.layers.Conv2D(8, 3, 2, "same", activation="relu")
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(conv(images)))


QUICK = {"epochs": 1, "batch_size": 4, "learning_rate": 0.1, "size": 32}


def test_a_call_repeats_exactly_and_another_seed_gives_another_result(monkeypatch):
    monkeypatch.setattr(depth_module, "_FILTERS", (8,))
    encoder = quick_encoder()
    few, test = (TRAIN[0][:8], TRAIN[3][:8]), (TEST[0][:4], TEST[3][:4])
    first, second, other = (
        dense.depth(encoder, few, test, seed=seed, **QUICK) for seed in (0, 0, 1)
    )
    assert first == second
    assert first != other


def test_images_larger_than_the_frame_and_of_many_sizes_are_scored_whole():
    images = [TRAIN[0][0], np.repeat(np.repeat(TRAIN[0][1], 2, 0), 3, 1)]
    masks = [TRAIN[1][0], np.repeat(np.repeat(TRAIN[1][1], 2, 0), 3, 1)]
    model = segmentation_module.build(plan(32), quick_encoder(), 3, 3)
    seen = list(
        importlib.import_module("keras_kssl.evaluation.dense.training").answers(
            model, dense.open_set((images, masks), "segmentation"), plan(32)
        )
    )
    assert [(index, shape) for index, shape, *_ in seen] == [
        (0, (32, 32, 3)),
        (1, (64, 96, 3)),
    ]
    assert (seen[1][2].height, seen[1][2].width) == (21, 32)
    found = dense.segmentation(
        quick_encoder(), (images, masks), (images, masks), **QUICK
    )
    assert 0.0 <= found["mean_iou"] <= 1.0


def test_a_frozen_encoder_keeps_weights_and_statistics():
    settings = plan(32, frozen=True)
    model = segmentation_module.build(settings, trained(small()), 3, 3)
    model.compile("sgd", segmentation_module.pixel_loss)
    head = [weight.path for weight in model.trainable_weights]
    assert head
    assert all(path.startswith("fcn") for path in head)
    before = {weight.path: ops.convert_to_numpy(weight) for weight in model.weights}
    model.fit(TRAIN[0][:8] / 255.0, TRAIN[1][:8, ..., np.newaxis], verbose=0)
    changed = {
        weight.path
        for weight in model.weights
        if not np.array_equal(before[weight.path], ops.convert_to_numpy(weight))
    }
    assert {path.split("_")[0] for path in changed} == {"fcn1", "fcn2", "fcn"}
    tuned = segmentation_module.build(plan(32), small(), 3, 3)
    assert len(tuned.trainable_weights) > len(head)


def test_encoders_that_do_not_fit_are_refused():
    fixed = keras.Sequential(
        [keras.Input((30, 30, 3)), keras.layers.Conv2D(4, 3, 2, padding="same")]
    )
    with pytest.raises(ValueError, match=r"`size` must be \(30, 30\)"):
        dense.segmentation(fixed, TRAIN[:2], TEST[:2], **QUICK)
    with pytest.raises(ValueError, match="images of 3 channels"):
        dense.segmentation(small(input_channels=1), TRAIN[:2], TEST[:2], **QUICK)
    with pytest.raises(ValueError, match="at least 32 x 32 pixels"):
        dense.segmentation(
            small("imagenet"), TRAIN[:2], TEST[:2], **{**QUICK, "size": 31}
        )


def test_a_lost_loss_ends_training_in_one_sentence():
    with pytest.raises(FloatingPointError, match="segmentation: the loss must stay"):
        dense.segmentation(
            quick_encoder(), TRAIN[:2], TEST[:2], **{**QUICK, "learning_rate": 1e30}
        )


def test_a_file_that_breaks_while_training_is_named(tmp_path):
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for index in range(24):
        content = encoded(picture(32, 32, index))
        (tmp_path / "images" / f"{index:02d}.jpg").write_bytes(content)
        mask = encoded(TRAIN[1][index], "PNG")
        (tmp_path / "masks" / f"{index:02d}.png").write_bytes(mask)
    (tmp_path / "classes.txt").write_text("ground\ndisk\nsquare\n")
    source = dense.open_set(f"folder:{tmp_path}", "segmentation")
    # The one that comes last, so that training is under way.
    order = np.random.default_rng((0, 0, 0)).permutation(24)
    path = tmp_path / "images" / f"{order[-1]:02d}.jpg"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ValueError, match="files must be readable") as caught:
        dense.segmentation(quick_encoder(), source, TEST[:2], **QUICK)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
