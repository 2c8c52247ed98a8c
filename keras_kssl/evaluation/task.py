"""What an encoder is judged on: labelled images, and the features of them."""

import dataclasses

import numpy as np

from keras_kssl._checks import check_choice, check_integer, check_that
from keras_kssl.data import labels_like, open_source
from keras_kssl.evaluation.features import check_classes_seen, extract_features
from keras_kssl.evaluation.metrics import METRICS
from keras_kssl.progress import ProgressBar


class Task:
    """An encoder with labelled images to learn from and to be tested on.

    Features are extracted when they are first asked for, once.

    Args:
        encoder: Keras model from images to vectors or feature maps.
        train, test, validation: labelled data, anything `data.open_source` takes.
        metric: as in `evaluation.score_predictions`.
        size: side of the images that the encoder sees. Default: that of images of one
            size, or what the encoder was built for.
        batch_size: images per call of the encoder. Default 256.

    Raises:
        ValueError: for data without labels, and for classes of the test images that
            the training images lack.
    """

    def __init__(
        self,
        encoder,
        train,
        test,
        validation=None,
        metric="top_1",
        size=None,
        batch_size=256,
    ):
        caller = "evaluate"
        check_choice(caller, "metric", metric, METRICS)
        self.encoder, self.metric, self.batch_size = encoder, metric, batch_size
        check_integer(caller, "batch_size", batch_size, minimum=1)
        self.train = _labelled(caller, "train", train)
        self.test = _labelled(caller, "test", test)
        self.validation = None
        if validation is not None:
            self.validation = _labelled(caller, "validation", validation)
        self.num_classes = self.train.num_classes
        for source in (self.test, self.validation):
            if source is not None:
                labels = labels_like(source, self.train, caller=caller)
                if labels.ndim == 1:
                    check_classes_seen(caller, self.train.labels, labels)
        is_multi_label = self.train.labels.ndim == 2
        rule = "map_11 for images of several classes, and for no others"
        check_that(
            is_multi_label == (metric == "map_11"), caller, "metric", rule, metric
        )
        self.size = self._find_size(caller, size)
        self.protocol = None
        self._features = {}

    def features(self):
        """Features and labels: train_x, train_y, test_x, test_y."""
        return *self._of("train"), *self._of("test")

    def validation_features(self):
        """Features and labels of the validation images, or `None` without them."""
        return None if self.validation is None else self._of("validation")

    def numbers(self, source, labels):
        """Labels of a source in the class numbers of the training images."""
        return labels_like(source, self.train, labels, "evaluate")

    def callbacks(self, batch_size):
        """Callbacks that show people how far a training is."""
        return [ProgressBar(batch_size, say=lambda line: None)]

    def _of(self, name):
        if name not in self._features:
            source = getattr(self, name)
            x, y = extract_features(self.encoder, source, self.batch_size, self.size)
            self._features[name] = x, self.numbers(source, y)
        return self._features[name]

    def _find_size(self, caller, size):
        height, width, _ = self.train.image_shape
        if height is not None:
            check_that(
                height == width,
                caller,
                "train",
                "square images, or files of many sizes",
                self.train,
            )
            return height
        shape = getattr(self.encoder, "input_shape", None) or (None, None)
        size = size or shape[1]
        remedy = "Take the size of the views that it was trained on."
        rule = "given for images of many sizes and an encoder that takes any"
        check_that(size is not None, caller, "size", rule, size, remedy)
        return check_integer(caller, "size", size, minimum=1)


@dataclasses.dataclass
class DenseTask:
    """An encoder with dense sets, anything `dense.open_set` takes."""

    encoder: object
    train: object
    test: object
    metric: None = None
    protocol: str | None = None


def _labelled(caller, argument, data):
    source = open_source(data)
    if source.labels is None:
        raise ValueError(
            f"{caller}: `{argument}` must have labels. Received: "
            f"{argument}={source!r}. Pass (images, labels), class folders, or a file "
            "with labels."
        )
    if source.labels.ndim == 2:
        return source
    unknown = int(np.sum(source.labels < 0))
    check_that(
        unknown == 0,
        caller,
        argument,
        "of known labels",
        source,
        f"{unknown} are not known. Leave those images out.",
    )
    return source
