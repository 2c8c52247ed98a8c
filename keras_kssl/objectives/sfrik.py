"""The SFRIK objective: invariance and uniformity by a rotation-invariant kernel."""

import keras

from keras_kssl._checks import check_number
from keras_kssl.kernels import check_coefficients
from keras_kssl.objectives.objective import Objective
from keras_kssl.statistics import alignment, mmd_to_uniform


# The model of the same name is registered as keras_kssl>SFRIK.
@keras.saving.register_keras_serializable(package="keras_kssl", name="SFRIKObjective")
class SFRIK(Objective):
    """SFRIK: views of an image together, all images uniform on the sphere.

    Formula, for unit-length embeddings z_v of dimension q:
    `loss = λ MSE(z_1, z_2) + μ (R(z_1) + R(z_2)) / 2`, with R the squared maximum mean
    discrepancy to the uniform law, `statistics.mmd_to_uniform`. With more than two
    views the first term is the mean over pairs of views, see `Objective`, the second
    over the views.

    Args:
        invariance_weight: λ. Default 4000, the published value for q = 8192.
        mmd_weight: μ. Default 1.
        coefficients: Legendre coefficients b_1 ... b_L of the kernel. Default
            (1, 40, 40); (1, 40) has no term of degree 3 and costs O(B q²) instead of
            O(B² q) where q < B. `kernels.legendre_coefficients` has those of other
            kernels, such as the Gaussian.
        weight_per_pair: what λ multiplies. False, as published: the squared error
            averaged over the batch and over the q coordinates, so that the same λ
            means less as q grows. True: the mean squared distance of pairs,
            `statistics.alignment`, whatever q; the published 4000 at q = 8192 is 0.488
            per pair, 40000 at q = 32768 is 1.221.
        regularize_small: whether the second term takes in the views that are not
            global too. Default False.

    Terms: `loss`, `invariance` (as λ sees it) and `mmd`, both without their weights.

    >>> import numpy as np
    >>> views = [np.ones((4, 16)), np.ones((4, 16))]
    >>> round(float(SFRIK()(views)), 3)
    81.0

    References:
        SFRIK, arXiv 2208.00789, equations 5 to 7, and its released code.
    """

    def __init__(
        self,
        invariance_weight=4000.0,
        mmd_weight=1.0,
        coefficients=(1.0, 40.0, 40.0),
        weight_per_pair=False,
        regularize_small=False,
        name=None,
    ):
        super().__init__(name=name)
        self.invariance_weight = check_number(
            "SFRIK", "invariance_weight", invariance_weight, minimum=0.0
        )
        self.mmd_weight = check_number("SFRIK", "mmd_weight", mmd_weight, minimum=0.0)
        self.coefficients = check_coefficients("SFRIK", coefficients)
        self.weight_per_pair = weight_per_pair
        self.regularize_small = regularize_small
        self.built = True

    def terms(self, embeddings, training=False, num_global=None):
        num_global = self._check_embeddings(embeddings, num_global)
        invariance = self._mean_over_pairs(alignment, embeddings, num_global)
        if not self.weight_per_pair:
            invariance = invariance / embeddings[0].shape[-1]
        kept = embeddings if self.regularize_small else embeddings[:num_global]
        mmd = sum(mmd_to_uniform(z, self.coefficients) for z in kept) / len(kept)
        loss = self.invariance_weight * invariance + self.mmd_weight * mmd
        return {"loss": loss, "invariance": invariance, "mmd": mmd}

    def collapse_loss(self, num_views):
        return self.mmd_weight * sum(self.coefficients)

    @property
    def term_names(self):
        return ("invariance", "mmd")

    def get_config(self):
        return {
            **super().get_config(),
            "invariance_weight": self.invariance_weight,
            "mmd_weight": self.mmd_weight,
            "coefficients": self.coefficients,
            "weight_per_pair": self.weight_per_pair,
            "regularize_small": self.regularize_small,
        }
