"""Classes of two sources, by their names."""

import numpy as np


def labels_like(test, train, labels=None, caller="labels_like"):
    """Labels of one source in the class numbers of another.

    Sources number their classes each on its own: without a folder `cat`, a `dog` has
    another number. Where both know the names of their classes, numbers are translated
    by name; otherwise they are taken as they are.

    Args:
        test: a source with labels.
        train: the source whose numbers count.
        labels: labels of some images of `test`. Default: of all.
        caller: what the error message begins with.

    Returns:
        int32 (n,), -1 where the label is not known.

    Raises:
        ValueError: for images of `test` in a class whose name `train` does not have.

    >>> from keras_kssl.data import ArraySource
    >>> images = np.zeros((2, 8, 8, 1), "uint8")
    >>> train = ArraySource(images, [0, 1], class_names=["cat", "dog"])
    >>> test = ArraySource(images, [0, -1], class_names=["dog"])
    >>> labels_like(test, train).tolist()
    [1, -1]
    """
    labels = test.labels if labels is None else labels
    names, known = test.class_names, train.class_names
    if names is None or known is None or list(names) == list(known):
        return labels
    numbers = {name: i for i, name in enumerate(known)}
    if np.ndim(labels) == 2:
        raise ValueError(
            f"{caller}: images of several classes must be of the classes that the "
            f"training images have, in the same order. Received: {test!r}."
        )
    used = [names[i] for i in np.unique(labels[labels >= 0])]
    unseen = [name for name in used if name not in numbers]
    if unseen:
        raise ValueError(
            f"{caller}: images must be of classes that the training images have, "
            f"{', '.join(known[:10])}. Received: {test!r} with images of "
            f"{', '.join(unseen[:10])}. Rename its classes or leave them out."
        )
    # The last entry is that of the label -1.
    lookup = np.array([*(numbers.get(name, -1) for name in names), -1], np.int32)
    return lookup[labels]
