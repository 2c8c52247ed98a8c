"""What a sweep runs: rows of recipes, learning rates to try, seeds, protocols."""

import contextlib
import dataclasses
import itertools
import json
import pathlib
import re
import tomllib

from keras_kssl._checks import check_choice, check_integer, check_that, message
from keras_kssl.recipes import Recipe

RATES = ("learning_rate", "base_learning_rate")
# What a sweep judges by; its runs never see these images.
_JUDGED = {"eval_train": None, "eval_test": None, "eval_every": None}


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: a recipe, and the learning rates that are tried for it.

    Attributes:
        name: what people call it.
        recipe: `recipes.Recipe`, whose seed does not count.
        rates: learning rates to choose from; empty for the recipe's own.
        option: option of the recipe that they are values of.
    """

    name: str
    recipe: Recipe
    rates: tuple[float, ...] = ()
    option: str = RATES[0]

    def __post_init__(self):
        check_choice("sweep", "option", self.option, RATES)
        check_that(self.slug.strip("._"), "sweep", "row", "a name", self.name)
        for name, rule in (("data", "given"), ("eval_test", "given: the test images")):
            value = getattr(self.recipe, name)
            check_that(value is not None, f"sweep {self.name}", name, rule, value)
        for rate in self.rates:
            self.run(0, rate)

    @property
    def slug(self):
        """The name as that of a folder."""
        return re.sub(r"[^\w.+=-]+", "_", self.name)

    def run(self, seed, rate=None):
        """The recipe of one run, which sees no image of the judges."""
        chosen = {} if rate is None else {self.option: rate}
        return dataclasses.replace(self.recipe, seed=seed, **_JUDGED, **chosen)


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that a sweep runs.

    Attributes:
        rows: `Row`s, with names of their own.
        seeds: seeds of the runs of every row. Default 0, 1, 2.
        protocols: what is measured of each, names as in `evaluation.evaluate`.
        changes: settings other than the protocols' own, likewise.
        choose_by: protocol by which a learning rate is chosen. Default `knn`.
        validation: labelled images that it is measured on. Default: a tenth of the
            judges' training images, which for the choice are not learned from.
        tuning_seed: seed of the runs among which is chosen. Default: the first one.
        baselines: whether untrained encoders and raw pixels are judged too.
    """

    rows: tuple[Row, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    protocols: tuple[str, ...] = ("knn", "linear", "finetune-1")
    changes: dict = dataclasses.field(default_factory=dict)
    choose_by: str = "knn"
    validation: str | None = None
    tuning_seed: int | None = None
    baselines: bool = True

    def __post_init__(self):
        for name in ("rows", "seeds", "protocols"):
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)
            check_that(len(values) > 0, "sweep", name, "one or more", values)
            keys = [row.slug if name == "rows" else row for row in values]
            is_unique = len(set(keys)) == len(keys)
            check_that(is_unique, "sweep", name, "different from each other", keys)
        if self.tuning_seed is None:
            object.__setattr__(self, "tuning_seed", self.seeds[0])
        for seed in (*self.seeds, self.tuning_seed):
            check_integer("sweep", "seeds", seed, minimum=0)


def grid_rows(base, texts, rates=(), option=RATES[0]):
    """Rows for all combinations of values of options.

    Args:
        base: dictionary of the recipe's options, for all rows.
        texts: "OPTION=VALUE,VALUE,..."; a list of numbers is written "512/512".
        rates, option: as in `Row`.

    >>> base = {"data": "builtin:digits:train", "eval_test": "builtin:digits:test"}
    >>> rows = grid_rows(base, ["method=ssl_hsic,sfrik", "projector=64/32,none"])
    >>> [row.name for row in rows[:2]]
    ['ssl_hsic, projector=64/32', 'ssl_hsic, projector=none']
    >>> rows[0].recipe.projector, rows[1].recipe.projector
    ((64, 32), None)
    """
    axes = []
    for text in texts:
        name, _, values = text.partition("=")
        rule = "OPTION=VALUE,VALUE,..., such as method=ssl_hsic,sfrik"
        check_that(name and values, "sweep", "grid", rule, text)
        axes.append([(name.strip(), value.strip()) for value in values.split(",")])
    rows = []
    for chosen in itertools.product(*axes):
        options = base | {name: _value(text) for name, text in chosen}
        parts = [
            text if name == "method" else f"{name}={text}" for name, text in chosen
        ]
        recipe = _recipe("grid", options)
        rows.append(
            Row(", ".join(parts) or recipe.method, recipe, tuple(rates), option)
        )
    return tuple(rows)


def read_plan(path, options=None, **changes):
    """The `Plan` of a file.

    A TOML or JSON file with the names of `Plan`'s attributes, of which `rows` is a
    table: from a row's name to what is other in it than in the table `recipe`, options
    of `recipes.Recipe`; besides, `learning_rates` or `base_learning_rates`, the values
    to choose from.

    Args:
        path: the file, .toml or .json.
        options: options of the recipe for all rows, instead of those in `recipe`.
        changes: attributes of the plan, instead of those in the file.

    Raises:
        ValueError, TypeError: for another form, unknown names and wrong values.
    """
    values = _read(pathlib.Path(path).expanduser())
    known = [field.name for field in dataclasses.fields(Plan)]
    for name in values:
        check_choice("sweep", f"{path}", name, [*known, "recipe"])
    base = _table("recipe", values.pop("recipe", {})) | (options or {})
    rows = _table("rows", values.get("rows", {}))
    values["rows"] = [_row(name, base, _table(name, row)) for name, row in rows.items()]
    return Plan(**values | changes)


def _row(name, base, changes):
    given = [rate for rate in RATES if f"{rate}s" in changes]
    rule = "one of learning_rates and base_learning_rates"
    check_that(len(given) < 2, "sweep", name, rule, given)
    option = given[0] if given else RATES[0]
    rates = changes.get(f"{option}s", [])
    rest = {key: value for key, value in changes.items() if key != f"{option}s"}
    if not isinstance(rates, list):
        raise TypeError(message("sweep", f"{option}s", "a list of numbers", rates))
    return Row(name, _recipe(name, base | rest), tuple(rates), option)


def _recipe(name, options):
    check_that(
        "seed" not in options,
        "sweep",
        "seed",
        "left out: `seeds` are those of all rows",
        options.get("seed"),
    )
    try:
        return Recipe.from_json(json.dumps(options))
    except (ValueError, TypeError) as error:
        raise type(error)(f"sweep {name}: {error}") from None


def _read(path):
    try:
        text = path.read_text(encoding="utf-8")
        load = json.loads if path.suffix.lower() == ".json" else tomllib.loads
        return _table(str(path), load(text))
    except UnicodeDecodeError as error:
        why = error
    except ValueError as error:
        why = error
    raise ValueError(f"sweep: {str(path)!r} must be TOML or JSON. Received: {why}.")


def _table(name, value):
    if not isinstance(value, dict):
        raise TypeError(message("sweep", name, "a table of names and values", value))
    return value


def _value(text):
    """What a word of the command line stands for in a recipe."""
    words = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    parts = []
    for part in text.split("/"):
        for kind in (int, float):
            with contextlib.suppress(ValueError):
                parts.append(kind(part))
                break
        else:
            return text
    return parts[0] if len(parts) == 1 else parts
