"""The one metric of self-supervised training that is more than a running mean."""

import keras
from keras import ops

from keras_kssl._precision import matmul
from keras_kssl.statistics import rank_of_spectrum

_MAX_COORDINATES = 512
# Of float32.
_EPSILON = 1.2e-7


class EffectiveRank(keras.metrics.Metric):
    """Effective rank (RankMe) of all embeddings since the last reset.

    Accumulates second moments, O(n k²) per step for the first k = min(d, 512)
    coordinates, so that a batch smaller than d does not bound the rank. The spectrum
    is worth more than many a training step: `result` is for use between epochs, and
    `latest` is the value that it returned last, for use inside compiled steps.

    Args:
        dim: dimension d of the embeddings.

    References:
        Garrido et al., arXiv 2210.02885; see `statistics.effective_rank`.
    """

    def __init__(self, dim, name="effective_rank"):
        super().__init__(name=name)
        self.num_coordinates = min(dim, _MAX_COORDINATES)
        square = (self.num_coordinates, self.num_coordinates)
        self.second_moments = self.add_variable(square, "zeros", name="second_moments")
        self.latest = self.add_variable((), "zeros", name="latest")

    def update_state(self, embeddings):
        z = ops.cast(embeddings[:, : self.num_coordinates], "float32")
        moments = matmul(ops.transpose(z), z)
        self.second_moments.assign(self.second_moments + moments)

    def result(self):
        eigenvalues, _ = ops.eigh(ops.convert_to_tensor(self.second_moments))
        # Rounding leaves eigenvalues where there are none, and the root makes them
        # large: at total collapse they counted for half a direction.
        noise = self.num_coordinates * _EPSILON * ops.max(eigenvalues)
        eigenvalues = ops.where(eigenvalues > noise, eigenvalues, 0.0)
        rank = rank_of_spectrum(ops.sqrt(ops.maximum(eigenvalues, 0.0)))
        # A sum: what is returned must not lie in the buffer of a variable, which JAX
        # gives away with the next step, of evaluation too.
        self.latest.assign(rank + 0.0)
        return rank

    def reset_state(self):
        # Keras resets all variables; `latest` is for the steps of the next epoch.
        self.second_moments.assign(ops.zeros(self.second_moments.shape))
