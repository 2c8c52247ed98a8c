"""Training of a dense model, and its answers for every image of a set."""

import dataclasses
import functools
import math

import keras
import numpy as np
from rich.console import Console

from keras_kssl._checks import check_integer, check_number, check_that
from keras_kssl._machine import num_cores
from keras_kssl.data.encoded import for_each
from keras_kssl.evaluation.dense import frames, maps
from keras_kssl.models.resnet import ResNet

_MOMENTUM = 0.9
_BATCHES_AHEAD = 4


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a dense model is trained."""

    caller: str
    epochs: int
    batch_size: int
    learning_rate: float
    frame: tuple
    """(height, width) in pixels."""
    seed: int
    frozen: bool

    @classmethod
    def checked(cls, caller, epochs, batch_size, learning_rate, size, seed, frozen):
        check_that(isinstance(frozen, bool), caller, "frozen", "True or False", frozen)
        return cls(
            caller,
            check_integer(caller, "epochs", epochs, minimum=1),
            check_integer(caller, "batch_size", batch_size, minimum=1),
            check_number(caller, "learning_rate", learning_rate, 0.0, exclusive=True),
            frames.frame_size(caller, size),
            check_integer(caller, "seed", seed, minimum=0),
            frozen,
        )

    def num_steps(self, num_images):
        """Steps in which every image is seen `epochs` times."""
        return math.ceil(self.epochs * num_images / self.batch_size)


class Trunk:
    """A copy of an encoder's feature maps, for frames of one size.

    Args:
        plan: `Plan`, of which the frame and `frozen` count.
        encoder: as in `maps.feature_maps`.
        channels: channels of the images.
        dilate: whether the last stage of a `models.ResNet` is dilated. Default False.

    Attributes:
        images: symbolic input (B, height, width, channels).
        maps: symbolic maps, finest first.
        strides: pixels of the image for each step in each map.
    """

    def __init__(self, plan, encoder, channels, dilate=False):
        caller = plan.caller
        # What is no encoder at all is found before what does not fit.
        given = maps.feature_maps(encoder).inputs[0].shape
        check_that(
            given[3] == channels,
            caller,
            "encoder",
            f"one for images of {channels} channels, as the set has",
            encoder.name,
            f"It takes {given[3]}.",
        )
        fixed = tuple(f for f in given[1:3] if f is not None)
        check_that(
            not fixed or fixed == plan.frame,
            caller,
            "size",
            f"{fixed}, which the encoder was built for",
            plan.frame,
            "Or take an encoder built for any size.",
        )
        if hasattr(encoder, "check_image_size"):
            encoder.check_image_size(*plan.frame)
        is_resnet = isinstance(encoder, ResNet)
        copy = maps.dilated if dilate and is_resnet else maps.copied
        encoder = copy(encoder)
        encoder.trainable = not plan.frozen
        model = maps.feature_maps(encoder)
        self.strides = maps.strides(model)
        self.images = keras.Input((*plan.frame, channels), dtype="float32")
        # In inference mode where nothing is learned: no statistics move.
        training = {"training": False} if plan.frozen else {}
        self.maps = model(self.images, **training)


class Batches(keras.utils.PyDataset):
    """Random frames and targets of a set, a function of seed and step alone.

    Every epoch shows each image once in an order of its own; a batch may reach from one
    epoch into the next, so that none is smaller.

    Args:
        dense_set: `DenseSet`.
        make: function of a random generator, an image and its target that returns a
            frame and the arrays that the loss is given for it.
        plan: `Plan`.
    """

    def __init__(self, dense_set, make, plan):
        super().__init__(workers=num_cores() + 1, max_queue_size=_BATCHES_AHEAD)
        self.dense_set = dense_set
        self.failure = None
        self._make = make
        self._plan = plan
        self._order = functools.lru_cache(maxsize=2)(self._epoch_order)

    def __len__(self):
        return self._plan.num_steps(len(self.dense_set))

    def __getitem__(self, step):
        try:
            size = self._plan.batch_size
            made = [self._example(step * size + slot) for slot in range(size)]
        except Exception as error:
            # TensorFlow makes an error of its own of it, with a page of text.
            self.failure = error
            raise
        images, targets = zip(*made, strict=True)
        return np.stack(images), np.stack(targets)

    def _example(self, position):
        epoch, place = divmod(position, len(self.dense_set))
        image, target = self.dense_set.read(int(self._order(epoch)[place]))
        generator = np.random.default_rng((self._plan.seed, 1, position))
        return self._make(generator, image, target)

    def _epoch_order(self, epoch):
        generator = np.random.default_rng((self._plan.seed, 0, epoch))
        return generator.permutation(len(self.dense_set))


def sgd(schedule, weight_decay):
    """SGD with momentum 0.9 and weight decay, which spares biases and norms.

    Args:
        schedule: learning rate.
        weight_decay: factor of the weights that is added to their gradients.
    """
    return _sparing(
        keras.optimizers.SGD(
            schedule,
            momentum=_MOMENTUM,
            # Keras takes it off the weights beside the momentum, which would have
            # passed each gradient on 1 / (1 - momentum) times.
            weight_decay=weight_decay / (1.0 - _MOMENTUM),
        )
    )


def adamw(schedule, weight_decay):
    """AdamW with weight decay, which spares biases and norms.

    Args:
        schedule: learning rate.
        weight_decay: share of the weights that is taken off in a step, over the rate.
    """
    return _sparing(keras.optimizers.AdamW(schedule, weight_decay=weight_decay))


def _sparing(optimizer):
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
    return optimizer


def fit(model, batches, loss, optimizer, caller):
    """Trains a model on batches, each once.

    Raises:
        FloatingPointError: where the loss is lost.
        ValueError: where an image or a target cannot be read.
    """
    model.compile(optimizer, loss)
    stop = _StopWhenLost()
    try:
        # One epoch as long as the training: a step's number is its batch's position.
        model.fit(
            batches,
            epochs=1,
            shuffle=False,
            verbose=int(Console().is_terminal),
            callbacks=[stop],
        )
    except Exception:
        if batches.failure is not None:
            raise batches.failure from None
        raise
    if stop.lost is not None:
        raise FloatingPointError(
            f"{caller}: the loss must stay finite. Received: {stop.lost[1]} at step "
            f"{stop.lost[0]}. Take a smaller `learning_rate`."
        )


def answers(model, dense_set, plan):
    """What a model answers for every image, whole, and shrunk where it is too large.

    Yields:
        Position, shape of the image, its placement in the frame, output of the model
        for the frame, target.
    """
    size = min(plan.batch_size, len(dense_set))
    images = np.zeros((size, *plan.frame, dense_set.channels), np.float32)
    for first in range(0, len(dense_set), size):
        count = min(size, len(dense_set) - first)
        found = [None] * count

        def fill(slot, first=first, found=found):
            image, target = dense_set.read(first + slot)
            placement = frames.fitted(image.shape, plan.frame)
            images[slot] = frames.place_image(image, placement, plan.frame)
            found[slot] = (image.shape, placement, target)

        for_each(fill, count)
        outputs = model.predict_on_batch(images)
        for slot, (shape, placement, target) in enumerate(found):
            yield first + slot, shape, placement, outputs[slot], target


class _StopWhenLost(keras.callbacks.Callback):
    """Ends training at a loss that is not finite and says when."""

    def __init__(self):
        super().__init__()
        self.lost = None

    def on_train_batch_end(self, batch, logs=None):
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            self.lost = (batch + 1, loss)
            self.model.stop_training = True
