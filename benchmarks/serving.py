"""Images per second of an exported SavedModel, of extraction, and of the Keras model.

    python -m benchmarks.serving [--rounds 9]

ResNet-18 at 224 pixels and the shipped ResNet-10 at 32. Every round times each way
once, in an order of its own; the table has medians, and the median of the ratios to
`predict` of the same round, so that a machine that slows down slows down all. `predict`
is timed with XLA and without. All read arrays from memory but extraction, which takes
the same images from JPEG files in a folder, of 500 x 375 or 32 x 32 pixels, and writes
its files.
"""

import argparse
import pathlib
import random
import statistics
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf

import keras_kssl as kssl
from benchmarks.input import make_photos

SHIPPED = "ssl_hsic_resnet10_cifar10"
PREDICT, PREDICT_XLA = "keras predict", "keras predict, XLA"


def ways_of(encoder, size, batch, photos):
    """Functions of all images to their features, by name."""
    with tempfile.TemporaryDirectory() as folder:
        path = kssl.export.saved_model(encoder, f"{folder}/encoder", size=size)
        module = tf.saved_model.load(path)
    layer = module.signatures["serving_default"]
    compiled = keras.models.clone_model(encoder)
    compiled.set_weights(encoder.get_weights())
    encoder.compile(jit_compile=False)
    compiled.compile(jit_compile=True)

    def in_batches(function):
        def features(images):
            starts = range(0, len(images), batch)
            return np.concatenate(
                [function(images[start : start + batch]) for start in starts]
            )

        return features

    def extraction(_):
        with tempfile.TemporaryDirectory() as folder:
            out = kssl.evaluation.extract(encoder, photos, f"{folder}/features", batch)
            return np.load(out / "features.npy")

    return {
        PREDICT: lambda images: encoder.predict(images, batch, verbose=0),
        PREDICT_XLA: lambda images: compiled.predict(images, batch, verbose=0),
        "SavedModel": in_batches(module),
        "SavedModel, signature": in_batches(
            lambda images: layer(inputs=tf.constant(images))["features"]
        ),
        "extract, from a folder": extraction,
    }


def measure(ways, images, rounds):
    """Seconds of each way in every round, after one that compiles."""
    expected = ways[PREDICT](images)
    for features in ways.values():
        np.testing.assert_allclose(features(images), expected, rtol=1e-3, atol=1e-4)
    seconds = {name: [] for name in ways}
    rng = random.Random(0)
    for _ in range(rounds):
        for name in rng.sample([*ways], len(ways)):
            start = time.perf_counter()
            ways[name](images)
            seconds[name].append(time.perf_counter() - start)
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()
    cases = (
        ("ResNet-18 at 224", kssl.models.ResNet18(seed=0), 224, 64, (500, 375)),
        (f"{SHIPPED} at 32", kssl.zoo.load(SHIPPED), 32, 2048, (32, 32)),
    )
    for title, encoder, size, count, size_of_files in cases:
        with tempfile.TemporaryDirectory() as folder:
            make_photos(pathlib.Path(folder), count, size_of_files)
            photos = kssl.data.open_source(f"folder:{folder}").at_size(size)
            images = photos.read(np.arange(count))[0] / np.float32(255)
            ways = ways_of(encoder, size, options.batch_size, photos)
            seconds = measure(ways, images, options.rounds)
        print(f"{title}, batches of {options.batch_size}")
        for name, times in seconds.items():
            rate = count / statistics.median(times)
            pairs = zip(seconds[PREDICT], times, strict=True)
            ratio = statistics.median(predict / own for predict, own in pairs)
            print(f"  {name:22s} {rate:8.1f} images/s  {ratio:5.2f} of predict")


if __name__ == "__main__":
    main()
