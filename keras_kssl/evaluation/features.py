"""Features of a data set: what every protocol on a frozen encoder starts from."""

import concurrent.futures

import keras
import numpy as np

from keras_kssl._checks import check_integer, check_rank, check_that
from keras_kssl.data.arrays import unit_images
from keras_kssl.data.classes import labels_like
from keras_kssl.data.sources import open_source


def extract_features(encoder, data, batch_size=256, size=None):
    """Features of every image of a data set, once each and in order.

    The encoder sees float32 images in [0, 1] in batches of one size, in inference mode;
    a Keras model is compiled once. The replicas of a `tf.distribute` strategy under
    which it was made share each batch. Memory: 4 n d bytes for the result.

    Args:
        encoder: Keras model or layer, or a function, from images (b, H, W, C) to
            vectors (b, d) or feature maps (b, h, w, d), which are averaged over space.
        data: anything `data.open_source` takes. Images of many sizes are resized and
            their centres cut out; those that cannot be read are left out.
        batch_size: images per call, at least 1. Default 256.
        size: side in pixels to which images of many sizes are brought; default: what
            the encoder was built for.

    Returns:
        features, float32 (n, d), and labels, int32 (n,), or `None` without labels.

    Example:

    >>> import numpy as np
    >>> images = np.array([0, 255, 51], "uint8").reshape(3, 1, 1, 1)
    >>> features, labels = extract_features(lambda x: x, images, batch_size=2)
    >>> features[:, 0].tolist(), labels
    ([0.0, 1.0, 0.20000000298023224], None)
    """
    check_integer("extract_features", "batch_size", batch_size, minimum=1)
    source = at_one_size("extract_features", encoder, data, size)
    count = len(source)
    features, was_read = None, np.zeros(count, bool)
    for indices, rows in feature_batches(encoder, source, batch_size):
        if features is None:
            features = np.empty((count, rows.shape[1]), np.float32)
        features[indices] = rows
        was_read[indices] = True
    if features is None:
        raise ValueError(
            f"extract_features: `data` must hold images that can be read. Received: "
            f"{source!r}, of which none can."
        )
    labels = source.labels
    if not was_read.all():
        features = features[was_read]
        labels = None if labels is None else labels[was_read]
    return features, labels


def at_one_size(caller, encoder, data, size=None):
    """A source of images of one size, as an encoder takes them."""
    check_that(
        callable(encoder),
        caller,
        "encoder",
        "a Keras model or a function of images",
        encoder,
    )
    source = open_source(data)
    if source.image_shape[0] is not None:
        return source
    if size is None:
        shape = getattr(encoder, "input_shape", None)
        size = shape[1] if shape is not None and len(shape) == 4 else None
        if size is None:
            raise ValueError(
                f"{caller}: `size` must be given for images of many sizes and an "
                f"encoder that takes any. Received: size=None for {source!r}. Take the "
                "size of the views that it was trained on."
            )
    return source.at_size(size)


def feature_batches(encoder, source, batch_size, start=0, stop=None):
    """Features of a source's images from position `start` to `stop`, batch by batch.

    Yields:
        Positions (b,) of the images that can be read, and their features (b, d).
    """
    stop = len(source) if stop is None else stop
    count = _num_replicas(encoder)
    batch_size = count * -(-min(batch_size, len(source)) // count)
    for images, indices in _read_ahead(source, range(start, stop, batch_size), stop):
        if len(indices) == 0:
            continue
        images = unit_images(images)
        missing = batch_size - len(images)
        if missing:
            # A batch of another size would be compiled anew.
            images = np.pad(images, [(0, missing), (0, 0), (0, 0), (0, 0)])
        yield indices, _as_vectors(_infer(encoder, images))[: len(indices)]


def _read_ahead(source, starts, stop):
    """What the source reads batch by batch, the next one while this one is used."""

    def read(first):
        return source.read(np.arange(first, min(first + starts.step, stop)))

    with concurrent.futures.ThreadPoolExecutor(1, "kssl_read") as reader:
        coming = None
        for first in starts:
            ready, coming = coming, reader.submit(read, first)
            if ready is not None:
                yield ready.result()
        if coming is not None:
            yield coming.result()


def unit_rows(x):
    """Rows scaled to unit length; those that are all zero stay so."""
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norms > 0, norms, 1)


def check_features(caller, argument, features):
    """Features (n, d) as float32, or float64 where they are; refuses NaN and inf."""
    features = np.asarray(features)
    check_rank(caller, argument, features, 2, "(n, features)")
    check_that(features.size > 0, caller, argument, "non-empty", features)
    if features.dtype != np.float64:
        features = features.astype(np.float32, copy=False)
    broken = len(features) - np.isfinite(features).all(axis=1).sum()
    if broken:
        raise ValueError(
            f"{caller}: `{argument}` must be finite. Received: NaN or infinity in "
            f"{broken} of {len(features)} rows. The encoder has diverged, or its input "
            "was not finite."
        )
    return features


def check_labels(caller, argument, labels, count):
    """Labels (n,) as integers from 0, one for each row of features."""
    if labels is None:
        raise ValueError(
            f"{caller}: `{argument}` must be labels. Received: None. Evaluation needs "
            "labelled data for training and for testing."
        )
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(
            f"{caller}: `{argument}` must be integers. Received: dtype {labels.dtype}."
        )
    if labels.shape != (count,):
        raise ValueError(
            f"{caller}: `{argument}` must have one label for each of the {count} rows. "
            f"Received: shape {labels.shape}."
        )
    if labels.min() < 0:
        raise ValueError(
            f"{caller}: `{argument}` must be known, at least 0. Received: "
            f"{np.sum(labels < 0)} labels below 0. Leave those examples out."
        )
    return labels.astype(np.int64)


def check_classes_seen(caller, train_y, other_y, argument="test_y"):
    """Refuses labels that no training example has."""
    unseen = np.setdiff1d(other_y, train_y)
    if len(unseen):
        what = argument.removesuffix("_y")
        raise ValueError(
            f"{caller}: `{argument}` must hold classes of `train_y` alone. Received: "
            f"class {', '.join(map(str, unseen[:10]))} in the {what} set only. Take "
            f"more training examples, or fewer classes in the {what} set."
        )


def check_widths(caller, train_x, other_x, argument="test_x"):
    """Refuses other features than the training ones that are not as wide."""
    if train_x.shape[1] != other_x.shape[1]:
        raise ValueError(
            f"{caller}: `train_x` and `{argument}` must have as many features. "
            f"Received: {train_x.shape[1]} and {other_x.shape[1]}."
        )


def check_data(caller, train_x, train_y, other_x, other_y, name="test"):
    """Features and labels to learn from and to test on, checked against each other."""
    train_x = check_features(caller, "train_x", train_x)
    other_x = check_features(caller, f"{name}_x", other_x)
    check_widths(caller, train_x, other_x, f"{name}_x")
    train_y = check_labels(caller, "train_y", train_y, len(train_x))
    other_y = check_labels(caller, f"{name}_y", other_y, len(other_x))
    check_classes_seen(caller, train_y, other_y, f"{name}_y")
    return train_x, train_y, other_x, other_y


def labelled_sources(caller, train, test):
    """Sources of a labelled training and test set, checked without reading images."""
    sources = {"train": open_source(train), "test": open_source(test)}
    for argument, source in sources.items():
        if source.labels is None:
            raise ValueError(
                f"{caller}: `{argument}` must have labels. Received: "
                f"{argument}={source!r}. Pass (images, labels), or a file with "
                "`labels`."
            )
    labels_like(sources["test"], sources["train"], caller=caller)
    return sources["train"], sources["test"]


def labelled_features(caller, encoder, train, test, batch_size=256, size=None):
    """Features and labels of the training and the test set, labels checked first.

    Labels of the test set are in the class numbers of the training set.
    """
    # What is wrong with classes is found before the work of extraction.
    train, test = labelled_sources(caller, train, test)
    train_x, train_y = extract_features(encoder, train, batch_size, size)
    test_x, test_y = extract_features(encoder, test, batch_size, size)
    return train_x, train_y, test_x, labels_like(test, train, test_y, caller)


def _infer(encoder, images):
    if isinstance(encoder, keras.Model):
        return encoder.predict_on_batch(_shared_out(encoder, images))
    if isinstance(encoder, keras.layers.Layer):
        return keras.ops.convert_to_numpy(encoder(images, training=False))
    return keras.ops.convert_to_numpy(encoder(images))


def _num_replicas(encoder):
    strategy = getattr(encoder, "distribute_strategy", None)
    return 1 if strategy is None else strategy.num_replicas_in_sync


def _shared_out(encoder, images):
    """Images as a `tf.distribute` strategy wants them, equal parts for its replicas."""
    count = _num_replicas(encoder)
    if count == 1:
        return images
    # Otherwise each replica would compute all of them.
    parts = np.split(images, count)
    share_out = encoder.distribute_strategy.experimental_distribute_values_from_function
    return share_out(
        lambda context: keras.ops.convert_to_tensor(
            parts[context.replica_id_in_sync_group]
        )
    )


def _as_vectors(outputs):
    shape = np.shape(outputs) if hasattr(outputs, "shape") else type(outputs).__name__
    if isinstance(shape, str) or len(shape) not in (2, 4):
        raise ValueError(
            "extract_features: `encoder` must return vectors (b, d) or feature maps "
            f"(b, h, w, d). Received: an encoder that returns {shape}."
        )
    outputs = outputs.astype(np.float32, copy=False)
    if len(shape) == 2:
        return outputs
    channels_first = keras.config.image_data_format() == "channels_first"
    return outputs.mean(axis=(2, 3) if channels_first else (1, 2))
