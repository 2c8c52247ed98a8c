"""Argument checks: what they let through and what they say."""

import math

import numpy as np
import pytest

from keras_kssl import _checks

pytestmark = pytest.mark.any_backend


def test_message_names_rule_value_and_remedy_in_this_order():
    text = _checks.message("LARS", "momentum", "at most 1", 2.0, "Take 0.9.")
    assert text == (
        "LARS: `momentum` must be at most 1. Received: momentum=2.0. Take 0.9."
    )


@pytest.mark.parametrize("value", [0, 1, 0.5, np.float32(0.25), np.int64(1)])
def test_numbers_within_limits_become_floats(value):
    found = _checks.check_number("here", "share", value, 0.0, 1.0)
    assert type(found) is float
    assert found == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_are_finite_even_without_limits(value):
    with pytest.raises(ValueError, match="`share` must be a finite number"):
        _checks.check_number("here", "share", value)


@pytest.mark.parametrize("value", [True, "1", None, 1j, [1.0]])
def test_other_kinds_are_no_numbers(value):
    with pytest.raises(TypeError, match="`share` must be a number"):
        _checks.check_number("here", "share", value)


def test_limits_belong_to_the_range_unless_exclusive():
    assert _checks.check_number("here", "share", 1.0, 0.0, 1.0) == 1.0
    with pytest.raises(ValueError, match=r"strictly between 0\.0 and 1\.0"):
        _checks.check_number("here", "share", 1.0, 0.0, 1.0, exclusive=True)
    with pytest.raises(ValueError, match=r"above 0\.0\. Received: share=0"):
        _checks.check_number("here", "share", 0, 0.0, exclusive=True)


@pytest.mark.parametrize("value", [2.0, "2", True, None])
def test_other_kinds_are_no_integers(value):
    with pytest.raises(TypeError, match="`count` must be an integer"):
        _checks.check_integer("here", "count", value)


def test_integers_outside_the_range_are_refused_with_the_range():
    assert _checks.check_integer("here", "count", np.int32(3), minimum=3) == 3
    with pytest.raises(ValueError, match=r"of at least 3\. Received: count=2\."):
        _checks.check_integer("here", "count", 2, minimum=3)
    with pytest.raises(ValueError, match="between 1 and 5"):
        _checks.check_integer("here", "count", 6, minimum=1, maximum=5)


def test_wrong_choice_lists_the_choices_and_names_the_nearest():
    assert _checks.check_choice("here", "stem", "cifar", ("imagenet", "cifar"))
    with pytest.raises(ValueError, match=r"'imagenet', 'cifar'.*Did you mean 'cifar'"):
        _checks.check_choice("here", "stem", "cifer", ("imagenet", "cifar"))
    with pytest.raises(ValueError, match="Received: stem=7") as caught:
        _checks.check_choice("here", "stem", 7, ("imagenet", "cifar"))
    assert "Did you mean" not in str(caught.value)


def test_wrong_rank_tells_the_axes_and_the_shape():
    assert _checks.check_rank("here", "x", np.zeros((3, 5)), 2, "(n, d)") == (3, 5)
    with pytest.raises(ValueError, match=r"2 axes, \(n, d\).*shape \(3,\)"):
        _checks.check_rank("here", "x", np.zeros(3), 2, "(n, d)")
