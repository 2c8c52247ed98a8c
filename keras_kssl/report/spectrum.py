"""How a set of features spreads over its directions."""

import dataclasses

import numpy as np
import threadpoolctl

from keras_kssl.statistics import rank_of_spectrum

# What rounding of float32 features makes of a direction without variance.
_NO_SHARE = 1e-10


@dataclasses.dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of the covariance of features.

    Attributes:
        eigenvalues: (min(n, d),), largest first; their sum is the total variance.
        width: d.
    """

    eigenvalues: np.ndarray
    width: int

    @property
    def shares(self):
        """Share of the total variance in each direction, those without any left out."""
        shares = self.eigenvalues / self.eigenvalues.sum()
        return shares[shares > _NO_SHARE]

    @property
    def effective_rank(self):
        """exp of the entropy of the normalised singular values of centred features."""
        return float(rank_of_spectrum(np.sqrt(self.eigenvalues)))

    def directions_for(self, share):
        """Number of directions that hold a share of the total variance."""
        held = np.cumsum(self.eigenvalues) / self.eigenvalues.sum()
        # Rounding may leave the whole a little below 1.
        return int(np.searchsorted(held, share * (1 - 1e-12))) + 1


def spectrum_of(features):
    """The `Spectrum` of features (n, d), n at least 2; O(n d min(n, d))."""
    x = np.asarray(features, np.float64)
    # On a busy machine threads wait for each other for longer than all this takes.
    with threadpoolctl.threadpool_limits(1, user_api="blas"):
        singular_values = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    return Spectrum(np.square(singular_values) / (len(x) - 1), x.shape[1])
