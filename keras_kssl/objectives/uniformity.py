"""The objective of alignment and uniformity on the sphere."""

import keras

from keras_kssl._checks import check_number
from keras_kssl.objectives.objective import Objective
from keras_kssl.statistics import alignment, uniformity, unit_rows


# The model of the same name is registered as keras_kssl>AlignmentUniformity.
@keras.saving.register_keras_serializable(
    package="keras_kssl", name="AlignmentUniformityObjective"
)
class AlignmentUniformity(Objective):
    """Alignment and uniformity (AUH): views together, all images apart.

    Formula, for unit-length embeddings z_v of dimension q:
    `loss = λ MSE(z_1, z_2) + μ (U(z_1) + U(z_2)) / 2`, U the logarithm of the mean
    Gaussian potential exp(-s ||u - v||²) of two images, `statistics.uniformity`. With
    more than two views the first term is the mean over pairs of views, see
    `Objective`, the second over the views. O(B² q) time and O(B²) memory a view.

    Args:
        invariance_weight: λ. Default 3000, with which SFRIK's paper trains at q = 8192.
        uniformity_weight: μ. Default 1.
        scale: s > 0. Default 2.5.
        weight_per_pair: what λ multiplies. False: the squared error averaged over the
            batch and over the q coordinates. True: the mean squared distance of pairs,
            `statistics.alignment`, whatever q.
        regularize_small: whether the second term takes in the views that are not
            global too. Default False.

    Terms: `loss`, `invariance` (as λ sees it) and `potential`, U, both without their
    weights. Equal embeddings give 0.

    >>> import numpy as np
    >>> views = [np.eye(4, 8), np.eye(4, 8)]
    >>> round(float(AlignmentUniformity()(views)), 4)
    -5.0

    References:
        Wang and Isola, arXiv 2005.10242, as SFRIK's program has it. Differences from
        the authors' own: the squared error is averaged over coordinates too, and s is
        2.5 in place of 2.
    """

    def __init__(
        self,
        invariance_weight=3000.0,
        uniformity_weight=1.0,
        scale=2.5,
        weight_per_pair=False,
        regularize_small=False,
        name=None,
    ):
        super().__init__(name=name)
        caller = "AlignmentUniformity"
        self.invariance_weight = check_number(
            caller, "invariance_weight", invariance_weight, minimum=0.0
        )
        self.uniformity_weight = check_number(
            caller, "uniformity_weight", uniformity_weight, minimum=0.0
        )
        self.scale = check_number(caller, "scale", scale, 0.0, exclusive=True)
        self.weight_per_pair = weight_per_pair
        self.regularize_small = regularize_small
        self.built = True

    def terms(self, embeddings, training=False, num_global=None):
        num_global = self._check_embeddings(embeddings, num_global)
        invariance = self._mean_over_pairs(alignment, embeddings, num_global)
        if not self.weight_per_pair:
            invariance = invariance / embeddings[0].shape[-1]
        kept = embeddings if self.regularize_small else embeddings[:num_global]
        views = [unit_rows(z) for z in kept]
        potential = sum(uniformity(z, self.scale) for z in views) / len(views)
        loss = self.invariance_weight * invariance + self.uniformity_weight * potential
        return {"loss": loss, "invariance": invariance, "potential": potential}

    def collapse_loss(self, num_views):
        return 0.0

    @property
    def term_names(self):
        return ("invariance", "potential")

    def get_config(self):
        return {
            **super().get_config(),
            "invariance_weight": self.invariance_weight,
            "uniformity_weight": self.uniformity_weight,
            "scale": self.scale,
            "weight_per_pair": self.weight_per_pair,
            "regularize_small": self.regularize_small,
        }
