"""Images to train on and to evaluate with: sources, and batches in a seeded order."""

from keras_kssl.data.pipeline import Batches, load
from keras_kssl.data.sources import ArraySource, open_source

__all__ = ["ArraySource", "Batches", "load", "open_source"]
