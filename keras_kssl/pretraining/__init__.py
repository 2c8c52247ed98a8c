"""Whole runs: from a recipe to a folder with a trained encoder in it."""

from keras_kssl.pretraining.failures import RunFailed, RunInterrupted
from keras_kssl.pretraining.run import Run, describe_summary, pretrain

__all__ = ["Run", "RunFailed", "RunInterrupted", "describe_summary", "pretrain"]
