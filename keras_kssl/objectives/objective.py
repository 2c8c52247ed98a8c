"""What all objectives share."""

import abc
import itertools

import keras
from keras import ops

from keras_kssl._checks import check_integer, check_that


class Objective(keras.layers.Layer, abc.ABC):
    """A function of the embeddings of two or more views of one batch.

    `objective([z_1, z_2, ...])` takes raw embeddings, each of shape (B, d), row i of
    every view made from image i, normalises them itself and returns the scalar to
    minimise. `objective.terms([z_1, ...])` returns the same scalar under "loss"
    together with the named terms that it is made of.

    With views of two kinds, as multi-crop augmentation makes them, `num_global` says
    how many embeddings at the front are of global views (large crops); those of small
    crops follow. Terms of pairs of views then are, for each global view, the mean over
    all other views, and of these the mean over the global views: small crops are never
    compared with each other. By default all views are global.

    An objective is a Keras layer because it may hold state: a seed, a kernel scale.
    With `training=True` that state moves on. Computations are in float32 (float64 for
    float64 embeddings) under every dtype policy.
    """

    def __init__(self, name=None):
        super().__init__(name=name, dtype="float32", autocast=False)

    @abc.abstractmethod
    def terms(self, embeddings, training=False, num_global=None):
        """Dictionary of scalars: "loss" and the terms that it is made of.

        Args:
            embeddings: list of arrays (B, d), one for each view.
            training: whether the objective's state moves on.
            num_global: how many embeddings, from the first, are of global views.
                Default: all.
        """

    @property
    @abc.abstractmethod
    def term_names(self):
        """Names of the terms beside "loss", in the order of their display."""

    def collapse_loss(self, num_views):
        """Loss of embeddings that are all equal, a number; `None` if it is not known.

        Args:
            num_views: embeddings per image, small crops among them.
        """
        del num_views

    def call(self, embeddings, training=False, num_global=None):
        return self.terms(embeddings, training, num_global)["loss"]

    def compute_output_shape(self, input_shape):
        return ()

    def _check_embeddings(self, embeddings, num_global):
        """Checks embeddings and returns the number of those that are global."""
        caller = type(self).__name__
        rule = "a list of two or more arrays of one shape (B, d)"
        is_sequence = isinstance(embeddings, list | tuple)
        shapes = [tuple(z.shape) for z in embeddings] if is_sequence else embeddings
        check_that(
            is_sequence
            and len(shapes) >= 2
            and len(shapes[0]) == 2
            and len(set(shapes)) == 1,
            caller,
            "embeddings",
            rule,
            shapes,
        )
        batch_size = shapes[0][0]
        check_that(
            batch_size is None or batch_size >= 2,
            caller,
            "embeddings",
            "of a batch of at least 2 images",
            shapes,
            "The objective compares the images of a batch with each other.",
        )
        if num_global is None:
            return len(shapes)
        return check_integer(caller, "num_global", num_global, 1, len(shapes))

    def _mean_over_pairs(self, term, views, num_global):
        """Mean of `term(a, b)`, symmetric, over global views a and all others b."""
        pairs = [
            (i, j)
            for i, j in itertools.combinations(range(len(views)), 2)
            if i < num_global
        ]
        uses = [number for pair in pairs for number in pair]
        copies = [_copies(view, uses.count(k)) for k, view in enumerate(views)]
        total, count = 0.0, 0
        for position, (i, j) in enumerate(pairs):
            earlier = uses[: 2 * position]
            a, b = (copies[k][earlier.count(k)] for k in (i, j))
            # A pair of two global views is there once for each of them.
            weight = 1 + (j < num_global)
            total = total + weight * term(a, b)
            count += weight
        return total / count

    def get_config(self):
        # The dtype is fixed by the constructor and is no argument of it.
        return {"name": self.name}


def _copies(x, count):
    """The array so many times; their gradients are added up in this order.

    Those of an array that is used several times TensorFlow adds in any order, so that
    a run would not repeat exactly.
    """
    if count < 2:
        return [x] * count
    return ops.unstack(ops.repeat(x[None], count, axis=0), count)
