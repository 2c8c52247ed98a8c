"""Batches: a function of seed and step, whatever Keras does around them."""

import random

import keras
import numpy as np
import pytest
from keras import ops

from keras_kssl.data import ArraySource, load

# Pixel and label of image i are i.
POSITIONS = np.arange(23)
IMAGES = np.broadcast_to(POSITIONS[:, None, None, None], (23, 3, 5, 1)).astype("uint8")
SOURCE = ArraySource(IMAGES, POSITIONS)


def seen_at(batches, step):
    return batches.at(step)[1].tolist()


class Recorder(keras.Model):
    """Writes down which images each training step was fed."""

    def __init__(self, steps, batch_size):
        super().__init__()
        self.seen = self.add_weight(
            (steps, batch_size), "zeros", dtype="int32", trainable=False
        )
        self.step = self.add_weight((), "zeros", dtype="int32", trainable=False)
        self.scale = self.add_weight((), "ones")

    def call(self, images, training=False):
        if training:
            rows = ops.cast(images[:, 0, 0, 0], "int32")
            row = ops.cast(ops.arange(self.seen.shape[0]) == self.step, "int32")
            self.seen.assign(self.seen + row[:, None] * rows[None])
            self.step.assign(self.step + 1)
        return self.scale * ops.ones((1,))

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        return ops.sum(y_pred)


def recorded(batches, steps, **arguments):
    model = Recorder(steps, batches.batch_size)
    model.compile(optimizer="sgd")
    model.fit(batches, steps_per_epoch=batches.steps_per_epoch, verbose=0, **arguments)
    assert int(model.step + 0) == steps
    return ops.convert_to_numpy(model.seen + 0).tolist()


@pytest.mark.any_backend
def test_order_is_fixed_for_good():
    # Written down once: a run resumed by another version has to go on where it was.
    assert seen_at(load(SOURCE, 6, seed=3), 0) == [21, 0, 16, 1, 2, 10]


@pytest.mark.any_backend
def test_batches_are_full_and_an_epoch_repeats_no_image():
    batches = load(SOURCE, 6, seed=1)
    assert batches.steps_per_epoch == 3
    for epoch in range(4):
        seen = [i for t in range(3) for i in seen_at(batches, 3 * epoch + t)]
        assert len(seen) == len(set(seen)) == 18


@pytest.mark.any_backend
def test_every_epoch_and_every_seed_has_an_order_of_its_own():
    first = [seen_at(load(SOURCE, 23, seed=seed), 0) for seed in range(3)]
    later = [seen_at(load(SOURCE, 23), epoch) for epoch in range(1, 4)]
    assert len({tuple(order) for order in first + later}) == 6


@pytest.mark.any_backend
def test_images_left_over_differ_between_epochs():
    batches = load(SOURCE, 6)
    left = [
        set(range(23)) - {i for t in range(3) for i in seen_at(batches, 3 * e + t)}
        for e in range(60)
    ]
    assert set.union(*left) == set(range(23))


@pytest.mark.any_backend
def test_a_step_depends_on_no_step_before_it():
    batches = load(SOURCE, 6, seed=5)
    forward = [seen_at(batches, step) for step in range(12)]
    backward = [seen_at(load(SOURCE, 6, seed=5), step) for step in range(11, -1, -1)]
    assert forward == backward[::-1]


@pytest.mark.any_backend
def test_start_step_moves_the_stream_along():
    batches = load(SOURCE, 6, start_step=4)
    assert batches[1][1].tolist() == seen_at(load(SOURCE, 6), 5)


@pytest.mark.any_backend
def test_a_batch_holds_images_as_they_are_and_int32_labels():
    images, labels = load(SOURCE, 6).at(2)
    assert (images.shape, images.dtype) == ((6, 3, 5, 1), np.uint8)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(images[:, 0, 0, 0], labels)
    assert len(load(IMAGES, 6).at(0)) == 1


@pytest.mark.any_backend
def test_limit_leaves_later_images_out():
    batches = load(SOURCE, 5, limit=10)
    assert {i for t in range(8) for i in seen_at(batches, t)} == set(range(10))


@pytest.mark.parametrize("with_labels", [True, False])
@pytest.mark.parametrize("start_step", [0, 4])
def test_fit_feeds_the_stream_in_order_over_epochs(with_labels, start_step):
    source = SOURCE if with_labels else IMAGES
    batches = load(source, 6, seed=2, start_step=start_step)
    expected = [seen_at(load(SOURCE, 6, seed=2), start_step + t) for t in range(9)]
    assert recorded(batches, 9, epochs=3, shuffle=False) == expected


def test_fit_feeds_the_same_by_its_default_shuffle_and_any_global_seed():
    batches = load(SOURCE, 6, seed=2)
    expected = [seen_at(batches, t) for t in range(9)]
    for seed in (0, 1):
        random.seed(seed)
        np.random.seed(seed)
        with pytest.warns(UserWarning, match="infinite PyDataset"):
            assert recorded(batches, 9, epochs=3) == expected


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow has the tuner"
)
def test_no_tuner_of_the_pipeline_can_delay_the_end_of_fit():
    assert load(SOURCE, 6).feed(None).options().autotune.enabled is False


def test_a_second_fit_goes_on_where_start_step_says():
    whole = recorded(load(SOURCE, 6), 9, epochs=3, shuffle=False)
    parts = recorded(load(SOURCE, 6), 3, epochs=1, shuffle=False) + recorded(
        load(SOURCE, 6, start_step=3), 6, epochs=3, initial_epoch=1, shuffle=False
    )
    assert parts == whole


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batch_size": 1}, "at least 2: the objectives compare images"),
        ({"batch_size": 0}, "at least 2"),
        ({"batch_size": 24}, "at most the number of images, 23"),
        ({"batch_size": 6, "limit": 5}, "at most the number of images, 5"),
        ({"batch_size": 6, "seed": -1}, "`seed` must be"),
        ({"batch_size": 6, "start_step": -1}, "`start_step` must be"),
    ],
)
def test_impossible_batches_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        load(SOURCE, **arguments)


@pytest.mark.any_backend
def test_batch_size_must_be_an_integer():
    with pytest.raises(TypeError, match="`batch_size` must be an integer"):
        load(SOURCE, 6.0)
