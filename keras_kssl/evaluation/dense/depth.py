"""Depth from one image by up-projection blocks, scored as on NYU v2."""

import math

import keras
import numpy as np
from keras import layers, ops

from keras_kssl._seeds import derived_seed
from keras_kssl.evaluation.dense import frames
from keras_kssl.evaluation.dense.heads import HeadBuilder, Upsample
from keras_kssl.evaluation.dense.metrics import depth_sums, errors_from_sums
from keras_kssl.evaluation.dense.opening import open_pair
from keras_kssl.evaluation.dense.training import (
    Batches,
    Plan,
    Trunk,
    answers,
    fit,
    sgd,
)
from keras_kssl.optimizers.schedules import warmup_cosine

_FILTERS = (512, 256, 128, 64)
_WEIGHT_DECAY = 5e-4
_WARMUP = 0.05
# Share of the largest error of a batch beyond which errors count by their squares.
_LARGE = 0.2


def depth(
    encoder,
    train,
    test,
    epochs=100,
    batch_size=16,
    learning_rate=0.01,
    size=(240, 320),
    seed=0,
    frozen=False,
):
    """Errors of depth maps predicted from an encoder, fine-tuned for it.

    The head: four up-projection blocks of 512, 256, 128 and 64 channels on the coarsest
    map, each twice as large as the one before, fewer where the map would become larger
    than the image; a 3x3 convolution, bilinear interpolation to the image.
    The encoder itself stays as it is: a copy is trained.

    Training: `reverse_huber` over the pixels whose depth is known (above 0), random
    flip, SGD with momentum 0.9 and weight decay 5e-4, the rate rising over a twentieth
    of the steps and falling to 0 along half a cosine. Test: whole images, shrunk only
    where they are larger than `size`, depths scored at the image's own size.

    Args:
        encoder: as in `maps.feature_maps`.
        train, test: depth sets, anything `open_set` takes.
        epochs: passes over the training images, at least 1. Default 100.
        batch_size: images per step, at least 1. Default 16.
        learning_rate: largest rate, above 0. Default 0.01.
        size: side of the frames in pixels, or (height, width). Default (240, 320), half
            of what NYU v2 has.
        seed: integer of at least 0 that fixes initial weights, order and flips: on one
            CPU a call repeats exactly. Default 0.
        frozen: whether the encoder's weights and statistics stay. Default False.

    Returns:
        dict of floats as of `depth_errors`: `delta_1`, `delta_2`, `delta_3` in [0, 1],
        `rms` in metres, `rel`.

    Raises:
        ValueError, TypeError: for sets, encoders and numbers that do not fit.
        FloatingPointError: where the loss is lost.

    References: Laina et al. 2016 (https://arxiv.org/abs/1606.00373) for blocks and
    loss; BYOL (https://arxiv.org/abs/2006.07733), whose protocol SSL-HSIC follows:
    7,500 steps of 256 images, rate 0.16 (0.01 for 16), weight decay 5e-4, images at
    half size cut to 228 x 304 pixels (from memory, not checked). Our own: epochs,
    schedule, whole images instead of the cut, no ReLU at the end, no change of colours,
    weight decay on kernels only.
    """
    caller = "depth"
    plan = Plan.checked(caller, epochs, batch_size, learning_rate, size, seed, frozen)
    train, test = open_pair(caller, train, test, caller)
    model = build(plan, encoder, train.channels)

    def make(generator, image, depths):
        placement = frames.drawn(generator, image.shape, plan.frame)
        frame = frames.place_image(image, placement, plan.frame)
        depths = frames.place_depth(depths, placement, plan.frame)
        return frame, depths[..., np.newaxis]

    batches = Batches(train, make, plan)
    steps = len(batches)
    rate = warmup_cosine(plan.learning_rate, math.floor(_WARMUP * steps), steps)
    fit(model, batches, reverse_huber, sgd(rate, _WEIGHT_DECAY), caller)

    sums = np.zeros(6)
    for _, shape, placement, predicted, true in answers(model, test, plan):
        predicted = frames.take_map_back(predicted, shape, placement)[..., 0]
        sums += depth_sums(true, predicted)
    return errors_from_sums(sums)


def build(plan, encoder, channels):
    """Model from frames (B, H, W, C) to depths (B, H, W, 1) in metres."""
    trunk = Trunk(plan, encoder, channels)
    head = HeadBuilder(derived_seed(plan.seed, 2))
    x, stride = trunk.maps[-1], trunk.strides[-1]
    for number, filters in enumerate(_FILTERS, start=1):
        if stride == 1:
            break
        x, stride = _up_projection(head, x, filters, f"up{number}"), stride // 2
    x = head.conv(x, 1, 3, "up_depth", bias=0.0)
    x = Upsample(*plan.frame, stride, dtype="float32", name="up_pixels")(x)
    return keras.Model(trunk.images, x)


def reverse_huber(true, predicted):
    """Mean error of depths, small errors linear, large ones squared ("berHu").

    Formula, e = |p - t| and c a fifth of the largest e of the batch: e where e <= c,
    else (e^2 + c^2) / (2 c). No gradient passes through c.

    Args:
        true: (B, H, W, 1), metres; 0 where it is not known, which does not count.
        predicted: (B, H, W, 1), metres.

    Returns:
        A scalar; 0 where nothing is known.
    """
    known = ops.cast(true > 0, predicted.dtype)
    errors = ops.abs(predicted - true) * known
    limit = _LARGE * ops.stop_gradient(ops.max(errors))
    # Where all errors are 0 so is the limit, and none of them is beyond it.
    safe = ops.maximum(limit, keras.config.epsilon())
    squared = (ops.square(errors) + ops.square(limit)) / (2.0 * safe)
    losses = ops.where(errors <= limit, errors, squared)
    return ops.sum(losses) / ops.maximum(ops.sum(known), 1.0)


def _up_projection(head, x, filters, name):
    """Twice the size: two branches of a 5x5 convolution, added."""
    long = head.conv_twice_as_large(x, filters, 5, f"{name}_conv1")
    long = head.relu(head.bn(long, f"{name}_bn1"), f"{name}_relu1")
    long = head.bn(head.conv(long, filters, 3, f"{name}_conv2"), f"{name}_bn2")
    short = head.conv_twice_as_large(x, filters, 5, f"{name}_shortcut_conv")
    short = head.bn(short, f"{name}_shortcut_bn")
    added = layers.Add(dtype="float32", name=f"{name}_add")([long, short])
    return head.relu(added, f"{name}_output")
