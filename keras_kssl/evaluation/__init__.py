"""Judging an encoder by labels it has never seen in training."""

from keras_kssl.evaluation import dense
from keras_kssl.evaluation.extraction import extract
from keras_kssl.evaluation.features import extract_features
from keras_kssl.evaluation.few_shot import few_shot_accuracy
from keras_kssl.evaluation.knn import knn, knn_accuracy, knn_votes
from keras_kssl.evaluation.linear import linear_accuracy, linear_probe
from keras_kssl.evaluation.logistic import logistic_accuracy, logistic_regression
from keras_kssl.evaluation.metrics import score_predictions
from keras_kssl.evaluation.protocols import PROTOCOLS, describe_result, evaluate
from keras_kssl.evaluation.record import Record
from keras_kssl.evaluation.subsets import balanced_subset, listed_subset
from keras_kssl.evaluation.transfer import transfer_suite

__all__ = [
    "PROTOCOLS",
    "Record",
    "balanced_subset",
    "dense",
    "describe_result",
    "evaluate",
    "extract",
    "extract_features",
    "few_shot_accuracy",
    "knn",
    "knn_accuracy",
    "knn_votes",
    "linear_accuracy",
    "linear_probe",
    "listed_subset",
    "logistic_accuracy",
    "logistic_regression",
    "score_predictions",
    "transfer_suite",
]
