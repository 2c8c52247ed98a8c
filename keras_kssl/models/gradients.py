"""The norm of the gradient, seen where the optimizer applies it."""

import keras
from keras import ops

from keras_kssl._fusing import squared_norm

# Tells a gradient of 0 from a step that loss scaling skips.
_TINY = 1e-30


class GradientNorm(keras.metrics.Metric):
    """Mean over steps of the norm of the gradient of all trainable variables together.

    The gradient is that of the loss without loss scaling and, on replicas, the one of
    the global batch, for which nothing more is exchanged. A step that loss scaling
    skips does not count. Where the optimizer clips gradients, TensorFlow gives the norm
    of what is left, JAX that before.

    `watch` comes before the first step is compiled, and `update_state()` in each step
    after the optimizer. Cost: one pass over the gradients.
    """

    def __init__(self, name="gradient_norm"):
        super().__init__(name=name)
        self.total, self.count, self.steps, self.squares = (
            self.add_variable((), "zeros", name=part)
            for part in ("total", "count", "steps", "squares")
        )
        self._norm = None

    def watch(self, optimizer):
        """Has an optimizer tell this metric of the gradients that it is given.

        A method is replaced on the instance, because Keras has no place in between: on
        TensorFlow gradients are summed over replicas inside the optimizer, and on JAX
        what it computes there reaches no metric.
        """
        if keras.backend.backend() == "jax":
            self._watch(optimizer, "stateless_apply", self._stateless_apply)
        else:
            inner = getattr(optimizer, "inner_optimizer", optimizer)
            self._watch(inner, "update_step", self._update_step)

    def _watch(self, optimizer, name, watching):
        usual = getattr(optimizer, name)
        # A model may be compiled again with the optimizer that it has.
        if getattr(usual, "metric", None) is not self:
            watched = watching(optimizer, usual)
            watched.metric = self
            setattr(optimizer, name, watched)

    def _stateless_apply(self, optimizer, usual):
        def stateless_apply(optimizer_variables, grads, trainable_variables):
            state = zip(optimizer.variables, optimizer_variables, strict=True)
            with keras.StatelessScope(state_mapping=list(state)):
                scale = optimizer.scale_loss(1.0)
            # For `update_state` in the trace of the same step.
            # Without the scale first: squares of large numbers overflow.
            self._norm = ops.sqrt(sum(_squared_norm(g / scale) for g in grads))
            return usual(optimizer_variables, grads, trainable_variables)

        return stateless_apply

    def _update_step(self, optimizer, usual):
        def update_step(gradient, variable, learning_rate):
            optimizer.assign_add(self.squares, _squared_norm(gradient))
            return usual(gradient, variable, learning_rate)

        return update_step

    def update_state(self):
        """Takes the norm of the gradient of a step into the mean."""
        norm = ops.sqrt(self.squares) if self._norm is None else self._norm
        self._norm = None
        counts = ops.logical_and(ops.isfinite(norm), norm > 0)
        self.total.assign(self.total + ops.where(counts, norm, 0.0))
        self.count.assign(self.count + ops.cast(counts, "float32"))
        self.steps.assign(self.steps + 1.0)
        self.squares.assign(ops.zeros(()))

    def result(self):
        return self.total / ops.maximum(self.count, 1.0)

    @property
    def is_empty(self):
        """Whether no step was taken since the last reset; not for use inside one."""
        return float(ops.convert_to_numpy(self.steps)) == 0.0


def _squared_norm(gradient):
    return squared_norm(ops.cast(gradient, "float32")) + _TINY
