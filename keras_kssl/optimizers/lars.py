"""LARS: stochastic gradient descent whose step is scaled layer by layer."""

import keras
from keras import ops

from keras_kssl._checks import check_number, check_that
from keras_kssl._fusing import squared_norm
from keras_kssl.optimizers.momentum import move


def lars_step(
    parameter,
    gradient,
    buffer,
    learning_rate,
    momentum=0.9,
    weight_decay=1e-6,
    trust_coefficient=1e-3,
):
    """One step of LARS on one tensor.

    Formula, for a parameter p of two axes or more with gradient g and buffer m::

        g = g + weight_decay * p
        g = g * trust_coefficient * |p| / |g|       (unchanged if |p| or |g| is 0)
        m = momentum * m + g
        p = p - learning_rate * m

    Tensors of at most one axis (biases, batch-normalisation scales and offsets) skip
    the first two lines. |.| is the Euclidean norm over the whole tensor. Everything is
    computed in float32, or in float64 for a float64 parameter.

    Args:
        parameter: tensor of any shape.
        gradient: tensor of the same shape.
        buffer: momentum buffer of the same shape, zeros before the first step.
        learning_rate: scalar, at least 0.
        momentum: in [0, 1).
        weight_decay: at least 0.
        trust_coefficient: above 0.

    Returns:
        The new parameter and the new buffer.

    >>> parameter, buffer = lars_step(
    ...     ops.array([[3.0, 4.0]]), ops.array([[0.0, 2.0]]), ops.zeros((1, 2)),
    ...     learning_rate=100.0, weight_decay=0.0,
    ... )
    >>> [round(float(value), 6) for value in parameter[0]]
    [3.0, 3.5]
    """
    dtype = keras.backend.result_type(parameter.dtype, "float32")
    parameter, gradient, buffer, learning_rate = (
        ops.cast(x, dtype) for x in (parameter, gradient, buffer, learning_rate)
    )
    gradient = _scaled(parameter, gradient, weight_decay, trust_coefficient)
    buffer = momentum * buffer + gradient
    return parameter - learning_rate * buffer, buffer


def _scaled(parameter, gradient, weight_decay, trust_coefficient):
    """What the buffer takes up of a gradient: the first two lines of `lars_step`."""
    if len(parameter.shape) < 2:
        return gradient
    if weight_decay:
        gradient = gradient + weight_decay * parameter
    parameter_norm = ops.sqrt(squared_norm(parameter))
    gradient_norm = ops.sqrt(squared_norm(gradient))
    scalable = ops.logical_and(parameter_norm > 0, gradient_norm > 0)
    ratio = parameter_norm / ops.where(scalable, gradient_norm, 1.0)
    return gradient * ops.where(scalable, trust_coefficient * ratio, 1.0)


@keras.saving.register_keras_serializable(package="keras_kssl")
class LARS(keras.optimizers.Optimizer):
    """Layer-wise adaptive rate scaling, for batches of a thousand images or more.

    Every kernel moves by a fixed fraction of its own norm, so that a learning rate
    that suits one layer suits them all. It is the optimizer of SSL-HSIC, SFRIK, BYOL
    and VICReg; see `lars_step` for the formula. Memory: one buffer per parameter. For
    small batches plain SGD or Adam does as well.

    Weight decay is coupled: it enters the gradient before the scaling, and it spares
    tensors of at most one axis. A variable without a gradient is left alone, with its
    buffer.

    Args:
        learning_rate: number of at least 0, or a schedule such as `warmup_cosine`. The
            papers scale it with the batch: 0.4 * batch size / 256 for ImageNet.
        momentum: in [0, 1). Default 0.9.
        weight_decay: at least 0. Default 1e-6.
        trust_coefficient: above 0; what a step may change of a kernel, relative to its
            norm, at learning rate 1. Default 1e-3.
        name: name of the optimizer. Default "lars".
        **kwargs: `clipnorm`, `clipvalue`, `global_clipnorm`, `use_ema`, `ema_momentum`,
            `ema_overwrite_frequency`, `loss_scale_factor` and
            `gradient_accumulation_steps` of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: for numbers out of range.
        TypeError: for arguments that are no numbers.

    >>> kernel = keras.Variable([[3.0, 4.0]])
    >>> optimizer = LARS(learning_rate=100.0, weight_decay=0.0)
    >>> optimizer.apply([ops.array([[0.0, 2.0]])], [kernel])
    >>> [round(float(value), 6) for value in kernel[0]]
    [3.0, 3.5]

    References:
        - [You et al. 2017, "Large Batch Training of Convolutional Networks"](
          https://arxiv.org/abs/1708.03888). There |g| and weight_decay * |p| are added
          in the denominator and the learning rate is inside the buffer; here, as in
          the code of BYOL and VICReg, the decayed gradient is scaled as a whole, the
          learning rate is outside the buffer, and biases and normalisation parameters
          are not scaled.
    """

    def __init__(
        self,
        learning_rate,
        momentum=0.9,
        weight_decay=1e-6,
        trust_coefficient=1e-3,
        name="lars",
        **kwargs,
    ):
        if not callable(learning_rate):
            learning_rate = check_number(
                "LARS", "learning_rate", learning_rate, minimum=0.0
            )
        momentum = check_number("LARS", "momentum", momentum, 0.0, 1.0)
        check_that(momentum < 1, "LARS", "momentum", "below 1", momentum)
        weight_decay = check_number("LARS", "weight_decay", weight_decay, minimum=0.0)
        trust_coefficient = check_number(
            "LARS", "trust_coefficient", trust_coefficient, minimum=0.0
        )
        check_that(
            trust_coefficient > 0,
            "LARS",
            "trust_coefficient",
            "above 0",
            trust_coefficient,
        )
        # The base class would subtract learning_rate * weight_decay * p after the
        # step and from every tensor, so it is not told about the decay.
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum = momentum
        self.coupled_weight_decay = weight_decay
        self.trust_coefficient = trust_coefficient

    def build(self, variables):
        """Creates a buffer for each of `variables`."""
        if self.built:
            return
        super().build(variables)
        self.momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient, variable, learning_rate):
        """Moves one variable and its buffer by `lars_step`."""
        buffer = self.momentums[self._get_variable_index(variable)]
        dtype = keras.backend.result_type(variable.dtype, "float32")
        gradient = _scaled(
            ops.cast(variable, dtype),
            ops.cast(gradient, dtype),
            self.coupled_weight_decay,
            self.trust_coefficient,
        )
        move(self, variable, buffer, gradient, learning_rate, self.momentum)

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        """Raises `NotImplementedError`: the number of axes decides what decays."""
        raise NotImplementedError(
            "LARS: weight decay spares tensors of at most one axis and no others."
        )

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self.momentum,
            "weight_decay": self.coupled_weight_decay,
            "trust_coefficient": self.trust_coefficient,
        }
