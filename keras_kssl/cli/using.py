"""Commands that use an encoder: export and extract."""

import dataclasses
import json
import pathlib
from typing import Annotated

import tyro

from keras_kssl.cli.words import load_encoder, size_of_run, split

_FORMATS = ("saved_model", "keras")


@dataclasses.dataclass(frozen=True)
class Export:
    """Write a run's encoder as a reusable SavedModel or a .keras file, with a card.

    Example: kssl export runs/a --out saved_models/a --formats saved_model,keras
    """

    run_folder: Annotated[pathlib.Path, tyro.conf.Positional]
    """Run folder, an encoder's file, a preset of kssl zoo, or an address."""
    out: pathlib.Path
    """Folder to write to: the SavedModel itself, with encoder.keras beside its files
    where both are asked for."""
    formats: str = "saved_model"
    """What to write, separated by commas: saved_model, keras."""
    overwrite: bool = False
    """Replace what is there."""
    name: str | None = None
    """Name in the card. Default: that of the folder to write to."""
    licence: str | None = None
    """Terms of the weights and of the data, for the card."""

    def run(self):
        formats = split("formats", self.formats, _FORMATS)
        encoder = load_encoder(self.run_folder)
        write_card = self._card_writer(encoder)
        import keras

        from keras_kssl import export

        if "saved_model" in formats and keras.backend.backend() != "tensorflow":
            raise ValueError(
                "export: SavedModels are written by the TensorFlow backend. Received: "
                f"the {keras.backend.backend()} backend. Set KERAS_BACKEND=tensorflow, "
                "or take --formats keras."
            )

        written = []
        if "saved_model" in formats:
            options = {"overwrite": self.overwrite}
            written.append(export.saved_model(encoder, self.out, **options))
        if "keras" in formats:
            path = self.out / "encoder.keras"
            written.append(export.keras_file(encoder, path, overwrite=self.overwrite))
        for path in written:
            print(f"Written, loaded again and compared: {path}")
        write_card()

    def _card_writer(self, encoder):
        """A function that writes the card; what would stop it is found here."""
        from keras_kssl import zoo

        out = self.out.expanduser()

        def card(folder=None):
            return zoo.card_of(
                self.run_folder, self.name, self.licence, encoder, folder
            )

        if card() is None:
            return lambda: print("No card: a mere file does not say what it would.")
        zoo.check_free(out)

        def write():
            written = card(out)
            zoo.write_card(written, out)
            print(f"Card: {out / 'card.json'}, {out / 'README.md'}")
            if written.licence == zoo.NOT_STATED:
                print("The card says that the licence is not stated: give --licence.")

        return write


@dataclasses.dataclass(frozen=True)
class Extract:
    """Write the features of all images of a source to disk; go on where it stopped.

    Example: kssl extract runs/a --data folder:photos --out features/photos
    """

    run_folder: Annotated[pathlib.Path, tyro.conf.Positional]
    """Run folder, an encoder's file, a preset of kssl zoo, or an address."""
    data: str
    """Images, as in kssl pretrain."""
    out: pathlib.Path
    """Folder to write features.npy, names.txt, extraction.json and labels.npy to."""
    size: int | None = None
    """Side to which images of many sizes are brought. Default: that of the run."""
    batch_size: int = 256
    """Images per call of the encoder."""
    limit: int | None = None
    """Use the first so many images only."""

    def run(self):
        encoder = load_encoder(self.run_folder)
        from keras_kssl import data, evaluation

        source = data.open_source(self.data, self.limit)
        size = self.size or size_of_run(self.run_folder)
        out = evaluation.extract(encoder, source, self.out, self.batch_size, size)
        facts = json.loads((out / "extraction.json").read_text())
        print(f"{facts['rows']:,} features of width {facts['width']}: {out}")
        left_out = facts["images"] - facts["rows"]
        if left_out:
            print(f"{left_out:,} images cannot be read and are left out")
