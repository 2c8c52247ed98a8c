"""Checks of what users pass in: the one author of the library's error messages.

Every message has three parts: the rule, what was received, and what to do::

    SFRIK: `coefficients` must be non-negative numbers. Received:
    coefficients=(1.0, -2.0). A negative one makes the kernel indefinite.
"""

import difflib
import math
import numbers


def message(caller, argument, rule, value, remedy=""):
    """One error message in the library's form."""
    text = f"{caller}: `{argument}` must be {rule}. Received: {argument}={value!r}."
    return f"{text} {remedy}" if remedy else text


def check_that(condition, caller, argument, rule, value, remedy=""):
    """Raises `ValueError` unless `condition` holds."""
    if not condition:
        raise ValueError(message(caller, argument, rule, value, remedy))


def check_number(
    caller, argument, value, minimum=-math.inf, maximum=math.inf, exclusive=False
):
    """Checks a finite real number in [minimum, maximum] and returns it as a float.

    With `exclusive`, both limits are left out.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(message(caller, argument, "a number", value))
    within = minimum < value < maximum if exclusive else minimum <= value <= maximum
    check_that(
        within and math.isfinite(value),
        caller,
        argument,
        _range_rule("a finite number", minimum, maximum, exclusive),
        value,
    )
    return float(value)


def check_integer(caller, argument, value, minimum=-math.inf, maximum=math.inf):
    """Checks an integer in [minimum, maximum] and returns it as an int."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(message(caller, argument, "an integer", value))
    rule = _range_rule("an integer", minimum, maximum, exclusive=False)
    check_that(minimum <= value <= maximum, caller, argument, rule, value)
    return int(value)


def check_choice(caller, argument, value, choices):
    """Checks that `value` is one of `choices`; names the nearest when it is not."""
    choices = list(choices)
    if value in choices:
        return value
    near = difflib.get_close_matches(str(value), [str(c) for c in choices], n=1)
    rule = "one of " + ", ".join(repr(choice) for choice in choices)
    remedy = f"Did you mean {near[0]!r}?" if near else ""
    raise ValueError(message(caller, argument, rule, value, remedy))


def check_rank(caller, argument, array, rank, axes):
    """Checks the number of axes of an array; `axes` names them, as in "(n, d)"."""
    if not hasattr(array, "shape"):
        # The command line answers without NumPy, which takes a tenth of a second.
        import numpy as np

        array = np.asarray(array)
    shape = tuple(array.shape)
    if len(shape) != rank:
        raise ValueError(
            f"{caller}: `{argument}` must have {rank} axes, {axes}. "
            f"Received: {argument} of shape {shape}."
        )
    return shape


def _range_rule(kind, minimum, maximum, exclusive):
    if math.isinf(minimum) and math.isinf(maximum):
        return kind
    if math.isinf(maximum):
        return f"{kind} {'above' if exclusive else 'of at least'} {minimum}"
    if math.isinf(minimum):
        return f"{kind} {'below' if exclusive else 'of at most'} {maximum}"
    return f"{kind} {'strictly ' if exclusive else ''}between {minimum} and {maximum}"
