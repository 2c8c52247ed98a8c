"""Fine-tuning that leaves an encoder as it was is noticed, and no other."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_kssl.callbacks import FineTuningMonitor

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"


class InInference(layers.BatchNormalization):
    """Uses its statistics in training too, and does not update them."""

    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training=False, mask=mask)


def encoder_of(normalization=layers.BatchNormalization):
    """Convolution, statistics and dropout, which has an integer of its own."""
    images = keras.Input((5, 7, 3))
    x = layers.Conv2D(4, 3, use_bias=False)(images)
    x = normalization()(x)
    x = layers.Dropout(0.1, seed=0)(x)
    return keras.Model(images, layers.GlobalAveragePooling2D()(x))


def fit(encoder, monitor, epochs=1):
    model = keras.Sequential([keras.Input((5, 7, 3)), encoder, layers.Dense(2)])
    model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=not ON_TENSORFLOW)
    rng = np.random.default_rng(0)
    images, targets = rng.random((8, 5, 7, 3)), rng.normal(size=(8, 2))
    model.fit(
        images, targets, batch_size=4, epochs=epochs, verbose=0, callbacks=[monitor]
    )
    return monitor


def test_an_encoder_that_trains_throughout_gives_no_warning():
    encoder, said = encoder_of(), []
    assert fit(encoder, FineTuningMonitor(encoder, said.append)).kind is None
    assert fit(encoder, FineTuningMonitor(say=said.append)).found is None
    assert said == []


def test_a_frozen_encoder_is_told_once():
    encoder, said = encoder_of(), []
    encoder.trainable = False
    monitor = fit(encoder, FineTuningMonitor(encoder, said.append), epochs=3)
    assert monitor.kind == "all"
    assert said == [monitor.found]
    assert "5 of 5 variables" in monitor.found
    assert "encoder.trainable = True" in monitor.found


def test_a_frozen_layer_is_told_by_name():
    encoder = encoder_of()
    encoder.layers[1].trainable = False
    with pytest.warns(UserWarning, match=r"1 of 5 .*kernel\. .*layers of it are fro"):
        assert fit(encoder, FineTuningMonitor(encoder)).kind == "some"


def test_statistics_that_stay_are_told_apart_from_weights():
    encoder = encoder_of(InInference)
    with pytest.warns(UserWarning, match="2 of 5 .*moving_mean.*serve_training"):
        monitor = fit(encoder, FineTuningMonitor(encoder))
    assert monitor.kind == "statistics"


def test_weights_that_the_loss_does_not_depend_on_are_told():
    class Aside(layers.Layer):
        def build(self, shape):
            self.unused = self.add_weight(shape=(3,), name="unused")

        def call(self, x):
            return x + 0.0 * keras.ops.sum(self.unused)

    encoder = keras.Sequential([encoder_of(), Aside()])
    encoder.build((None, 5, 7, 3))
    with pytest.warns(UserWarning, match="1 of 6 .*unused"):
        assert fit(encoder, FineTuningMonitor(encoder)).kind == "some"


def test_a_layer_without_weights_is_refused_before_training():
    hidden = encoder_of()
    function = layers.Lambda(lambda x: hidden(x))
    with pytest.raises(ValueError, match="must be something with variables"):
        fit(function, FineTuningMonitor(function))


@pytest.mark.skipif(not ON_TENSORFLOW, reason="TensorFlow reads SavedModels")
def test_a_saved_model_that_keras_does_not_see_is_told(tmp_path):
    import tensorflow as tf

    from keras_kssl import export

    module = tf.saved_model.load(export.saved_model(encoder_of(), tmp_path / "a"))
    function = layers.Lambda(lambda images: module(images))
    with pytest.warns(UserWarning, match="5 of 5 .*Lambda"):
        assert fit(function, FineTuningMonitor(module)).kind == "all"
    endpoint = layers.TFSMLayer(str(tmp_path / "a"))
    with pytest.warns(UserWarning, match="2 of 5 .*serve_training"):
        assert fit(endpoint, FineTuningMonitor(endpoint)).kind == "statistics"
