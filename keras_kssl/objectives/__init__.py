"""Objectives: embeddings of several views of a batch in, one scalar to minimise out."""

from keras_kssl.objectives.hsic import HSIC
from keras_kssl.objectives.objective import Objective
from keras_kssl.objectives.sfrik import SFRIK

__all__ = ["HSIC", "SFRIK", "Objective"]
