"""From a resolved recipe to a compiled model."""

import keras

from keras_kssl import (
    augment,
    kernels,
    models,
    objectives,
    optimizers,
    replicas,
)
from keras_kssl._checks import check_that
from keras_kssl._seeds import derived_seed

_POLICIES = {
    "byol": augment.byol,
    "vicreg": augment.vicreg,
    "simclr": augment.simclr,
    "auh": augment.auh,
    "swav": augment.multi_crop_swav,
    "obow": augment.multi_crop_obow,
}
_MODELS = {
    "sfrik": models.SFRIK,
    "simclr": models.SimCLR,
    "vicreg": models.VICReg,
    "auh": models.AlignmentUniformity,
    "barlow_twins": models.BarlowTwins,
}
# Longest time between two looks at the progress of a TPU.
_STEPS_ON_TPU = 50


def build_model(recipe, channels, steps_per_epoch):
    """The compiled model of a resolved recipe."""
    total_steps = recipe.epochs * steps_per_epoch
    encoder = build_encoder(recipe, channels)
    policy = build_policy(recipe)
    smallest = min(policy.sizes)
    encoder.check_image_size(smallest, smallest)
    options = {
        "augment": policy,
        "micro_batches": recipe.micro_batches,
        "average_decay": recipe.average_decay or None,
        "seed": derived_seed(recipe.seed, 1),
    }
    options["objective"] = build_objective(recipe)
    options["projector"] = _head(recipe, recipe.projector, 2, "projector")
    if recipe.method in _MODELS:
        model = _MODELS[recipe.method](encoder, **options)
    else:
        model = _with_target(recipe, encoder, total_steps, options)
    model.compile(
        _optimizer(recipe, total_steps),
        jit_compile=_jit_compile(recipe),
        steps_per_execution=_steps_per_execution(recipe, steps_per_epoch),
    )
    return model


def build_encoder(recipe, channels):
    """The encoder of a resolved recipe, as it is before training."""
    return models.ResNet(
        int(recipe.encoder.removeprefix("resnet")),
        width=recipe.width,
        stem=recipe.stem,
        input_channels=channels,
        mean=recipe.mean,
        std=recipe.std,
        padding=recipe.padding,
        seed=derived_seed(recipe.seed, 0),
    )


def build_policy(recipe):
    """The augmentation policy of a resolved recipe."""
    return _POLICIES[recipe.augment](
        recipe.size, crop_scale=(recipe.crop_min, recipe.crop_max), flip=recipe.flip
    )


def build_objective(recipe):
    """The objective of a resolved recipe."""
    method = recipe.method
    if method == "ssl_hsic":
        return objectives.HSIC(
            recipe.regularizer_weight,
            num_features=recipe.num_features,
            estimator=recipe.estimator,
            regularize_small=recipe.regularize_small,
            kernel=_kernel(recipe),
            learn_scale=recipe.learn_scale,
            seed=derived_seed(recipe.seed, 4),
        )
    if method == "sfrik":
        return objectives.SFRIK(
            recipe.invariance_weight,
            coefficients=recipe.coefficients,
            weight_per_pair=recipe.weight_per_pair,
            regularize_small=recipe.regularize_small,
        )
    if method == "auh":
        return objectives.AlignmentUniformity(
            recipe.invariance_weight,
            weight_per_pair=recipe.weight_per_pair,
            regularize_small=recipe.regularize_small,
        )
    if method == "vicreg":
        return objectives.VICReg(
            recipe.invariance_weight,
            recipe.variance_weight,
            recipe.covariance_weight,
            regularize_small=recipe.regularize_small,
        )
    if method == "simclr":
        return objectives.SimCLR(recipe.temperature)
    if method == "barlow_twins":
        return objectives.BarlowTwins(recipe.redundancy_weight)
    return objectives.BYOL()


def _kernel(recipe):
    if recipe.kernel == "linear":
        return kernels.Linear()
    if recipe.kernel == "gaussian":
        return kernels.Gaussian(recipe.kernel_scale)
    return kernels.InverseMultiquadric(recipe.kernel_scale)


def _with_target(recipe, encoder, total_steps, options):
    """The model of a method that has a target network, for ssl_hsic if it is wanted."""
    has_target = recipe.method == "byol" or recipe.target
    if has_target:
        # A predictor maps embeddings to embeddings through one hidden layer.
        widths = (recipe.projector[0], recipe.projector[-1])
        options["predictor"] = _head(recipe, widths, 3, "predictor")
    options["target_decay"] = optimizers.TargetDecay(total_steps, recipe.target_decay)
    if recipe.method == "byol":
        return models.BYOL(encoder, **options)
    return models.SSLHSIC(encoder, target=recipe.target, **options)


def _head(recipe, widths, key, name):
    return models.MLPHead(
        widths[:-1],
        widths[-1],
        normalize_output=recipe.method == "ssl_hsic" and recipe.normalize_output,
        seed=derived_seed(recipe.seed, key),
        name=name,
    )


def _optimizer(recipe, total_steps):
    schedule = optimizers.warmup_cosine(
        recipe.learning_rate,
        warmup_steps=round(recipe.warmup_epochs * total_steps / recipe.epochs),
        total_steps=total_steps,
        final_fraction=recipe.final_fraction,
    )
    if recipe.optimizer == "adam":
        return optimizers.Adam(schedule)
    return optimizers.LARS(schedule, weight_decay=recipe.weight_decay)


def _jit_compile(recipe):
    is_tensorflow = keras.backend.backend() == "tensorflow"
    if is_tensorflow and replicas.num_replicas() > 1:
        # TPUs compile by themselves; elsewhere Keras would compile all replicas as one.
        rule = "left out, or false, with several replicas on TensorFlow"
        value = recipe.jit_compile
        check_that(not value, "recipe", "jit_compile", rule, value)
        return False
    # Keras leaves XLA out on CPUs under TensorFlow, whose own convolutions are faster.
    return "auto" if recipe.jit_compile is None else recipe.jit_compile


def _steps_per_execution(recipe, steps_per_epoch):
    wanted = recipe.steps_per_execution
    if wanted is None:
        devices = keras.distribution.list_devices()
        is_tpu = any(name.startswith("tpu") for name in devices)
        largest = _STEPS_ON_TPU if is_tpu else 1
        return _divisors(steps_per_epoch, largest)[-1]
    near = _divisors(steps_per_epoch, wanted)[-1]
    check_that(
        near == wanted,
        "recipe",
        "steps_per_execution",
        f"a divisor of the steps of an epoch, {steps_per_epoch}",
        wanted,
        f"Such as {near}.",
    )
    return wanted


def _divisors(number, largest):
    """Divisors of a number up to the largest that is wanted, in order."""
    return [i for i in range(1, min(number, largest) + 1) if number % i == 0]
