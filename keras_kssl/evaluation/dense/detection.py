"""Object detection by a small head without anchors (FCOS), scored by AP50."""

import math

import keras
import numpy as np
from keras import layers, ops

from keras_kssl._seeds import derived_seed
from keras_kssl.evaluation.dense import frames
from keras_kssl.evaluation.dense.boxes import BACKGROUND, IGNORED, cell_targets, decode
from keras_kssl.evaluation.dense.heads import HeadBuilder, Upsample
from keras_kssl.evaluation.dense.metrics import average_precision_50
from keras_kssl.evaluation.dense.opening import open_pair
from keras_kssl.evaluation.dense.training import (
    Batches,
    Plan,
    Trunk,
    adamw,
    answers,
    fit,
)
from keras_kssl.optimizers.schedules import warmup_cosine

_FILTERS = 128
_LEVELS = 3
_SCALES = (0.5, 2.0)
_WEIGHT_DECAY = 0.01
_WARMUP = 0.05
# Share of cells that hold an object, in the eyes of a head that has learned nothing.
_PRIOR = 0.01
_FOCAL_ALPHA, _FOCAL_GAMMA = 0.25, 2.0
# Distances between exp(-6) and exp(6) strides.
_LARGEST_LOG = 6.0


def detection(
    encoder,
    train,
    test,
    epochs=50,
    batch_size=16,
    learning_rate=2e-4,
    size=512,
    seed=0,
    frozen=False,
):
    """AP50 of a small detector on an encoder, fine-tuned for object detection.

    SSL-HSIC, BYOL and MoCo report AP50 of a Faster R-CNN. This is a one-stage detector
    of a few layers, made to compare encoders with each other under one head: its
    numbers are not comparable with theirs. KerasHub has larger detectors, but they take
    KerasHub's own backbones, and our ResNets cannot be turned into those yet.

    The head: the last three maps of the encoder, brought to 128 channels by 1x1
    convolutions and added from coarse to fine; on the finest (stride 8 for an
    "imagenet" stem) two 3x3 convolutions of 128 channels with batch normalisation and
    ReLU; a 3x3 convolution to a score for every class and four distances to the edges.
    Every cell near the centre of an object answers for it. The encoder itself stays as
    it is: a copy is trained.

    Training: focal loss of the scores and -log IoU of the boxes, random scale 0.5 to 2,
    crop and flip, AdamW with weight decay 0.01, the rate rising over a twentieth of the
    steps and falling to 0 along half a cosine. Difficult objects, and
    those of which a crop leaves less than half, are not learned from. Test: whole
    images, shrunk only where they are larger than `size`; boxes above a score of 0.01,
    non-maximum suppression at an IoU of 0.5, at most 100 boxes per image.

    Args:
        encoder: as in `maps.feature_maps`.
        train, test: detection sets, anything `open_set` takes.
        epochs: passes over the training images, at least 1. Default 50.
        batch_size: images per step, at least 1. Default 16.
        learning_rate: largest rate, above 0. Default 2e-4.
        size: side of the frames in pixels, or (height, width). Default 512.
        seed: integer of at least 0 that fixes initial weights, order and crops: on one
            CPU a call repeats exactly. Default 0.
        frozen: whether the encoder's weights and statistics stay. Default False.

    Returns:
        dict of floats in [0, 1]: `ap50`, the mean, and `ap50_NAME` for every class that
        has objects in the test set. 11 points, as VOC07 has it: `average_precision_50`.

    Raises:
        ValueError, TypeError: for sets, encoders and numbers that do not fit.
        FloatingPointError: where the loss is lost.

    References: FCOS (Tian et al. 2019, https://arxiv.org/abs/1904.01355). Differences:
    one map in place of five, cells near the centre only, no branch for centreness, one
    tower for scores and boxes, batch normalisation, AdamW (on the tiny sets of our
    tests SGD took more than twice as many steps).
    """
    caller = "detection"
    plan = Plan.checked(caller, epochs, batch_size, learning_rate, size, seed, frozen)
    train, test = open_pair(caller, train, test, caller)
    classes = train.num_classes
    model, stride = build(plan, encoder, train.channels, classes)
    cells = model.output_shape[1:3]

    def make(generator, image, objects):
        placement = frames.drawn(generator, image.shape, plan.frame, _SCALES)
        frame = frames.place_image(image, placement, plan.frame)
        objects = frames.place_objects(objects, image.shape, placement, plan.frame)
        return frame, cell_targets(objects, cells, stride)

    batches = Batches(train, make, plan)
    steps = len(batches)
    rate = warmup_cosine(plan.learning_rate, math.floor(_WARMUP * steps), steps)
    fit(model, batches, cell_loss, adamw(rate, _WEIGHT_DECAY), caller)

    found, true = [], []
    for _, shape, placement, output, objects in answers(model, test, plan):
        scores = _sigmoid(output[..., :-4])
        limit = (placement.height, placement.width)
        boxes = decode(scores, _exp(output[..., -4:], np), stride, limit)
        boxes["boxes"] = frames.take_boxes_back(boxes["boxes"], shape, placement)
        found.append(boxes)
        true.append(objects)
    precision = average_precision_50(found, true, classes)
    named = train.named("ap50", precision)
    return {"ap50": float(np.nanmean(precision)), **named}


def build(plan, encoder, channels, num_classes):
    """Model from frames (B, H, W, C) to cells (B, h, w, classes + 4), and its stride.

    The last four of a cell are logarithms of distances.
    """
    trunk = Trunk(plan, encoder, channels)
    head = HeadBuilder(derived_seed(plan.seed, 2))
    used, strides = trunk.maps[-_LEVELS:], trunk.strides[-_LEVELS:]
    levels = [
        head.conv(feature_map, _FILTERS, 1, f"lateral{number}", bias=0.0)
        for number, feature_map in enumerate(used, start=1)
    ]
    x, stride = levels.pop(), strides.pop()
    while levels:
        finer, finer_stride = levels.pop(), strides.pop()
        name = f"to_stride{finer_stride}"
        x = Upsample(
            *finer.shape[1:3], stride // finer_stride, dtype="float32", name=name
        )(x)
        x = layers.Add(dtype="float32", name=f"{name}_add")([x, finer])
        stride = finer_stride
    for number in (1, 2):
        x = head.conv_bn_relu(x, _FILTERS, 3, f"tower{number}")
    prior = -math.log((1.0 - _PRIOR) / _PRIOR)
    scores = head.conv(x, num_classes, 3, "scores", bias=prior, spread=0.01)
    distances = head.conv(x, 4, 3, "distances", bias=0.0, spread=0.01)
    x = layers.Concatenate(dtype="float32", name="cells")([scores, distances])
    return keras.Model(trunk.images, x), stride


def cell_loss(targets, outputs):
    """Focal loss of the scores plus -log IoU of the boxes, per cell with an object.

    Formula, p the score of a class, t whether it is there, n cells with an object::

        focal = sum over cells and classes of -a_t (1 - p_t)^2 log p_t / n
        box = sum over cells with an object of -log IoU / n

    with p_t = p, a_t = 1/4 where t is true and p_t = 1 - p, a_t = 3/4 elsewhere.

    Args:
        targets: (B, h, w, 5), from `boxes.cell_targets`.
        outputs: (B, h, w, classes + 4): logits and logarithms of distances.

    Returns:
        A scalar.
    """
    logits, logs = outputs[..., :-4], outputs[..., -4:]
    classes = ops.cast(targets[..., 0], "int32")
    objects = ops.cast(classes > BACKGROUND, logits.dtype)
    counts = ops.cast(classes != IGNORED, logits.dtype)
    number = ops.maximum(ops.sum(objects), 1.0)

    # A class number below 0 is no class: its row is all zeros.
    there = ops.one_hot(classes, logits.shape[-1], dtype=logits.dtype)
    sign = 2.0 * there - 1.0
    wrong = ops.sigmoid(-sign * logits)
    weight = there * _FOCAL_ALPHA + (1.0 - there) * (1.0 - _FOCAL_ALPHA)
    focal = weight * wrong**_FOCAL_GAMMA * ops.softplus(-sign * logits)
    focal = ops.sum(focal * counts[..., None]) / number

    true, predicted = targets[..., 1:], _exp(logs, ops)
    # Both boxes hold the cell's point; without an object any other box will do.
    true = ops.where(objects[..., None] > 0, true, 1.0)
    common = _area(ops.minimum(true, predicted))
    union = _area(true) + _area(predicted) - common
    box = ops.sum(objects * (ops.log(union) - ops.log(common))) / number
    return focal + box


def _area(distances):
    sides = distances[..., :2] + distances[..., 2:]
    return sides[..., 0] * sides[..., 1]


def _exp(logs, numpy):
    return numpy.exp(numpy.clip(logs, -_LARGEST_LOG, _LARGEST_LOG))


def _sigmoid(logits):
    return 0.5 * (1.0 + np.tanh(0.5 * logits))
