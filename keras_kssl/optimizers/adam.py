"""Adam as Keras has it, by one kernel where there is one."""

import keras
from keras import ops

from keras_kssl._fusing import fused_adam, has_fused_update


@keras.saving.register_keras_serializable(package="keras_kssl")
class Adam(keras.optimizers.Adam):
    """`keras.optimizers.Adam`: the same rule, arguments and variables.

    Difference from Keras's: on TensorFlow one kernel moves an array and both of its
    moments, in place, where Keras has 37 operations for each array to trace and to run,
    with arrays of their own between them. So it is for float32 and float64 and without
    `amsgrad`; else, and on other backends, it is Keras's update.

    >>> p = keras.Variable([1.0])
    >>> Adam(learning_rate=0.1).apply([ops.array([3.0])], [p])
    >>> round(float(p[0]), 4)
    0.9

    References:
        Kingma and Ba, Adam: a method for stochastic optimization, 2015, the formula
        before section 2.1, with its "epsilon hat".
    """

    def update_step(self, gradient, variable, learning_rate):
        """Moves one variable and its moments."""
        index = self._get_variable_index(variable)
        moments = self._momentums[index], self._velocities[index]
        if self.amsgrad or not has_fused_update(variable, *moments):
            super().update_step(gradient, variable, learning_rate)
            return
        steps = ops.cast(self.iterations + 1, variable.dtype)
        decays = [
            ops.power(ops.cast(beta, variable.dtype), steps)
            for beta in (self.beta_1, self.beta_2)
        ]
        fused_adam(
            *(variable, *moments),
            ops.cast(gradient, variable.dtype),
            ops.cast(learning_rate, variable.dtype),
            decays,
            (self.beta_1, self.beta_2, self.epsilon),
        )
