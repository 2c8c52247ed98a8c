"""Sweeps: many recipes and seeds, one after another, in one table."""

from keras_kssl.sweeping.course import sweep
from keras_kssl.sweeping.plan import Plan, Row, grid_rows, read_plan

__all__ = ["Plan", "Row", "grid_rows", "read_plan", "sweep"]
