"""Recipes: a whole pretraining run as plain data, for Python, files and flags alike.

Nothing here loads a deep-learning framework, so that the command line answers at once.
"""

from keras_kssl.recipes.built_in import quickstart
from keras_kssl.recipes.defaults import Facts
from keras_kssl.recipes.methods import METHOD_OPTIONS, Method, Policy, published_crops
from keras_kssl.recipes.recipe import Recipe

__all__ = [
    "METHOD_OPTIONS",
    "Facts",
    "Method",
    "Policy",
    "Recipe",
    "published_crops",
    "quickstart",
]
