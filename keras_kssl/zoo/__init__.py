"""Encoders and recipes by name, each with a card that says what it is and how good."""

from keras_kssl.zoo.card import AS_PUBLISHED, NO_WEIGHTS, Preset, Result, Weights
from keras_kssl.zoo.catalogue import preset, presets
from keras_kssl.zoo.loading import load
from keras_kssl.zoo.run_card import NOT_STATED, card_of, card_of_run
from keras_kssl.zoo.text import markdown
from keras_kssl.zoo.writing import check_free, write_card

__all__ = [
    "AS_PUBLISHED",
    "NOT_STATED",
    "NO_WEIGHTS",
    "Preset",
    "Result",
    "Weights",
    "card_of",
    "card_of_run",
    "check_free",
    "load",
    "markdown",
    "preset",
    "presets",
    "write_card",
]
