"""keras-cv's augmentation in front of the SavedModel, in one model of Keras 3."""

import keras
import keras_cv
from trial import BATCH, CLASSES, EPOCHS, Trial

keras.utils.set_random_seed(0)
trial = Trial()
layer = keras.layers.TFSMLayer(trial.path, call_training_endpoint="serve_training")
model = keras.Sequential(
    [
        keras_cv.layers.RandomRotation(0.03, fill_mode="nearest", seed=1),
        keras_cv.layers.RandomTranslation(0.07, 0.07, fill_mode="nearest", seed=2),
        layer,
        keras.layers.Dense(CLASSES),
    ]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.SGD(0.1), loss, jit_compile=False)


def fit(images, labels):
    model.fit(images, labels, batch_size=BATCH, epochs=4 * EPOCHS, verbose=0)


def logits(images):
    return model.predict(images, batch_size=500, verbose=0)


variables = [variable.value for variable in layer.variables]
trial.judge("keras_cv.layers before TFSMLayer", layer, variables, fit, logits)
trial.report()
