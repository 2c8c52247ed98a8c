"""The recipe of `kssl quickstart`."""

from keras_kssl.recipes.methods import SHORT_RUN_DEFAULTS
from keras_kssl.recipes.recipe import Recipe


def quickstart(method, seed=0):
    """The recipe of `kssl quickstart`: minutes on two CPU cores."""
    weights = {"invariance_weight": 8.0, "weight_per_pair": True}
    return Recipe(
        method=method,
        data="builtin:digits:train",
        eval_test="builtin:digits:test",
        eval_every=7,
        encoder="resnet10",
        width=0.25,
        projector=SHORT_RUN_DEFAULTS[method]["projector"],
        augment="auh",
        size=20,
        crop_min=0.2,
        crop_max=0.5,
        flip=0.0,
        epochs=20,
        batch_size=64,
        optimizer="adam",
        learning_rate=0.006,
        target=False,
        # The root of HSIC(Z, Z) of a batch without structure grows like 1 / sqrt(n):
        # weighed as in batches of thousands it would drown the first term here.
        regularizer_weight=2.0,
        **(weights if method in ("ssl_hsic", "sfrik") else {}),
        average_decay=0.99,
        seed=seed,
    )
