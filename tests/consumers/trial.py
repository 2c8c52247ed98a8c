"""What each consumer is asked to do with a SavedModel; in its environment, NumPy alone.

A program makes a `Trial`, calls `judge` for every way of loading that it knows, and
ends with `report`.
"""

import json
import pathlib
import sys

import numpy as np

EPOCHS = 12
BATCH = 32
CLASSES = 10


class Trial:
    """A SavedModel, what its encoder gave at the time, and a few labelled images.

    Attributes:
        path: folder of the SavedModel.
        train, test: (images, labels).
    """

    def __init__(self, folder=None):
        folder = pathlib.Path(folder or sys.argv[1])
        self.path = str(folder / "encoder")
        with np.load(folder / "trial.npz") as arrays:
            arrays = dict(arrays)
        self._images, self._features = arrays["images"], arrays["features"]
        self.train = arrays["train_images"], arrays["train_labels"]
        self.test = arrays["test_images"], arrays["test_labels"]
        self.width = self._features.shape[1]
        self._reports = []

    def judge(self, loader, features, variables, fit, logits):
        """Fine-tunes what was loaded and notes what came of it.

        Args:
            loader: its name in the table.
            features: function from images to features, in inference mode.
            variables: all of TensorFlow's variables of the encoder.
            fit: function of images and labels that fine-tunes encoder and head.
            logits: function from images to logits, in inference mode.
        """
        difference = np.abs(np.asarray(features(self._images)) - self._features).max()
        start = [variable.numpy().copy() for variable in variables]
        logits(self.test[0])
        moved = self._moved(variables, start)
        by_inference = sum(map(sum, moved))
        fit(*self.train)
        weights, statistics = self._moved(variables, start)
        hits = np.asarray(logits(self.test[0])).argmax(axis=1) == self.test[1]
        self._reports.append(
            {
                "loader": loader,
                "difference": float(difference / np.abs(self._features).max()),
                "weights": len(weights),
                "moved_weights": sum(weights),
                "statistics": len(statistics),
                "moved_statistics": sum(statistics),
                "moved_by_inference": by_inference,
                "accuracy": float(hits.mean()),
            }
        )

    def _moved(self, variables, start):
        """For each weight, and for each statistic, whether it has another value."""
        moved = {True: [], False: []}
        for variable, before in zip(variables, start, strict=True):
            is_other = not np.array_equal(variable.numpy(), before)
            moved[bool(variable.trainable)].append(is_other)
        return moved[True], moved[False]

    def report(self):
        print("REPORT" + json.dumps(self._reports))


def by_tape(tf, module, width):
    """Head, training loop and logits for a module, in TensorFlow without any Keras."""
    head = tf.Variable(tf.zeros((width, CLASSES)))
    weights = [*module.trainable_variables, head]
    speeds = [tf.Variable(tf.zeros_like(weight)) for weight in weights]

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            logits = module(images, training=True) @ head
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            )
        for weight, speed, gradient in zip(
            weights, speeds, tape.gradient(loss, weights), strict=True
        ):
            speed.assign(0.9 * speed + gradient)
            weight.assign_sub(0.02 * speed)

    def fit(images, labels):
        rng = np.random.default_rng(0)
        for _ in range(EPOCHS):
            order = rng.permutation(len(images))
            for first in range(0, len(images), BATCH):
                rows = order[first : first + BATCH]
                step(images[rows], labels[rows])

    return fit, lambda images: module(images, training=False) @ head
