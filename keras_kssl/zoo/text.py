"""A card as text that people read, in Markdown."""

import dataclasses
import math
import shlex

from keras_kssl.recipes import METHOD_OPTIONS, Recipe
from keras_kssl.report.wording import duration, method_name, score_text, value_text
from keras_kssl.zoo.card import AS_PUBLISHED, NO_WEIGHTS

_BYTES_PER_NUMBER = 4
_UNITS = ("bytes", "kB", "MB", "GB")


def markdown(preset):
    """The card of a preset as Markdown.

    Example:

    >>> import keras_kssl as kssl
    >>> card = kssl.zoo.markdown(kssl.zoo.presets()["sfrik_resnet18_stl10"])
    >>> "recipe only, no weights yet" in card
    True
    """
    recipe = preset.recipe
    lines = [f"# {preset.name}", "", preset.description, ""]
    lines += [f"- Method: {method_name(recipe.method)}"]
    lines += [f"- Encoder: {_encoder(preset)}"]
    lines += [f"- Weights: {weights_text(preset)}"]
    lines += [f"- Licence: {preset.licence}", "", "## Load", "", *_load(preset)]
    lines += ["", "## Numbers", "", *_numbers(preset)]
    if preset.limits:
        lines += ["", "## Limits", "", *(f"- {limit}" for limit in preset.limits)]
    lines += ["", "## Data", "", preset.data, "", "## Recipe", ""]
    lines += ["| option | value |", "|---|---|", *_options(recipe)]
    if preset.trained:
        lines += ["", "As a command:", "", f"    {command(recipe)}"]
        lines += ["", "## Training", ""]
        lines += [f"- {_named(name)}: {v}" for name, v in _facts(preset.trained)]
    lines += ["", "## Source", "", *(f"- {source}" for source in preset.source)]
    return "\n".join(lines) + "\n"


def command(recipe):
    """The command that trains by a recipe, all that is no default written out."""
    words = ["kssl", "pretrain"]
    for field in dataclasses.fields(Recipe):
        value = getattr(recipe, field.name)
        if value != field.default:
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{field.name.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)


def weights_text(preset):
    """Where weights are and how large, or that there are none."""
    weights = preset.weights
    if weights is None:
        return NO_WEIGHTS
    size = "size not known"
    if weights.num_bytes is not None:
        size = bytes_text(weights.num_bytes)
    elif preset.parameters is not None:
        size = f"about {bytes_text(_BYTES_PER_NUMBER * preset.parameters)}"
    digest = "SHA-256 not known"
    if weights.sha256 is not None:
        digest = f"SHA-256 {weights.sha256}"
    return f"{weights.file} ({size}, {digest})"


def bytes_text(count):
    """A size as people say it: "94.0 MB"."""
    if count < 1000:
        return f"{count} bytes"
    power = min(3, int(math.log10(count)) // 3)
    return f"{count / 1000**power:.1f} {_UNITS[power]}"


def result_text(result):
    """A number as people read it: "top-1 61.3 ± 0.4 % over 3 seeds"."""
    number = score_text(result.score, result.mean, result.std)
    if result.std is not None:
        number += f" over {result.seeds} seeds"
    return f"{result.score} {number}"


def _encoder(preset):
    recipe, parts = preset.recipe, []
    if preset.parameters is not None:
        parts.append(f"{preset.parameters:,} trainable parameters")
    if preset.num_features is not None:
        parts.append(f"features of width {preset.num_features}")
    name = recipe.encoder or "not set"
    if recipe.width != 1.0:
        name += f" of width {recipe.width:g}"
    return ", ".join([name, *parts])


def _load(preset):
    if preset.weights is None:
        data = "" if preset.recipe.data else " --data folder:DIR"
        return [
            f"There is nothing to load: {NO_WEIGHTS}. Train it:",
            "",
            f"    kssl pretrain --preset {preset.name}{data}",
        ]
    lines = ["Images are floats in [0, 1], (batch, height, width, channels)."]
    file, code = preset.weights.file, f'keras_kssl.zoo.load("{preset.name}")'
    if "://" not in file:
        lines[0] += " DIR is the folder of this card."
        code = 'keras_kssl.zoo.load("DIR")'
        if file.endswith(".pb"):
            code = 'tensorflow.saved_model.load("DIR")'
    return [*lines, "", f"    encoder = {code}", "    features = encoder(images)"]


def _numbers(preset):
    if not preset.results:
        return ["No numbers: nothing was measured."]
    lines = ["| of | number | protocol | data | |", "|---|---|---|---|---|"]
    for result in preset.results:
        origin = AS_PUBLISHED if result.is_published else f"measured {result.date}"
        cells = (
            result.subject,
            result_text(result),
            result.protocol,
            result.data,
            origin.strip(),
        )
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    return lines


def _options(recipe):
    """Rows of the options that are settled and that the method knows."""
    others = {name for names in METHOD_OPTIONS.values() for name in names}
    others -= set(METHOD_OPTIONS[recipe.method])
    for field in dataclasses.fields(Recipe):
        value = getattr(recipe, field.name)
        if value is not None and field.name not in others:
            yield f"| `{field.name}` | {_cell(value_text(value))} |"


def _facts(trained):
    for name, value in trained.items():
        if isinstance(value, dict):
            yield name, ", ".join(f"{key} {part}" for key, part in value.items())
        elif name == "seconds":
            yield "time", duration(value)
        else:
            yield name, value


def _named(name):
    return name.replace("_", " ").capitalize()


def _cell(text):
    """Text that breaks no table."""
    return " ".join(str(text).replace("|", "\\|").split())
