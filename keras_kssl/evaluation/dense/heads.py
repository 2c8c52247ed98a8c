"""Layers that the heads of the dense tasks share."""

import keras
import numpy as np
from keras import layers, ops

from keras_kssl._checks import check_integer
from keras_kssl._seeds import derived_seed
from keras_kssl.models.layers import BatchNorm


@keras.saving.register_keras_serializable(package="keras_kssl")
class Upsample(layers.Layer):
    """Bilinear interpolation of maps, cell i of which lies at pixel i * stride.

    That is where a convolution with symmetric padding sees it, as in our ResNets; for
    513 pixels and stride 16 it is what is called "aligned corners". Beyond the last
    cell its value is repeated. Two matrix products: H h w d + H W w d multiplications
    per image.

    Formula: y[p] = (1 - f) x[i] + f x[i + 1] along each axis, i the integer part of
    p / stride and f the rest.

    Args:
        height, width: of the result, at least 1.
        stride: pixels from cell to cell, at least 1.
        **kwargs: `name`, `dtype` of `keras.layers.Layer`.

    Call arguments:
        maps: (B, h, w, d), h and w known.

    Returns:
        (B, height, width, d).

    >>> x = ops.reshape(ops.array([0.0, 4.0]), (1, 1, 2, 1))
    >>> [float(y) for y in ops.reshape(Upsample(1, 4, stride=2)(x), (-1,))]
    [0.0, 2.0, 4.0, 4.0]
    """

    def __init__(self, height, width, stride, **kwargs):
        super().__init__(**kwargs)
        self.height = check_integer("Upsample", "height", height, minimum=1)
        self.width = check_integer("Upsample", "width", width, minimum=1)
        self.stride = check_integer("Upsample", "stride", stride, minimum=1)

    def call(self, maps):
        rows = self._weights(self.height, maps.shape[1])
        columns = self._weights(self.width, maps.shape[2])
        maps = ops.einsum("Hh,bhwd->bHwd", rows, maps)
        return ops.einsum("Ww,bHwd->bHWd", columns, maps)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.height, self.width, input_shape[3])

    def get_config(self):
        config = {"height": self.height, "width": self.width, "stride": self.stride}
        return {**super().get_config(), **config}

    def _weights(self, length, cells):
        """Weights (length, cells) of the cells in each pixel."""
        place = np.minimum(np.arange(length) / self.stride, cells - 1)
        distance = np.abs(place[:, np.newaxis] - np.arange(cells))
        weights = np.maximum(1.0 - distance, 0.0)
        return ops.convert_to_tensor(weights, self.compute_dtype)


class HeadBuilder:
    """Adds layers to a graph, each with initial weights of its own from one seed."""

    def __init__(self, seed):
        self.seed = seed
        self.kernel_count = 0

    def conv(self, x, filters, size, name, dilation=1, bias=None, spread=None):
        """A convolution with "same" padding.

        Args:
            bias: initial value of the bias; `None` stands for no bias.
            spread: standard deviation of the initial weights. Default: He's.
        """
        return layers.Conv2D(
            filters,
            size,
            padding="same",
            dilation_rate=dilation,
            use_bias=bias is not None,
            bias_initializer=keras.initializers.Constant(bias or 0.0),
            kernel_initializer=self._initializer(spread),
            data_format="channels_last",
            dtype="float32",
            name=name,
        )(x)

    def conv_twice_as_large(self, x, filters, size, name):
        """The map with zeros between its cells, then a convolution."""
        return layers.Conv2DTranspose(
            filters,
            size,
            strides=2,
            padding="same",
            use_bias=False,
            kernel_initializer=self._initializer(None),
            data_format="channels_last",
            dtype="float32",
            name=name,
        )(x)

    def bn(self, x, name):
        return BatchNorm(dtype="float32", name=name)(x)

    def relu(self, x, name):
        return layers.ReLU(dtype="float32", name=name)(x)

    def conv_bn_relu(self, x, filters, size, name, dilation=1):
        x = self.conv(x, filters, size, f"{name}_conv", dilation)
        return self.relu(self.bn(x, f"{name}_bn"), f"{name}_relu")

    def _initializer(self, spread):
        seed = derived_seed(self.seed, self.kernel_count)
        self.kernel_count += 1
        if spread is None:
            return keras.initializers.HeNormal(seed=seed)
        return keras.initializers.RandomNormal(stddev=spread, seed=seed)
