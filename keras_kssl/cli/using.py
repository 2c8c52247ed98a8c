"""Commands that use an encoder: export and extract."""

import dataclasses
import json
import pathlib
from typing import Annotated

import tyro

from keras_kssl.cli.words import load_encoder, size_of_run, split

_ALL = "all"


@dataclasses.dataclass(frozen=True)
class Export:
    """Write an encoder for others, with a card: SavedModel, .keras, ONNX, KerasHub.

    Example: kssl export runs/a --out exported/a --formats saved_model,keras
    """

    run_folder: Annotated[pathlib.Path, tyro.conf.Positional]
    """Run folder, an encoder's file, a preset of kssl zoo, or an address."""
    out: pathlib.Path
    """Folder to write to: the SavedModel itself, and beside its files encoder.keras,
    encoder.onnx and the folder keras_hub, those that are asked for."""
    formats: str = "saved_model"
    """What to write, separated by commas: saved_model, keras, onnx, keras_hub; or all,
    which are all that can be written here."""
    size: int | None = None
    """Side to which the SavedModel's serving_bytes and KerasHub's image converter bring
    photos. Default: that of the run."""
    overwrite: bool = False
    """Replace what is there. A SavedModel replaces the whole folder."""
    name: str | None = None
    """Name in the card. Default: that of the folder to write to."""
    licence: str | None = None
    """Terms of the weights and of the data, for the card."""

    def run(self):
        from keras_kssl import export

        wanted = split("formats", self.formats, (*export.FORMATS, _ALL))
        encoder = load_encoder(self.run_folder)
        size = self.size or size_of_run(self.run_folder)
        write_card = self._card_writer(encoder)
        for form in self._possible(encoder, wanted):
            options = {"size": size} if form.takes_size else {}
            path = form.write(
                encoder, self.out / form.place, overwrite=self.overwrite, **options
            )
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

    def _possible(self, encoder, wanted):
        """The formats to write; what stands against one is found before any work."""
        from keras_kssl import export

        possible = []
        for name, form in export.FORMATS.items():
            if name not in wanted and _ALL not in wanted:
                continue
            reason = form.reason_against(encoder)
            if reason is None:
                possible.append(form)
            elif name in wanted:
                raise ValueError(reason)
            else:
                print(f"Not written: {reason}")
        return possible


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
