"""Compute features with an exported SavedModel: TensorFlow alone, no Keras, no library.

Reads images from an .npz file (array `images`, uint8 or float in [0, 1]), or the JPEG
and PNG files of a folder as they are, decoding and resizing being in the SavedModel.
Writes features to an .npy file, in batches, photos in the order of their names. Seconds
for a few thousand small images:

    python examples/serve.py runs/example/saved_model images.npz features.npy
    python examples/serve.py runs/example/saved_model photos/ features.npy
"""

import argparse
import pathlib

import numpy as np
import tensorflow as tf


def of_array(module, path, batch_size):
    """Features of arrays, batch by batch."""
    with np.load(path) as file:
        images = file["images"]
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    for start in range(0, len(images), batch_size):
        yield module((images[start : start + batch_size] / scale).astype("float32"))


def of_photos(module, folder, batch_size):
    """Features of files, whose bytes go to the SavedModel unread."""
    photos = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    )
    serve = module.signatures["serving_bytes"]
    for start in range(0, len(photos), batch_size):
        encoded = [path.read_bytes() for path in photos[start : start + batch_size]]
        yield serve(encoded=tf.constant(encoded))["features"]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("saved_model", help="folder of the SavedModel")
    parser.add_argument("images", type=pathlib.Path, help=".npz file, or a folder")
    parser.add_argument("features", help=".npy file to write")
    parser.add_argument("--batch-size", type=int, default=256)
    options = parser.parse_args(arguments)

    module = tf.saved_model.load(options.saved_model)
    read = of_photos if options.images.is_dir() else of_array
    features = np.concatenate([*read(module, options.images, options.batch_size)])
    np.save(options.features, features)
    print(
        f"{len(features)} images, {features.shape[1]} features each: {options.features}"
    )


if __name__ == "__main__":
    main()
