"""Pretrain an encoder on images without labels, judge it, and save it for others.

Shows the Python interface from data to SavedModel: a ResNet, SSL-HSIC or SFRIK with
augmentation inside the compiled step, an optimizer, `fit`, nearest neighbours before
and after. The default is two epochs on the built-in set of handwritten digits at a size
for two CPU cores, about a minute there:

    python examples/pretrain.py --method sfrik --epochs 5 --out runs/example
"""

import argparse
import pathlib

import keras

import keras_kssl as kssl


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=("ssl_hsic", "sfrik"), default="ssl_hsic")
    parser.add_argument("--data", default="builtin:digits:train")
    parser.add_argument("--test", default="builtin:digits:test")
    parser.add_argument("--limit", type=int, help="use the first so many images only")
    parser.add_argument(
        "--size", type=int, help="side of the views; needed for folders of photos"
    )
    parser.add_argument("--depth", type=int, default=10)
    parser.add_argument("--width", type=float, default=0.25)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--optimizer", choices=("adam", "lars"), default="adam")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default="runs/example")
    options = parser.parse_args(arguments)

    keras.utils.set_random_seed(options.seed)
    train = kssl.data.open_source(options.data, limit=options.limit)
    test = kssl.data.open_source(options.test, limit=options.limit)
    batches = kssl.data.load(train, options.batch_size, seed=options.seed)
    size = options.size
    if size is None:
        if train.image_shape[0] is None:
            parser.error("--size is needed where images have many sizes")
        size = min(train.image_shape[:2])

    encoder = kssl.models.ResNet(
        options.depth,
        width=options.width,
        stem="cifar" if size < 64 else "imagenet",
        input_channels=train.image_shape[-1],
        seed=options.seed,
    )
    views = kssl.augment.vicreg(size, crop_scale=(0.25, 1.0))
    if options.method == "ssl_hsic":
        # The target network pays off over many epochs; a short run does without.
        model = kssl.models.SSLHSIC(
            encoder,
            target=False,
            projector=kssl.models.MLPHead((512,), 128, normalize_output=True),
            augment=views,
            seed=options.seed,
        )
    else:
        model = kssl.models.SFRIK(
            encoder,
            objective=kssl.objectives.SFRIK(4.0, weight_per_pair=True),
            projector=kssl.models.MLPHead((512, 512), 512),
            augment=views,
            seed=options.seed,
        )

    steps = options.epochs * batches.steps_per_epoch
    schedule = kssl.optimizers.warmup_cosine(
        2e-3 if options.optimizer == "adam" else 0.4 * options.batch_size / 256,
        warmup_steps=steps // 10,
        total_steps=steps,
    )
    optimizers = {"adam": kssl.optimizers.Adam, "lars": kssl.optimizers.LARS}
    # XLA's convolutions on a CPU are several times slower than TensorFlow's own.
    jit_compile = keras.backend.backend() == "jax"
    model.compile(optimizers[options.optimizer](schedule), jit_compile=jit_compile)

    before = kssl.evaluation.knn(encoder, train, test, k=20, size=size)
    model.fit(batches, epochs=options.epochs, verbose=2)
    encoder = model.averaged_encoder()
    after = kssl.evaluation.knn(encoder, train, test, k=20, size=size)
    print(
        f"kNN accuracy: {before['knn_20']:.3f} untrained, {after['knn_20']:.3f} trained"
    )

    path = options.out / "encoder.keras"
    print("written:", kssl.export.keras_file(encoder, path, overwrite=True))
    if keras.backend.backend() == "tensorflow":
        path = options.out / "saved_model"
        path = kssl.export.saved_model(encoder, path, size=size, overwrite=True)
        print("written:", path)


if __name__ == "__main__":
    main()
