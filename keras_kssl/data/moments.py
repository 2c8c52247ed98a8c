"""Mean and standard deviation of a source's channels."""

import numpy as np

from keras_kssl._checks import check_integer
from keras_kssl.data.arrays import unit_images
from keras_kssl.data.decoding import BrokenImage

_SMALLEST_DEVIATION = 1e-3


def channel_moments(source, count=1000):
    """Mean and standard deviation per channel, of values in [0, 1].

    Over all pixels of up to `count` images, evenly spaced over the source. A channel
    that hardly changes gets the deviation 0.001, so that dividing by it is safe.

    Args:
        source: a source such as `ArraySource`.
        count: number of images at most. Default 1000.

    Returns:
        Two tuples of floats, mean and standard deviation.

    >>> import numpy as np
    >>> from keras_kssl.data import ArraySource
    >>> images = np.array([0.0, 1.0, 0.0, 0.5]).reshape(2, 1, 1, 2)
    >>> channel_moments(ArraySource(images))
    ((0.0, 0.75), (0.001, 0.25))
    """
    check_integer("channel_moments", "count", count, minimum=1)
    chosen = np.linspace(0, len(source) - 1, min(count, len(source))).astype(int)
    pixels, total, squares = 0, 0.0, 0.0
    for index in chosen:
        try:
            image = _image(source, index)
        except BrokenImage:
            continue
        values = unit_images(image).reshape(-1, image.shape[-1]).astype(np.float64)
        pixels += len(values)
        total = total + values.sum(axis=0)
        squares = squares + np.square(values).sum(axis=0)
    if pixels == 0:
        raise ValueError(
            "channel_moments: `source` must hold images that can be read. Received: "
            f"{source!r}, of which none of {len(chosen)} can."
        )
    mean = total / pixels
    deviation = np.sqrt(np.maximum(squares / pixels - np.square(mean), 0.0))
    deviation = np.maximum(deviation, _SMALLEST_DEVIATION)
    return tuple(mean.tolist()), tuple(deviation.tolist())


def _image(source, index):
    if hasattr(source, "decode"):
        return source.decode(index)[0]
    return source.read([index])[0][0]
