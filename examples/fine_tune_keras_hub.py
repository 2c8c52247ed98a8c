"""Fine-tune an encoder as an image classifier of KerasHub.

The encoder becomes a preset of KerasHub, backbone and image converter, and a task is
made of it as of any other preset. For ResNets of full width with the "imagenet" stem:

    pip install 'keras_kssl[tensorflow,hub]'
    python examples/fine_tune_keras_hub.py runs/a --train folder:a --test folder:b
"""

import argparse
import tempfile

import keras
import keras_hub
import numpy as np

import keras_kssl as kssl


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoder", help="what zoo.load takes: a run, a file, a preset")
    parser.add_argument("--train", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    options = parser.parse_args(arguments)

    train, test = map(kssl.data.open_source, (options.train, options.test))
    labels = train.labels, kssl.data.labels_like(test, train)
    images = []
    for source in (train, test):
        if source.image_shape[0] is None:
            source = source.at_size(options.size)
        images.append(source.read(np.arange(len(source)))[0])

    encoder = kssl.zoo.load(options.encoder)
    with tempfile.TemporaryDirectory() as folder:
        path = kssl.export.keras_hub(encoder, f"{folder}/preset", size=options.size)
        backbone = keras_hub.models.Backbone.from_preset(path)
        converter = keras_hub.layers.ImageConverter.from_preset(path)
    classifier = keras_hub.models.ResNetImageClassifier(
        backbone=backbone,
        preprocessor=keras_hub.models.ResNetImageClassifierPreprocessor(converter),
        num_classes=int(labels[0].max()) + 1,
    )
    classifier.compile(
        keras.optimizers.Adam(options.learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=keras.backend.backend() == "jax",
    )
    # KerasHub takes pixels in [0, 255]; the preset's converter does the rest. It does
    # not shuffle arrays.
    order = np.random.default_rng(0).permutation(len(labels[0]))
    classifier.fit(
        images[0][order],
        labels[0][order],
        batch_size=options.batch_size,
        epochs=options.epochs,
        shuffle=False,
        verbose=0,
        callbacks=[kssl.callbacks.FineTuningMonitor(backbone)],
    )
    found = classifier.evaluate(images[1], labels[1], verbose=0, return_dict=True)
    print(f"accuracy {found['accuracy']:.3f} from {len(labels[0])} labelled images")


if __name__ == "__main__":
    main()
