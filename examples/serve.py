"""Compute features with an exported SavedModel: TensorFlow alone, no Keras, no library.

Reads images from an .npz file (array `images`, uint8 or float in [0, 1]) and writes
their features to an .npy file, in batches. Seconds for a few thousand small images:

    python examples/serve.py runs/example/saved_model images.npz features.npy
"""

import argparse

import numpy as np
import tensorflow as tf


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("saved_model", help="folder of the SavedModel")
    parser.add_argument("images", help=".npz file with an array `images`")
    parser.add_argument("features", help=".npy file to write")
    parser.add_argument("--batch-size", type=int, default=256)
    options = parser.parse_args(arguments)

    module = tf.saved_model.load(options.saved_model)
    with np.load(options.images) as file:
        images = file["images"]
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    features = np.concatenate(
        [
            module(
                (images[start : start + options.batch_size] / scale).astype("float32")
            )
            for start in range(0, len(images), options.batch_size)
        ]
    )
    np.save(options.features, features)
    print(
        f"{len(features)} images, {features.shape[1]} features each: {options.features}"
    )


if __name__ == "__main__":
    main()
