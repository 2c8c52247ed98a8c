"""Stochastic gradient descent with momentum, the learning rate outside the buffer."""

import keras
from keras import ops

from keras_kssl._checks import check_number, check_that
from keras_kssl._fusing import fused_momentum, has_fused_update


@keras.saving.register_keras_serializable(package="keras_kssl")
class Momentum(keras.optimizers.Optimizer):
    """Gradient descent with momentum as PyTorch and optax have it.

    Formula, for gradient g, buffer m, momentum u::

        m = u m + g
        p = p - learning_rate m                  or, with Nesterov's momentum,
        p = p - learning_rate (g + u m)

    `keras.optimizers.SGD` keeps learning_rate g in its buffer instead: equal for a
    constant learning rate, another method for one that falls.

    Args:
        learning_rate: number of at least 0, or a schedule.
        momentum: in [0, 1). Default 0.9.
        nesterov: whether the momentum is Nesterov's. Default False.
        name: name of the optimizer.
        **kwargs: further arguments of `keras.optimizers.Optimizer`.

    >>> p = keras.Variable([1.0])
    >>> optimizer = Momentum(learning_rate=0.1, momentum=0.5)
    >>> for _ in range(2):
    ...     optimizer.apply([ops.array([1.0])], [p])
    >>> round(float(p[0]), 6)
    0.75
    """

    def __init__(
        self, learning_rate, momentum=0.9, nesterov=False, name="momentum", **kwargs
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = check_number("Momentum", "momentum", momentum, 0.0, 1.0)
        check_that(momentum < 1, "Momentum", "momentum", "below 1", momentum)
        self.nesterov = nesterov

    def build(self, variables):
        """Creates a buffer for each of `variables`."""
        if self.built:
            return
        super().build(variables)
        self.momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient, variable, learning_rate):
        """Moves one variable and its buffer."""
        buffer = self.momentums[self._get_variable_index(variable)]
        move(
            *(self, variable, buffer, gradient, learning_rate),
            *(self.momentum, self.nesterov),
        )

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "nesterov": self.nesterov,
        }


def move(
    optimizer, variable, buffer, gradient, learning_rate, momentum, nesterov=False
):
    """Moves a variable of an optimizer and its buffer as `Momentum` says.

    What is not float64 is computed in float32.
    """
    dtype = keras.backend.result_type(variable.dtype, "float32")
    if has_fused_update(variable, buffer):
        gradient, learning_rate = (
            ops.cast(x, dtype) for x in (gradient, learning_rate)
        )
        fused_momentum(variable, buffer, gradient, learning_rate, momentum, nesterov)
        return
    value, moved, gradient, learning_rate = (
        ops.cast(x, dtype) for x in (variable, buffer, gradient, learning_rate)
    )
    moved = momentum * moved + gradient
    step = gradient + momentum * moved if nesterov else moved
    optimizer.assign(buffer, ops.cast(moved, buffer.dtype))
    optimizer.assign(variable, ops.cast(value - learning_rate * step, variable.dtype))
