"""What is in a source of images, and what training on it would cost."""

import collections
import dataclasses
import hashlib
import sys
import time

import keras
import numpy as np
from rich.console import Console
from rich.progress import track

from keras_kssl import data
from keras_kssl.data.decoding import BrokenImage
from keras_kssl.pretraining.building import build_model
from keras_kssl.pretraining.preparing import facts_of

_TIMED_STEPS = 3
_LISTED = 10
_FEW_IMAGES = 500


def report(source, recipe):
    """Lines of text on a source: what it holds, what is wrong, what training costs.

    Every image is decoded once, and a few steps of training are taken.

    Args:
        source: anything `data.open_source` takes.
        recipe: `recipes.Recipe`; its open options get the defaults for this source.
    """
    source = data.open_source(
        source, recipe.limit, max_broken=1.0, per_class=recipe.per_class
    )
    lines = [f"{source.name}: {len(source):,} images"]
    twins = _decode_all(source)
    readable = len(source) - len(_found_broken(source))
    if readable > 0:
        lines += _contents(source)
    lines += _faults(source, twins)
    if readable < 2:
        return [*lines, "Fewer than two images can be read: nothing to train on."]
    mean, std = data.channel_moments(source)
    lines.append(
        "mean per channel "
        + " ".join(f"{value:.3f}" for value in mean)
        + ", standard deviation "
        + " ".join(f"{value:.3f}" for value in std)
    )
    return [*lines, *_cost(source, recipe), *_advice(source)]


def _contents(source):
    lines = []
    if hasattr(source, "formats"):
        counts = [f"{count:,} {name}" for name, count in source.formats.most_common()]
        lines.append(f"formats: {', '.join(counts)}")
    sizes = _sizes(source)
    areas = sizes.prod(axis=1)
    smallest, middle, largest = (
        sizes[np.argsort(areas)[position]] for position in (0, len(areas) // 2, -1)
    )
    lines.append(
        f"height x width: {_pixels(smallest)} to {_pixels(largest)}, "
        f"in the middle {_pixels(middle)}; {source.image_shape[-1]} channels, "
        f"{source.dtype}"
    )
    if source.labels is None:
        lines.append("no labels: training needs none, measuring accuracy does")
    else:
        known = source.labels[source.labels >= 0]
        counts = np.bincount(known, minlength=max(1, source.num_classes))
        lines.append(
            f"labels: {source.num_classes} classes of {counts.min():,} to "
            f"{counts.max():,} images, {len(source) - len(known):,} images without"
        )
    return lines


def _found_broken(source):
    """Names of images of the source that turned out broken when they were decoded."""
    if not hasattr(source, "name_of"):
        return set()
    return {source.name_of(i) for i in range(len(source))} & source.broken.keys()


def _faults(source, twins):
    """Lines on what cannot be read and what is there twice."""
    broken = getattr(source, "broken", {})
    lines = [f"cannot be read: {len(broken):,}"]
    lines += [f"  {name}: {why}" for name, why in sorted(broken.items())[:_LISTED]]
    if len(broken) > _LISTED:
        lines.append(f"  and {len(broken) - _LISTED:,} more")
    lines.append(f"copies of another image: {sum(len(names) - 1 for names in twins):,}")
    lines += [f"  {' = '.join(names[:3])}" for names in twins[:_LISTED]]
    return lines


def _decode_all(source):
    """Notes what is broken; returns the names of images that are equal, in groups."""
    groups = collections.defaultdict(list)
    indices = range(len(source))
    for index in track(
        indices, "decoding", transient=True, disable=not Console().is_terminal
    ):
        if hasattr(source, "decode"):
            name = source.name_of(index)
            try:
                image, _ = source.decode(index)
            except BrokenImage as error:
                source.broken[name] = str(error)
                continue
        else:
            name, image = str(index), source.read([index])[0][0]
        digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16)
        digest.update(str(image.shape).encode())
        groups[digest.digest()].append(name)
    return [names for names in groups.values() if len(names) > 1]


def _cost(source, recipe):
    """Lines on time and memory, measured on a few steps with the defaults."""
    recipe = recipe.resolved(facts_of(source))
    batches = data.Batches(source, recipe.batch_size, recipe.seed, with_labels=False)
    # Otherwise the few steps that are measured might be fewer than are taken at once.
    recipe = dataclasses.replace(recipe, steps_per_execution=1)
    model = build_model(recipe, source.image_shape[-1], batches.steps_per_epoch)
    model.fit(batches, steps_per_epoch=1, verbose=0)
    batches = data.Batches(source, recipe.batch_size, recipe.seed, with_labels=False)
    began = time.perf_counter()
    model.fit(batches, steps_per_epoch=_TIMED_STEPS, verbose=0)
    seconds = (time.perf_counter() - began) / _TIMED_STEPS
    epoch = seconds * batches.steps_per_epoch
    waited = batches.seconds_waited / _TIMED_STEPS / seconds
    return [
        f"kssl pretrain would take {recipe.encoder}, views of {recipe.size} x "
        f"{recipe.size}, batch {recipe.batch_size}, {recipe.epochs} epochs of "
        f"{batches.steps_per_epoch} steps",
        f"measured on {_TIMED_STEPS} steps, {keras.backend.backend()} backend: "
        f"{recipe.batch_size / seconds:.0f} images/s, {_duration(epoch)} per epoch, "
        f"{_duration(epoch * recipe.epochs)} in all, {100 * waited:.0f}% of the time "
        f"waiting for data{_peak_memory()}",
    ]


def _peak_memory():
    """The most memory that this process has taken, where the system tells."""
    try:
        import resource
    except ImportError:
        return ""
    # macOS counts bytes, Linux kibibytes.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f"; memory of this process at most {peak / 2**30:.1f} GiB"


def _advice(source):
    lines = []
    if len(source) < _FEW_IMAGES:
        lines.append(
            f"change: {len(source)} images are few; features get better with thousands"
        )
    if source.image_shape[-1] != 3:
        lines.append(
            "change: nothing; colour operations are left out, mean and deviation are "
            "taken from the data"
        )
    broken = getattr(source, "broken", {})
    if broken:
        lines.append("change: repair or remove what cannot be read")
    return lines or ["change: nothing"]


def _sizes(source):
    height, width, _ = source.image_shape
    if height is None:
        return source.some_sizes()
    return np.array([[height, width]])


def _pixels(size):
    return f"{size[0]} x {size[1]}"


def _duration(seconds):
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
