"""The pictures of a run, in its folder and on TensorBoard."""

import importlib.util

from keras_kssl import pictures, preview
from keras_kssl.pretraining.judging import describe_scores


def has_tensorboard():
    """Whether events can be written for TensorBoard."""
    return all(importlib.util.find_spec(p) for p in ("tensorflow", "tensorboard"))


def show_views(folder, source, policy, seed):
    """Draws views that the policy makes of some of the images."""
    path = folder / "pictures" / "views.png"
    preview.draw(source, policy, path, seed=seed)
    _show_on_tensorboard(folder, "views", path, step=0)


def show_curves(folder, title):
    """Draws the metrics of all epochs."""
    path = folder / "pictures" / "curves.png"
    pictures.draw_curves(folder / "metrics.csv", path, title)


def show_embeddings(folder, judges, before, after, step):
    """Draws test features in two dimensions, before and after training.

    Args:
        folder: the run folder.
        judges: `judging.Judges`.
        before, after: `judging.Judgement` of the untrained and the trained encoder.
        step: number of steps that lie between them.
    """
    panels = {
        f"{tag} encoder: {describe_scores(judgement.scores)}": judgement.test_features
        for tag, judgement in (("untrained", before), ("trained", after))
    }
    path = folder / "pictures" / "embeddings.png"
    names = judges.test.class_names
    pictures.draw_maps(panels, after.test_labels, path, class_names=names, seed=0)
    _show_on_tensorboard(folder, "embeddings", path, step)


def _show_on_tensorboard(folder, name, path, step):
    if not has_tensorboard():
        return
    import tensorflow as tf

    with tf.summary.create_file_writer(str(folder / "tensorboard")).as_default():
        image = tf.io.decode_png(path.read_bytes(), channels=3)
        tf.summary.image(name, image[tf.newaxis], step=step)
