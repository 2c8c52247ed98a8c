"""Sweeps: many recipes and seeds, one after another, in one table."""

from keras_kssl.sweeping.plan import Plan, Row, grid_rows, read_plan
from keras_kssl.sweeping.sweep import sweep

__all__ = ["Plan", "Row", "grid_rows", "read_plan", "sweep"]
