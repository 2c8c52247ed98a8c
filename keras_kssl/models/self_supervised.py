"""Self-supervised training of an encoder as a Keras model: fit, callbacks, saving."""

import keras
from keras import ops

from keras_kssl import replicas
from keras_kssl._checks import check_integer, check_number, check_that
from keras_kssl._seeds import SavesSeedState
from keras_kssl.models.fitting import FitsBatches
from keras_kssl.models.gradients import GradientNorm
from keras_kssl.models.layers import normalize_by_global_batch
from keras_kssl.models.metrics import EffectiveRank
from keras_kssl.models.parts import embed_in_parts
from keras_kssl.statistics import alignment, spread, uniformity, unit_rows

# Rows of a batch, from so many to twice as many, on which uniformity, quadratic in
# them, is watched.
_WATCHED_ROWS = 512


class SelfSupervisedModel(SavesSeedState, FitsBatches, keras.Model):
    """Trains an encoder without labels by an objective on several views per image.

    `fit` takes batches of images (B, H, W, C), uint8 or float in [0, 1], from which
    `augment` makes the views inside the compiled step; tuples of images that are cut
    to the views already, as `data.load` gives them; or, without `augment`, tuples of
    views. Labels, if there are any, train the online probe only. Called on images,
    and in `predict`, the model returns the encoder's features.

    Each view goes through encoder and projector on its own, and batch normalisation
    sees one view at a time. With a policy that has small views, those of one size go
    together, and batch normalisation sees them as one batch: both are what the
    published programs do, for two views and for multi-crop.

    Metrics: `loss`, the terms of the objective, `alignment`, `uniformity`, `spread` and
    `effective_rank` of the embeddings, in training `gradient_norm`, the norm of the
    gradient of all trainable variables together, and with a probe `ssl_loss` (the
    objective alone), `probe_loss` and `probe_accuracy`.

    Args:
        encoder: a Keras model from images to feature maps or vectors; feature maps
            are averaged over space.
        projector: layer from features to embeddings.
        objective: an `objectives.Objective`.
        augment: policy that makes views, such as `augment.byol(size=224)`, or `None`.
        average_decay: decay of the running average of the encoder's parameters that
            `averaged_encoder` returns, corrected for its start at zero; `None` keeps
            no average. Default 0.999.
        probe_classes: number of classes of the online linear probe, which learns from
            the labels that come with the images and never changes the encoder; labels
            below 0 do not count. `None` (default) for no probe.
        seed: integer seed of the augmentation; `None` draws one.
        micro_batches: parts that a batch goes through encoder and heads in, one after
            another, to save memory; a divisor of the images that a device has of a
            batch. The objective still sees the whole batch, and the gradient is that
            of the whole, but for batch normalisation, whose statistics are those of
            each part. Costs one more forward pass. Default 1.

    References:
        micro_batches: Gao et al., arXiv 2101.06983 (gradient caching).
    """

    def __init__(
        self,
        encoder,
        projector,
        objective,
        augment=None,
        average_decay=0.999,
        probe_classes=None,
        seed=None,
        micro_batches=1,
        name=None,
    ):
        # Half precision starts inside the layers: under a policy of its own the model
        # would see images and the parameters that it averages rounded.
        super().__init__(name=name, dtype="float32", autocast=False)
        caller = type(self).__name__
        if average_decay is not None:
            check_number(caller, "average_decay", average_decay, 0.0, 1.0)
            rule = "below 1, with which an average never moves"
            check_that(average_decay < 1, caller, "average_decay", rule, average_decay)
        # In half precision small gradients underflow unless the loss is scaled.
        self._scales_loss = "float16" in (
            encoder.compute_dtype,
            projector.compute_dtype,
        )
        self.encoder = encoder
        self.projector = projector
        self.objective = objective
        self.augment = augment
        self.average_decay = average_decay
        self.probe_classes = probe_classes
        self.seed = seed
        self.micro_batches = check_integer(caller, "micro_batches", micro_batches, 1)
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.pool = keras.layers.GlobalAveragePooling2D(dtype="float32")
        names = [*objective.term_names, "alignment", "uniformity", "spread"]
        if probe_classes is not None:
            check_integer(caller, "probe_classes", probe_classes, minimum=2)
            self.probe = keras.layers.Dense(probe_classes, dtype="float32")
            names += ["ssl_loss", "probe_loss", "probe_accuracy"]
        self.means = {name: keras.metrics.Mean(name=name) for name in names}

        if replicas.num_replicas() > 1:
            for part in (encoder, projector):
                normalize_by_global_batch(part)
        self.view_shape = self._find_view_shape()
        features_shape = output_shape(encoder, self.view_shape)
        if len(features_shape) == 4:
            features_shape = (features_shape[0], features_shape[-1])
        rule = "a model with outputs (B, H, W, C), feature maps, or (B, D), vectors"
        check_that(
            len(features_shape) == 2 and features_shape[-1] is not None,
            caller,
            "encoder",
            rule,
            encoder,
            f"Its outputs have the shape {features_shape}.",
        )
        self.features_shape = features_shape
        self.embeddings_shape = output_shape(projector, features_shape)
        if probe_classes is not None:
            self.probe.build(features_shape)
        self.rank = EffectiveRank(self.embeddings_shape[-1])
        self.gradient_norm = GradientNorm()
        # Steps begun, and steps whose parameters are in the averages.
        self.steps, self.averaged_steps = (
            self.add_weight((), "zeros", dtype="int32", trainable=False, name=name)
            for name in ("steps", "averaged_steps")
        )
        self.averages = []
        if average_decay is not None:
            self.averages = [
                self.add_weight(
                    v.shape, "zeros", dtype=v.dtype, trainable=False, name="average"
                )
                for v in encoder.trainable_variables
            ]
        # All layers exist from here on; a subclass adds its own before it returns.
        self.built = True

    @property
    def num_steps(self):
        """Training steps that were taken, an integer; not for use inside a step."""
        return int(ops.convert_to_numpy(self.steps))

    @property
    def num_embeddings(self):
        """Embeddings per image that the objective sees."""
        return 2 if self.augment is None else self.augment.num_views

    @property
    def num_global_views(self):
        """How many views, from the first, are global; `None` for all."""
        return None if self.augment is None else self.augment.num_global_views

    @property
    def num_global_embeddings(self):
        """How many embeddings, from the first, are of global views; `None` for all."""
        return self.num_global_views

    @property
    def collapse_loss(self):
        """Loss where all embeddings are equal, such as -1; `None` if not known."""
        return self.objective.collapse_loss(self.num_embeddings)

    def call(self, images, training=False):
        """Features (B, num_features); with `training=True` the embeddings of all views
        and the features of the first, as `compute_loss` wants them."""
        if not training:
            return self.features(images)
        self.settle_averages()
        views = self.views(images)
        if self.micro_batches == 1:
            outputs = self.embed(views, training=True)
        else:
            outputs = embed_in_parts(self, views, self.micro_batches)
        self.steps.assign(self.steps + 1)
        return outputs

    def compile(self, optimizer="rmsprop", *args, auto_scale_loss=True, **options):
        """`keras.Model.compile`; scales the loss for half-precision layers.

        Optimizers that accumulate the gradients of several batches are refused.
        """
        optimizer = keras.optimizers.get(optimizer)
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        check_that(
            inner.gradient_accumulation_steps is None,
            type(self).__name__,
            "gradient_accumulation_steps",
            "None: the objective compares all images of a batch with each other, so "
            "that the mean gradient of small batches is not that of a large one",
            inner.gradient_accumulation_steps,
            "The model's `micro_batches` saves as much memory and is exact.",
        )
        scaled = keras.optimizers.LossScaleOptimizer
        if auto_scale_loss and self._scales_loss and not isinstance(optimizer, scaled):
            optimizer = scaled(optimizer, name="loss_scale_optimizer")
        super().compile(optimizer, *args, **options)
        self.gradient_norm.watch(optimizer)

    def compile_from_config(self, config):
        # Keras leaves this to models with a `compile` of their own.
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def features(self, images, training=False):
        """Encoder's features of images, or of the first view, as float32 vectors."""
        if isinstance(images, list | tuple):
            images = images[0]
        return self._encode(self.encoder, _as_unit_range(images), training)

    def views(self, images):
        """Views of a batch of images; a tuple or list counts as views already."""
        if self.augment is not None:
            return self.augment(images, seed=self.seed_generator)
        check_that(
            isinstance(images, list | tuple) and len(images) >= 2,
            type(self).__name__,
            "augment",
            "a policy, or None where batches are tuples of two or more views",
            self.augment,
        )
        return [_as_unit_range(view) for view in images]

    def embed(self, views, training):
        """Embeddings that the objective sees and the features of the first view."""

        def embed_view(view):
            features = self._encode(self.encoder, view, training)
            return features, self.embed_features(features, training)

        if self._has_small_views or not self._heads_take_views:
            features, embeddings = zip(*self.each_view(embed_view, views), strict=True)
            return {"embeddings": list(embeddings), "features": features[0]}
        features = [self._encode(self.encoder, view, training) for view in views]
        together = self.embed_features(ops.stack(features, axis=1), training)
        embeddings = [together[:, v] for v in range(len(views))]
        return {"embeddings": embeddings, "features": features[0]}

    def embed_features(self, features, training):
        """Online embeddings of features (B, D), or (B, V, D) by heads of views."""
        return self.projector(features, training=training)

    def each_view(self, function, views):
        """What a function gives for each view; together for those of one size, see the
        class, where there are small ones."""
        if self._has_small_views:
            return of_equal_sizes(function, views)
        return [function(view) for view in views]

    @property
    def online_heads(self):
        """Layers that `embed_features` runs."""
        return [self.projector]

    @property
    def _heads_take_views(self):
        return all(getattr(head, "takes_views", False) for head in self.online_heads)

    @property
    def _has_small_views(self):
        policy = self.augment
        return policy is not None and policy.num_global_views < policy.num_views

    @property
    def embedding_layers(self):
        """Layers that `embed` runs."""
        return [self.encoder, *self.online_heads]

    @property
    def averaged_variables(self):
        """What `update_averages` moves, and nothing else does."""
        return self.averages

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        check_that(
            sample_weight is None,
            type(self).__name__,
            "sample_weight",
            "None: the objective compares all images of a batch with each other",
            sample_weight,
        )
        outputs = y_pred if training else self.embed(self.views(x), training=False)
        embeddings = outputs["embeddings"]
        terms = self.objective.terms(
            embeddings, training=training, num_global=self.num_global_embeddings
        )
        loss = terms["loss"]
        for name in self.objective.term_names:
            self.means[name].update_state(terms[name])
        self._watch(embeddings)
        if self.probe_classes is not None:
            self.means["ssl_loss"].update_state(loss)
            loss = loss + self._probe_loss(outputs["features"], y)
        # Every replica has the same loss; their gradients are added up.
        return loss / replicas.count()

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        del x, y, sample_weight
        metrics = list(self.metrics)
        # What `call` returns in a training step, and in no other.
        if isinstance(y_pred, dict):
            self.gradient_norm.update_state()
        else:
            metrics.remove(self.gradient_norm)
        # Called inside the compiled step, where the spectrum would cost too much;
        # between epochs Keras calls get_metrics_result, which computes it.
        results = {
            metric.name: ops.copy(metric.latest)
            if metric is self.rank
            else metric.result()
            for metric in metrics
        }
        if not replicas.is_multi_worker():
            return results
        # Keras takes the mean over the first axis of what all workers return.
        return {name: ops.reshape(value, (1,)) for name, value in results.items()}

    def get_metrics_result(self):
        """Values of all metrics by name; without steps, as in evaluation, there is no
        `gradient_norm`."""
        results = super().get_metrics_result()
        if self.gradient_norm.is_empty:
            results.pop(self.gradient_norm.name)
        return results

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # All but the optimizer is built since the constructor. Under a strategy Keras
        # would look at a batch first, which it cannot do with that of other workers.
        del iterator, data_batch
        if self.optimizer is not None and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def settle_averages(self):
        """Takes the parameters of the last finished step into the running averages.

        Each training step does this for the step before it. Call it to read averages
        between steps; a second call changes nothing.
        """
        pending = ops.cast(self.steps > self.averaged_steps, "float32")
        self.update_averages(ops.cast(self.averaged_steps, "float32"), pending)
        # A sum, because two variables must not share one buffer: JAX gives it away.
        self.averaged_steps.assign(self.steps + 0)

    def update_averages(self, step, pending):
        """Moves each average for update number `step`, by nothing if `pending` is 0."""
        if self.averages:
            decay = self.average_decay
            rate = pending * (1.0 - decay) / (1.0 - ops.power(decay, step + 1.0))
            move_towards(self.averages, self.encoder.trainable_variables, rate)

    def averaged_encoder(self):
        """A copy of the encoder with averaged parameters and current BN statistics.

        Before the first step, and with `average_decay=None`, a plain copy. The model
        stays as it is, to the last bit.
        """
        encoder = copy_layer(self.encoder, self.view_shape)
        if self.averages and self.num_steps > 0:
            # Settled aside: step by step and compiled, the last digit may differ.
            with keras.StatelessScope() as scope:
                self.settle_averages()
            for variable, average in zip(
                encoder.trainable_variables, self.averages, strict=True
            ):
                value = scope.get_current_value(average)
                variable.assign(ops.convert_to_numpy(value))
        return encoder

    def save_own_variables(self, store):
        # Comes before the variables of all layers, the target network's among them.
        self.settle_averages()
        super().save_own_variables(store)

    def _encode(self, encoder, images, training):
        features = encoder(images, training=training)
        if len(features.shape) == 4:
            return self.pool(features)
        return ops.cast(features, "float32")

    def _watch(self, embeddings):
        z_1, z_2 = (ops.stop_gradient(z) for z in embeddings[:2])
        self.means["alignment"].update_state(alignment(z_1, z_2))
        z_1 = unit_rows(z_1)
        self.means["uniformity"].update_state(uniformity(z_1[:: _stride(z_1.shape[0])]))
        self.means["spread"].update_state(spread(z_1))
        self.rank.update_state(z_1)

    def _probe_loss(self, features, labels):
        check_that(
            labels is not None,
            type(self).__name__,
            "probe_classes",
            "None for data without labels",
            self.probe_classes,
        )
        labels = ops.reshape(ops.cast(labels, "int32"), (-1,))
        logits = self.probe(ops.stop_gradient(features))
        known = ops.cast(labels >= 0, "float32")
        losses = keras.losses.sparse_categorical_crossentropy(
            ops.maximum(labels, 0), logits, from_logits=True
        )
        total, count = replicas.global_sum([ops.sum(known * losses), ops.sum(known)])
        loss = total / ops.maximum(count, 1.0)
        right = ops.cast(ops.equal(ops.argmax(logits, axis=-1), labels), "float32")
        self.means["probe_loss"].update_state(loss)
        self.means["probe_accuracy"].update_state(right, sample_weight=known)
        return loss

    def _find_view_shape(self):
        if isinstance(self.encoder, keras.Model) and self.encoder.built:
            shape = self.encoder.get_build_config() or {}
            shape = getattr(self.encoder, "input_shape", shape.get("input_shape"))
        else:
            shape = None
        if shape is None or len(shape) != 4:
            raise ValueError(
                f"{type(self).__name__}: `encoder` must be a Keras model built "
                "for images (B, H, W, C). "
                f"Received: encoder={self.encoder!r}, input shape {shape}. "
                "A model without fixed inputs is built by calling it on one batch."
            )
        _, height, width, channels = shape
        if self.augment is not None:
            check_that(
                len(set(self.augment.sizes)) == 1
                or getattr(self.encoder, "input_shape", (None,) * 4)[1] is None,
                type(self).__name__,
                "encoder",
                "a model for images of any size, as views of several sizes need it",
                self.encoder,
                "Build it with keras.Input((None, None, channels)).",
            )
            height = width = self.augment.size
        return (None, height, width, channels)

    def get_config(self):
        return {
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "projector": keras.saving.serialize_keras_object(self.projector),
            "objective": keras.saving.serialize_keras_object(self.objective),
            "augment": keras.saving.serialize_keras_object(self.augment),
            "average_decay": self.average_decay,
            "probe_classes": self.probe_classes,
            "seed": self.seed,
            "micro_batches": self.micro_batches,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config):
        return cls(
            **{
                key: keras.saving.deserialize_keras_object(value)
                if isinstance(value, dict)
                else value
                for key, value in config.items()
            }
        )


def _stride(rows):
    """Distance of the rows that are watched: a power of two that divides `rows`.

    The same on one device and on any replica whose rows it divides, and with it the
    value.
    """
    stride = 1
    while (
        rows % (2 * stride) == 0
        and rows * replicas.count() >= 2 * stride * _WATCHED_ROWS
    ):
        stride *= 2
    return stride


def of_equal_sizes(function, views):
    """Results of a function of images, called once for all views of one size.

    Args:
        function: of images (k B, H, W, C) to a tuple of arrays (k B, ...).
        views: list of arrays (B, H, W, C).

    Returns:
        List with a tuple of arrays (B, ...) for each view.
    """
    results = {}
    for size in dict.fromkeys(tuple(view.shape[1:]) for view in views):
        places = [i for i, view in enumerate(views) if tuple(view.shape[1:]) == size]
        # All views of an image side by side: a batch that is shared out over devices
        # stays where it is.
        joined = ops.stack([views[i] for i in places], axis=1)
        found = function(ops.reshape(joined, (-1, *size)))
        apart = [
            ops.reshape(array, (-1, len(places), *array.shape[1:])) for array in found
        ]
        for k, i in enumerate(places):
            results[i] = tuple(array[:, k] for array in apart)
    return [results[i] for i in range(len(views))]


def output_shape(layer, input_shape):
    """Shape of a layer's outputs; builds the layer if it is not built."""
    return tuple(layer(keras.KerasTensor(input_shape)).shape)


def copy_layer(layer, input_shape):
    """A built copy of a layer or model: same configuration, same weights."""
    copied = type(layer).from_config(layer.get_config())
    copied(keras.KerasTensor(input_shape))
    copied.set_weights(layer.get_weights())
    return copied


def move_towards(averages, variables, rate):
    """averages += rate (variables - averages), variable by variable."""
    for average, variable in zip(averages, variables, strict=True):
        step = ops.cast(rate, average.dtype) * (variable - average)
        average.assign(average + step)


def _as_unit_range(images):
    """Float32 images in [0, 1] from float images, or from uint8 ones in 0 ... 255."""
    images = ops.convert_to_tensor(images)
    if keras.backend.standardize_dtype(images.dtype) == "uint8":
        return ops.cast(images, "float32") / 255.0
    return images
