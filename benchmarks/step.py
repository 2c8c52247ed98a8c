"""A training step on views that are there: encoder, heads, objective, LARS.

Two views of an image; SSL-HSIC with its target network (two more forward passes) and
SFRIK. Augmentation is apart (the `input` suite): both sides get views. The yardstick is
the step in PyTorch, channels last, as it stands and through torch.compile. "encoder
alone" is forward and backward of the encoder for two views and, for SSL-HSIC, the
target's forward passes, on the backend of "ours tf": what a step cannot do without.
"""

import numpy as np

from benchmarks.harness import Case, Unavailable

VARIANTS_OF_ALL = (
    "ours tf",
    "ours tf xla",
    "ours jax",
    "encoder alone tf",
    "torch",
    "torch compiled",
)


def _case(method, depth, size, batch, projector, flops_of_image):
    passes = 3 * 2 + (2 if method == "ssl_hsic" else 0)
    return Case(
        f"{method} ResNet-{depth} at {size}",
        {
            "method": method,
            "depth": depth,
            "size": size,
            "batch": batch,
            "projector": projector,
        },
        VARIANTS_OF_ALL,
        flops=passes * batch * flops_of_image,
        items=batch,
    )


# Operations of a forward pass: two for each multiplication and addition of the
# convolutions, counted from their shapes.
CASES = [
    _case("ssl_hsic", 18, 32, 64, (512, 128), 1.11e9),
    _case("sfrik", 18, 32, 64, (512, 512, 512), 1.11e9),
    _case("ssl_hsic", 50, 224, 16, (4096, 256), 8.17e9),
    _case("sfrik", 50, 224, 16, (8192, 8192, 8192), 8.17e9),
]


def views_of(size, batch):
    generator = np.random.default_rng(0)
    return tuple(
        generator.random((batch, size, size, 3)).astype("float32") for _ in range(2)
    )


def model_of(method, depth, size, projector):
    import keras_kssl as kssl

    encoder = kssl.models.ResNet(
        depth, stem="cifar" if size < 64 else "imagenet", seed=0
    )
    hidden, width = projector[:-1], projector[-1]
    if method == "sfrik":
        head = kssl.models.MLPHead(hidden, width, seed=1)
        return kssl.models.SFRIK(encoder, projector=head, seed=0)
    heads = [
        kssl.models.MLPHead(hidden, width, normalize_output=True, seed=seed)
        for seed in (1, 2)
    ]
    return kssl.models.SSLHSIC(encoder, projector=heads[0], predictor=heads[1], seed=0)


def _ours(jit_compile):
    def build(method, depth, size, batch, projector):
        import keras_kssl as kssl

        model = model_of(method, depth, size, projector)
        model.compile(kssl.optimizers.LARS(0.1), jit_compile=jit_compile)
        views = views_of(size, batch)
        return lambda: model.train_on_batch(views)

    return build


def _encoder_alone(method, depth, size, batch, projector):
    import tensorflow as tf

    model = model_of(method, depth, size, projector)
    encoder = model.encoder
    views = [tf.constant(view) for view in views_of(size, batch)]

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            total = sum(
                tf.reduce_sum(encoder(view, training=True) ** 2) for view in views
            )
        if method == "ssl_hsic":
            for view in views:
                total += tf.reduce_sum(encoder(view, training=True))
        gradients = tape.gradient(total, encoder.trainable_variables)
        return total, [tf.reduce_sum(gradient) for gradient in gradients]

    return lambda: step()[0].numpy()


def _torch(is_compiled):
    def build(method, depth, size, batch, projector):
        try:
            import torch
        except ImportError:
            raise Unavailable("PyTorch is not installed") from None

        from benchmarks import plain_torch_step

        torch.manual_seed(0)
        views = [
            torch.from_numpy(view.transpose(0, 3, 1, 2)).to(
                memory_format=torch.channels_last
            )
            for view in views_of(size, batch)
        ]
        return plain_torch_step.make(method, depth, size, projector, views, is_compiled)

    return build


_TENSORFLOW = {"KERAS_BACKEND": "tensorflow", "TF_ENABLE_ONEDNN_OPTS": "1"}
VARIANTS = {
    "ours tf": (_TENSORFLOW, _ours(False)),
    "ours tf xla": (_TENSORFLOW, _ours(True)),
    "ours jax": ({"KERAS_BACKEND": "jax"}, _ours(True)),
    "encoder alone tf": (_TENSORFLOW, _encoder_alone),
    "torch": ({}, _torch(False)),
    "torch compiled": ({}, _torch(True)),
}
