"""Two sources as one."""

import bisect
import hashlib

import numpy as np

from keras_kssl._checks import check_that
from keras_kssl.data.arrays import ArraySource
from keras_kssl.data.classes import labels_like
from keras_kssl.data.encoded import EncodedSource


def join(first, second):
    """The images of one source, then those of another, in the first one's classes.

    For learning from training and validation images together. Arrays are copied.

    Raises:
        ValueError: for images of one size with images of many, or of another size.

    >>> images = np.zeros((2, 8, 8, 3), "uint8")
    >>> join(ArraySource(images, [0, 1]), ArraySource(images[:1], [1])).labels.tolist()
    [0, 1, 1]
    """
    check_that(
        first.image_shape == second.image_shape and first.dtype == second.dtype,
        "join",
        "second",
        f"images {first.image_shape} of {first.dtype}, as the first",
        second,
    )
    labels = None
    if first.labels is not None and second.labels is not None:
        others = labels_like(second, first, caller="join")
        labels = np.concatenate([first.labels, others])
    if first.image_shape[0] is None:
        return _Joined((first, second), labels)
    images = np.concatenate([first.images, second.images])
    return ArraySource(images, labels, first.class_names, first.name)


class _Joined(EncodedSource):
    """Images of several encoded sources, one after another."""

    def __init__(self, sources, labels):
        first = sources[0]
        super().__init__(
            first.name,
            labels,
            first.class_names,
            first.channels,
            first.dtype,
            first.max_broken,
        )
        self._sources = sources
        self._starts = np.cumsum([0, *map(len, sources)])
        self._positions = np.arange(self._starts[-1])
        for source in sources:
            self.broken |= source.broken

    def __len__(self):
        return len(self._positions)

    def content(self, index):
        source, position = self._find(index)
        return source.content(position)

    def name_of(self, index):
        source, position = self._find(index)
        return source.name_of(position)

    def fingerprint(self):
        digest = hashlib.blake2b(digest_size=8)
        for source in self._sources:
            digest.update(source.fingerprint().encode())
        digest.update(np.ascontiguousarray(self._positions, np.int64).data)
        return digest.hexdigest()

    def only(self, indices):
        chosen = _Joined(self._sources, self.labels)
        chosen._positions = self._positions[indices]
        if self.labels is not None:
            chosen.labels = self.labels[indices]
        names = {chosen.name_of(i) for i in range(len(chosen))}
        chosen.broken = {n: why for n, why in self.broken.items() if n in names}
        return chosen

    def _find(self, index):
        position = int(self._positions[index])
        number = bisect.bisect_right(self._starts, position) - 1
        return self._sources[number], position - int(self._starts[number])
