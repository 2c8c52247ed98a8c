"""The share of training that is spent waiting for photos: python -m benchmarks.waiting

ResNet-18 on two views of 224, batch 32, photos of 500 x 375 from a folder; all cores do
both. How fast photos become views stands in the `input` suite.
"""

import argparse
import pathlib
import tempfile
import time

import keras_kssl as kssl
from benchmarks.input import make_photos


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    model = kssl.models.SSLHSIC(
        kssl.models.ResNet(18, seed=0),
        target=False,
        augment=kssl.augment.byol(size=224),
        projector=kssl.models.MLPHead((512,), 128, normalize_output=True, seed=1),
        seed=0,
    )
    model.compile(kssl.optimizers.LARS(0.1), jit_compile=False)
    with tempfile.TemporaryDirectory() as folder:
        make_photos(pathlib.Path(folder), 128)
        for steps in (1, options.steps):
            batches = kssl.data.load(f"folder:{folder}", 32)
            began = time.perf_counter()
            model.fit(batches, steps_per_epoch=steps, verbose=0)
            seconds = time.perf_counter() - began
    rate = options.steps * 32 / seconds
    share = 100 * batches.seconds_waited / seconds
    print(f"{rate:.1f} images/s, {share:.1f} % of the time waiting for photos")


if __name__ == "__main__":
    main()
