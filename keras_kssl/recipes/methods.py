"""What each method takes, and what its authors gave it."""

from typing import Literal

Method = Literal["ssl_hsic", "sfrik", "simclr", "vicreg", "auh", "barlow_twins", "byol"]
Policy = Literal["byol", "vicreg", "simclr", "auh", "swav", "obow"]

# What each method's authors used, for auh SFRIK's; see the docstrings of the models.
# Learning rates are per 256 images of the batch, for LARS.
METHOD_DEFAULTS = {
    "ssl_hsic": {
        "augment": "byol",
        "base_learning_rate": 0.4,
        "final_fraction": 0.0,
        "average_decay": 0.999,
        "projector": (4096, 256),
    },
    "sfrik": {
        "augment": "vicreg",
        "base_learning_rate": 1.2,
        "final_fraction": 0.001,
        "average_decay": 0.0,
        "projector": (8192, 8192, 8192),
    },
    "simclr": {
        "augment": "simclr",
        "base_learning_rate": 0.3,
        "final_fraction": 0.0,
        "average_decay": 0.0,
        "projector": (2048, 128),
        "temperature": 0.1,
    },
    "vicreg": {
        "augment": "vicreg",
        "base_learning_rate": 0.2,
        "final_fraction": 0.001,
        "average_decay": 0.0,
        "projector": (8192, 8192, 8192),
        "invariance_weight": 25.0,
        "weight_per_pair": False,
        "variance_weight": 25.0,
        "covariance_weight": 1.0,
    },
    "auh": {
        "augment": "vicreg",
        "base_learning_rate": 1.0,
        "final_fraction": 0.001,
        "average_decay": 0.0,
        "projector": (8192, 8192, 8192),
        # 3000 for each of 8192 coordinates.
        "invariance_weight": 3000.0 / 8192.0,
    },
    "barlow_twins": {
        "augment": "vicreg",
        "base_learning_rate": 0.2,
        "final_fraction": 0.001,
        "average_decay": 0.0,
        "projector": (8192, 8192, 8192),
        "redundancy_weight": 0.005,
    },
    "byol": {
        "augment": "byol",
        "base_learning_rate": 0.2,
        "final_fraction": 0.0,
        "average_decay": 0.0,
        "projector": (4096, 256),
    },
}
# Options that mean something to some methods alone.
METHOD_OPTIONS = {
    "ssl_hsic": (
        "regularizer_weight",
        "target",
        "target_decay",
        "normalize_output",
        "estimator",
        "num_features",
        "kernel",
        "kernel_scale",
        "learn_scale",
        "regularize_small",
    ),
    "sfrik": (
        "invariance_weight",
        "weight_per_pair",
        "coefficients",
        "regularize_small",
    ),
    "simclr": ("temperature",),
    "vicreg": (
        "invariance_weight",
        "variance_weight",
        "covariance_weight",
        "regularize_small",
    ),
    "auh": ("invariance_weight", "weight_per_pair", "regularize_small"),
    "barlow_twins": ("redundancy_weight",),
    "byol": ("target_decay",),
}
# Those that are refused elsewhere; the others stand in the recipes of all runs.
REFUSED_ELSEWHERE = (
    "kernel",
    "kernel_scale",
    "learn_scale",
    "temperature",
    "variance_weight",
    "covariance_weight",
    "redundancy_weight",
)
# What serves runs better that are too short for a target network, an average over a
# thousand steps and the largest crops' variety to pay, as measured in benchmarks/.
SHORT_RUN_DEFAULTS = {
    "ssl_hsic": {"average_decay": 0.99, "projector": (512, 128)},
    "sfrik": {"projector": (512, 512, 512)},
    "simclr": {"projector": (512, 128)},
    "vicreg": {"projector": (512, 512, 512)},
    "auh": {"projector": (512, 512, 512)},
    "barlow_twins": {"projector": (512, 512, 512)},
    "byol": {"projector": (512, 128)},
}
# Policies with small crops, and the areas of their larger ones as published.
MULTI_CROP = {"swav": (0.14, 1.0), "obow": (0.08, 0.6)}


def published_crops(policy):
    """Smallest and largest crop of a policy, as shares of the image's area."""
    return MULTI_CROP.get(policy, (0.08, 1.0))
