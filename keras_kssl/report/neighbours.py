"""Which images an encoder finds alike."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """The nearest images of a query.

    Attributes:
        query: its position.
        positions: (k,) of its neighbours, nearest first.
        similarities: (k,) cosines, -1 to 1.
    """

    query: int
    positions: np.ndarray
    similarities: np.ndarray


def find_neighbours(features, queries, k):
    """The k nearest rows of each query by cosine, itself left out.

    Args:
        features: (n, d). An all-zero row is similar to none.
        queries: positions.
        k: number of neighbours; of fewer rows all are taken.

    Returns:
        List of `Neighbours`.
    """
    x = np.asarray(features, np.float64)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    x = x / np.where(norms > 0, norms, 1)
    found = []
    for query in queries:
        similarities = x @ x[query]
        order = np.argsort(-similarities, kind="stable")
        nearest = order[order != query][:k]
        found.append(Neighbours(int(query), nearest, similarities[nearest]))
    return found


def choose_queries(count, labels, wanted):
    """Positions of queries: of as many classes as there are, without looking at them.

    Args:
        count: number of images.
        labels: classes (count,), -1 where not known, or `None`.
        wanted: number of queries.

    Returns:
        Up to `wanted` positions, in order: the first image of classes at equal
        distances, or images at equal distances where fewer than two classes are known.
    """
    if labels is not None:
        classes, first = np.unique(labels, return_index=True)
        first = first[classes >= 0]
        if len(first) > 1:
            return _spread(first, wanted)
    return _spread(np.arange(count), wanted)


def _spread(values, wanted):
    places = np.linspace(0, len(values) - 1, min(wanted, len(values)))
    return values[places.round().astype(int)].tolist()
