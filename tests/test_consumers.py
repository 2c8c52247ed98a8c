"""What others do with an exported encoder, in environments of their own."""

import os

import keras
import pytest

from tests.consumers import run

WHOLE = {
    "loader": "hub.load",
    "difference": 1e-6,
    "weights": 36,
    "moved_weights": 36,
    "statistics": 24,
    "moved_statistics": 24,
    "moved_by_inference": 0,
    "accuracy": 0.9,
}


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"difference": 2e-4}, "features differ"),
        ({"moved_by_inference": 1}, "inference moved 1"),
        ({"moved_weights": 0}, "moved: head only"),
        ({"moved_weights": 35}, "moved: 35 weights of 36"),
        ({"moved_statistics": 0}, "moved: weights, no statistics"),
        ({"moved_statistics": 23}, "moved: 23 statistics"),
        ({"accuracy": 0.5}, "no better than frozen"),
        ({"loader": "hub.KerasLayer()"}, "expected: head only"),
    ],
)
def test_a_consumer_that_does_otherwise_would_be_found(change, fault):
    assert [*run.faults(WHOLE, frozen=0.5)] == []
    (found,) = run.faults({**WHOLE, **change}, frozen=0.5)
    assert fault in found


@pytest.mark.slow
@pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="TensorFlow writes SavedModels"
)
@pytest.mark.parametrize("consumer", run.CONSUMERS)
def test_every_consumer_fine_tunes_the_whole_encoder(consumer, tmp_path):
    kept = os.environ.get("KSSL_CONSUMERS", tmp_path / "environments")
    try:
        assert run.main([consumer, "--environments", str(kept)]) == 0
    except run.NoIndex as error:
        pytest.skip(str(error))
