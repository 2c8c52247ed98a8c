"""A training step on views that are there: encoder, heads, objective, LARS.

Two views of an image; SSL-HSIC with its target network (two more forward passes) and
SFRIK. Augmentation is apart (the `input` suite): both sides get views. The yardstick is
the step in PyTorch, channels last, as it stands and through torch.compile. "encoder
alone" is forward and backward of the encoder for two views and, for SSL-HSIC, the
target's forward passes, on the backend of "ours tf": what a step cannot do without.
"""

import functools

import numpy as np

from benchmarks.harness import Case, Unavailable

# Operations of the encoder for one image: two for each multiplication and addition of
# its convolutions, counted from their shapes. By its depth and the size of a view.
_FLOPS = {(18, 32): 1.11e9, (50, 224): 8.17e9}


def case(method, depth, size, batch, projector, variants, steps=1):
    """A case whose action is so many steps of `method`."""
    # A view with a gradient takes a forward pass and twice that backward.
    passes = 3 * 2 + (2 if method == "ssl_hsic" else 0)
    parameters = {
        "method": method,
        "depth": depth,
        "size": size,
        "batch": batch,
        "projector": projector,
    }
    return Case(
        f"{method} ResNet-{depth} at {size}, batch {batch}",
        parameters,
        variants,
        flops=steps * passes * batch * _FLOPS[depth, size],
        items=steps * batch,
    )


_ALL = (
    "ours tf",
    "ours tf xla",
    "ours jax",
    "encoder alone tf",
    "torch",
    "torch compiled",
)
CASES = [
    case("ssl_hsic", 18, 32, 64, (512, 128), _ALL),
    case("sfrik", 18, 32, 64, (512, 512, 512), _ALL),
    case("ssl_hsic", 50, 224, 8, (4096, 256), _ALL),
    case("sfrik", 50, 224, 8, (8192, 8192, 8192), _ALL),
    # What the update of the parameters takes is shared by more images.
    case("sfrik", 50, 224, 24, (8192, 8192, 8192), ("ours tf", "encoder alone tf")),
]


def views_of(size, batch):
    generator = np.random.default_rng(0)
    return tuple(
        generator.random((batch, size, size, 3), dtype=np.float32) for _ in range(2)
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
        gradients = tape.gradient(total, encoder.trainable_variables)
        others = views if method == "ssl_hsic" else []
        outputs = [*gradients, *(encoder(view, training=True) for view in others)]
        return [tf.reduce_sum(output) for output in outputs]

    return lambda: step()[0].numpy()


def pytorch():
    """The module, where it is installed."""
    try:
        import torch
    except ImportError:
        raise Unavailable("PyTorch is not installed") from None
    return torch


def torch_step(method, depth, size, batch, projector, is_compiled, device="cpu"):
    """The yardstick's step, an action."""
    torch = pytorch()
    from benchmarks import plain_torch_step

    torch.manual_seed(0)
    views = [
        torch.from_numpy(view.transpose(0, 3, 1, 2)).to(
            device, memory_format=torch.channels_last
        )
        for view in views_of(size, batch)
    ]
    with torch.device(device):
        return plain_torch_step.make(method, depth, size, projector, views, is_compiled)


_TENSORFLOW = {"KERAS_BACKEND": "tensorflow", "TF_ENABLE_ONEDNN_OPTS": "1"}
VARIANTS = {
    "ours tf": (_TENSORFLOW, _ours(False)),
    "ours tf xla": (_TENSORFLOW, _ours(True)),
    "ours jax": ({"KERAS_BACKEND": "jax"}, _ours(True)),
    "encoder alone tf": (_TENSORFLOW, _encoder_alone),
    "torch": ({}, functools.partial(torch_step, is_compiled=False)),
    "torch compiled": ({}, functools.partial(torch_step, is_compiled=True)),
}
