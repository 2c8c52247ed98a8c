"""The command that lists presets and shows their cards: zoo."""

import dataclasses
from typing import Annotated

import tyro

from keras_kssl._checks import check_that


@dataclasses.dataclass(frozen=True)
class Zoo:
    """List presets, all or those that some words describe; or show the card of one.

    kssl zoo lists all, kssl zoo WORD ... those that hold all words, and kssl zoo show
    NAME prints the card of one.

    Example: kssl zoo show sfrik_resnet50_imagenet
    """

    words: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Words to look for; or show and the name of a preset."""

    def run(self):
        from rich.console import Console
        from rich.markdown import Markdown

        from keras_kssl import zoo

        console = Console()
        if self.words[:1] != ("show",):
            found = _found(zoo.presets().values(), self.words)
            console.print(_table(found))
            if any(p.headline and p.headline.is_published for p in found):
                print(f"* {zoo.AS_PUBLISHED}")
            return
        rule = "one name of a preset behind show, such as in kssl zoo show NAME"
        check_that(len(self.words) == 2, "zoo", "words", rule, self.words)
        text = zoo.markdown(zoo.preset(self.words[1]))
        # Files and pipes get the text itself.
        if console.is_terminal:
            console.print(Markdown(text))
        else:
            print(text, end="")


def _found(presets, words):
    """The presets with all words in what describes them."""
    found = []
    for preset in presets:
        parts = (preset.name, preset.description, preset.data, preset.recipe.encoder)
        text = " ".join(parts).lower()
        if all(word.lower() in text for word in words):
            found.append(preset)
    rule = "found in what describes a preset"
    remedy = "kssl zoo lists all presets."
    check_that(found, "zoo", "words", rule, " ".join(words), remedy)
    return found


def _table(presets):
    from rich.table import Table

    from keras_kssl.zoo.text import result_text

    table = Table(box=None, pad_edge=False, collapse_padding=True)
    # Method and encoder stand in the name; numbers need the room in 80 columns.
    for title in ("name", "size", "weights"):
        table.add_column(title, no_wrap=True)
    table.add_column("number")
    for preset in presets:
        result = preset.headline
        number = ""
        if result is not None:
            # The mark is not to stand on a line of its own.
            number = result_text(result).replace("\N{NO-BREAK SPACE}%", "%")
            number += "*" if result.is_published else ""
        table.add_row(
            preset.name,
            f"{preset.parameters / 1e6:.1f} M" if preset.parameters else "",
            "no" if preset.weights is None else "yes",
            number,
        )
    return table
