"""All presets: those of the papers, and the encoders that come with the library."""

import dataclasses
import difflib
import pathlib
import types

import keras_kssl
from keras_kssl._checks import check_that
from keras_kssl.zoo.card import Preset
from keras_kssl.zoo.published import PUBLISHED

CARD = "card.json"


def presets():
    """All presets by name, as a mapping that cannot be changed.

    A preset is a recipe with what is known about it. An encoder that comes with the
    library bears the name of its folder in saved_models/, and takes the place of a
    recipe of that name.

    Returns:
        Mapping from names to `Preset`.

    Example:

    >>> import keras_kssl as kssl
    >>> kssl.zoo.presets()["sfrik_resnet50_imagenet"].recipe.projector
    (8192, 8192, 32768)
    """
    found = {preset.name: preset for preset in PUBLISHED}
    for name, folder in shipped_folders().items():
        found[name] = dataclasses.replace(Preset.read(folder / CARD), name=name)
    return types.MappingProxyType(found)


def preset(name, caller="zoo", rule="the name of a preset"):
    """One preset; an unknown name is refused with those that are near."""
    known = presets()
    near = difflib.get_close_matches(str(name), known, n=3)
    named = f"Did you mean {' or '.join(near)}?" if near else "List them: kssl zoo"
    check_that(name in known, caller, "name", rule, name, named)
    return known[name]


def shipped_folders():
    """Folders of the encoders that come with the library, by name."""
    return {
        card.parent.name: card.parent
        for root in _roots()
        for card in sorted(root.glob(f"*/{CARD}"))
    }


def _roots():
    """Where encoders may be: in an installed package, or in a clone beside it."""
    package = pathlib.Path(keras_kssl.__file__).resolve().parent
    roots = [package / "saved_models"]
    # Beside an installed package there may be anything.
    if (package.parent / "setup.cfg").is_file():
        roots.append(package.parent / "saved_models")
    return roots
