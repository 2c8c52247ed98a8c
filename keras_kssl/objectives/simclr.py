"""The SimCLR objective: each view is to find its partner among all views of a batch."""

import keras
from keras import ops

from keras_kssl import replicas
from keras_kssl._checks import check_number
from keras_kssl._precision import matmul
from keras_kssl.objectives.objective import Objective
from keras_kssl.statistics import unit_rows

# In place of the similarity of a row to itself, which is no candidate.
_NEVER = -1e9


# The model of the same name is registered as keras_kssl>SimCLR.
@keras.saving.register_keras_serializable(package="keras_kssl", name="SimCLRObjective")
class SimCLR(Objective):
    """SimCLR: cross-entropy of finding the other view of an image in the batch.

    Formula, for the 2N unit-length embeddings z of two views of N images and p(i) the
    other view of the image of i::

        loss = 1/2N Σ_i [log Σ_{j ≠ i} exp(z_i·z_j / T) - z_i·z_p(i) / T]

    With more than two views the mean over pairs of views, see `Objective`: the
    candidates are those of the same two views. O(N² d) time and O(N²) memory a pair.

    Args:
        temperature: T > 0. Default 0.1; SFRIK's paper trains with 0.15.

    Terms: `loss`, `similarity`, the mean of z_i·z_p(i), and `contrast`, the mean of the
    logarithms: `loss = contrast - similarity / T`. Equal embeddings give
    log(2N - 1).

    >>> import numpy as np
    >>> views = [np.eye(4, 8), np.eye(4, 8)]
    >>> round(float(SimCLR(temperature=1.0)(views)), 4)
    1.1654

    References:
        Chen et al., SimCLR, arXiv 2002.05709, equation 1, the same as in SFRIK's
        program. Differences from the authors' program: it adds the losses of the two
        views, each a mean over N, where this takes their mean.
    """

    def __init__(self, temperature=0.1, name=None):
        super().__init__(name=name)
        self.temperature = check_number(
            "SimCLR", "temperature", temperature, minimum=0.0, exclusive=True
        )
        self.built = True

    def terms(self, embeddings, training=False, num_global=None):
        num_global = self._check_embeddings(embeddings, num_global)
        views = [unit_rows(z) for z in embeddings]
        similarity = self._mean_over_pairs(_similarity, views, num_global)
        contrast = self._mean_over_pairs(self._contrast, views, num_global)
        loss = contrast - similarity / self.temperature
        return {"loss": loss, "similarity": similarity, "contrast": contrast}

    def _contrast(self, z_1, z_2):
        rows = ops.concatenate([z_1, z_2], axis=0)
        # A row's candidates weigh otherwise than the row weighs among theirs: not
        # `inner_products`, which on several replicas takes them to be alike.
        logits = matmul(rows, ops.transpose(replicas.global_rows(rows)))
        count, candidates = ops.shape(logits)
        itself = replicas.my_number() * count + ops.arange(count)
        is_itself = ops.equal(itself[:, None], ops.arange(candidates)[None, :])
        logits = ops.where(is_itself, _NEVER, logits / self.temperature)
        return replicas.global_mean(ops.mean(ops.logsumexp(logits, axis=-1)))

    @property
    def term_names(self):
        return ("similarity", "contrast")

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature}


def _similarity(z_1, z_2):
    return replicas.global_mean(ops.mean(ops.sum(z_1 * z_2, axis=-1)))
