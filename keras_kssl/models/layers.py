"""Small layers that encoders and heads share."""

import math

import keras
from keras import ops

from keras_kssl import replicas
from keras_kssl._checks import check_that
from keras_kssl._fusing import fused_batch_norm, max_pool, relu_by_output

# Numbers in an array from which on the fused kernel takes less time.
_FEWEST_NUMBERS = 2**16
# Images that give the number near the mean: at most so far apart, at least so many.
_SHIFT_STRIDE, _SHIFT_IMAGES = 16, 8


@keras.saving.register_keras_serializable(package="keras_kssl")
class BatchNorm(keras.layers.BatchNormalization):
    """Batch normalisation by the statistics of the global batch, as in the papers.

    On several replicas of a `tf.distribute` strategy two exchanges of C numbers: the
    mean, then the mean squared distance from it. Keras's own synchronised form takes
    three and computes E[x^2] - E[x]^2, which loses digits where the mean is large.

    Elsewhere it computes what Keras's layer does, reading the inputs once instead of
    twice for their statistics: on JAX, on any number of devices, as exactly, by sums of
    what is near the mean; on TensorFlow, on one, by the fused kernel that it has for
    maps and vectors in at most float32, unless they have fewer than 65,536 numbers. The
    kernel adds up in float32, number by number: its outputs and gradients are two to
    three times as far from those in float64 as Keras's (5e-6 of their size where
    100,000 numbers share a mean, 1e-6 where 25,000 do).

    Args:
        momentum, epsilon: default 0.9 and 1e-5.
        **options: further arguments of `keras.layers.BatchNormalization`.

    >>> BatchNorm(name="projector_bn1", scale=False).momentum
    0.9
    """

    def __init__(self, momentum=0.9, epsilon=1e-5, **options):
        super().__init__(momentum=momentum, epsilon=epsilon, **options)

    def call(self, inputs, training=None, mask=None):
        uses_batch = bool(training and self.trainable)
        if uses_batch and replicas.count() > 1:
            return self._by_global_batch(inputs)
        if mask is None and self._has_fused_kernel(inputs):
            return self._fused(inputs, uses_batch)
        if mask is None and uses_batch and self._has_shift(inputs):
            return self._in_one_pass(inputs)
        return super().call(inputs, training=training, mask=mask)

    def _has_fused_kernel(self, inputs):
        rank = len(inputs.shape)
        return (
            keras.backend.backend() == "tensorflow"
            and keras.backend.standardize_dtype(inputs.dtype) != "float64"
            and rank in (2, 4)
            and self.axis % rank == rank - 1
            and not self.renorm
            and (None in inputs.shape or math.prod(inputs.shape) >= _FEWEST_NUMBERS)
        )

    def _fused(self, inputs, uses_batch):
        zeros = ops.zeros_like(self.moving_mean)
        are_vectors = len(inputs.shape) == 2
        outputs, mean, variance = fused_batch_norm(
            inputs[:, None, None, :] if are_vectors else inputs,
            self.gamma if self.scale else zeros + 1.0,
            self.beta if self.center else zeros,
            None if uses_batch else (self.moving_mean, self.moving_variance),
            self.epsilon,
        )
        if uses_batch:
            self._move_averages(mean, variance)
        return outputs[:, 0, 0, :] if are_vectors else outputs

    def _has_shift(self, inputs):
        return (
            keras.backend.backend() == "jax"
            and not self.renorm
            and inputs.shape[0] is not None
            and self.axis % len(inputs.shape) > 0
        )

    def _in_one_pass(self, inputs):
        """By sums of x - s and (x - s)^2, s the mean of some of the images.

        Both sums are made while x is read once. They lose no more digits than a factor
        of the share of those images, because these count in the variance too.
        """
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        axes = [i for i in range(len(x.shape)) if i != self.axis % len(x.shape)]
        some = x[:: _shift_stride(x.shape[0])]
        shift = ops.stop_gradient(ops.mean(some, axis=axes, keepdims=True))
        x = x - shift
        mean = ops.mean(x, axis=axes, keepdims=True)
        variance = ops.mean(ops.square(x), axis=axes, keepdims=True) - ops.square(mean)
        self._move_averages(ops.reshape(mean + shift, -1), ops.reshape(variance, -1))
        return self._normalized(x, mean, variance)

    def _by_global_batch(self, inputs):
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        axes = [i for i in range(len(x.shape)) if i != self.axis % len(x.shape)]
        mean = replicas.global_mean(ops.mean(x, axis=axes, keepdims=True))
        centred = x - mean
        variance = ops.mean(ops.square(centred), axis=axes, keepdims=True)
        variance = replicas.global_mean(variance)
        self._move_averages(ops.reshape(mean, -1), ops.reshape(variance, -1))
        return self._normalized(centred, None, variance)

    def _normalized(self, x, mean, variance):
        scale = ops.rsqrt(variance + self.epsilon)
        if self.scale:
            scale = scale * ops.reshape(self.gamma, variance.shape)
        # One factor and one summand for each channel: going back takes two sums over
        # the map; (x - mean) * scale would take three.
        offset = 0.0 if mean is None else -mean * scale
        if self.center:
            offset = offset + ops.reshape(self.beta, variance.shape)
        return ops.cast(x * scale + offset, self.compute_dtype)

    def _move_averages(self, mean, variance):
        for moving, value in (
            (self.moving_mean, mean),
            (self.moving_variance, variance),
        ):
            moving.assign(self.momentum * moving + (1.0 - self.momentum) * value)


def _shift_stride(num_images):
    """How far the images are apart that give the number near the mean.

    A divisor of the images that a device has of a batch: none goes to another device.
    """
    distribution = keras.distribution.distribution()
    count = 1 if distribution is None else math.prod(distribution.device_mesh.shape)
    stride = math.gcd(_SHIFT_STRIDE, max(1, num_images // count))
    while stride * _SHIFT_IMAGES > num_images and stride > 1:
        stride //= 2
    return stride


def normalize_by_global_batch(layer):
    """Makes the batch normalisation of any layer or model that of the global batch.

    For encoders of other libraries, under a `tf.distribute` strategy.
    """
    for part in layer._flatten_layers():
        is_foreign = isinstance(part, keras.layers.BatchNormalization)
        if is_foreign and not isinstance(part, BatchNorm):
            part.synchronized = True


@keras.saving.register_keras_serializable(package="keras_kssl")
class SumReLU(keras.layers.ReLU):
    """ReLU after a sum of branches: going back needs its outputs, not the sum.

    `keras.layers.ReLU` in arguments, values and gradients. It is for JAX, which takes
    the slope from the inputs; other backends take it from the outputs in any case.

    >>> ops.convert_to_numpy(SumReLU()(ops.array([-1.0, 2.0]))).tolist()
    [0.0, 2.0]
    """

    def call(self, inputs):
        if self.max_value is not None or self.negative_slope or self.threshold:
            return super().call(inputs)
        return relu_by_output(inputs)


@keras.saving.register_keras_serializable(package="keras_kssl")
class MaxPool(keras.layers.MaxPooling2D):
    """Maximum over windows; those of 3 x 3 at a stride of 2 are not scattered on JAX.

    `keras.layers.MaxPooling2D` in arguments, values and gradients; the first of equal
    numbers in a window gets the gradient, as there. On processors it takes a sixth of
    the time forward and back.

    >>> maps = ops.reshape(ops.arange(25.0), (1, 5, 5, 1))
    >>> ops.convert_to_numpy(MaxPool(3, 2)(maps)[0, :, :, 0]).tolist()
    [[12.0, 14.0], [22.0, 24.0]]
    """

    def call(self, inputs):
        is_common = (*self.pool_size, *self.strides) == (3, 3, 2, 2)
        if is_common and self.data_format == "channels_last":
            return max_pool(inputs, self.padding)
        return super().call(inputs)


@keras.saving.register_keras_serializable(package="keras_kssl")
class Normalize(keras.layers.Layer):
    """Subtracts a mean from every channel and divides by a standard deviation.

    Formula: (x - mean) / std, computed and returned in float32, or in float64 where
    that is the dtype of the layer.

    Args:
        mean: one number per channel, in the unit of the images.
        std: one number above 0 per channel.
        **kwargs: `name`, `dtype` and `trainable` of `keras.layers.Layer`.

    Call arguments:
        images: tensor of shape (..., C), C the length of `mean` and `std`.

    Returns:
        Tensor of the shape of `images`.

    Raises:
        ValueError: for empty `mean`, for lengths that differ, for a `std` of 0 or less.

    >>> layer = Normalize(mean=(0.5, 0.5), std=(0.25, 0.5))
    >>> [float(value) for value in layer(ops.array([[1.0, 1.0]]))[0]]
    [2.0, 1.0]
    """

    def __init__(self, mean, std, **kwargs):
        super().__init__(**kwargs)
        self.mean = tuple(float(value) for value in mean)
        self.std = tuple(float(value) for value in std)
        check_that(self.mean, "Normalize", "mean", "one number per channel", mean)
        check_that(
            len(self.std) == len(self.mean) and min(self.std) > 0,
            "Normalize",
            "std",
            f"{len(self.mean)} numbers above 0, one for each in `mean`",
            std,
        )
        # Half precision would quantise the images before anything has seen them.
        self._result_dtype = keras.backend.result_type(self.compute_dtype, "float32")
        self.autocast = False

    def call(self, images):
        images = ops.cast(images, self._result_dtype)
        mean = ops.convert_to_tensor(self.mean, self._result_dtype)
        std = ops.convert_to_tensor(self.std, self._result_dtype)
        return (images - mean) / std

    def compute_output_spec(self, images):
        return keras.KerasTensor(images.shape, dtype=self._result_dtype)

    def get_config(self):
        return {**super().get_config(), "mean": self.mean, "std": self.std}
