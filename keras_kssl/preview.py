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

    Raises:
        ValueError: for fewer than two images, and where none can be read.
    """
    check_integer("preview.draw", "count", count, minimum=1)
    source = data.open_source(source)
    # As many at least as a batch must have.
    drawn = max(2, min(count, len(source)))
    batches = data.Batches(source, drawn, seed, policy=policy)
    images, shown = batches.images_at(0)
    views = [keras.ops.convert_to_numpy(view) for view in policy(images, seed=seed)]
    if isinstance(images, tuple):
        originals = [visible(unit_images(source.decode(i)[0])) for i in shown]
    else:
        originals = [visible(image) for image in unit_images(images)]
    views, originals = [view[:count] for view in views], originals[:count]
    rows = [originals, *([visible(view) for view in views_] for views_ in views)]
    titles = ["image", *(f"view {i}" for i in range(1, len(views) + 1))]
    return pictures.draw_grid(rows, titles, path)


def visible(image):
    """Three channels of an image that can be looked at.

    Args:
        image: floats in [0, 1], (H, W, C).

    Returns:
        Floats in [0, 1], (H, W, 3): the first three channels, or the first one thrice.
    """
    if image.shape[-1] < 3:
        image = np.repeat(image[..., :1], 3, axis=-1)
    return np.clip(image[..., :3], 0.0, 1.0)
