"""Whether a value is of the kind that an option's annotation says."""

import typing
from typing import Literal

from keras_kssl._checks import check_number, message


def check_kind(name, value, annotation):
    """Raises `TypeError` where a value is not of the kind that an option takes."""
    kinds = typing.get_args(annotation) or (annotation,)
    if typing.get_origin(annotation) in (Literal, tuple):
        kinds = (annotation,)
    for kind in kinds:
        origin = typing.get_origin(kind)
        if origin is Literal and (isinstance(value, str) or None in kinds):
            return
        if origin is tuple and isinstance(value, tuple):
            for part in value:
                check_number("recipe", name, part)
            return
        if kind is type(None) and value is None:
            return
        # Numbers have checks of their own, with limits.
        if kind in (int, float) and value is not None:
            return
        if isinstance(kind, type) and type(value) is kind:
            return
    rule = " or ".join(_kind_name(kind) for kind in kinds)
    raise TypeError(message("recipe", name, rule, value))


def _kind_name(kind):
    names = {str: "text", bool: "true or false", type(None): "left out"}
    names |= {int: "an integer", float: "a number"}
    if typing.get_origin(kind) is tuple:
        return "a list of numbers"
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(kind)))
    return names.get(kind, getattr(kind, "__name__", str(kind)))


def choices(annotation):
    """Values that a `Literal`, or a union with one, allows; `None` for other types."""
    for part in (annotation, *typing.get_args(annotation)):
        if typing.get_origin(part) is Literal:
            return typing.get_args(part)
    return None
