"""The VICReg objective: invariance, variance and covariance of raw embeddings."""

import keras
from keras import ops

from keras_kssl import replicas
from keras_kssl._checks import check_number
from keras_kssl.kernels import at_least_float32, inner_products, second_moments
from keras_kssl.objectives.objective import Objective

# Added to variances, so that their roots have finite gradients.
_EPSILON = 1e-4


# The model of the same name is registered as keras_kssl>VICReg.
@keras.saving.register_keras_serializable(package="keras_kssl", name="VICRegObjective")
class VICReg(Objective):
    """VICReg: views together, coordinates of variance 1 and without covariance.

    Formula, for embeddings z_v of dimension q, which are not normalised, with C(z) the
    covariance matrix over the N images (divided by N - 1)::

        loss = λ MSE(z_1, z_2) + μ (V(z_1) + V(z_2)) / 2 + ν (K(z_1) + K(z_2))
        V(z) = 1/q Σ_j max(0, 1 - sqrt(C_jj + 1e-4)),    K(z) = 1/q Σ_{j ≠ k} C_jk²

    With more than two views the first term is the mean over pairs of views, see
    `Objective`, the second the mean over the views, the third twice their mean. The
    sum of squares in K is that of the Gram matrix too: O(N q²) or O(N² q) time,
    whichever is less.

    Args:
        invariance_weight: λ. Default 25; SFRIK's paper trains with 10.
        variance_weight: μ. Default 25; SFRIK's paper trains with 10.
        covariance_weight: ν. Default 1.
        regularize_small: whether the second and third terms take in the views that
            are not global too. Default False.

    Terms: `loss`, `invariance`, `variance` and `covariance`, without their weights.
    Equal embeddings give 0.99 μ.

    >>> import numpy as np
    >>> views = [np.ones((4, 16)), np.ones((4, 16))]
    >>> round(float(VICReg()(views)), 3)
    24.75

    References:
        Bardes et al., VICReg, arXiv 2105.04906, and its released code, the same in
        SFRIK's program. Differences in value: none for two views.
    """

    def __init__(
        self,
        invariance_weight=25.0,
        variance_weight=25.0,
        covariance_weight=1.0,
        regularize_small=False,
        name=None,
    ):
        super().__init__(name=name)
        self.invariance_weight, self.variance_weight, self.covariance_weight = (
            check_number("VICReg", name, value, minimum=0.0)
            for name, value in (
                ("invariance_weight", invariance_weight),
                ("variance_weight", variance_weight),
                ("covariance_weight", covariance_weight),
            )
        )
        self.regularize_small = regularize_small
        self.built = True

    def terms(self, embeddings, training=False, num_global=None):
        num_global = self._check_embeddings(embeddings, num_global)
        views = [at_least_float32(z) for z in embeddings]
        invariance = self._mean_over_pairs(_squared_error, views, num_global)
        kept = views if self.regularize_small else views[:num_global]
        spreads = [_variance_and_covariance(z) for z in kept]
        variance, covariance = (
            sum(values) / len(kept) for values in zip(*spreads, strict=True)
        )
        # The published sum over two views.
        covariance = 2.0 * covariance
        loss = (
            self.invariance_weight * invariance
            + self.variance_weight * variance
            + self.covariance_weight * covariance
        )
        return {
            "loss": loss,
            "invariance": invariance,
            "variance": variance,
            "covariance": covariance,
        }

    def collapse_loss(self, num_views):
        return self.variance_weight * (1.0 - _EPSILON**0.5)

    @property
    def term_names(self):
        return ("invariance", "variance", "covariance")

    def get_config(self):
        return {
            **super().get_config(),
            "invariance_weight": self.invariance_weight,
            "variance_weight": self.variance_weight,
            "covariance_weight": self.covariance_weight,
            "regularize_small": self.regularize_small,
        }


def _squared_error(z_1, z_2):
    return replicas.global_mean(ops.mean(ops.square(z_1 - z_2)))


def _variance_and_covariance(z):
    """V(z) and K(z) of the global batch."""
    rows, dim = z.shape
    n = ops.cast(ops.shape(z)[0] * replicas.count(), z.dtype)
    centred = z - replicas.global_sum(ops.sum(z, axis=0)) / n
    total = replicas.global_sum(ops.sum(ops.square(centred), axis=0))
    variances = total / (n - 1.0)
    hinge = ops.mean(ops.relu(1.0 - ops.sqrt(variances + _EPSILON)))
    if rows is None or dim < rows * replicas.count():
        covariances = replicas.global_sum(second_moments(centred)) / (n - 1.0)
        others = ops.where(ops.eye(dim, dtype="bool"), 0.0, covariances)
        return hinge, ops.sum(ops.square(others)) / dim
    products = replicas.global_sum(ops.sum(ops.square(inner_products(centred))))
    squares = products / ops.square(n - 1.0) - ops.sum(ops.square(variances))
    return hinge, squares / dim
