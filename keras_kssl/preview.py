"""What a policy makes of images: originals and views side by side."""

import keras
import numpy as np

from keras_kssl import data, pictures
from keras_kssl._checks import check_integer
from keras_kssl.data.arrays import unit_images


def draw(source, policy, path, count=8, seed=0):
    """Draws images of a source, chosen at random, with the views made of each.

    Args:
        source: anything `data.open_source` takes.
        policy: `augment.Policy`.
        path: PNG file to write.
        count: number of images. Default 8.
        seed: integer seed of the choice and of the views.

    Returns:
        The path.
    """
    check_integer("preview.draw", "count", count, minimum=1)
    source = data.open_source(source)
    count = max(2, min(count, len(source)))
    batches = data.Batches(source, count, seed, policy=policy)
    images = batches.at(0)[0]
    views = [keras.ops.convert_to_numpy(view) for view in policy(images, seed=seed)]
    if isinstance(images, tuple):
        shown = batches.positions(0)
        originals = [_original(source, index) for index in shown]
    else:
        originals = [_visible(image) for image in unit_images(images)]
    rows = [originals, *([_visible(view) for view in views_] for views_ in views)]
    titles = ["image", *(f"view {i}" for i in range(1, len(views) + 1))]
    return pictures.draw_grid(rows, titles, path)


def _original(source, index):
    try:
        image, _ = source.decode(index)
    except ValueError:
        return np.ones((1, 1, 3), "float32")
    return _visible(unit_images(image))


def _visible(image):
    """Three channels that can be looked at: the first three, or one of them thrice."""
    if image.shape[-1] < 3:
        image = np.repeat(image[..., :1], 3, axis=-1)
    return np.clip(image[..., :3], 0.0, 1.0)
