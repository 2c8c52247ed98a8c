"""Batches to train on, in an order that is a function of the seed and the step."""

import keras
import numpy as np

from keras_kssl._checks import check_integer
from keras_kssl.data.sources import open_source


def load(source, batch_size, seed=0, limit=None, start_step=0):
    """Opens a source and serves it in full batches for training.

    Args:
        source: anything `open_source` takes, such as `"npz:FILE.npz"`.
        batch_size: images per batch, at least 2 and at most as many as there are.
        seed: integer of at least 0: the order of the images. Default 0.
        limit: takes the first `limit` images alone; `None` (default) takes all.
        start_step: step whose batch comes first, for training that goes on after
            `start_step` steps. Default 0.

    Returns:
        `Batches`.

    Example:

    >>> import numpy as np
    >>> batches = load(np.zeros((10, 31, 45, 1), "uint8"), batch_size=4)
    >>> batches.steps_per_epoch
    2
    """
    source = open_source(source, limit)
    return Batches(source, batch_size, seed=seed, start_step=start_step)


class Batches(keras.utils.PyDataset):
    """Full batches of a source without end, each epoch in another order.

    What step t sees is a function of the seed and t alone, so that training goes on
    anywhere at no cost. Epoch e goes through a permutation of the n images keyed by
    (seed, e), floor(n / batch_size) batches of it; the images left over, others in
    each epoch, sit that epoch out.

    Keras restarts a data set of finite length every epoch and shuffles its batches by
    Python's global random state, so this one is endless, and `fit` has to be told the
    length of an epoch::

        model.fit(batches, steps_per_epoch=batches.steps_per_epoch, shuffle=False)

    With `shuffle=True`, its default, `fit` gives the same batches and a warning that
    shuffling is left to the data set. One call of `fit` takes consecutive batches from
    `start_step` on; its `initial_epoch` only counts.

    A batch is a tuple (images,) or (images, labels): images (batch_size, H, W, C) in
    the dtype of the source, uint8 in 0 ... 255 or float32 in [0, 1], labels int32.

    Args:
        source: a source such as `ArraySource`.
        batch_size, seed, start_step: as in `load`.
    """

    def __init__(self, source, batch_size, seed=0, start_step=0):
        super().__init__()
        self.source = source
        self.batch_size = check_integer("Batches", "batch_size", batch_size)
        self.seed = check_integer("Batches", "seed", seed, minimum=0)
        self.start_step = check_integer("Batches", "start_step", start_step, minimum=0)
        if self.batch_size < 2:
            raise ValueError(
                "Batches: `batch_size` must be at least 2: the objectives compare "
                f"images of a batch with each other. Received: batch_size={batch_size}."
            )
        if self.batch_size > len(source):
            raise ValueError(
                "Batches: `batch_size` must be at most the number of images, "
                f"{len(source)}. Received: batch_size={batch_size}."
            )
        self._order = (None, None)

    @property
    def steps_per_epoch(self):
        """Full batches in one pass over the source."""
        return len(self.source) // self.batch_size

    @property
    def num_batches(self):
        """`None`: Keras's sign for an endless data set."""
        return

    def at(self, step):
        """The batch of step `step`, counted from the start of training at 0."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.batch_size
        indices = self._epoch_order(epoch)[start : start + self.batch_size]
        images, labels = self.source.batch(indices)
        return (images,) if labels is None else (images, labels.astype(np.int32))

    def __getitem__(self, index):
        return self.at(self.start_step + index)

    def _epoch_order(self, epoch):
        # One assignment of a pair, so that threads never see half of it.
        known_epoch, order = self._order
        if known_epoch != epoch:
            order = _permutation(len(self.source), self.seed, epoch)
            self._order = (epoch, order)
        return order


def _permutation(count, seed, epoch):
    """Order of `count` images: ranks of random keys.

    NumPy promises that a bit generator's stream never changes; it does not promise
    that of `Generator.permutation`.
    """
    bits = np.random.Philox(np.random.SeedSequence((seed, epoch)))
    return np.argsort(bits.random_raw(count), kind="stable")
