"""An encoder as TensorFlow functions of images, on variables of their own."""

import functools

import keras

from keras_kssl.evaluation.dense.maps import feature_maps


class Functions:
    """What an encoder computes, as functions that are traced for batches of images.

    Attributes:
        variables: a plain copy of each variable of the encoder. Under a distribution
            strategy the encoder has one per device, and the copies should fit on any.
        images: `tf.TensorSpec` of the images, the first of `shapes` that the encoder
            can be traced with.
        features: function of (images, training=False) to features (batch, ...). With
            `training` it updates the statistics among the variables.
        with_maps: a model of Keras from images to a dictionary, `stage1`, ... the
            feature maps from the finest on, and `features`; `None` for encoders that
            do not show their maps.
        maps: likewise a function, as `features` is; or `None`.

    Args:
        caller: whom error messages name.
        encoder: built Keras layer.
        shapes: shapes (height, width, channels) of an image, the most open first.
    """

    def __init__(self, caller, encoder, shapes):
        import tensorflow as tf

        trainable = {id(variable) for variable in encoder.trainable_variables}
        self.variables = [
            tf.Variable(
                v.value, trainable=id(v) in trainable, dtype=v.dtype, name=v.path
            )
            for v in encoder.variables
        ]
        self.pairs = list(zip(encoder.variables, self.variables, strict=True))
        self._caller = caller
        for shape in shapes:
            self.images = tf.TensorSpec((None, *shape), tf.float32, name="inputs")
            try:
                self.features, trace = self._traced(encoder)
            except Exception:  # whatever the encoder raises for open sizes
                if shape is shapes[-1]:
                    raise
                continue
            if trace.output_shapes[-1] is not None:
                break
        self.with_maps = _with_maps(encoder)

    @functools.cached_property
    def maps(self):
        return self.with_maps and self._traced(self.with_maps)[0]

    def _traced(self, compute):
        """A function of images, traced in both modes, and a trace."""
        import tensorflow as tf

        def function(inputs, training=False):
            with keras.StatelessScope(state_mapping=self.pairs) as scope:
                outputs = compute(inputs, training=training)
            for variable, copy in self.pairs:
                if training and not copy.trainable:
                    copy.assign(scope.get_current_value(variable))
            return keras.tree.map_structure(lambda x: tf.cast(x, tf.float32), outputs)

        call = tf.function(function, autograph=False)
        traces = [
            call.get_concrete_function(self.images, training=training)
            for training in (False, True)
        ]
        known = {id(variable) for variable in self.variables}
        used = [variable for trace in traces for variable in trace.variables]
        unknown = {variable.name for variable in used if id(variable) not in known}
        if unknown:
            raise ValueError(
                f"{self._caller}: `encoder` must own every variable that it uses. "
                f"Received: one that also uses {sorted(unknown)}. Set its layers as "
                "attributes, and give random operations a keras.random.SeedGenerator "
                "that is one."
            )
        return call, traces[0]


def _with_maps(encoder):
    try:
        model = feature_maps(encoder, with_output=True)
    except (TypeError, ValueError):  # no graph to look into, or no maps in it
        return None
    *maps, features = model.outputs
    names = (f"stage{stage}" for stage in range(1, len(maps) + 1))
    named = {**dict(zip(names, maps, strict=True)), "features": features}
    return keras.Model(model.inputs[0], named)
