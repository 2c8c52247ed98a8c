"""What judging costs: kNN against bare NumPy, and a sweep of rates against one probe.

Random features of the size of CIFAR-10's, 50,000 for training and 10,000 for testing,
512 numbers each; images of 32 x 32 through a ResNet-18 for the sweep with its features.
Medians of interleaved runs:

    python benchmarks/judging_cost.py
"""

import argparse
import statistics
import time
import tracemalloc

import numpy as np

import keras_kssl as kssl

RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
NEIGHBOURS = 200
ROWS = 160


def bare(train_x, test_x):
    """The matrix product and the largest of each row, in blocks, and nothing else."""
    for start in range(0, len(test_x), ROWS):
        similarities = test_x[start : start + ROWS] @ train_x.T
        np.argpartition(similarities, -NEIGHBOURS, axis=1)


def medians(actions, repeats):
    """Median seconds of each action, the actions taking turns."""
    seconds = [[] for _ in actions]
    for _ in range(repeats):
        for taken, action in zip(seconds, actions, strict=True):
            began = time.perf_counter()
            action()
            taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in seconds]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=100, help="of the probes")
    options = parser.parse_args()
    generator = np.random.default_rng(0)
    train_x, test_x = (
        generator.normal(size=(count, 512)).astype("float32")
        for count in (50_000, 10_000)
    )
    train_y, test_y = (generator.integers(0, 10, len(x)) for x in (train_x, test_x))
    data = (train_x, train_y, test_x, test_y)

    def knn():
        kssl.evaluation.knn_accuracy(*data, k=(10, 20, 100, 200))

    mine, theirs = medians((knn, lambda: bare(train_x, test_x)), options.repeats)
    tracemalloc.start()
    knn()
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    print(
        f"kNN, four k: {mine:.2f} s; product and top-k alone: {theirs:.2f} s; ratio "
        f"{mine / theirs:.2f}; {peak:.0f} MB beside the features"
    )

    def probe(rates):
        kssl.evaluation.linear_accuracy(
            *data, epochs=options.epochs, learning_rates=rates
        )

    sweep, one = medians(
        (lambda: probe(RATES), lambda: probe(RATES[4:5])), options.repeats
    )
    encoder = kssl.models.ResNet18(stem="cifar", seed=0)
    images = np.zeros((2_000, 32, 32, 3), "uint8")
    kssl.evaluation.extract_features(encoder, images[:256])
    (seconds,) = medians(
        (lambda: kssl.evaluation.extract_features(encoder, images),), 3
    )
    features = 30 * seconds
    print(
        f"linear, {options.epochs} epochs on cached features: ten rates {sweep:.1f} s, "
        f"one {one:.1f} s, ratio {sweep / one:.2f}; with the features of 60,000 images "
        f"by a ResNet-18 ({features:.0f} s, from 2,000): "
        f"{(features + sweep) / (features + one):.2f}"
    )


if __name__ == "__main__":
    main()
