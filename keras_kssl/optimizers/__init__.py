"""Optimizers and schedules of large-batch self-supervised training."""

from keras_kssl.optimizers.adam import Adam
from keras_kssl.optimizers.lars import LARS, lars_step
from keras_kssl.optimizers.momentum import Momentum
from keras_kssl.optimizers.schedules import TargetDecay, WarmupCosine, warmup_cosine

__all__ = [
    "LARS",
    "Adam",
    "Momentum",
    "TargetDecay",
    "WarmupCosine",
    "lars_step",
    "warmup_cosine",
]
