"""Images to train on and to evaluate with: sources, and batches in a seeded order."""

from keras_kssl.data.arrays import ArraySource
from keras_kssl.data.classes import labels_like
from keras_kssl.data.encoded import EncodedSource, TooManyBroken
from keras_kssl.data.files import FileSource
from keras_kssl.data.joined import join
from keras_kssl.data.moments import channel_moments
from keras_kssl.data.pipeline import Batches, load
from keras_kssl.data.sources import open_source

__all__ = [
    "ArraySource",
    "Batches",
    "EncodedSource",
    "FileSource",
    "TooManyBroken",
    "channel_moments",
    "join",
    "labels_like",
    "load",
    "open_source",
]
