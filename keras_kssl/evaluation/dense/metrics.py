"""How good masks, boxes and depths are: counts over a whole set, in NumPy.

A mask, a set of boxes or a depth map comes for each image; what counts is the sum over
all images, not the mean of a number per image.
"""

import numpy as np

from keras_kssl._checks import check_choice, check_integer, check_rank, check_that

VOID = 255
_OVERLAP = 0.5
_DELTA = 1.25


def confusion_matrix(true, predicted, num_classes, ignore=VOID):
    """Pixels by true and by predicted class.

    Matrices of several images are added. Time and memory are linear in the pixels.

    Args:
        true: integers of any shape, 0 ... num_classes - 1, or `ignore`.
        predicted: integers of that shape, 0 ... num_classes - 1.
        num_classes: number of classes, at least 1.
        ignore: class number of pixels that do not count, whatever is predicted there.
            Default 255, the void of the VOC masks.

    Returns:
        int64 (num_classes, num_classes): entry [i, j] counts pixels of class i that are
        taken for class j.

    Raises:
        TypeError, ValueError: for other numbers than integers, shapes that differ and
            classes out of range.

    >>> confusion_matrix([[0, 1], [1, 255]], [[0, 0], [1, 1]], num_classes=2).tolist()
    [[1, 0], [1, 1]]
    """
    caller = "confusion_matrix"
    check_integer(caller, "num_classes", num_classes, minimum=1)
    true = _integers(caller, "true", true)
    predicted = _integers(caller, "predicted", predicted)
    _check_same_shape(caller, true, predicted)
    counts = true != ignore
    true, predicted = true[counts], predicted[counts]
    for argument, classes in (("true", true), ("predicted", predicted)):
        check_that(
            classes.size == 0 or 0 <= classes.min() <= classes.max() < num_classes,
            caller,
            argument,
            f"class numbers from 0 to {num_classes - 1}",
            np.unique(classes).tolist()[:10],
            f"Pixels of no class are {ignore} in `true`.",
        )
    cells = true.astype(np.int64) * num_classes + predicted
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, -1)


def class_iou(confusion):
    """Intersection over union of the pixels of every class.

    Formula, c the confusion matrix::

        c[i, i] / (sum_j c[i, j] + sum_j c[j, i] - c[i, i])

    Args:
        confusion: (k, k), from `confusion_matrix`, summed over all images.

    Returns:
        float64 (k,) in [0, 1]; NaN for a class that is neither there nor predicted.

    >>> class_iou([[1, 1, 0], [0, 2, 0], [0, 0, 0]]).round(3).tolist()
    [0.5, 0.667, nan]
    """
    confusion = np.asarray(confusion, np.float64)
    shape = check_rank("class_iou", "confusion", confusion, 2, "(classes, classes)")
    check_that(
        shape[0] == shape[1] and np.all(confusion >= 0),
        "class_iou",
        "confusion",
        "a square of counts",
        confusion,
    )
    intersection = np.diagonal(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - intersection
    return _share(intersection, union)


def mean_iou(confusion):
    """Mean over the classes of intersection over union: the score of VOC segmentation.

    As in the VOC devkit, pixels are counted over the whole set and void ones left out;
    the background is a class like the others. A class that is neither in the true masks
    nor predicted is left out of the mean; one that is predicted only counts as 0.

    Args:
        confusion: (k, k), from `confusion_matrix`, summed over all images.

    Returns:
        A float in [0, 1]; NaN where no pixel counts.

    >>> round(mean_iou([[1, 1, 0], [0, 2, 0], [0, 0, 0]]), 4)
    0.5833
    """
    return _mean_of_known(class_iou(confusion))


def box_iou(box, boxes):
    """Intersection over union of one box with others.

    Boxes are left, top, right and bottom edge in pixels, the first pixel lying between
    0 and 1. A VOC file names the first and the last pixel, counted from 1: there pixels
    a to b are the edges a - 1 and b here, and this plain area is the devkit's with its
    + 1.

    Args:
        box: (4,).
        boxes: (n, 4).

    Returns:
        float64 (n,) in [0, 1].

    >>> box_iou([0, 0, 2, 2], [[1, 0, 3, 2], [2, 0, 4, 2]]).round(4).tolist()
    [0.3333, 0.0]
    """
    box, boxes = np.asarray(box, np.float64), np.asarray(boxes, np.float64)
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    intersection = np.prod(np.maximum(sides, 0.0), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    union = areas + np.prod(box[2:] - box[:2]) - intersection
    return intersection / np.maximum(union, np.finfo(np.float64).tiny)


def average_precision(scores, is_true_positive, num_ground_truth, points="all"):
    """Area under the curve of precision over recall, the detections by falling score.

    Formula, p(r) the largest precision at any recall of at least r (0 where recall ends
    below r): the mean of p(0), p(0.1), ..., p(1) for "11"; the integral of p(r) over r
    from 0 to 1 for "all".

    Args:
        scores: (n,), finite. Of equal ones the first comes first.
        is_true_positive: booleans (n,).
        num_ground_truth: number of objects that there are to find, at least 1.
        points: "11", as VOC has it up to 2009, or "all", from 2010 on. Default "all".

    Returns:
        A float in [0, 1].

    >>> average_precision([0.9, 0.8, 0.7], [True, False, True], num_ground_truth=2)
    0.8333333333333333
    """
    caller = "average_precision"
    check_choice(caller, "points", points, ("11", "all"))
    check_integer(caller, "num_ground_truth", num_ground_truth, minimum=1)
    scores = _finite(caller, "scores", scores)
    hits = np.asarray(is_true_positive, bool)
    check_that(
        scores.ndim == 1 and scores.shape == hits.shape,
        caller,
        "is_true_positive",
        f"one boolean for each of the {scores.size} scores",
        hits.shape,
    )
    check_that(
        hits.sum() <= num_ground_truth,
        caller,
        "num_ground_truth",
        "at least the number of true positives",
        num_ground_truth,
    )
    hits = hits[np.argsort(-scores, kind="stable")]
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if points == "all":
        return float(best[hits].sum() / num_ground_truth)
    # In whole numbers, or 3 of 10 found would not reach a recall of 0.3.
    reached = [best[found * 10 >= num_ground_truth * tenth] for tenth in range(11)]
    return float(np.mean([values.max(initial=0.0) for values in reached]))


def average_precision_50(detections, ground_truth, num_classes, points="11"):
    """Average precision of every class at an overlap of one half (AP50), as in VOC07.

    Class by class, the detections of all images are taken by falling score. Each is
    compared with that object of its class in its image which it overlaps most. Where
    the overlap (`box_iou`) exceeds 0.5 it is a true positive, or a false one if the
    object has been found before; if the object is difficult, the detection does not
    count at all. Everything else is a false positive. Difficult objects are not to be
    found.

    Args:
        detections: a dictionary for each image: `boxes` (k, 4), `labels`, integers
            (k,), and `scores` (k,).
        ground_truth: a dictionary for each image: `boxes` (m, 4), `labels` (m,) and,
            where some are, `difficult`, booleans (m,).
        num_classes: number of classes.
        points: as in `average_precision`. Default "11", as VOC07 has it.

    Returns:
        float64 (num_classes,) in [0, 1]; NaN for a class without objects to find. Their
        mean is the score.

    References: Everingham et al. 2010, "The PASCAL Visual Object Classes Challenge",
    whose overlap must exceed one half. The devkit's program takes exactly
    one half for enough.

    >>> found = {"boxes": [[0, 0, 4, 4]], "labels": [0], "scores": [0.9]}
    >>> true = {"boxes": [[0, 0, 4, 3], [5, 5, 6, 6]], "labels": [0, 0]}
    >>> average_precision_50([found], [true], num_classes=1).round(4).tolist()
    [0.5455]
    """
    caller = "average_precision_50"
    check_integer(caller, "num_classes", num_classes, minimum=1)
    check_choice(caller, "points", points, ("11", "all"))
    check_that(
        len(detections) == len(ground_truth),
        caller,
        "detections",
        f"one dictionary for each of the {len(ground_truth)} images",
        len(detections),
    )
    found = [_boxes(caller, "detections", one, num_classes) for one in detections]
    true = [_boxes(caller, "ground_truth", one, num_classes) for one in ground_truth]
    return np.array(
        [_class_precision(found, true, label, points) for label in range(num_classes)]
    )


def depth_sums(true, predicted, valid=None):
    """What the errors of depths are made of; sums of several images are added.

    Args:
        true, predicted, valid: as in `depth_errors`.

    Returns:
        float64 (6,): pixels that count; those within 1.25, 1.25^2 and 1.25^3; squared
        and relative errors.
    """
    caller = "depth_errors"
    true = _finite(caller, "true", true)
    predicted = _finite(caller, "predicted", predicted)
    _check_same_shape(caller, true, predicted)
    valid = true > 0 if valid is None else np.asarray(valid, bool)
    check_that(
        valid.shape == true.shape,
        caller,
        "valid",
        f"booleans of the shape of the depths, {true.shape}",
        valid.shape,
    )
    true, predicted = true[valid], predicted[valid]
    check_that(
        np.all(true > 0), caller, "true", "above 0 where `valid`", true.min(initial=1.0)
    )
    # A depth of 0 or less is beyond every ratio.
    ratio = np.full(true.shape, np.inf)
    ahead = predicted > 0
    share = predicted[ahead] / true[ahead]
    ratio[ahead] = np.maximum(share, 1.0 / share)
    error = predicted - true
    return np.array(
        [
            true.size,
            *(np.sum(ratio < _DELTA**power) for power in (1, 2, 3)),
            np.sum(error**2),
            np.sum(np.abs(error) / true),
        ],
        np.float64,
    )


def errors_from_sums(sums):
    """The dictionary of `depth_errors` from (sums of) `depth_sums`."""
    check_that(
        sums[0] > 0, "depth_errors", "valid", "true for at least one pixel", sums[0]
    )
    delta_1, delta_2, delta_3, squared, rel = (float(x) for x in sums[1:] / sums[0])
    return {
        "delta_1": delta_1,
        "delta_2": delta_2,
        "delta_3": delta_3,
        "rms": squared**0.5,
        "rel": rel,
    }


def depth_errors(true, predicted, valid=None):
    """The five figures by which depth maps of NYU v2 are compared.

    Formula, over all n pixels that count, t true and p predicted::

        delta_k = share of pixels with max(p / t, t / p) < 1.25^k,   k = 1, 2, 3
        rms = sqrt(sum (p - t)^2 / n),      rel = sum |p - t| / t / n

    Args:
        true: depths in metres, any shape.
        predicted: depths in metres, of that shape.
        valid: booleans of that shape, the pixels that count. Default: those with a true
            depth above 0; 0 stands for "not measured".

    Returns:
        dict of floats: `delta_1`, `delta_2`, `delta_3` in [0, 1], `rms` in metres,
        `rel` (1 is an error as large as the depth).

    References: Eigen et al. 2014, https://arxiv.org/abs/1406.2283.

    >>> depth_errors([1.0, 2.0, 0.0], [1.2, 3.0, 9.9])["delta_1"]
    0.5
    """
    return errors_from_sums(depth_sums(true, predicted, valid))


def _class_precision(found, true, label, points):
    """Average precision of one class; NaN where nothing of it is to be found."""
    objects, count = [], 0
    for image in true:
        mine = image["labels"] == label
        difficult = image["difficult"][mine]
        objects.append(
            (image["boxes"][mine], difficult, np.zeros(len(difficult), bool))
        )
        count += int(np.sum(~difficult))
    if count == 0:
        return np.nan
    images, boxes, scores = [], [], []
    for position, image in enumerate(found):
        mine = image["labels"] == label
        boxes.append(image["boxes"][mine])
        scores.append(image["scores"][mine])
        images.append(np.full(int(mine.sum()), position))
    images, boxes, scores = (np.concatenate(x) for x in (images, boxes, scores))
    order = np.argsort(-scores, kind="stable")
    hits, counted = np.zeros(len(order), bool), np.ones(len(order), bool)
    for row, index in enumerate(order):
        candidates, difficult, taken = objects[images[index]]
        overlaps = box_iou(boxes[index], candidates)
        if len(overlaps) == 0 or overlaps.max() <= _OVERLAP:
            continue
        best = int(overlaps.argmax())
        if difficult[best]:
            counted[row] = False
        elif not taken[best]:
            hits[row] = taken[best] = True
    kept = order[counted]
    return average_precision(scores[kept], hits[counted], count, points)


def _boxes(caller, argument, image, num_classes):
    """One image's boxes as arrays, checked."""
    boxes = _finite(caller, f"{argument}['boxes']", image["boxes"]).reshape(-1, 4)
    labels = _integers(caller, f"{argument}['labels']", image["labels"])
    check_that(
        labels.size == 0 or 0 <= labels.min() <= labels.max() < num_classes,
        caller,
        f"{argument}['labels']",
        f"class numbers from 0 to {num_classes - 1}",
        np.unique(labels).tolist()[:10],
    )
    arrays = {"labels": labels.reshape(-1)}
    if argument == "detections":
        arrays["scores"] = _finite(caller, "detections['scores']", image["scores"])
    else:
        none = np.zeros(len(boxes), bool)
        arrays["difficult"] = np.asarray(image.get("difficult", none), bool)
    for name, array in arrays.items():
        check_that(
            array.shape == (len(boxes),),
            caller,
            f"{argument}['{name}']",
            f"one for each of the {len(boxes)} boxes",
            array.shape,
        )
    return {"boxes": boxes, **arrays}


def _integers(caller, argument, values):
    values = np.asarray(values)
    if values.size and not np.issubdtype(values.dtype, np.integer):
        raise TypeError(
            f"{caller}: `{argument}` must be integers. Received: dtype {values.dtype}."
        )
    return values.astype(np.int64)


def _finite(caller, argument, values):
    values = np.asarray(values, np.float64)
    broken = values.size - int(np.isfinite(values).sum())
    if broken:
        raise ValueError(
            f"{caller}: `{argument}` must be finite. Received: NaN or infinity in "
            f"{broken} of {values.size} places."
        )
    return values


def _check_same_shape(caller, true, predicted):
    if true.shape != predicted.shape:
        raise ValueError(
            f"{caller}: `true` and `predicted` must have one shape. Received: "
            f"{true.shape} and {predicted.shape}."
        )


def _share(part, whole):
    """part / whole, NaN where whole is 0."""
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _mean_of_known(values):
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
