"""The Barlow Twins objective: cross-correlation of two views near to the identity."""

import keras
from keras import ops

from keras_kssl import replicas
from keras_kssl._checks import check_number
from keras_kssl._precision import matmul
from keras_kssl.kernels import at_least_float32, inner_products
from keras_kssl.objectives.objective import Objective

# Added to variances, as batch normalisation does.
_EPSILON = 1e-5


# The model of the same name is registered as keras_kssl>BarlowTwins.
@keras.saving.register_keras_serializable(
    package="keras_kssl", name="BarlowTwinsObjective"
)
class BarlowTwins(Objective):
    """Barlow Twins: coordinates alike in two views and unlike each other.

    Formula, for embeddings z_v of dimension q whose coordinates are standardised over
    the N images, (z - mean) / sqrt(variance + 1e-5) with the variance over N::

        loss = Σ_j (1 - C_jj)² + λ Σ_{j ≠ k} C_jk²,     C = z_1ᵀ z_2 / N

    With more than two views the mean over pairs of views, see `Objective`. The sum of
    squares is that of two Gram matrices too: O(N q²) or O(N² q) time a pair, whichever
    is less.

    Args:
        redundancy_weight: λ. Default 0.005.

    Terms: `loss`, `invariance`, the first sum, and `redundancy`, the second without its
    weight. Equal embeddings give q.

    >>> import numpy as np
    >>> views = [np.ones((4, 16)), np.ones((4, 16))]
    >>> float(BarlowTwins()(views))
    16.0

    References:
        Zbontar et al., Barlow Twins, arXiv 2103.03230, and its released code, whose
        default λ is 0.0051.
    """

    def __init__(self, redundancy_weight=0.005, name=None):
        super().__init__(name=name)
        self.redundancy_weight = check_number(
            "BarlowTwins", "redundancy_weight", redundancy_weight, minimum=0.0
        )
        self.built = True

    def terms(self, embeddings, training=False, num_global=None):
        num_global = self._check_embeddings(embeddings, num_global)
        views = [_standardised(at_least_float32(z)) for z in embeddings]
        invariance = self._mean_over_pairs(_invariance, views, num_global)
        redundancy = self._mean_over_pairs(_redundancy, views, num_global)
        loss = invariance + self.redundancy_weight * redundancy
        return {"loss": loss, "invariance": invariance, "redundancy": redundancy}

    @property
    def term_names(self):
        return ("invariance", "redundancy")

    def get_config(self):
        return {**super().get_config(), "redundancy_weight": self.redundancy_weight}


def _standardised(z):
    """Coordinates of mean 0 and variance 1 over the global batch, divided by √N."""
    n = ops.cast(ops.shape(z)[0] * replicas.count(), z.dtype)
    centred = z - replicas.global_sum(ops.sum(z, axis=0)) / n
    variances = replicas.global_sum(ops.sum(ops.square(centred), axis=0)) / n
    return centred * ops.rsqrt(variances + _EPSILON) / ops.sqrt(n)


def _invariance(z_1, z_2):
    return ops.sum(ops.square(1.0 - _correlations(z_1, z_2)))


def _redundancy(z_1, z_2):
    rows, dim = z_1.shape
    if rows is None or dim < rows * replicas.count():
        correlations = replicas.global_sum(matmul(ops.transpose(z_1), z_2))
        others = ops.where(ops.eye(dim, dtype="bool"), 0.0, correlations)
        return ops.sum(ops.square(others))
    products = ops.sum(inner_products(z_1) * inner_products(z_2))
    diagonal = ops.sum(ops.square(_correlations(z_1, z_2)))
    return replicas.global_sum(products) - diagonal


def _correlations(z_1, z_2):
    """Correlations of each coordinate with itself in the other view, (q,)."""
    return replicas.global_sum(ops.sum(z_1 * z_2, axis=0))
