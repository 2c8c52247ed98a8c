"""The objectives alone: value and gradient of one step, compiled, float32.

HSIC: four views of dimension 256, two of which get a gradient, the scale of the kernel
learned along. SFRIK: two views. The yardsticks are the formulas as they stand, in JAX
under jit and in PyTorch; ratios are to the PyTorch one, which comes last.
"""

import numpy as np

from benchmarks.harness import Case, Unavailable

DIM, FEATURES = 256, 512
OURS = ("ours tf", "ours tf xla", "ours jax")


def _hsic_case(batch):
    n, d = 4 * batch, DIM
    # The cheaper of the two forms: products forward and, for half of the rows, back;
    # of the features also the backward pass of the covariance.
    gram = 2 * n * n * d * (0.5 + 0.5)
    features = 2 * n * (2 * FEATURES) * d * 1.5 + 2 * n * FEATURES**2 * 2
    # Both forms, of which "auto" should take the faster one.
    forms = [f"{backend} features" for backend in ("tf", "jax")]
    if batch <= 4096:
        forms += [f"{backend} gram" for backend in ("tf", "jax")]
    plain = ("jax plain gram",) if batch <= 1024 else ()
    return Case(
        f"hsic B={batch}",
        {"kind": "hsic", "batch": batch, "dim": d},
        (*OURS, *forms, *plain, "jax plain", "torch plain"),
        flops=min(gram, features),
    )


def _sfrik_case(batch, dim, degrees):
    gram = 2 * 2 * batch * batch * dim
    moments = 2 * 2 * batch * dim * dim
    flops = 2 * (gram if degrees > 2 else min(gram, moments))
    flops = flops if degrees > 1 else 2 * batch * dim * 8
    return Case(
        f"sfrik B={batch} q={dim} L={degrees}",
        {
            "kind": "sfrik",
            "batch": batch,
            "dim": dim,
            "coefficients": (1.0, 40.0, 40.0)[:degrees],
        },
        (*OURS, "jax plain", "torch plain"),
        flops=flops,
        # Both views read, normalised, and their gradients written.
        bytes=4 * 2 * batch * dim * 4,
    )


CASES = [
    *(_hsic_case(64 * 4**i) for i in range(5)),
    *(_hsic_case(128 * 4**i) for i in range(4)),
    *(
        _sfrik_case(batch, dim, degrees)
        for batch, dim in (
            (256, 256),
            (4096, 256),
            (256, 2048),
            (4096, 2048),
            (256, 8192),
            (2048, 8192),
            (256, 32768),
        )
        for degrees in (1, 2, 3)
    ),
    _sfrik_case(8192, 256, 2),
]


def _views(count, batch, dim):
    generator = np.random.default_rng(0)
    return [generator.normal(size=(batch, dim)).astype("float32") for _ in range(count)]


def _objective(kind, coefficients, estimator):
    from keras_kssl import objectives

    if kind == "hsic":
        return objectives.HSIC(num_features=FEATURES, estimator=estimator, seed=0), 4
    return objectives.SFRIK(coefficients=coefficients), 2


def _ours_tensorflow(jit_compile, estimator="auto"):
    def build(kind, batch, dim, coefficients=None):
        import tensorflow as tf

        objective, count = _objective(kind, coefficients, estimator)
        views = [tf.constant(view) for view in _views(count, batch, dim)]

        @tf.function(jit_compile=jit_compile)
        def step(views):
            online, others = views[:2], [tf.stop_gradient(v) for v in views[2:]]
            with tf.GradientTape() as tape:
                tape.watch(online)
                loss = objective.terms([*online, *others], training=True)["loss"]
            return loss, tape.gradient(loss, online)

        return lambda: step(views)[0].numpy()

    return build


def _ours_jax(estimator="auto"):
    def build(kind, batch, dim, coefficients=None):
        import jax

        objective, count = _objective(kind, coefficients, estimator)
        views = [jax.numpy.asarray(view) for view in _views(count, batch, dim)]
        # Until then JAX holds what they are copied from.
        jax.block_until_ready(views)
        state = [v.value for v in objective.non_trainable_variables]

        def loss(online, others, state):
            return objective.stateless_call(
                [], state, [*online, *others], training=True
            )

        step = jax.jit(jax.value_and_grad(loss, has_aux=True))

        def action():
            nonlocal state
            (value, state), slope = step(views[:2], views[2:], state)
            jax.block_until_ready((value, slope, state))
            return value

        return action

    return build


def _plain_jax(form):
    def build(kind, batch, dim, coefficients=None):
        import jax

        from benchmarks import plain_jax

        if kind == "sfrik":
            views = [jax.numpy.asarray(view) for view in _views(2, batch, dim)]
            step = plain_jax.sfrik_step(coefficients)
            return lambda: jax.block_until_ready(step(*views))
        views = jax.numpy.asarray(np.stack(_views(4, batch, dim)))
        step = plain_jax.hsic_step(getattr(plain_jax, form), FEATURES)
        zero = jax.numpy.zeros(())
        state = (jax.numpy.ones(()), (zero, zero, zero), jax.random.key(0))

        def action():
            nonlocal state
            value, slope, *state = step(views[:2], views[2:], *state)
            jax.block_until_ready((value, slope, state))

        return action

    return build


def _plain_torch(kind, batch, dim, coefficients=None):
    try:
        import torch
    except ImportError:
        raise Unavailable("PyTorch is not installed") from None

    from benchmarks import plain_torch

    torch.manual_seed(0)
    if kind == "sfrik":
        views = [torch.from_numpy(view) for view in _views(2, batch, dim)]
        return plain_torch.sfrik_step(*views, coefficients)
    views = torch.from_numpy(np.stack(_views(4, batch, dim)))
    return plain_torch.hsic_step(views[:2], views[2:], FEATURES)


_TENSORFLOW = {"KERAS_BACKEND": "tensorflow", "TF_ENABLE_ONEDNN_OPTS": "1"}
_JAX = {"KERAS_BACKEND": "jax"}
VARIANTS = {
    "ours tf": (_TENSORFLOW, _ours_tensorflow(False)),
    "ours tf xla": (_TENSORFLOW, _ours_tensorflow(True)),
    "ours jax": (_JAX, _ours_jax()),
    "tf gram": (_TENSORFLOW, _ours_tensorflow(False, "gram")),
    "tf features": (_TENSORFLOW, _ours_tensorflow(False, "random_features")),
    "jax gram": (_JAX, _ours_jax("gram")),
    "jax features": (_JAX, _ours_jax("random_features")),
    "jax plain": (_JAX, _plain_jax("hsic_features")),
    "jax plain gram": (_JAX, _plain_jax("hsic_gram")),
    "torch plain": ({}, _plain_torch),
}
