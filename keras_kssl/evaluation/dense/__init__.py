"""Dense tasks from a pretrained encoder: segmentation, object detection and depth."""

from keras_kssl.evaluation.dense.depth import depth
from keras_kssl.evaluation.dense.detection import detection
from keras_kssl.evaluation.dense.maps import dilated, feature_maps
from keras_kssl.evaluation.dense.metrics import (
    average_precision,
    average_precision_50,
    box_iou,
    class_iou,
    confusion_matrix,
    depth_errors,
    mean_iou,
)
from keras_kssl.evaluation.dense.opening import open_set
from keras_kssl.evaluation.dense.segmentation import segmentation
from keras_kssl.evaluation.dense.sets import DenseSet

__all__ = [
    "DenseSet",
    "average_precision",
    "average_precision_50",
    "box_iou",
    "class_iou",
    "confusion_matrix",
    "depth",
    "depth_errors",
    "detection",
    "dilated",
    "feature_maps",
    "mean_iou",
    "open_set",
    "segmentation",
]
