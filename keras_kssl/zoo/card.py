"""The card of a preset: what it is, how good it is, whose it is, as plain data."""

import dataclasses
import json
import pathlib

from keras_kssl._checks import check_choice, check_that, message
from keras_kssl.recipes import Recipe

NO_WEIGHTS = "recipe only, no weights yet"
AS_PUBLISHED = "as published, not re-measured by us"
# Of whose features an accuracy is.
SUBJECTS = ("encoder", "untrained encoder", "raw pixels")
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Weights:
    """Where an encoder's weights are."""

    file: str
    """An address that `zoo.load` takes, or a file in the card's own folder."""
    num_bytes: int | None = None
    """Size of the file; `None` where it is not known."""
    sha256: str | None = None
    """SHA-256 of the file in hexadecimal digits; `None` where it is not known."""


@dataclasses.dataclass(frozen=True)
class Result:
    """One number, and how it came about."""

    protocol: str
    """How it was measured, in words."""
    data: str
    """On which images."""
    score: str
    """Name of what was measured, such as top-1."""
    mean: float
    """The number; a share in [0, 1] for accuracies."""
    std: float | None = None
    """Standard deviation over seeds, where there are several."""
    seeds: int = 1
    """Number of seeds."""
    subject: str = "encoder"
    """Whose number: encoder, untrained encoder or raw pixels."""
    is_published: bool = False
    """Whether it is quoted instead of measured with this library."""
    date: str = ""
    """When it was measured, "" where that is not known."""

    def __post_init__(self):
        check_choice("card", "subject", self.subject, SUBJECTS)


@dataclasses.dataclass(frozen=True)
class Preset:
    """A recipe, what has come of it, and where its weights are, if there are any.

    `to_json` and `from_json` turn it into the text of a card.json and back.
    """

    name: str
    """Method, encoder and data, such as sfrik_resnet18_stl10."""
    description: str
    """What it is, in one sentence."""
    recipe: Recipe
    """How it is trained."""
    data: str
    """Which images the recipe is meant for, and how to name them on the command
    line."""
    licence: str
    """Terms of the weights and of the data, as far as they are known."""
    source: tuple[str, ...]
    """Where it comes from: papers, programs, runs, with their addresses."""
    parameters: int | None = None
    """Number of trainable parameters of the encoder."""
    num_features: int | None = None
    """Width of its features."""
    weights: Weights | None = None
    """Where its weights are; `None` for a recipe alone."""
    results: tuple[Result, ...] = ()
    """What was measured, the number to be known by first."""
    limits: tuple[str, ...] = ()
    """Sentences on what it is not good for, and how it differs from its source."""
    trained: dict = dataclasses.field(default_factory=dict)
    """Facts of the training, by name: date, time, machine, versions."""

    def __post_init__(self):
        for name in ("source", "results", "limits"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        is_plain = bool(self.name) and all(c.isalnum() or c in "_-." for c in self.name)
        rule = "letters, digits, dots, dashes and underscores"
        check_that(is_plain, "card", "name", rule, self.name)

    @property
    def headline(self):
        """The first number of the trained encoder; `None` where there is none."""
        own = [result for result in self.results if result.subject == "encoder"]
        return own[0] if own else None

    def to_json(self):
        fields = dataclasses.asdict(self)
        return json.dumps({"format": _FORMAT, **fields}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text):
        """A preset from what `to_json` returned; unknown names are refused."""
        try:
            values = json.loads(text)
        except ValueError as error:
            rule = "JSON"
            raise ValueError(message("card", "text", rule, str(error))) from None
        if not isinstance(values, dict):
            raise TypeError(message("card", "text", "a JSON object", values))
        check_choice("card", "format", values.pop("format", None), (_FORMAT,))
        recipe = values.get("recipe")
        if isinstance(recipe, dict):
            values["recipe"] = Recipe.from_json(json.dumps(recipe))
        values["weights"] = _made(Weights, values.get("weights"))
        results = values.get("results", ())
        values["results"] = tuple(_made(Result, result) for result in results)
        return _made(cls, values)

    @classmethod
    def read(cls, path):
        """The preset of a card.json."""
        path = pathlib.Path(path)
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is no card of a preset: {error}") from None


def _made(kind, values):
    """An instance of a dataclass from a dictionary of its fields."""
    if values is None:
        return None
    if not isinstance(values, dict):
        raise TypeError(message("card", kind.__name__, "a JSON object", values))
    known = {field.name for field in dataclasses.fields(kind)}
    for name in values:
        check_choice("card", "name", name, sorted(known))
    return kind(**values)
