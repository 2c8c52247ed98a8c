"""Scores of masks, boxes and depths against definitions and scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    jaccard_score,
    mean_absolute_percentage_error,
    root_mean_squared_error,
)
from sklearn.metrics import confusion_matrix as sklearn_confusion

from keras_kssl.evaluation.dense import (
    average_precision,
    average_precision_50,
    box_iou,
    class_iou,
    confusion_matrix,
    depth_errors,
    mean_iou,
)
from keras_kssl.evaluation.dense.metrics import depth_sums, errors_from_sums

pytestmark = pytest.mark.any_backend


def masks(classes=5, absent=(), seed=0):
    generator = np.random.default_rng(seed)
    there = [c for c in range(classes) if c not in absent]
    true = generator.choice([*there, 255], (3, 31, 45)).astype(np.uint8)
    predicted = np.where(generator.random(true.shape) < 0.4, true, 0)
    predicted = np.where(predicted == 255, 1, predicted)
    return true, predicted


# Masks.


def test_confusion_counts_true_classes_in_rows_and_leaves_void_out():
    true, predicted = masks()
    known = true != 255
    expected = sklearn_confusion(true[known], predicted[known], labels=range(5))
    found = confusion_matrix(true, predicted, 5)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(found, found.T)


def test_confusions_of_images_add_up_to_that_of_the_set():
    true, predicted = masks()
    parts = [confusion_matrix(t, p, 5) for t, p in zip(true, predicted, strict=True)]
    np.testing.assert_array_equal(sum(parts), confusion_matrix(true, predicted, 5))


def test_iou_is_the_jaccard_score_of_scikit_learn():
    true, predicted = masks()
    known = true != 255
    expected = jaccard_score(true[known], predicted[known], average=None)
    confusion = confusion_matrix(true, predicted, 5)
    np.testing.assert_allclose(class_iou(confusion), expected, rtol=1e-12)
    assert mean_iou(confusion) == pytest.approx(expected.mean(), rel=1e-12)


def test_classes_in_neither_are_left_out_and_predicted_ones_count_as_0():
    true, predicted = np.array([[0, 0, 1, 1]]), np.array([[0, 0, 1, 2]])
    confusion = confusion_matrix(true, predicted, 4)
    np.testing.assert_array_equal(class_iou(confusion), [1.0, 0.5, 0.0, np.nan])
    assert mean_iou(confusion) == 0.5


def test_all_void_has_no_score():
    confusion = confusion_matrix(np.full((2, 2), 255), np.zeros((2, 2), int), 3)
    assert confusion.sum() == 0
    assert np.isnan(mean_iou(confusion))


def test_another_number_may_stand_for_void():
    confusion = confusion_matrix([0, 7, 1], [0, 1, 1], 2, ignore=7)
    assert confusion.tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [
        ([0, 3], [0, 1], r"`true` must be class numbers from 0 to 2\. Received: .*3"),
        ([0, -1], [0, 1], r"`true` must be class numbers from 0 to 2\. Received: .*-1"),
        ([0, 1], [0, 255], "`predicted` must be class numbers"),
        ([0, 1], [0, 1, 2], r"one shape. Received: \(2,\) and \(3,\)"),
    ],
)
def test_wrong_masks_are_refused(true, predicted, message):
    with pytest.raises(ValueError, match=message):
        confusion_matrix(true, predicted, 3)


def test_masks_of_floats_are_refused():
    with pytest.raises(TypeError, match="`true` must be integers"):
        confusion_matrix([0.0, np.nan], [0, 1], 3)
    with pytest.raises(ValueError, match="a square of counts"):
        mean_iou(np.ones((2, 3)))


# Precision.


def precision_by_definition(scores, hits, total, points):
    """Precision and recall after every detection, then the definition word by word."""
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    curve, found = [], 0
    for rank, index in enumerate(order, start=1):
        found += bool(hits[index])
        curve.append((found / total, found / rank))

    def best(recall):
        return max([p for r, p in curve if r >= recall - 1e-12], default=0.0)

    if points == "11":
        return sum(best(tenth / 10) for tenth in range(11)) / 11
    # The integral of a function that only changes at multiples of 1 / total.
    return sum(best(i / total) for i in range(1, total + 1)) / total


@pytest.mark.parametrize("points", ["11", "all"])
@pytest.mark.parametrize("seed", range(8))
def test_average_precision_follows_the_definition(points, seed):
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, 40))
    scores, hits = generator.random(count), generator.random(count) < 0.5
    total = int(hits.sum() + generator.integers(1, 12))
    found = average_precision(scores, hits, total, points)
    expected = precision_by_definition(scores, hits, total, points)
    assert found == pytest.approx(expected, rel=1e-12)


def test_average_precision_is_that_of_scikit_learn_where_precision_only_falls():
    # Hits, then misses between hits ever rarer: no later precision is higher.
    hits = np.array([1, 1, 1, 0, 1, 0, 0, 1, 0, 0, 0, 0, 1], bool)
    scores = np.linspace(0.9, 0.1, len(hits))
    found = average_precision(scores, hits, int(hits.sum()))
    assert found == pytest.approx(average_precision_score(hits, scores), rel=1e-12)


def test_three_of_ten_reach_a_recall_of_three_tenths():
    # In floats 3 / 10 < 3 * 0.1.
    found = average_precision([3.0, 2.0, 1.0], [True] * 3, 10, "11")
    assert found == pytest.approx(4 / 11)


def test_no_detection_and_perfect_detection_are_the_limits():
    for points in ("11", "all"):
        assert average_precision([], [], 4, points) == 0.0
        assert average_precision([0.1, 0.2], [True, True], 2, points) == 1.0
        assert average_precision([0.1], [False], 2, points) == 0.0


def test_wrong_precision_arguments_are_refused():
    with pytest.raises(ValueError, match="'11', 'all'"):
        average_precision([0.1], [True], 1, points="10")
    with pytest.raises(ValueError, match="of at least 1"):
        average_precision([0.1], [True], 0)
    with pytest.raises(ValueError, match="at least the number of true positives"):
        average_precision([0.1, 0.2], [True, True], 1)
    with pytest.raises(ValueError, match="`scores` must be finite"):
        average_precision([np.nan], [True], 1)
    with pytest.raises(ValueError, match="one boolean for each of the 1 scores"):
        average_precision([0.1], [True, False], 1)


# Boxes.


def devkit_iou(a, b):
    """Of boxes as VOC files have them: first and last pixel, counted from 1."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    union = (a[2] - a[0] + 1) * (a[3] - a[1] + 1)
    union += (b[2] - b[0] + 1) * (b[3] - b[1] + 1) - width * height
    return width * height / union


def as_edges(pixels):
    return np.asarray(pixels, float) - [1, 1, 0, 0]


def random_pixels(generator, count):
    corners = generator.integers(1, 20, (count, 2))
    return np.concatenate([corners, corners + generator.integers(0, 18, (count, 2))], 1)


def test_iou_of_edges_is_that_of_the_devkit_between_pixels():
    generator = np.random.default_rng(0)
    boxes = random_pixels(generator, 40)
    found = [box_iou(as_edges(box), as_edges(boxes)) for box in boxes]
    expected = [[devkit_iou(a, b) for b in boxes] for a in boxes]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert 0 < np.count_nonzero(np.array(expected) == 0.0) < 1600


def voc_by_definition(found, true, label):
    """True positives and scores of a class, detection by detection."""
    rows = [
        (score, image, box)
        for image, one in enumerate(found)
        for box, other, score in zip(
            one["pixels"], one["labels"], one["scores"], strict=True
        )
        if other == label
    ]
    taken, kept = set(), []
    for score, image, box in sorted(rows, key=lambda row: -row[0]):
        best, overlap = None, 0.0
        for index, candidate in enumerate(true[image]["pixels"]):
            if true[image]["labels"][index] == label:
                iou = devkit_iou(box, candidate)
                if iou > overlap:
                    best, overlap = index, iou
        if overlap > 0.5:
            if true[image]["difficult"][best]:
                continue
            kept.append((score, (image, best) not in taken))
            taken.add((image, best))
        else:
            kept.append((score, False))
    total = sum(
        not difficult
        for one in true
        for other, difficult in zip(one["labels"], one["difficult"], strict=True)
        if other == label
    )
    return [k[0] for k in kept], [k[1] for k in kept], total


def random_detections(seed, images=12, classes=3):
    """Boxes by objects and beside them, of right and wrong classes, some twice."""
    generator = np.random.default_rng(seed)
    true, found = [], []
    for _ in range(images):
        count = int(generator.integers(0, 5))
        pixels = random_pixels(generator, count)
        labels = generator.integers(0, classes, count)
        true.append(
            {
                "pixels": pixels,
                "boxes": as_edges(pixels),
                "labels": labels,
                "difficult": generator.random(count) < 0.25,
            }
        )
        near = np.concatenate([pixels, pixels]) + generator.integers(
            -1, 2, (2 * count, 4)
        )
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2])
        noise = random_pixels(generator, 3)
        pixels = np.concatenate([near, noise])
        others = generator.integers(0, classes, len(pixels))
        right = np.concatenate([labels, labels, others[:3]])
        labels = np.where(generator.random(len(pixels)) < 0.8, right, others)
        found.append(
            {
                "pixels": pixels,
                "boxes": as_edges(pixels),
                "labels": labels,
                "scores": generator.permutation(len(pixels)) + generator.random(),
            }
        )
    return found, true


@pytest.mark.parametrize("points", ["11", "all"])
@pytest.mark.parametrize("seed", range(4))
def test_ap50_is_that_of_the_devkit(seed, points):
    found, true = random_detections(seed)
    expected = [
        precision_by_definition(*voc_by_definition(found, true, label), points)
        for label in range(3)
    ]
    result = average_precision_50(found, true, 3, points)
    np.testing.assert_allclose(result, expected, rtol=1e-12)
    assert 0.02 < min(expected) <= max(expected) < 0.98


def one(boxes, labels, **more):
    return {"boxes": boxes, "labels": labels, **more}


def test_a_second_detection_of_an_object_is_wrong_and_difficult_ones_do_not_count():
    box, far = [0, 0, 4, 4], [10, 10, 14, 14]
    true = [one([box, far], [0, 0], difficult=[False, True])]
    for boxes, expected in (
        ([box], 1.0),
        ([box, far], 1.0),
        # The one that is right comes second: precision 1/2 where recall is 1.
        ([[5, 5, 6, 6], box], 0.5),
        ([far], 0.0),
    ):
        scores = np.linspace(0.9, 0.5, len(boxes))
        found = [one(boxes, [0] * len(boxes), scores=scores)]
        assert average_precision_50(found, true, 1, "all")[0] == expected
    twice = [one([box, box, far], [0, 0, 0], scores=[0.9, 0.8, 0.7])]
    plain = [one([box, far], [0, 0])]
    assert average_precision_50(twice, plain, 1, "all")[0] == pytest.approx(5 / 6)


def test_exactly_one_half_is_no_overlap_of_more_than_one_half():
    true = [one([[0, 0, 4, 4]], [0])]
    half = [one([[0, 0, 4, 2]], [0], scores=[0.9])]
    more = [one([[0, 0, 4, 2.1]], [0], scores=[0.9])]
    assert average_precision_50(half, true, 1)[0] == 0.0
    assert average_precision_50(more, true, 1)[0] == 1.0


def test_classes_without_objects_have_no_score():
    true = [one([[0, 0, 4, 4]], [0]), one([[0, 0, 4, 4]], [2], difficult=[True])]
    found = [one([[0, 0, 4, 4]], [1], scores=[0.9]), one([], [], scores=[])]
    np.testing.assert_array_equal(
        average_precision_50(found, true, 3), [0.0, np.nan, np.nan]
    )


def test_detections_count_in_their_own_image_alone():
    true = [one([[0, 0, 4, 4]], [0]), one([], [])]
    found = [one([], [], scores=[]), one([[0, 0, 4, 4]], [0], scores=[0.9])]
    assert average_precision_50(found, true, 1)[0] == 0.0
    assert average_precision_50(found[::-1], true, 1)[0] == 1.0


def test_wrong_boxes_are_refused():
    good = one([[0, 0, 1, 1]], [0], scores=[0.5])
    with pytest.raises(ValueError, match="one dictionary for each of the 2 images"):
        average_precision_50([good], [good, good], 1)
    for wrong, message in (
        (one([[0, 0, 1, np.nan]], [0], scores=[0.5]), "must be finite"),
        (one([[0, 0, 1, 1]], [1], scores=[0.5]), "class numbers from 0 to 0"),
        (one([[0, 0, 1, 1]], [0], scores=[0.5, 0.6]), "one for each of the 1 boxes"),
    ):
        with pytest.raises(ValueError, match=message):
            average_precision_50([wrong], [good], 1)
    with pytest.raises(TypeError, match="must be integers"):
        average_precision_50([one([[0, 0, 1, 1]], [0.0], scores=[1])], [good], 1)


# Depths.


def depths(seed=0):
    generator = np.random.default_rng(seed)
    true = generator.uniform(0.5, 10.0, (31, 45))
    predicted = true * np.exp(generator.normal(0.0, 0.35, true.shape))
    true[generator.random(true.shape) < 0.2] = 0.0
    return true, predicted


def test_depth_errors_follow_the_definition_and_scikit_learn():
    true, predicted = depths()
    found = depth_errors(true, predicted)
    within, count = [0, 0, 0], 0
    for t, p in zip(true.ravel(), predicted.ravel(), strict=True):
        if t == 0.0:
            continue
        count += 1
        for k in range(3):
            within[k] += max(p / t, t / p) < 1.25 ** (k + 1)
    known = true > 0
    expected = {f"delta_{k + 1}": within[k] / count for k in range(3)}
    expected["rms"] = root_mean_squared_error(true[known], predicted[known])
    expected["rel"] = mean_absolute_percentage_error(true[known], predicted[known])
    assert found == pytest.approx(expected, rel=1e-12)
    assert 0.2 < found["delta_1"] < found["delta_2"] < found["delta_3"] < 1.0


def test_depth_errors_of_the_truth_are_none():
    true, _ = depths()
    ones = {"delta_1": 1.0, "delta_2": 1.0, "delta_3": 1.0}
    assert depth_errors(true, true) == {**ones, "rms": 0.0, "rel": 0.0}


def test_given_pixels_count_alone():
    true, predicted = depths()
    valid = (true > 0) & (np.arange(45) < 20)
    found = depth_errors(true, predicted, valid)
    assert found == depth_errors(true[valid], predicted[valid])
    assert found != depth_errors(true, predicted)


def test_ratios_count_both_ways_and_strictly():
    found = depth_errors([4.0, 5.0, 4.0, 4.0], [5.0, 4.0, -1.0, 0.0])
    assert [found[f"delta_{k}"] for k in (1, 2, 3)] == [0.0, 0.5, 0.5]


def test_sums_of_images_give_the_errors_of_the_set():
    true, predicted = depths()
    halves = [
        depth_sums(true[rows], predicted[rows]) for rows in (slice(9), slice(9, 31))
    ]
    expected = depth_errors(true, predicted)
    assert errors_from_sums(sum(halves)) == pytest.approx(expected, rel=1e-12)


def test_wrong_depths_are_refused():
    with pytest.raises(ValueError, match="`predicted` must be finite"):
        depth_errors([1.0, 2.0], [1.0, np.nan])
    with pytest.raises(ValueError, match=r"one shape. Received: \(2,\) and \(1,\)"):
        depth_errors([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="true for at least one pixel"):
        depth_errors([0.0], [1.0])
    with pytest.raises(ValueError, match="`true` must be above 0 where `valid`"):
        depth_errors([0.0, 1.0], [1.0, 1.0], [True, True])
    with pytest.raises(ValueError, match="booleans of the shape"):
        depth_errors([1.0], [1.0], [True, True])
