"""Fine-tune an exported SavedModel with tensorflow_hub, in Keras 2.

For projects on tf_keras or TensorFlow 2.15: neither Keras 3 nor this library is needed.
Reads images (uint8, or float in [0, 1]) and labels from an .npz file, holds a fifth
out, and says whether every weight of the encoder has moved:

    pip install tensorflow tf_keras tensorflow_hub 'setuptools<81'
    python examples/fine_tune_hub.py runs/example/saved_model labelled.npz
"""

import argparse

import numpy as np
import tensorflow_hub as hub
import tf_keras


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("saved_model", help="folder of the SavedModel")
    parser.add_argument("data", help=".npz file with arrays `images` and `labels`")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    options = parser.parse_args(arguments)

    with np.load(options.data) as file:
        images, labels = file["images"], file["labels"]
    images = images.astype("float32") / (255.0 if images.dtype == np.uint8 else 1.0)
    order = np.random.default_rng(0).permutation(len(images))
    test, train = np.split(order, [len(order) // 5])

    # Without trainable=True the head alone would train, without a word.
    encoder = hub.KerasLayer(options.saved_model, trainable=True)
    head = tf_keras.layers.Dense(int(labels.max()) + 1)
    model = tf_keras.Sequential([encoder, head])
    model.compile(
        tf_keras.optimizers.Adam(options.learning_rate),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    before = [variable.numpy() for variable in encoder.variables]
    model.fit(images[train], labels[train], epochs=options.epochs, verbose=0)
    pairs = zip(before, encoder.variables, strict=True)
    moved = sum(not np.array_equal(old, new.numpy()) for old, new in pairs)
    print(f"{moved} of {len(before)} variables of the encoder have moved")
    _, accuracy = model.evaluate(images[test], labels[test], verbose=0)
    print(f"accuracy {accuracy:.3f} on {len(test)} images held out")


if __name__ == "__main__":
    main()
