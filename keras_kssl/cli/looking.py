"""Commands that look at data and the machine: preview and doctor."""

import dataclasses
import pathlib

from keras_kssl import recipes


@dataclasses.dataclass(frozen=True)
class Preview:
    """Draw the views that a policy makes of your images.

    Example: kssl preview --data folder:photos --augment vicreg --size 96
    """

    data: str
    """Images, as in kssl pretrain."""
    augment: recipes.Policy = "byol"
    """Policy that makes the views."""
    size: int = 96
    """Side of the views in pixels."""
    crop_min: float | None = None
    """Smallest crop, as a share of the image's area. Default: as published, 0.08 for
    most policies."""
    crop_max: float | None = None
    """Largest crop, likewise. Default: 1 for most."""
    flip: float = 0.5
    """Probability of mirroring left and right."""
    images: int = 8
    """Number of images."""
    seed: int = 0
    """Which images, and which views."""
    out: pathlib.Path = pathlib.Path("views.png")
    """PNG file to write."""

    def run(self):
        crop_min, crop_max = recipes.published_crops(self.augment)
        crop_max = self.crop_max or crop_max
        recipe = recipes.Recipe(
            augment=self.augment,
            size=self.size,
            crop_min=self.crop_min or min(crop_min, crop_max),
            crop_max=crop_max,
            flip=self.flip,
        )
        from keras_kssl import data, preview
        from keras_kssl.pretraining.building import build_policy

        policy = build_policy(recipe)
        source = data.open_source(self.data, max_broken=1.0)
        path = preview.draw(source, policy, self.out, self.images, self.seed)
        print(f"Written: {path}")


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Print what this machine has, and what is in a source of images.

    Example: kssl doctor --data folder:photos
    """

    data: str | None = None
    """Images to look at: sizes, formats, broken files, copies, mean and deviation,
    and what training on them would cost."""
    limit: int | None = None
    """Use the first so many images only."""
    method: recipes.Method = "ssl_hsic"
    """Method whose cost is measured."""

    def run(self):
        from keras_kssl import doctor

        for line in doctor.report():
            print(line)
        if self.data is not None:
            from keras_kssl import inspection

            recipe = recipes.Recipe(method=self.method, limit=self.limit)
            print()
            for line in inspection.report(self.data, recipe):
                print(line)
