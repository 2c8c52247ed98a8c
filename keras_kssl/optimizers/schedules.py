"""Schedules: the learning rate, and the averaging rate of the target network.

Steps are counted in integers and only their ratios become floating-point numbers, and a
cosine decay is written as a squared sine of the remaining fraction,
(1 + cos(pi t / T)) / 2 = sin(pi (T - t) / (2 T))^2, which loses no digits near its end.
"""

import math

import keras
from keras import ops

from keras_kssl._checks import check_integer, check_number, check_that


def cosine_decay(step, start, end):
    """Half a cosine from 1 at step `start` to 0 at step `end`, constant outside.

    Formula: (1 + cos(pi (step - start) / (end - start))) / 2.

    Args:
        step: integer, or integer or floating-point tensor of any shape.
        start: integer.
        end: integer above `start`.

    Returns:
        Tensor of the shape of `step`; float32, or float64 if that is Keras's floatx.

    >>> round(float(cosine_decay(75, start=0, end=100)), 6)
    0.146447
    """
    remaining = ops.clip(end - ops.convert_to_tensor(step), 0, end - start)
    fraction = ops.cast(remaining, _schedule_dtype()) / (end - start)
    return ops.square(ops.sin((0.5 * math.pi) * fraction))


def _schedule_dtype():
    return keras.backend.result_type(keras.config.floatx(), "float32")


@keras.saving.register_keras_serializable(package="keras_kssl")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate that rises linearly from 0, then falls along half a cosine.

    Formula, for step t, peak p, warm-up W, total T, final fraction f::

        p * t / W                                                    for t < W
        p * (f + (1 - f) * (1 + cos(pi * (t - W) / (T - W))) / 2)    for W <= t <= T

    and p * f after T. The first step, t = 0, has learning rate 0. The last step of a
    training of T steps is T - 1, so p * f itself is approached, not used.

    Args:
        peak: largest learning rate, above 0.
        warmup_steps: steps of the rise, at least 0, below `total_steps`.
        total_steps: steps of the whole training, at least 1.
        final_fraction: end of the fall as a fraction of `peak`, in [0, 1]. Default 0.0,
            as SSL-HSIC has it; SFRIK ends at 0.001.

    Raises:
        ValueError: for numbers out of range.
        TypeError: for step counts that are no integers.

    >>> schedule = WarmupCosine(peak=3.2, warmup_steps=10, total_steps=20)
    >>> [round(float(schedule(step)), 4) for step in (0, 1, 10, 15, 20)]
    [0.0, 0.32, 3.2, 1.6, 0.0]

    References:
        - SSL-HSIC: 10 epochs of rise to 0.4 * batch / 256, 1000 epochs in total.
        - SFRIK, VICReg: the same rise, the fall ending at 0.001 of the peak.
    """

    def __init__(self, peak, warmup_steps, total_steps, final_fraction=0.0):
        name = type(self).__name__
        self.peak = check_number(name, "peak", peak, minimum=0.0)
        check_that(peak > 0, name, "peak", "above 0", peak)
        self.total_steps = check_integer(name, "total_steps", total_steps, minimum=1)
        self.warmup_steps = check_integer(name, "warmup_steps", warmup_steps, minimum=0)
        check_that(
            warmup_steps < total_steps,
            name,
            "warmup_steps",
            f"below total_steps={total_steps}",
            warmup_steps,
            "Train for more epochs or shorten the warm-up.",
        )
        self.final_fraction = check_number(
            name, "final_fraction", final_fraction, 0.0, 1.0
        )

    def __call__(self, step):
        step = ops.convert_to_tensor(step)
        cosine = cosine_decay(step, self.warmup_steps, self.total_steps)
        fall = self.final_fraction + (1.0 - self.final_fraction) * cosine
        rise = ops.cast(step, fall.dtype) / max(self.warmup_steps, 1)
        return self.peak * ops.where(step < self.warmup_steps, rise, fall)

    def get_config(self):
        return {
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
            "final_fraction": self.final_fraction,
        }


def warmup_cosine(peak, warmup_steps, total_steps, final_fraction=0.0):
    """Learning rate that rises linearly from 0, then falls along half a cosine.

    See `WarmupCosine` for the formula and the arguments.

    >>> schedule = warmup_cosine(peak=3.2, warmup_steps=10, total_steps=20)
    >>> round(float(schedule(5)), 4)
    1.6
    """
    return WarmupCosine(peak, warmup_steps, total_steps, final_fraction)


@keras.saving.register_keras_serializable(package="keras_kssl")
class TargetDecay:
    """Averaging rate tau of a target network, rising from `initial` to 1.

    The target moves by target += (1 - tau) (online - target) after each step: ever more
    slowly, and no more at the end. Formula, for step t of T::

        tau = 1 - (1 - initial) * (1 + cos(pi * t / T)) / 2

    and 1 after T.

    Args:
        total_steps: steps T of the whole training, at least 1.
        initial: tau at step 0, in [0, 1]. Default 0.99.

    Raises:
        ValueError: for numbers out of range.
        TypeError: for a step count that is no integer.

    >>> tau = TargetDecay(total_steps=100)
    >>> [round(float(tau(step)), 4) for step in (0, 50, 100, 101)]
    [0.99, 0.995, 1.0, 1.0]

    References:
        - Grill et al. 2020, "Bootstrap Your Own Latent", https://arxiv.org/abs/2006.07733,
          with 0.996 in place of the 0.99 that SSL-HSIC uses.
    """

    def __init__(self, total_steps, initial=0.99):
        self.total_steps = check_integer(
            "TargetDecay", "total_steps", total_steps, minimum=1
        )
        self.initial = check_number("TargetDecay", "initial", initial, 0.0, 1.0)

    def __call__(self, step):
        return 1.0 - (1.0 - self.initial) * cosine_decay(step, 0, self.total_steps)

    def get_config(self):
        return {"total_steps": self.total_steps, "initial": self.initial}

    @classmethod
    def from_config(cls, config):
        return cls(**config)
