"""What words of a command line stand for."""

import contextlib

from keras_kssl import recipes
from keras_kssl._checks import check_choice, check_that, message


def integers(argument, text):
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        rule = "integers separated by commas"
        raise ValueError(message("kssl", argument, rule, text)) from None


def numbers(argument, text):
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        rule = "numbers separated by commas"
        raise ValueError(message("kssl", argument, rule, text)) from None


def changes_of(texts):
    """Settings by protocol, from texts such as "knn.k=20" and "knn.k=10,20"."""
    changes = {}
    for text in texts:
        name, _, value = text.partition("=")
        protocol, _, setting = name.rpartition(".")
        rule = "PROTOCOL.SETTING=VALUE, such as finetune-100.steps=500"
        check_that(protocol and setting and value, "kssl", "change", rule, text)
        parts = [_number(part) for part in value.split(",")]
        parts = parts[0] if len(parts) == 1 else tuple(parts)
        changes.setdefault(protocol, {})[setting] = parts
    return changes


def _number(text):
    """A number, true or false, or else the text itself."""
    if text.strip().lower() in ("true", "false"):
        return text.strip().lower() == "true"
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text.strip()


def split(argument, text, choices):
    names = tuple(name.strip() for name in text.split(","))
    return tuple(check_choice("kssl", argument, name, choices) for name in names)


def unused(path):
    """A path that is not there yet: this one, or one with a number behind its name."""
    found, number = path, 1
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}_{number}{path.suffix}")
    return found


def load_encoder(path):
    """The encoder of a run folder, or of whatever else `zoo.load` takes."""
    from keras_kssl import zoo

    return zoo.load(path)


def size_of_run(path):
    """Side of the views that a run or a preset was trained on; `None` for a file."""
    recipe = path.expanduser() / "recipe.json"
    if recipe.is_file():
        return recipes.Recipe.read(recipe).size
    from keras_kssl import zoo

    preset = zoo.presets().get(str(path))
    return preset and preset.recipe.size
