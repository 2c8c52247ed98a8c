"""Objectives: embeddings of several views of a batch in, one scalar to minimise out."""

from keras_kssl.objectives.barlow_twins import BarlowTwins
from keras_kssl.objectives.byol import BYOL
from keras_kssl.objectives.hsic import HSIC
from keras_kssl.objectives.objective import Objective
from keras_kssl.objectives.sfrik import SFRIK
from keras_kssl.objectives.simclr import SimCLR
from keras_kssl.objectives.uniformity import AlignmentUniformity
from keras_kssl.objectives.vicreg import VICReg

__all__ = [
    "BYOL",
    "HSIC",
    "SFRIK",
    "AlignmentUniformity",
    "BarlowTwins",
    "Objective",
    "SimCLR",
    "VICReg",
]
