"""tf.saved_model.load and a training loop, no Keras."""

import tensorflow as tf
from trial import Trial, by_tape

trial = Trial()
module = tf.saved_model.load(trial.path)
fit, logits = by_tape(tf, module, trial.width)
trial.judge("tf.saved_model.load", module, module.variables, fit, logits)
trial.report()
