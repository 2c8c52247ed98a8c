"""Numbers and names as people read them."""

import datetime
import json
import math

_METHODS = {
    "ssl_hsic": "SSL-HSIC",
    "sfrik": "SFRIK",
    "simclr": "SimCLR",
    "vicreg": "VICReg",
    "auh": "Alignment and uniformity",
    "barlow_twins": "Barlow Twins",
    "byol": "BYOL",
}
_STAGES = {"raw_pixels": "raw pixels", "untrained": "before", "trained": "after"}
# Endings of the names of scores that are no shares.
_NO_SHARES = ("rms", "rel")

# What metrics mean, and what is good.
_METRICS = {
    "loss": "What training minimises. Lower is better, within one method and recipe.",
    "hsic_zy": "Dependence of embeddings on which image they are of. Higher is better.",
    "hsic_zy_unbiased": "The same without the pairs of a view with itself. Higher is "
    "better; 0 means that views tell nothing of the image.",
    "hsic_zz": "Dependence of embeddings on themselves, held down by the regulariser.",
    "kernel_scale": "Scale of the kernel, learned along the way. Should settle.",
    "invariance": "Distance between views of an image, as the loss weighs it. Lower is "
    "better.",
    "mmd": "Distance of the batch from the uniform law on the sphere. Lower is better; "
    "81 with the default kernel is total collapse.",
    "similarity": "Cosine of two views of an image. Higher is better: 1 for equal.",
    "contrast": "Similarity of embeddings to all others of the batch. Lower is better.",
    "potential": "How evenly embeddings cover the sphere, as the loss weighs it. Lower "
    "is better; near 0 is collapse.",
    "variance": "How far standard deviations of coordinates are below 1. Lower is "
    "better: near 1 is collapse.",
    "covariance": "Squared covariances of different coordinates. Lower is better.",
    "redundancy": "Squared correlations of different coordinates. Lower is better.",
    "alignment": "Mean squared distance between views of an image. Lower is better: 0 "
    "for equal views, 2 where nothing has been learned.",
    "uniformity": "How evenly embeddings cover the sphere. Lower is better; near 0 is "
    "collapse.",
    "effective_rank": "Directions that embeddings use. Higher is better; near 1 is "
    "collapse.",
    "spread": "How evenly embeddings use their coordinates. 1 is uniform on the "
    "sphere; near 0 is collapse.",
    "gradient_norm": "Length of the gradient, mean over steps. Should neither grow nor "
    "jump.",
    "knn": "Accuracy of the vote of the nearest neighbours on the test images. Higher "
    "is better.",
    "linear": "Accuracy of a linear probe on the test images. Higher is better.",
    "probe_accuracy": "Accuracy of the linear probe trained beside. Higher is better.",
}


def method_name(method):
    """A method as its authors write it."""
    return _METHODS.get(method, method)


def stage_name(stage):
    """A row of accuracies: raw pixels, before and after training."""
    return _STAGES.get(stage, stage.replace("_", " "))


def score_name(name):
    """A score as people call it: "kNN (k = 20)"."""
    kind, _, k = name.partition("_")
    if kind == "knn" and k.isdigit():
        return f"kNN (k = {k})"
    return name.replace("_", " ")


def score_text(name, mean, std=None):
    """A score, with its deviation over seeds if there is one: "61.3 ± 0.4 %".

    Lines break before ± alone.
    """
    is_share = not name.endswith(_NO_SHARES)
    parts = [mean] if std is None else [mean, std]
    numbers = [f"{100 * part:.1f}" if is_share else f"{part:.4g}" for part in parts]
    return " ±\N{NO-BREAK SPACE}".join(numbers) + (
        "\N{NO-BREAK SPACE}%" if is_share else ""
    )


def number(value):
    """A number with four digits that count."""
    return f"{value:.4g}"


def meaning(metric):
    """What a metric means and what is good; empty for others than the library's."""
    name = metric.removeprefix("val_")
    return _METRICS.get("knn" if name.startswith("knn_") else name, "")


def last_number(values):
    """The last number of a curve that is one: not every epoch need be measured."""
    return number(next(value for value in values[::-1] if math.isfinite(value)))


def value_text(value):
    """An option or a setting: text as it is, anything else as JSON."""
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value)


def duration(seconds):
    """Time as people say it: "2 min 10 s"."""
    seconds = round(seconds)
    hours, minutes = seconds // 3600, seconds // 60 % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds % 60} s" if minutes else f"{seconds} s"


def date_text(date):
    """A date of a JSON file to the minute; anything else as it is."""
    try:
        return f"{datetime.datetime.fromisoformat(date):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return date
