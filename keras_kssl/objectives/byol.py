"""The BYOL objective: predictions of one network near to projections of another."""

import keras

from keras_kssl._checks import check_that
from keras_kssl.objectives.objective import Objective
from keras_kssl.statistics import alignment


# The model of the same name is registered as keras_kssl>BYOL.
@keras.saving.register_keras_serializable(package="keras_kssl", name="BYOLObjective")
class BYOL(Objective):
    """BYOL: each view's prediction near to the target network's projection of others.

    Formula, for unit-length predictions p_v of the views and projections t_g of the
    global views: `loss = 2 mean_g mean_{v ≠ g} ||p_v - t_g||²`, for two views
    ||p_1 - t_2||² + ||p_2 - t_1||². A squared distance is 2 - 2 p·t. Nothing keeps
    embeddings apart but that t comes of a network that follows slowly, without
    gradient.

    The embeddings are those of `models.BYOL`: predictions p_1 ... p_G of the global
    views, projections t_G ... t_1 of the same, the last one first, then predictions
    of small crops; `num_global` is 2G, by default the number of all embeddings. With
    one global view, and no more, there must be small crops.

    Terms: `loss` and `invariance`, the mean squared distance. Equal embeddings give 0,
    as perfect ones do.

    >>> import numpy as np
    >>> p_1, p_2, t_2, t_1 = np.eye(4, 8), np.eye(4, 8), np.eye(4, 8), -np.eye(4, 8)
    >>> round(float(BYOL()([p_1, p_2, t_2, t_1])), 4)
    4.0

    References:
        Grill et al., BYOL, arXiv 2006.07733, equation 2 with its symmetric part, as in
        the released code.
    """

    def __init__(self, name=None):
        super().__init__(name=name)
        self.built = True

    def terms(self, embeddings, training=False, num_global=None):
        num_global = self._check_embeddings(embeddings, num_global)
        rule = "even: predictions and projections of the same views"
        check_that(num_global % 2 == 0, "BYOL", "num_global", rule, num_global)
        half = num_global // 2
        predictions = [*embeddings[:half], *embeddings[num_global:]]
        targets = embeddings[half:num_global][::-1]
        rule = "of two views or more"
        check_that(len(predictions) > 1, "BYOL", "embeddings", rule, len(predictions))
        distances = [
            alignment(prediction, target)
            for g, target in enumerate(targets)
            for v, prediction in enumerate(predictions)
            if v != g
        ]
        invariance = sum(distances) / len(distances)
        return {"loss": 2.0 * invariance, "invariance": invariance}

    def collapse_loss(self, num_views):
        return 0.0

    @property
    def term_names(self):
        return ("invariance",)
