"""Images per second that a folder of photos gives: decoded once, two views cut.

Photos of 500 x 375 pixels (JPEG, quality 85, smooth colours with grain), views of 224.
Times the host alone, then a training step that it feeds:

    python benchmarks/folder_pipeline.py --cores 1
    python benchmarks/folder_pipeline.py --cores 2 --train
"""

import argparse
import io
import os
import pathlib
import tempfile
import time


def make_photos(folder, count):
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        grainy = np.asarray(smooth) + rng.normal(0.0, 8.0, (375, 500, 3))
        stream = io.BytesIO()
        photo = Image.fromarray(np.clip(grainy, 0, 255).astype(np.uint8))
        photo.save(stream, "JPEG", quality=85)
        (folder / f"{i:04d}.jpg").write_bytes(stream.getvalue())


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cores", type=int, default=1)
    parser.add_argument("--photos", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--train", action="store_true", help="feed a training step")
    options = parser.parse_args(arguments)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])

    import keras_kssl as kssl

    with tempfile.TemporaryDirectory() as name:
        make_photos(pathlib.Path(name), options.photos)
        for policy in ("byol", "vicreg"):
            policy_ = getattr(kssl.augment, policy)(size=224)
            batches = kssl.data.load(f"folder:{name}", 64, policy=policy_)
            batches.at(0)
            rates = []
            for step in range(1, options.rounds + 1):
                began = time.perf_counter()
                batches.at(step)
                rates.append(64 / (time.perf_counter() - began))
            median = sorted(rates)[len(rates) // 2]
            print(f"{policy}, {options.cores} cores: {median:.0f} images/s")
        if options.train:
            train(kssl, name)


def train(kssl, name):
    encoder = kssl.models.ResNet(18, seed=0)
    model = kssl.models.SSLHSIC(
        encoder,
        target=False,
        augment=kssl.augment.byol(size=224),
        projector=kssl.models.MLPHead((512,), 128, normalize_output=True),
        seed=0,
    )
    model.compile(kssl.optimizers.LARS(0.1), jit_compile=False)
    for steps in (1, 4):
        batches = kssl.data.load(f"folder:{name}", 32)
        began = time.perf_counter()
        model.fit(batches, steps_per_epoch=steps, verbose=0)
        seconds = time.perf_counter() - began
    print(
        f"ResNet-18 at 224: {4 * 32 / seconds:.1f} images/s, "
        f"{100 * batches.seconds_waited / seconds:.1f}% of the time waiting for data"
    )


if __name__ == "__main__":
    main()
