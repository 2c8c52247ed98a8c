"""Batches to train on, in an order that is a function of the seed and the step."""

import contextlib
import queue
import threading
import time

import keras
import numpy as np

from keras_kssl._checks import check_integer, check_that
from keras_kssl.data import cutting
from keras_kssl.data.encoded import MAX_BROKEN, FixedSize
from keras_kssl.data.sources import open_source

# What tf.data calls `INFINITE_CARDINALITY`.
_ENDLESS = -1
# Batches that wait, ready, for the training step.
_AHEAD = 2


def load(
    source,
    batch_size,
    seed=0,
    limit=None,
    start_step=0,
    policy=None,
    max_broken=MAX_BROKEN,
    with_labels=True,
):
    """Opens a source and serves it in full batches for training.

    Args:
        source: anything `open_source` takes, such as `"folder:photos"`.
        batch_size: images per batch, at least 2 and at most as many as there are.
        seed: integer of at least 0: the order of the images, and what is cut out of
            images of many sizes. Default 0.
        limit: takes the first `limit` images alone; `None` (default) takes all.
        start_step: step whose batch comes first, for training that goes on after
            `start_step` steps. Default 0.
        policy, with_labels: see `Batches`.
        max_broken: as in `open_source`.

    Returns:
        `Batches`.

    Example:

    >>> import numpy as np
    >>> batches = load(np.zeros((10, 31, 45, 1), "uint8"), batch_size=4)
    >>> batches.steps_per_epoch
    2
    """
    source = open_source(source, limit, max_broken)
    return Batches(source, batch_size, seed, start_step, policy, with_labels)


class Batches(keras.utils.PyDataset):
    """Full batches of a source without end, each epoch in another order.

    What step t sees is a function of the seed and t alone, so that training goes on
    anywhere at no cost. Epoch e goes through a permutation of the n images keyed by
    (seed, e), floor(n / batch_size) batches of it; the images left over, others in
    each epoch, sit that epoch out.

    Images of one size come as they are, and the model makes views of them. Images of
    many sizes come as views: cut out and resized here, by all cores, while the step
    before is computed; everything else that augmentation does is left to the model.

    `SelfSupervisedModel.fit` takes batches as they are and knows the length of an
    epoch. Other Keras models have to be told::

        model.fit(batches, steps_per_epoch=batches.steps_per_epoch, shuffle=False)

    One call of `fit` takes consecutive batches from `start_step` on; its
    `initial_epoch` only counts.

    A batch is a tuple (images,) or (images, labels): images (batch_size, H, W, C) in
    the dtype of the source, uint8 in 0 ... 255 or float32 in [0, 1], or a tuple of such
    arrays, one for each of the policy's `views`; labels int32 as in the source.

    Args:
        source: a source such as `ArraySource`.
        batch_size, seed, start_step: as in `load`.
        policy: `augment.Policy` that says how views are cut out of images of many
            sizes; `fit` of a model with `augment` gives its own.
        with_labels: whether batches carry the labels, where there are any. Default
            True.

    Attributes:
        seconds_waited: time for which `fit` has waited for batches, in seconds.
    """

    def __init__(
        self,
        source,
        batch_size,
        seed=0,
        start_step=0,
        policy=None,
        with_labels=True,
    ):
        super().__init__()
        self.source = source
        self.batch_size = check_integer("Batches", "batch_size", batch_size)
        self.seed = check_integer("Batches", "seed", seed, minimum=0)
        self.start_step = check_integer("Batches", "start_step", start_step, minimum=0)
        self.policy = self._own_policy = policy
        self.with_labels = with_labels
        self.seconds_waited = 0.0
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
        rule = "a source that replaces what cannot be read, not one of fixed size"
        check_that(not isinstance(source, FixedSize), "Batches", "source", rule, source)
        self._order = (None, None)
        self._failure = None
        self._streams = []

    @property
    def steps_per_epoch(self):
        """Full batches in one pass over the source."""
        return len(self.source) // self.batch_size

    @property
    def num_batches(self):
        """`None`: Keras's sign for an endless data set."""
        return

    def at(self, step, rows=slice(None)):
        """The batch of step `step`, counted from the start of training at 0.

        Args:
            step: number of the step.
            rows: slice of the batch, for one of several processes. Default: all.
        """
        images, indices = self.images_at(step, rows)
        labels = self.source.labels if self.with_labels else None
        return (images,) if labels is None else (images, labels[indices])

    def images_at(self, step, rows=slice(None)):
        """The images or views of step `step`, and the positions of what they show."""
        indices = self.positions(step)
        if self.source.image_shape[0] is None:
            return self._views(step, indices, rows)
        return self.source.read(indices[rows])

    def positions(self, step):
        """Positions (batch_size,) in the source of the images of step `step`."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.batch_size
        return self._epoch_order(epoch)[start : start + self.batch_size]

    def __getitem__(self, index):
        return self.at(self.start_step + index)

    def feed(self, policy, strategy=None):
        """What Keras takes for `fit`: a tf.data pipeline, on JAX a generator.

        A thread makes batches while the model works on those before. Of several
        processes each makes its own rows only.

        Args:
            policy: the policy of the model.
            strategy: `tf.distribute` strategy whose replicas share each batch.

        Raises:
            ValueError: where the replicas cannot have equal parts of a batch.
        """
        self.policy = self._own_policy or policy
        self._failure = None
        if keras.backend.backend() != "tensorflow":
            return self._stream(self._rows_of_process())
        import tensorflow as tf

        # The tuner, which has nothing to tune here, may sleep through the end of its
        # iterator, which then waits for it, idle, for up to a minute.
        untuned = tf.data.Options()
        untuned.autotune.enabled = False
        count = 1 if strategy is None else strategy.num_replicas_in_sync
        size = self._share("replicas", count)
        signature = keras.tree.map_structure(
            lambda array: tf.TensorSpec((size, *array.shape[1:]), array.dtype),
            self._like_a_batch(),
        )

        def dataset(first, last):
            """Rows of the replicas from `first` to `last`, one after another."""

            def parts():
                for batch in self._stream(slice(first * size, last * size)):
                    for start in range(0, (last - first) * size, size):
                        part = slice(start, start + size)
                        yield keras.tree.map_structure(lambda a, p=part: a[p], batch)

            made = tf.data.Dataset.from_generator(parts, output_signature=signature)
            made = made.prefetch(1).with_options(untuned)
            # Otherwise a strategy prepares for a last batch that is smaller, and steps
            # are compiled for batches of unknown size.
            return made.apply(tf.data.experimental.assert_cardinality(_ENDLESS))

        def of_worker(context):
            mine = count // context.num_input_pipelines
            first = mine * context.input_pipeline_id
            return dataset(first, first + mine)

        if count == 1:
            return dataset(0, 1)
        return strategy.distribute_datasets_from_function(of_worker)

    def _rows_of_process(self):
        distribution = keras.distribution.distribution()
        if distribution is None:
            return slice(None)
        import jax

        self._share("devices", distribution.num_model_replicas)
        size = self._share("processes", jax.process_count())
        return slice(size * jax.process_index(), size * (jax.process_index() + 1))

    def _share(self, name, count):
        """Rows of a batch for each of so many."""
        check_that(
            self.batch_size % count == 0,
            "Batches",
            "batch_size",
            f"a multiple of the number of {name}, {count}",
            self.batch_size,
        )
        return self.batch_size // count

    def stop(self):
        """Ends the threads that make batches."""
        for stopped in self._streams:
            stopped.set()
        self._streams.clear()

    def raise_failure(self):
        """Raises again what went wrong in the thread that makes batches.

        TensorFlow makes an error of its own of it, with a page of text.
        """
        if self._failure is not None:
            raise self._failure

    def _stream(self, rows=slice(None)):
        """Rows of the batches from `start_step` on, made ahead by a thread."""
        ready = queue.Queue(maxsize=_AHEAD)
        stopped = threading.Event()
        self._streams.append(stopped)

        def put(item):
            while not stopped.is_set():
                with contextlib.suppress(queue.Full):
                    ready.put(item, timeout=0.1)
                    return

        def produce():
            step = self.start_step
            try:
                while not stopped.is_set():
                    put(self.at(step, rows))
                    step += 1
            except Exception as error:
                self._failure = error
                put(error)

        thread = threading.Thread(target=produce, name="kssl_batches", daemon=True)
        thread.start()
        try:
            while not stopped.is_set():
                began = time.perf_counter()
                try:
                    # Now and then it looks whether anything will come any more.
                    item = ready.get(timeout=0.1)
                except queue.Empty:
                    continue
                finally:
                    self.seconds_waited += time.perf_counter() - began
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            stopped.set()

    def _views(self, step, indices, rows):
        self._check_policy()
        shape = (len(indices), len(self.policy.views), cutting.NUMBERS_PER_VIEW)
        bits = _bits((self.seed, step, 1)).random_raw(np.prod(shape))
        # The upper 53 bits, as many as a double holds.
        numbers = (bits >> np.uint64(11)).reshape(shape) * 2.0**-53
        views, shown = self.source.views(
            indices[rows], self.policy.views, numbers[rows]
        )
        return tuple(views), shown

    def _check_policy(self):
        if self.policy is None:
            raise ValueError(
                f"Batches: `policy` must be given for {self.source.name}, whose images "
                "have many sizes. Received: policy=None. Give the model `augment`, or "
                "data.load a `policy` such as augment.byol(size=224)."
            )

    def _like_a_batch(self):
        """Arrays of the shapes and types of a batch."""
        height, width, channels = self.source.image_shape

        def like(height, width):
            shape = (self.batch_size, height, width, channels)
            return np.broadcast_to(np.zeros((), self.source.dtype), shape)

        if height is None:
            self._check_policy()
            images = tuple(like(view.size, view.size) for view in self.policy.views)
        else:
            images = like(height, width)
        if not self.with_labels or self.source.labels is None:
            return (images,)
        shape = (self.batch_size, *self.source.labels.shape[1:])
        return images, np.zeros(shape, np.int32)

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
    return np.argsort(_bits((seed, epoch)).random_raw(count), kind="stable")


def _bits(key):
    return np.random.Philox(np.random.SeedSequence(key))
