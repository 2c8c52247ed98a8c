"""Cards on disk, beside the encoder that they tell of."""

import pathlib

from keras_kssl._files import write_whole
from keras_kssl.zoo.catalogue import CARD
from keras_kssl.zoo.text import markdown

README = "README.md"


def write_card(preset, folder):
    """Writes a card as card.json and as README.md into a folder that is there.

    Raises:
        FileExistsError: where a README.md is there that belongs to no card.
    """
    folder = pathlib.Path(folder)
    check_free(folder)
    write_whole(folder / CARD, preset.to_json())
    write_whole(folder / README, markdown(preset))


def check_free(folder):
    """Raises `FileExistsError` where a card would replace what is no card."""
    readme = pathlib.Path(folder) / README
    if readme.exists() and not readme.with_name(CARD).is_file():
        raise FileExistsError(
            "zoo: a card must be written where no other README.md is. Received: "
            f"folder={str(folder)!r}. Take another folder."
        )
