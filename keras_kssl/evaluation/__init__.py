"""Judging an encoder by labels it has never seen in training."""

from keras_kssl.evaluation import dense
from keras_kssl.evaluation.extraction import extract
from keras_kssl.evaluation.features import extract_features
from keras_kssl.evaluation.knn import knn, knn_accuracy, knn_votes
from keras_kssl.evaluation.linear import linear_accuracy, linear_probe

__all__ = [
    "dense",
    "extract",
    "extract_features",
    "knn",
    "knn_accuracy",
    "knn_votes",
    "linear_accuracy",
    "linear_probe",
]
