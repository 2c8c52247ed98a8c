"""From photos in a folder to batches of views, on one core; and single operations.

Photos of 500 x 375 pixels (JPEG, quality 85, smooth colours with grain). "ours" is all
that training does with them: decoding once for all views, crops and resizing on the
host, colours and blur in the compiled step. The yardstick makes the same views photo by
photo with Pillow and NumPy. The operations stand beside Keras's own layers, both
compiled, on a batch of 64 images of 224 pixels.
"""

import atexit
import functools
import io
import itertools
import os
import pathlib
import shutil
import tempfile

import numpy as np

from benchmarks.harness import Case

BATCH = 64
OPERATIONS = ("jitter", "blur", "crop")


CASES = [
    *(
        Case(
            f"photos, {policy}",
            {"policy": policy},
            ("ours tf", "ours tf xla", "ours jax", "pillow"),
            items=BATCH,
        )
        for policy in ("byol", "vicreg", "multi_crop_swav")
    ),
    *(
        Case(
            f"operation, {operation}",
            {"operation": operation},
            ("operation tf", "operation tf xla", "keras layer"),
            items=BATCH,
        )
        for operation in OPERATIONS
    ),
]


def make_photos(folder, count, size=(500, 375)):
    """Photos 0000.jpg, ... of width and height `size`, alike in every process."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        grainy = np.asarray(smooth) + rng.normal(0.0, 8.0, (*size[::-1], 3))
        stream = io.BytesIO()
        photo = Image.fromarray(np.clip(grainy, 0, 255).astype(np.uint8))
        photo.save(stream, "JPEG", quality=85)
        (folder / f"{i:04d}.jpg").write_bytes(stream.getvalue())


def _photos():
    folder = pathlib.Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, True)
    make_photos(folder, BATCH)
    return folder


def _on_one_core():
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])


def _compiled(function, jit_compile):
    """A function of arrays, compiled by the backend, that waits for what it gives."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        step = jax.jit(function)
        return lambda *arrays: jax.block_until_ready(step(*arrays))
    import tensorflow as tf

    # On a CPU a graph has ended when its call returns.
    return tf.function(function, jit_compile=jit_compile)


def _ours(jit_compile=False):
    def build(policy):
        _on_one_core()
        import keras_kssl as kssl

        policy = getattr(kssl.augment, policy)(size=224)
        batches = kssl.data.load(f"folder:{_photos()}", BATCH, policy=policy)
        change = _compiled(functools.partial(policy, seed=1), jit_compile)
        steps = itertools.count()
        return lambda: change(batches.at(next(steps))[0])

    return build


def _pillow(policy):
    _on_one_core()
    import keras_kssl as kssl
    from benchmarks import plain_pil

    policy = getattr(kssl.augment, policy)(size=224)
    paths = sorted(_photos().iterdir())

    def action():
        views = [plain_pil.views_of(path, policy) for path in paths]
        return [np.stack(arrays) for arrays in zip(*views, strict=True)]

    return action


def _images():
    return np.random.default_rng(0).random((BATCH, 224, 224, 3)).astype("float32")


def _operation(jit_compile):
    def build(operation):
        import keras_kssl as kssl

        view = {
            "jitter": {
                "jitter": 1.0,
                "brightness": 0.4,
                "contrast": 0.4,
                "saturation": 0.2,
                "hue": 0.1,
            },
            "blur": {"blur": 1.0, "blur_sigma": (0.1, 1.0)},
            "crop": {"crop_scale": (0.08, 1.0), "antialias": False},
        }[operation]
        policy = kssl.augment.Policy([kssl.augment.View(size=224, **view)])
        images = _images()
        if operation != "crop":
            images = [images]
        step = _compiled(functools.partial(policy, seed=1), jit_compile)
        return lambda: step(images)

    return build


def _keras_layer(operation):
    import keras

    make = {
        "jitter": lambda: keras.layers.RandomColorJitter(
            value_range=(0, 1),
            brightness_factor=0.4,
            contrast_factor=0.4,
            saturation_factor=(0.4, 0.6),
            hue_factor=0.1,
        ),
        # It takes no sigma above 1, which reaches 3 pixels here.
        "blur": lambda: keras.layers.RandomGaussianBlur(
            factor=1.0, kernel_size=7, sigma=1.0, value_range=(0, 1)
        ),
        "crop": lambda: keras.layers.RandomZoom((-0.7, 0.0), interpolation="bilinear"),
    }[operation]
    layer, images = make(), _images()
    step = _compiled(lambda images: [layer(images, training=True)], False)
    return lambda: step(images)


_TENSORFLOW = {"KERAS_BACKEND": "tensorflow", "TF_ENABLE_ONEDNN_OPTS": "1"}
VARIANTS = {
    "ours tf": (_TENSORFLOW, _ours()),
    "ours tf xla": (_TENSORFLOW, _ours(jit_compile=True)),
    "ours jax": ({"KERAS_BACKEND": "jax"}, _ours()),
    "pillow": (_TENSORFLOW, _pillow),
    "operation tf": (_TENSORFLOW, _operation(False)),
    "operation tf xla": (_TENSORFLOW, _operation(True)),
    "keras layer": (_TENSORFLOW, _keras_layer),
}
