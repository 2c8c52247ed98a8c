"""Sources whose images are decoded when they are needed, each of a size of its own."""

import abc
import concurrent.futures
import contextlib
import functools
import os
import threading

import numpy as np
from rich.console import Console
from rich.progress import track

from keras_kssl._checks import check_integer, check_number
from keras_kssl._machine import num_cores
from keras_kssl.augment.views import CENTER_FRACTION, View
from keras_kssl.data import cutting
from keras_kssl.data.decoding import BrokenImage, decode, read_header

MAX_BROKEN = 0.1
_MANY = 5000


class TooManyBroken(ValueError):
    """More of a source cannot be read than was said to be tolerable."""


class EncodedSource(abc.ABC):
    """Images of many sizes, decoded by threads when they are asked for.

    What cannot be read is skipped, another image takes its place, and `broken` says
    what and why; `TooManyBroken` is raised once they are more than a share
    `max_broken` of all. Subclasses give the encoded images.

    Attributes:
        name: what messages call the source.
        labels: int32 (n,), -1 where there is none; for images of several classes
            (n, classes), see `TfdsSource.labels`; `None` without labels.
        class_names: a name for each class, or `None`.
        channels: of all images.
        dtype: "uint8", or "float32" for a source of images deeper than 8 bits.
        broken: dictionary from the names of unreadable images to the reasons.
    """

    def __init__(self, name, labels, class_names, channels, dtype, max_broken):
        self.name = name
        self.labels = labels
        self.class_names = class_names
        self.channels = channels
        self.dtype = dtype
        self.max_broken = check_number(name, "max_broken", max_broken, 0.0, 1.0)
        self.broken = {}
        self._lock = threading.Lock()

    @abc.abstractmethod
    def __len__(self):
        """Number of images whose headers can be read."""

    @abc.abstractmethod
    def content(self, index):
        """One encoded image: a path or bytes. Raises `BrokenImage`."""

    @abc.abstractmethod
    def name_of(self, index):
        """What messages call one image."""

    def __repr__(self):
        labels = "no labels" if self.labels is None else f"{self.num_classes} classes"
        return (
            f"<{self.name}: {len(self)} images of many sizes, {self.channels} "
            f"channels, {labels}>"
        )

    @property
    def image_shape(self):
        """(None, None, channels): every image has a size of its own."""
        return (None, None, self.channels)

    @property
    def num_classes(self):
        """Number of classes; `None` without labels."""
        return None if self.labels is None else len(self.class_names)

    def some_sizes(self, count=100):
        """Height and width, (k, 2), of up to `count` images, evenly spaced."""
        sizes = []
        for index in np.linspace(0, len(self) - 1, min(count, len(self))).astype(int):
            with contextlib.suppress(BrokenImage):
                header = read_header(self.content(index))
                sizes.append((header.height, header.width))
        return np.array(sizes).reshape(-1, 2)

    def decode(self, index, prepare=None):
        """One image; see `decoding.decode`. Raises `BrokenImage`."""
        return decode(self.content(index), self.channels, self.dtype, prepare)

    def views(self, indices, views, numbers):
        """Views of images, cut out and resized.

        An image that cannot be read is replaced by the next one that can, so that what
        a batch holds is a function of the files alone.

        Args:
            indices: (B,) positions of the images.
            views: settings, `augment.View`, one or more.
            numbers: uniform numbers in [0, 1), (B, views, NUMBERS_PER_VIEW).

        Returns:
            List with an array (B, size, size, channels) for each view, and the
            positions (B,) of the images that they show.
        """
        shown = np.array(indices)
        cuts = [
            np.empty((len(shown), v.size, v.size, self.channels), self.dtype)
            for v in views
        ]

        def fill(slot):
            for step in range(len(self)):
                index = (indices[slot] + step) % len(self)
                parts = self._parts(index, views, numbers[slot])
                if parts is not None:
                    shown[slot] = index
                    for cut, part in zip(cuts, parts, strict=True):
                        cut[slot] = part
                    return
            raise TooManyBroken(f"{self.name}: no image can be read any more.")

        for_each(fill, len(shown))
        return cuts, shown

    @abc.abstractmethod
    def fingerprint(self):
        """Digits that differ for other images."""

    @abc.abstractmethod
    def only(self, indices):
        """A source of the images at these positions, in this order."""

    def take(self, count):
        """A source of the first `count` images, or of all where there are fewer."""
        count = check_integer(f"{self.name}.take", "count", count, minimum=1)
        return self.only(np.arange(min(count, len(self))))

    def at_size(self, size, fraction=CENTER_FRACTION):
        """The source with every image resized and cut to one size; see `FixedSize`."""
        return FixedSize(self, size, fraction)

    def _parts(self, index, views, numbers):
        """Parts of one image, or `None` where it cannot be read."""
        if self.name_of(index) in self.broken:
            return None
        boxes = []

        def choose(height, width):
            boxes.extend(cutting.boxes_of_views(views, numbers, height, width))
            return cutting.largest_shrink(views, boxes, height, width)

        try:
            image, shape = self.decode(index, choose)
        except BrokenImage as error:
            self._note(self.name_of(index), str(error))
            return None
        return [
            cutting.cut(image, cutting.scale_box(box, shape, image.shape[:2]), view)
            for box, view in zip(boxes, views, strict=True)
        ]

    def _note(self, name, reason):
        with self._lock:
            self.broken[name] = reason
            self.check_broken()

    def num_left_out(self):
        """How many of those in `broken` `len` does not count."""
        return 0

    def check_broken(self):
        """Raises `TooManyBroken` where more are broken than `max_broken` allows."""
        if len(self.broken) <= self.max_broken * len(self):
            return
        total = len(self) + self.num_left_out()
        if len(self.broken) <= self.max_broken * total:
            return
        listed = list(self.broken.items())
        lines = [f"  {name}: {reason}" for name, reason in listed[:20]]
        if len(listed) > 20:
            lines.append(f"  and {len(listed) - 20} more")
        raise TooManyBroken(
            f"{self.name}: at most a share of {self.max_broken:g} of the images may be "
            f"unreadable. Received: {len(listed)} of {total} that cannot be read. "
            "Remove or repair them, or raise `max_broken`:\n" + "\n".join(lines)
        )


class FixedSize:
    """An `EncodedSource` at one size: resized, the centre cut out, for evaluation.

    `read` leaves out what cannot be read, so that it is of no use for training.

    Args:
        source: the source.
        size: side of the images in pixels.
        fraction: share of the shorter side that is kept.
    """

    def __init__(self, source, size, fraction=CENTER_FRACTION):
        self.source = source
        self.size = check_integer(source.name, "size", size, minimum=1)
        self._view = View(size=size, center_fraction=fraction)
        self.name, self.labels = source.name, source.labels
        self.class_names, self.num_classes = source.class_names, source.num_classes
        self.image_shape = (size, size, source.channels)
        self.dtype = source.dtype
        self._fraction = fraction

    def __len__(self):
        return len(self.source)

    def fingerprint(self):
        """Digits that differ for other images; the size does not count."""
        return self.source.fingerprint()

    def only(self, indices):
        """A source of the images at these positions, in this order."""
        return FixedSize(self.source.only(indices), self.size, self._fraction)

    def take(self, count):
        """The first `count` images, or all where there are fewer."""
        return FixedSize(self.source.take(count), self.size, self._fraction)

    def __repr__(self):
        return f"{self.source!r} at {self.size} x {self.size}"

    def read(self, indices):
        """Images (b, size, size, C) that can be read, and their positions (b,)."""
        parts = [None] * len(indices)

        def fill(slot):
            found = self.source._parts(indices[slot], (self._view,), (None,))
            parts[slot] = found and found[0]

        for_each(fill, len(indices))
        good = [slot for slot, part in enumerate(parts) if part is not None]
        images = np.empty((len(good), *self.image_shape), self.source.dtype)
        for row, slot in enumerate(good):
            images[row] = parts[slot]
        return images, np.asarray(indices)[good]


@functools.cache
def _pool():
    return concurrent.futures.ThreadPoolExecutor(
        num_cores(), thread_name_prefix="kssl_decode"
    )


# Threads do not survive in a child process; the pool would wait for them for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)


def for_each(action, count, title=None):
    """Runs action(0) ... action(count - 1) on all cores; raises what the first raised.

    Handed over in parts: small images take less time than a hand-over. With a title
    and thousands of actions, a bar shows on terminals how far they are.
    """
    part = max(1, min(8, count // (2 * num_cores())))

    def run(start):
        for position in range(start, min(start + part, count)):
            action(position)

    starts = range(0, count, part)
    done = _pool().map(run, starts)
    if title is not None and count >= _MANY and Console().is_terminal:
        done = track(done, title, len(starts), transient=True)
    for _ in done:
        pass
