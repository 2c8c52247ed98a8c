"""The SavedModel as a layer of Keras 3, which knows no keras_kssl here."""

import pathlib

import keras
import tensorflow as tf
from trial import BATCH, CLASSES, EPOCHS, Trial

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "saved_models.md"

trial = Trial()


def judge(name, layer, variables, optimizer):
    model = keras.Sequential([layer, keras.layers.Dense(CLASSES)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, jit_compile=False)

    def fit(images, labels):
        model.fit(images, labels, batch_size=BATCH, epochs=EPOCHS, verbose=0)

    def logits(images):
        return model.predict(images, batch_size=500, verbose=0)

    trial.judge(name, layer, variables, fit, logits)


def judge_layer(name, layer, optimizer):
    # TensorFlow's variables behind those of Keras.
    judge(name, layer, [variable.value for variable in layer.variables], optimizer)


# The layer that the documentation gives.
(code,) = [
    block.partition("```")[0]
    for block in DOCS.read_text().split("```python\n")
    if "class Encoder" in block
]
names = {"keras": keras, "tf": tf}
exec(compile(code, str(DOCS), "exec"), names)
judge_layer(
    "Encoder of the docs, Adam", names["Encoder"](trial.path), keras.optimizers.Adam()
)

training = {"call_training_endpoint": "serve_training"}
judge_layer(
    "TFSMLayer, both endpoints",
    keras.layers.TFSMLayer(trial.path, **training),
    keras.optimizers.SGD(0.2),
)
judge_layer(
    "TFSMLayer, serve alone",
    keras.layers.TFSMLayer(trial.path),
    keras.optimizers.SGD(0.05),
)
module = tf.saved_model.load(trial.path)
judge(
    "Lambda of tf.saved_model.load",
    keras.layers.Lambda(lambda images: module(images)),
    module.variables,
    keras.optimizers.Adam(),
)
trial.report()
