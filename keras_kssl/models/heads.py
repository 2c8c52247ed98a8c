"""Projection and prediction heads: the layers between an encoder and its objective."""

import keras
from keras import layers

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

    Input (B, features), output (B, output_units).
    """

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
        for step in self.steps:
            step.build(input_shape)
            input_shape = step.compute_output_shape(input_shape)

    def call(self, inputs, training=False):
        outputs = inputs
        for step in self.steps:
            takes_training = isinstance(step, layers.BatchNormalization)
            outputs = (
                step(outputs, training=training) if takes_training else step(outputs)
            )
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
