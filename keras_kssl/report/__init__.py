"""Reports: what has come of a run, or of several, as one HTML file each."""

from keras_kssl.report.writing import write

__all__ = ["write"]
