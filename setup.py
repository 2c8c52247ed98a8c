"""What setup.cfg cannot say: a built package brings its encoders along."""

import pathlib
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py

# What zoo.load reads; the SavedModels beside it would double the size.
FILES = ("card.json", "README.md", "encoder.keras")


class BuildWithEncoders(build_py):
    def run(self):
        super().run()
        if self.editable_mode:
            return
        target = pathlib.Path(self.build_lib) / "keras_kssl" / "saved_models"
        for card in sorted(pathlib.Path("saved_models").glob("*/card.json")):
            folder = target / card.parent.name
            folder.mkdir(parents=True, exist_ok=True)
            for file in FILES:
                if card.with_name(file).is_file():
                    shutil.copy2(card.with_name(file), folder / file)


setup(cmdclass={"build_py": BuildWithEncoders})
