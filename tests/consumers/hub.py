"""tensorflow_hub's loaders, and its layer under tf_keras."""

import tensorflow as tf
import tensorflow_hub as hub
import tf_keras
from trial import BATCH, CLASSES, EPOCHS, Trial, by_tape

trial = Trial()
module = hub.load(trial.path)
fit, logits = by_tape(tf, module, trial.width)
trial.judge("hub.load", module, module.variables, fit, logits)


def judge(name, layer):
    # A frozen layer does not know which of its variables could be trained.
    variables = layer.resolved_object.variables
    model = tf_keras.Sequential([layer, tf_keras.layers.Dense(CLASSES)])
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.Adam(1e-3), loss, jit_compile=False)

    def fit(images, labels):
        model.fit(images, labels, batch_size=BATCH, epochs=EPOCHS, verbose=0)

    def logits(images):
        return model.predict(images, batch_size=500, verbose=0)

    trial.judge(name, layer, variables, fit, logits)


judge("hub.KerasLayer(trainable=True)", hub.KerasLayer(trial.path, trainable=True))
judge("hub.KerasLayer()", hub.KerasLayer(trial.path))
trial.report()
