"""Small layers that encoders and heads share."""

import keras
from keras import ops

from keras_kssl import replicas
from keras_kssl._checks import check_that


def batch_norm(name, **options):
    """Batch normalisation as in the papers: momentum 0.9, epsilon 1e-5.

    Built under a `tf.distribute` strategy of several replicas, it normalises by the
    statistics of the global batch. Elsewhere it does not ask for that: on one device
    there is nothing to synchronise and Keras's synchronised form, E[x^2] - E[x]^2, is
    slower and less accurate; on JAX a batch shared out over devices is one array.

    Args:
        name: name of the layer.
        **options: further arguments of `keras.layers.BatchNormalization`.

    Returns:
        A `keras.layers.BatchNormalization`.

    >>> batch_norm("projector_bn1", scale=False).momentum
    0.9
    """
    return keras.layers.BatchNormalization(
        momentum=0.9,
        epsilon=1e-5,
        synchronized=replicas.num_replicas() > 1,
        name=name,
        **options,
    )


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
