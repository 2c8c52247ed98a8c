"""Fine-tune a pretrained encoder on a few labelled images, with plain Keras.

The encoder is an ordinary Keras model from here on: a Dense layer on top, compile, fit.
For comparison the same architecture starts again from random weights. Under a minute on
two CPU cores for 200 labels of the built-in digits:

    python examples/fine_tune.py runs/example --labels 200
"""

import argparse

import keras
import numpy as np

import keras_kssl as kssl


def fine_tuned_accuracy(encoder, train, test, options):
    inputs = keras.Input(train[0].shape[1:])
    logits = keras.layers.Dense(int(train[1].max()) + 1)(encoder(inputs))
    classifier = keras.Model(inputs, logits)
    classifier.compile(
        keras.optimizers.Adam(options.learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() == "jax",
    )
    images, labels = train
    classifier.fit(
        images / 255.0,
        labels,
        batch_size=min(64, len(images)),
        epochs=options.epochs,
        verbose=0,
    )
    images, labels = test
    return classifier.evaluate(images / 255.0, labels, verbose=0, return_dict=True)[
        "accuracy"
    ]


def read(source, size, labels):
    """Images of one size, 0 ... 255, and their labels."""
    if size is not None:
        source = source.at_size(size)
    images, positions = source.read(np.arange(len(source)))
    return images, labels[positions]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoder", help="what zoo.load takes: a run, a file, a preset")
    parser.add_argument("--train", default="builtin:digits:train")
    parser.add_argument("--test", default="builtin:digits:test")
    parser.add_argument("--labels", type=int, default=200, help="labelled images used")
    parser.add_argument("--limit", type=int, help="test on the first so many images")
    parser.add_argument("--size", type=int, help="brings photos of many sizes to one")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    train = kssl.data.open_source(options.train, limit=options.labels)
    test = kssl.data.open_source(options.test, limit=options.limit)
    test = read(test, options.size, kssl.data.labels_like(test, train))
    train = read(train, options.size, train.labels)
    pretrained = kssl.zoo.load(options.encoder)
    keras.utils.set_random_seed(options.seed)
    fresh = type(pretrained).from_config(pretrained.get_config())
    for name, encoder in (("random", fresh), ("pretrained", pretrained)):
        accuracy = fine_tuned_accuracy(encoder, train, test, options)
        print(
            f"{name:>10} weights: accuracy {accuracy:.3f} from {len(train[1])} labels"
        )


if __name__ == "__main__":
    main()
