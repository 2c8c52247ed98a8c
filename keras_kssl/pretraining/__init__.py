"""Whole runs: from a recipe to a folder with a trained encoder in it."""

from keras_kssl.pretraining.failures import RunFailed, RunInterrupted
from keras_kssl.pretraining.run import Run, pretrain
from keras_kssl.pretraining.telling import describe_summary

__all__ = ["Run", "RunFailed", "RunInterrupted", "describe_summary", "pretrain"]
