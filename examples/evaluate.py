"""Compare raw pixels with an encoder's features by kNN and a linear probe.

An encoder is worth something if a simple classifier does better on its features than on
the pixels. About a minute on two CPU cores for the built-in digits; most of it is the
linear probe on pixels:

    python examples/evaluate.py runs/example
"""

import argparse

import keras_kssl as kssl


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoder", help="what zoo.load takes: a run, a file, a preset")
    parser.add_argument("--train", default="builtin:digits:train")
    parser.add_argument("--test", default="builtin:digits:test")
    parser.add_argument("--limit", type=int, help="use the first so many images only")
    parser.add_argument("--size", type=int, help="brings photos of many sizes to one")
    parser.add_argument("--epochs", type=int, default=20, help="of the linear probe")
    options = parser.parse_args(arguments)

    sources = [
        kssl.data.open_source(text, limit=options.limit)
        for text in (options.train, options.test)
    ]
    encoders = {
        "raw pixels": lambda images: images.reshape(len(images), -1),
        "encoder": kssl.zoo.load(options.encoder),
    }
    for name, encoder in encoders.items():
        train, test = (
            kssl.evaluation.extract_features(encoder, source, size=options.size)
            for source in sources
        )
        knn = kssl.evaluation.knn_accuracy(*train, *test, k=20)["knn_20"]
        probe = kssl.evaluation.linear_accuracy(*train, *test, epochs=options.epochs)
        print(f"{name:>10}: kNN {knn:.3f}, linear {probe['linear']:.3f}")


if __name__ == "__main__":
    main()
