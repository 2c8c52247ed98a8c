"""Fine-tune a pretrained encoder on a few labelled images, with plain Keras.

The encoder is an ordinary Keras model from here on: a Dense layer on top, compile, fit.
For comparison the same architecture starts again from random weights. Under a minute on
two CPU cores for 200 labels of the built-in digits:

    python examples/fine_tune.py runs/example/encoder.keras --labels 200
"""

import argparse

import keras

import keras_kssl as kssl


def fine_tuned_accuracy(encoder, train, test, options):
    images = keras.Input(train.image_shape)
    logits = keras.layers.Dense(train.num_classes)(encoder(images))
    classifier = keras.Model(images, logits)
    classifier.compile(
        keras.optimizers.Adam(options.learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() == "jax",
    )
    classifier.fit(
        train.images / 255.0,
        train.labels,
        batch_size=min(64, len(train)),
        epochs=options.epochs,
        verbose=0,
    )
    return classifier.evaluate(
        test.images / 255.0, test.labels, verbose=0, return_dict=True
    )["accuracy"]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoder", help="a .keras file")
    parser.add_argument("--train", default="builtin:digits:train")
    parser.add_argument("--test", default="builtin:digits:test")
    parser.add_argument("--labels", type=int, default=200, help="labelled images used")
    parser.add_argument("--limit", type=int, help="test on the first so many images")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    train = kssl.data.open_source(options.train, limit=options.labels)
    test = kssl.data.open_source(options.test, limit=options.limit)
    pretrained = keras.saving.load_model(options.encoder, compile=False)
    keras.utils.set_random_seed(options.seed)
    fresh = type(pretrained).from_config(pretrained.get_config())
    for name, encoder in (("random", fresh), ("pretrained", pretrained)):
        accuracy = fine_tuned_accuracy(encoder, train, test, options)
        print(f"{name:>10} weights: accuracy {accuracy:.3f} from {len(train)} labels")


if __name__ == "__main__":
    main()
