"""Semantic segmentation by a fully convolutional head (FCN-16s), scored by mean IoU."""

import keras
import numpy as np
from keras import ops

from keras_kssl._seeds import derived_seed
from keras_kssl.evaluation.dense import frames
from keras_kssl.evaluation.dense.heads import HeadBuilder, Upsample
from keras_kssl.evaluation.dense.metrics import (
    VOID,
    class_iou,
    confusion_matrix,
    mean_iou,
)
from keras_kssl.evaluation.dense.opening import open_pair
from keras_kssl.evaluation.dense.training import (
    Batches,
    Plan,
    Trunk,
    answers,
    fit,
    sgd,
)

_FILTERS = 256
_DILATION = 6
_SCALES = (0.5, 2.0)
_WEIGHT_DECAY = 1e-4


def segmentation(
    encoder,
    train,
    test,
    epochs=45,
    batch_size=16,
    learning_rate=0.01,
    size=513,
    seed=0,
    frozen=False,
):
    """Mean IoU of an FCN-16s on an encoder, fine-tuned for semantic segmentation.

    The head: two 3x3 convolutions of 256 channels and dilation 6, each with batch
    normalisation and ReLU, a 1x1 convolution and bilinear interpolation to the image. A
    `models.ResNet` has its last stage dilated (`maps.dilated`); of other encoders the
    coarsest map is taken as it is. The encoder itself stays as it is: a copy is
    trained.

    Training: cross-entropy over the pixels that are not void, random scale 0.5 to 2,
    crop and flip, SGD with momentum 0.9 and weight decay 1e-4, learning rate times 0.1
    after 70% and again after 90% of the steps. Test: whole images, shrunk only where
    they are larger than `size`, each pixel scored at the image's own size.

    Memory of a batch of 16 at 513 pixels and 21 classes: 0.35 GB for the predictions
    alone, several times in training. VOC12 (10,582 images) takes 29,762 steps.

    Args:
        encoder: as in `maps.feature_maps`.
        train, test: segmentation sets, anything `open_set` takes.
        epochs: passes over the training images, at least 1. Default 45.
        batch_size: images per step, at least 1. Default 16.
        learning_rate: initial rate, above 0. Default 0.01. It matters: choose it on
            training images that are held out.
        size: side of the frames in pixels, or (height, width). Default 513; a multiple
            of 16 plus 1 spreads the map evenly.
        seed: integer of at least 0 that fixes initial weights, order and crops: on one
            CPU a call repeats exactly. Default 0.
        frozen: whether the encoder's weights and statistics stay. Default False.

    Returns:
        dict of floats in [0, 1]: `mean_iou`, and `iou_NAME` for every class that is
        in the test masks or predicted.

    Raises:
        ValueError, TypeError: for sets, encoders and numbers that do not fit.
        FloatingPointError: where the loss is lost.

    References: MoCo (https://arxiv.org/abs/1911.05722) for the model; BYOL
    (https://arxiv.org/abs/2006.07733), whose protocol SSL-HSIC follows, for training:
    30,000 steps of 16 on the augmented training set of VOC12, the rate chosen from five
    between 1e-3 and 1e-1, the mean of 5 seeds (from memory, not checked). Our own: the
    default rate, weight decay on kernels only, gray around images, and whole images in
    testing, where BYOL cuts out the central 513 x 513 pixels (which hold every image of
    VOC12).
    """
    caller = "segmentation"
    plan = Plan.checked(caller, epochs, batch_size, learning_rate, size, seed, frozen)
    train, test = open_pair(caller, train, test, caller)
    classes = train.num_classes
    model = build(plan, encoder, train.channels, classes)

    def make(generator, image, mask):
        placement = frames.drawn(generator, image.shape, plan.frame, _SCALES)
        frame = frames.place_image(image, placement, plan.frame)
        mask = frames.place_mask(mask, placement, plan.frame)
        return frame, mask[..., np.newaxis]

    batches = Batches(train, make, plan)
    optimizer = sgd(_rate(plan.learning_rate, len(batches)), _WEIGHT_DECAY)
    fit(model, batches, pixel_loss, optimizer, caller)

    confusion = np.zeros((classes, classes), np.int64)
    for _, shape, placement, logits, mask in answers(model, test, plan):
        predicted = frames.take_map_back(logits, shape, placement).argmax(axis=-1)
        confusion += confusion_matrix(mask, predicted, classes)
    named = train.named("iou", class_iou(confusion))
    return {"mean_iou": mean_iou(confusion), **named}


def build(plan, encoder, channels, num_classes):
    """Model from frames (B, H, W, C) to logits (B, H, W, classes)."""
    trunk = Trunk(plan, encoder, channels, dilate=True)
    head = HeadBuilder(derived_seed(plan.seed, 2))
    x = trunk.maps[-1]
    for number in (1, 2):
        x = head.conv_bn_relu(x, _FILTERS, 3, f"fcn{number}", _DILATION)
    x = head.conv(x, num_classes, 1, "fcn_classes", bias=0.0, spread=0.01)
    x = Upsample(*plan.frame, trunk.strides[-1], dtype="float32", name="fcn_pixels")(x)
    return keras.Model(trunk.images, x)


def pixel_loss(masks, logits):
    """Mean cross-entropy of the pixels of a batch that are not void.

    Args:
        masks: class numbers (B, H, W, 1), 255 for void.
        logits: (B, H, W, classes).

    Returns:
        A scalar; 0 where all is void.
    """
    masks = ops.cast(masks[..., 0], "int32")
    counts = masks != VOID
    known = ops.where(counts, masks, 0)
    losses = ops.sparse_categorical_crossentropy(known, logits, from_logits=True)
    counts = ops.cast(counts, losses.dtype)
    return ops.sum(losses * counts) / ops.maximum(ops.sum(counts), 1.0)


def _rate(initial, steps):
    # Keras counts steps from 0 and keeps a value up to its boundary, that included.
    boundaries = [round(0.7 * steps) - 1, round(0.9 * steps) - 1]
    values = [initial, 0.1 * initial, 0.01 * initial]
    return keras.optimizers.schedules.PiecewiseConstantDecay(boundaries, values)
