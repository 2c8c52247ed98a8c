"""TensorFlow 2.15 with tensorflow-addons: its optimizers and image operations."""

import tensorflow as tf
import tensorflow_addons as tfa
import tensorflow_hub as hub
from trial import BATCH, CLASSES, EPOCHS, Trial

trial = Trial()
layer = hub.KerasLayer(trial.path, trainable=True)
model = tf.keras.Sequential([layer, tf.keras.layers.Dense(CLASSES)])
model.compile(
    tfa.optimizers.LAMB(0.02),
    tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
)


def augmented(images, labels):
    count = tf.shape(images)[0]
    angles = tf.random.uniform((count,), -0.2, 0.2, seed=1)
    shifts = tf.random.uniform((count, 2), -2.0, 2.0, seed=2)
    images = tfa.image.rotate(images, angles, "bilinear", fill_value=1.0)
    return tfa.image.translate(images, shifts, "bilinear", fill_value=1.0), labels


def fit(images, labels):
    tf.keras.utils.set_random_seed(0)
    frames = tf.data.Dataset.from_tensor_slices((images, labels))
    frames = frames.shuffle(len(images)).batch(BATCH).map(augmented)
    model.fit(frames, epochs=2 * EPOCHS, verbose=0)


def logits(images):
    return model.predict(images, batch_size=500, verbose=0)


trial.judge(
    "hub.KerasLayer(trainable=True), tfa.optimizers.LAMB, tfa.image",
    layer,
    layer.resolved_object.variables,
    fit,
    logits,
)
trial.report()
