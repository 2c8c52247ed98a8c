"""The effective rank of embeddings in batches, against one SVD of them all."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_kssl.models.metrics import EffectiveRank


def rank_by_svd(z):
    values = np.linalg.svd(z.astype("float64"), compute_uv=False)
    share = values[values > 1e-12] / values.sum()
    return np.exp(-np.sum(share * np.log(share)))


def unequal_directions(rows, dim, seed=0):
    z = np.random.default_rng(seed).normal(size=(rows, dim))
    return (z * np.arange(1, dim + 1)).astype("float32")


def test_rank_of_batches_is_that_of_all_their_rows():
    metric = EffectiveRank(6)
    batches = [unequal_directions(3, 6, seed) for seed in range(4)]
    for batch in batches:
        metric.update_state(batch)
    expected = rank_by_svd(np.concatenate(batches))
    # Each batch has a rank of at most 3.
    assert 3.5 < expected < 5.5
    assert float(metric.result()) == pytest.approx(expected, rel=1e-4)


def test_rank_forgets_what_came_before_a_reset():
    metric = EffectiveRank(6)
    metric.update_state(unequal_directions(9, 6))
    metric.reset_state()
    metric.update_state(unequal_directions(9, 6, seed=1))
    expected = rank_by_svd(unequal_directions(9, 6, seed=1))
    assert float(metric.result()) == pytest.approx(expected, rel=1e-4)


def test_latest_is_the_last_result_until_there_is_another():
    metric = EffectiveRank(6)
    assert float(metric.latest) == 0.0
    metric.update_state(unequal_directions(9, 6))
    assert float(metric.latest) == 0.0
    first = float(metric.result())
    metric.reset_state()
    metric.update_state(unequal_directions(2, 6))
    assert float(metric.latest) == first > 2.0
    assert float(metric.result()) == float(metric.latest) < 2.0


def test_rank_looks_at_the_first_512_coordinates():
    z = unequal_directions(5, 515)
    z[:, 512:] *= 100.0
    metric = EffectiveRank(515)
    metric.update_state(z)
    assert float(metric.result()) == pytest.approx(rank_by_svd(z[:, :512]), rel=1e-3)


@pytest.mark.parametrize("dim", [8, 256, 512])
def test_collapsed_embeddings_have_one_direction_and_no_noise(dim):
    rng = np.random.default_rng(0)
    direction = rng.normal(size=dim)
    metric = EffectiveRank(dim)
    for _ in range(3):
        z = np.tile(direction / np.linalg.norm(direction), (64, 1))
        metric.update_state(z.astype("float32"))
    assert float(metric.result()) == pytest.approx(1.0, abs=1e-3)


def test_rank_of_half_precision_embeddings_is_accumulated_in_float32():
    metric = EffectiveRank(4)
    z = ops.cast(300.0 * np.eye(4), "float16")
    metric.update_state(z)
    assert keras.backend.standardize_dtype(metric.second_moments.dtype) == "float32"
    assert float(metric.result()) == pytest.approx(4.0, rel=1e-4)
