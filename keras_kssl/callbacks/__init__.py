"""Callbacks for `model.fit`: what is seen of training, and what lasts of it.

`OnlineKNN`, `OnlineProbe`, `CollapseMonitor`, `FineTuningMonitor` and `ProgressBar`
work in the `fit` of any Keras model; the others in that of any `SelfSupervisedModel`.
Those that put numbers into the logs stand before those that read them
(`keras.callbacks.CSVLogger`).
"""

from keras_kssl.callbacks.collapse import CollapseMonitor
from keras_kssl.callbacks.fine_tuning import FineTuningMonitor
from keras_kssl.callbacks.lasting import (
    Beat,
    CheckpointEvery,
    KeepMetrics,
    StopWhenLost,
)
from keras_kssl.callbacks.online import OnlineKNN, OnlineProbe
from keras_kssl.progress import ProgressBar

__all__ = [
    "Beat",
    "CheckpointEvery",
    "CollapseMonitor",
    "FineTuningMonitor",
    "KeepMetrics",
    "OnlineKNN",
    "OnlineProbe",
    "ProgressBar",
    "StopWhenLost",
]
