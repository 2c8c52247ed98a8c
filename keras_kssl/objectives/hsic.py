"""The SSL-HSIC objective."""

import keras
from keras import ops

from keras_kssl import replicas
from keras_kssl._checks import check_choice, check_integer, check_number, check_that
from keras_kssl._seeds import SavesSeedState
from keras_kssl.kernels import (
    InverseMultiquadric,
    Kernel,
    StationaryKernel,
    doubled_gradient,
    squared_distances,
)
from keras_kssl.objectives.objective import Objective
from keras_kssl.statistics import hsic_from_features, hsic_from_gram_rows, unit_rows

# Where HSIC(Z, Z) is smaller than this its square root counts as constant: the root
# has no finite gradient at total collapse.
_SMALLEST_HSIC = 1e-14
# Rows that the kernel scale is learned from with random features, all views together.
_SCALE_SAMPLE = 1024


@keras.saving.register_keras_serializable(package="keras_kssl")
class HSIC(SavesSeedState, Objective):
    """SSL-HSIC: dependence of embeddings on image identity, less their own variance.

    Formula: `loss = γ sqrt(HSIC(Z, Z)) - HSIC(Z, Y)` over the unit-length embeddings Z
    of all M views, Y the identity of the image; see `statistics.hsic_from_gram`. With
    `num_global` HSIC(Z, Y) is that of all views alike, HSIC(Z, Z) that of the global
    ones.

    Two estimators of the same quantity:

    - "gram": exact. Time O(n² d), memory O(n²), with n = B M.
    - "random_features": D fresh random Fourier features in two independent draws per
      step, shared by all views. Time O(n D d + n D²), linear in the batch, with noise:
      the standard deviation of HSIC(Z, Z) is about 6% at D = 512, n = 256.
    - "auto" takes the exact one as long as it is also the cheaper one.

    Args:
        regularizer_weight: γ > 0. Default 3.
        num_features: D, random features per draw. Default 512.
        estimator: "auto", "gram" or "random_features". A batch whose size is known
            only while it runs counts as small for "auto".
        kernel: a `kernels.Kernel`; default `InverseMultiquadric(1.0)`. Its scale is
            where learning starts.
        learn_scale: whether training moves the scale c of an inverse multiquadric
            kernel: up the gradient of mean log |dk/ds| over pairs, s the squared
            distance, by Adam's rule, apart from the loss (which sees c as a
            constant). Other kernels have no learned scale.
        scale_learning_rate: Adam's step size for the scale. Default 3e-4.
        seed: integer seed of the random features; `None` draws one.
        regularize_small: whether HSIC(Z, Z) takes in the views that are not global
            too. Default False.

    Terms: `loss`, `hsic_zy`, `hsic_zy_unbiased` (without self pairs), `hsic_zz`, and
    `kernel_scale` where it is learned. The terms' values with M = 4: total collapse
    gives a loss of -1/3; with M = 2 it gives -1.

    >>> import numpy as np
    >>> views = [np.eye(8, 16), np.eye(8, 16)]
    >>> round(float(HSIC()(views)), 4)
    -0.9505

    References:
        SSL-HSIC, arXiv 2106.08320, and its released code. Differences: HSIC(Z, Z) is
        centred before squaring; the square root has a finite gradient at collapse;
        frequencies come from the exact sampler of the kernel, not from a table; with
        the exact estimator the scale sees all pairs instead of a sample of 1024 rows.
    """

    def __init__(
        self,
        regularizer_weight=3.0,
        num_features=512,
        estimator="auto",
        kernel=None,
        learn_scale=True,
        scale_learning_rate=3e-4,
        seed=None,
        regularize_small=False,
        name=None,
    ):
        super().__init__(name=name)
        self.regularizer_weight = check_number(
            "HSIC", "regularizer_weight", regularizer_weight, minimum=0.0
        )
        self.num_features = check_integer("HSIC", "num_features", num_features, 1)
        self.estimator = check_choice(
            "HSIC", "estimator", estimator, ("auto", "gram", "random_features")
        )
        self.kernel = InverseMultiquadric() if kernel is None else kernel
        rule = "a kernel such as kernels.InverseMultiquadric()"
        check_that(isinstance(self.kernel, Kernel), "HSIC", "kernel", rule, kernel)
        self._has_random_features = isinstance(self.kernel, StationaryKernel)
        check_that(
            self._has_random_features or estimator != "random_features",
            "HSIC",
            "estimator",
            "'gram' or 'auto' for a kernel without random features",
            estimator,
        )
        self.learn_scale = learn_scale
        self.scale_learning_rate = check_number(
            "HSIC", "scale_learning_rate", scale_learning_rate, minimum=0.0
        )
        self.seed = seed
        self.regularize_small = regularize_small
        self.seed_generator = keras.random.SeedGenerator(seed)
        self._learns_scale = learn_scale and isinstance(
            self.kernel, InverseMultiquadric
        )
        if self._learns_scale:
            self.scale = self._scalar("scale", self.kernel.scale)
            self._adam = {
                key: self._scalar(f"scale_{key}", 0.0)
                for key in ("momentum", "velocity", "steps")
            }
        self.built = True

    def terms(self, embeddings, training=False, num_global=None):
        num_global = self._check_embeddings(embeddings, num_global)
        num_views, (_, dim) = len(embeddings), embeddings[0].shape
        views = [unit_rows(z) for z in embeddings]
        kernel = self._current_kernel()
        regularized = num_views if self.regularize_small else num_global
        rows = views[0].shape[0]
        n = rows and rows * num_views * replicas.count()
        is_exact = self._uses_gram(n, dim)
        if is_exact:
            zy, zz, distances = self._exact(kernel, views, regularized)
        else:
            zy, zz, distances = self._estimated(kernel, views, regularized, training)
        loss = self.regularizer_weight * ops.sqrt(ops.maximum(zz, _SMALLEST_HSIC)) - zy
        terms = {"loss": loss, "hsic_zy": zy, "hsic_zz": zz}
        # k(z, z) is the same for all unit-length z.
        first = views[0][:1]
        self_similarity = ops.mean(kernel(first, first))
        terms["hsic_zy_unbiased"] = zy - self_similarity / (num_views - 1)
        if self._learns_scale:
            terms["kernel_scale"] = ops.copy(self.scale)
            if training:
                slope = ops.mean(
                    ops.stack(
                        [ops.mean(kernel.log_slope_gradient(s)) for s in distances]
                    )
                )
                # Of the Gram matrix this replica has its rows only.
                self._ascend(replicas.global_mean(slope) if is_exact else slope)
        return terms

    def _exact(self, kernel, views, regularized):
        # Rows against all columns, which are constants: i and j play the same part in
        # what follows, so that twice the gradient by the rows is all of it, and views
        # without a gradient cost no product backward.
        # On JAX a batch that is shared out stays an axis of its own as long as it can.
        every = ops.stack([ops.stop_gradient(z) for z in views])
        every = replicas.global_rows(ops.reshape(every, (-1, every.shape[-1])))
        rows = [doubled_gradient(z) for z in views]
        if not self._has_random_features:
            gram = [kernel(z, every) for z in rows]
            return *hsic_from_gram_rows(gram, regularized), None
        distances = [squared_distances(z, every) for z in rows]
        gram = [kernel.from_squared_distances(view) for view in distances]
        terms = hsic_from_gram_rows(gram, regularized)
        return *terms, [ops.stop_gradient(view) for view in distances]

    def _estimated(self, kernel, views, regularized, training):
        frequencies, phases = kernel.sample_frequencies(
            2 * self.num_features, views[0].shape[-1], self.seed_generator
        )
        # Both draws in one product; each is scaled as a map of D features of its own.
        draws = [
            ops.split(
                2.0**0.5 * kernel.random_features(z, frequencies, phases), 2, axis=-1
            )
            for z in views
        ]
        zy, zz = hsic_from_features(*zip(*draws, strict=True), regularized)
        if not (self._learns_scale and training):
            return zy, zz, None
        return zy, zz, [self._sampled_distances(views)]

    def _sampled_distances(self, views):
        """Squared distances between two samples of rows, all views alike."""
        num_views, num_images = len(views), ops.shape(views[0])[0]
        images = keras.random.randint(
            (2, num_views, _SCALE_SAMPLE // num_views),
            0,
            num_images * replicas.count(),
            seed=self.seed_generator,
        )
        # Each replica gives the rows that it has, and zeros for the others.
        images = images - replicas.my_number() * num_images
        is_here = (images >= 0) & (images < num_images)
        images = ops.where(is_here, images, 0)
        sample = ops.stack(
            [
                ops.take(ops.stop_gradient(view), images[:, v], axis=0)
                for v, view in enumerate(views)
            ],
            axis=1,
        )
        sample = replicas.global_sum(ops.where(is_here[..., None], sample, 0.0))
        sample = ops.reshape(sample, (2, -1, sample.shape[-1]))
        return squared_distances(sample[0], sample[1])

    def _ascend(self, gradient):
        """One step of Adam (0.9, 0.999, 1e-8) up the gradient of the kernel scale."""
        gradient = ops.cast(ops.stop_gradient(gradient), self.scale.dtype)
        steps = self._adam["steps"] + 1.0
        momentum = 0.9 * self._adam["momentum"] + 0.1 * gradient
        velocity = 0.999 * self._adam["velocity"] + 0.001 * ops.square(gradient)
        mean = momentum / (1.0 - ops.power(0.9, steps))
        deviation = ops.sqrt(velocity / (1.0 - ops.power(0.999, steps)))
        step = self.scale_learning_rate * mean / (deviation + 1e-8)
        self.scale.assign(self.scale + step)
        self._adam["momentum"].assign(momentum)
        self._adam["velocity"].assign(velocity)
        self._adam["steps"].assign(steps)

    def _uses_gram(self, n, dim):
        if self.estimator != "auto" or not self._has_random_features:
            return self.estimator != "random_features"
        return n is None or gram_is_cheaper(n, dim, self.num_features)

    def _current_kernel(self):
        if not self._learns_scale:
            return self.kernel
        return InverseMultiquadric(ops.stop_gradient(ops.convert_to_tensor(self.scale)))

    def _scalar(self, name, value):
        return self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(value),
            trainable=False,
            name=name,
        )

    def collapse_loss(self, num_views):
        anywhere = ops.eye(1, 2)
        similarity = self._current_kernel()(anywhere, anywhere)
        return -float(ops.convert_to_numpy(similarity)[0, 0]) / (num_views - 1)

    @property
    def term_names(self):
        names = ("hsic_zy", "hsic_zy_unbiased", "hsic_zz")
        return (*names, "kernel_scale") if self._learns_scale else names

    def get_config(self):
        return {
            **super().get_config(),
            "regularizer_weight": self.regularizer_weight,
            "num_features": self.num_features,
            "estimator": self.estimator,
            "kernel": keras.saving.serialize_keras_object(self.kernel),
            "learn_scale": self.learn_scale,
            "scale_learning_rate": self.scale_learning_rate,
            "seed": self.seed,
            "regularize_small": self.regularize_small,
        }

    @classmethod
    def from_config(cls, config):
        kernel = keras.saving.deserialize_keras_object(config["kernel"])
        return cls(**{**config, "kernel": kernel})


def gram_is_cheaper(n, dim, num_features):
    """Whether the exact Gram form costs less than two draws of random features.

    Counts multiply-adds of the forward and the backward pass. Elementwise work counts
    as 1300 of them for an element of the Gram matrix and 2400 for a cosine, 6000 on
    JAX, as timed on two CPU cores for D = 512 and d = 64, 128 and 256: the forms broke
    even between n = 1024 and n = 2048, on JAX between 2048 and 4096.
    """
    cosine = 6000 if keras.backend.backend() == "jax" else 2400
    gram = n * n * (2 * dim + 1300)
    random_features = n * num_features * (4 * dim + 3 * num_features + cosine)
    return gram <= random_features
