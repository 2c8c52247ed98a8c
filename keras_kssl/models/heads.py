"""Projection and prediction heads: the layers between an encoder and its objective."""

import keras
from keras import layers, ops

from keras_kssl._checks import check_integer
from keras_kssl._seeds import derived_seed
from keras_kssl.models.layers import BatchNorm


@keras.saving.register_keras_serializable(package="keras_kssl")
class MLPHead(layers.Layer):
    """Multi-layer perceptron: [Dense - BatchNorm - ReLU] for each hidden layer, Dense.

    Hidden Dense layers have a bias, the last one has none.

    Args:
        hidden_units: widths of the hidden layers. Default (4096,).
        output_units: width of the output. Default 256.
        normalize_output: whether the output is batch-normalised, without scale and
            offset. The SSL-HSIC paper says so and its released code does not; without
            it, and without a target network, small runs were seen to collapse.
        seed: integer seed of the initial weights; `None` draws one.

    Input (B, features), output (B, output_units); or (B, V, features) and (B, V,
    output_units) for V views of each image, which go through each Dense layer together
    and through batch normalisation view by view. Where the head is large and the batch
    small, reading, adding up and writing arrays of the size of its kernels takes the
    time, and that is once for all views then.
    """

    # For models that embed several views.
    takes_views = True

    def __init__(
        self,
        hidden_units=(4096,),
        output_units=256,
        normalize_output=False,
        seed=None,
        name=None,
        **options,
    ):
        super().__init__(name=name, **options)
        self.hidden_units = tuple(
            check_integer("MLPHead", "hidden_units", units, minimum=1)
            for units in hidden_units
        )
        self.output_units = check_integer("MLPHead", "output_units", output_units, 1)
        self.normalize_output = normalize_output
        self.seed = seed

        def dense(position, units, **dense_options):
            initializer = keras.initializers.GlorotUniform(derived_seed(seed, position))
            return layers.Dense(
                units,
                kernel_initializer=initializer,
                dtype=self.dtype_policy,
                **dense_options,
            )

        self.steps = []
        for i, units in enumerate(self.hidden_units, start=1):
            self.steps += [
                dense(i, units, name=f"dense{i}"),
                BatchNorm(name=f"norm{i}", dtype=self.dtype_policy),
                layers.Activation("relu", name=f"relu{i}", dtype=self.dtype_policy),
            ]
        self.steps.append(dense(0, self.output_units, use_bias=False, name="output"))
        if normalize_output:
            self.steps.append(
                BatchNorm(
                    name="output_norm",
                    scale=False,
                    center=False,
                    dtype=self.dtype_policy,
                )
            )

    def build(self, input_shape):
        shape = (input_shape[0], input_shape[-1])
        for step in self.steps:
            step.build(shape)
            shape = step.compute_output_shape(shape)

    def call(self, inputs, training=False):
        num_views = inputs.shape[1] if len(inputs.shape) == 3 else None
        outputs = inputs
        for step in self.steps:
            if isinstance(step, layers.BatchNormalization):
                outputs = _by_view(step, outputs, num_views, training)
            elif num_views is None:
                outputs = step(outputs)
            else:
                # The views of an image side by side: a batch that is shared out over
                # devices stays where it is.
                rows = step(ops.reshape(outputs, (-1, outputs.shape[-1])))
                outputs = ops.reshape(rows, (-1, num_views, rows.shape[-1]))
        return outputs

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.output_units)

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_units": self.hidden_units,
            "output_units": self.output_units,
            "normalize_output": self.normalize_output,
            "seed": self.seed,
        }


def _by_view(norm, inputs, num_views, training):
    if num_views is None:
        return norm(inputs, training=training)
    views = [norm(inputs[:, v], training=training) for v in range(num_views)]
    return ops.stack(views, axis=1)
