"""Sets of TensorFlow Datasets, at random access in either of their layouts."""

import bisect
import copy
import difflib
import functools
import hashlib
import itertools
import os
import re
import struct

import numpy as np

from keras_kssl.data.decoding import BrokenImage, checked
from keras_kssl.data.encoded import MAX_BROKEN, EncodedSource, for_each

_LENGTH = struct.Struct("<Q")
# A record's length with its checksum stands before it, its own checksum behind it.
_BEFORE, _BEHIND = 12, 4


def open_tfds(text, max_broken=MAX_BROKEN):
    """A prepared set: "NAME", "NAME:SPLIT" or "NAME:VERSION:SPLIT".

    The split is one that TFDS understands, such as `train` (default) or `train[:10%]`.
    Nothing is downloaded. The set is looked for where TFDS keeps it: in the folder
    TFDS_DATA_DIR, by default ~/tensorflow_datasets.

    Raises:
        ImportError: where TensorFlow Datasets is not installed.
        FileNotFoundError: for a set that was not prepared.
        ValueError: for an unknown name or split, or a set without images.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise ImportError(
            "open_source: sets of TensorFlow Datasets need a package that is not "
            f"installed. Received: source='tfds:{text}'. "
            "Install it: pip install 'keras_kssl[tfds]'."
        ) from None
    name, _, split = text.partition(":")
    version = re.match(r"[\d.*]+(:|$)", split)
    if version:
        name = f"{name}:{version[0].rstrip(':')}"
        split = split[version.end() :]
    return TfdsSource(_builder(tfds, name, text), split or "train", max_broken)


class TfdsSource(EncodedSource):
    """One split of a prepared set, whose records are read when they are needed.

    Records are found by position in both layouts: array_record files have an index,
    and for TFRecord files one is made by reading the length of each record. Labels are
    read when they are first asked for, which goes through the whole set once; that of
    a record that cannot be read is -1, "not known".

    Args:
        builder: `tfds.core.DatasetBuilder` of a prepared set.
        split: name of the split, which may be a slice.
        max_broken: share of the images that may be unreadable. Default 0.1.
    """

    def __init__(self, builder, split, max_broken=MAX_BROKEN):
        self._features = builder.info.features
        self._image, self._label = _keys(builder)
        self._is_multi_label = self._label is not None and not isinstance(
            self._features[self._label], _tfds().features.ClassLabel
        )
        name = f"tfds:{builder.info.full_name}:{split}"
        try:
            instructions = builder.info.splits[split].file_instructions
        except (KeyError, ValueError):
            known = ", ".join(builder.info.splits)
            raise ValueError(
                f"open_source: `source` must name a split of the set. Received: "
                f"{name!r}. Known: {known}, and slices such as "
                f"{next(iter(builder.info.splits))}[:10%]."
            ) from None
        self._records = _records(builder.info.file_format.value, instructions)
        self._positions = np.arange(len(self._records))
        self._kind = f"{name} {builder.info.config_description}"
        class_names = None
        if self._label is not None:
            kind = self._features[self._label]
            kind = kind.feature if self._is_multi_label else kind
            class_names = list(kind.names)
        super().__init__(name, None, class_names, 3, "uint8", max_broken)

    def __len__(self):
        return len(self._positions)

    @functools.cached_property
    def _all_labels(self):
        width = (self.num_classes,) if self._is_multi_label else ()
        labels = np.empty((len(self), *width), np.int32)

        def read(position):
            try:
                labels[position] = self._label_of(self._example(position))
            except BrokenImage as error:
                labels[position] = -1
                self._note(self.name_of(position), str(error))

        for_each(read, len(self), "reading labels")
        return labels

    @property
    def labels(self):
        """int32 (n,), or `None`; reads the whole set the first time.

        For a set whose images are of several classes, such as voc/2007, (n, classes):
        1 where the image shows the class, 0 where not, -1 where all that it shows of
        it is marked as difficult.
        """
        return None if self._label is None else self._all_labels

    @labels.setter
    def labels(self, value):
        del value

    @property
    def num_classes(self):
        return None if self._label is None else len(self.class_names)

    def __repr__(self):
        return f"<{self.name}: {len(self)} images>"

    def content(self, index):
        image = self._example(index)[self._image]
        if not image:
            raise BrokenImage("a record without an image")
        return image

    def name_of(self, index):
        return f"record {self._positions[index]}"

    def fingerprint(self):
        digest = hashlib.blake2b(self._kind.encode(), digest_size=8)
        digest.update(np.ascontiguousarray(self._positions, np.int64).data)
        return digest.hexdigest()

    def only(self, indices):
        chosen = copy.copy(self)
        chosen._positions = self._positions[indices]
        if "_all_labels" in self.__dict__:
            chosen._all_labels = self._all_labels[indices]
        names = {chosen.name_of(i) for i in range(len(chosen))}
        chosen.broken = {n: why for n, why in self.broken.items() if n in names}
        return chosen

    def _label_of(self, example):
        if not self._is_multi_label:
            return example[self._label]
        labels = np.zeros(self.num_classes, np.int32)
        labels[example[self._label]] = -1
        labels[example.get(f"{self._label}_no_difficult", example[self._label])] = 1
        return labels

    def _example(self, index):
        decoders = {self._image: _tfds().decode.SkipDecoding()}
        return checked(
            lambda: self._features.deserialize_example_np(
                self._records[int(self._positions[index])], decoders=decoders
            )
        )


def _builder(tfds, name, text):
    try:
        builder = tfds.builder(name)
    except tfds.core.DatasetNotFoundError:
        near = difflib.get_close_matches(name, tfds.list_builders(), n=1)
        remedy = f"Did you mean {near[0]!r}?" if near else "Is it in TFDS_DATA_DIR?"
        raise ValueError(
            "open_source: `source` must name a set of TensorFlow Datasets. Received: "
            f"'tfds:{text}'. {remedy}"
        ) from None
    except (ValueError, AssertionError) as error:
        raise ValueError(
            "open_source: `source` must name a set of TensorFlow Datasets. Received: "
            f"'tfds:{text}' ({str(error).splitlines()[0]})."
        ) from None
    if not builder.info.splits:
        raise FileNotFoundError(
            "open_source: the set must have been prepared on this machine. Received: "
            f"'tfds:{text}', which is not in {builder.data_path}. Prepare it, which "
            f"may download it: tfds build {name} --file_format array_record. Or set "
            "TFDS_DATA_DIR to the folder where it is."
        )
    return builder


def _keys(builder):
    """Names of the image and of the label (or `None`) in a set's examples."""
    tfds = _tfds()
    features = builder.info.features
    supervised = list(builder.info.supervised_keys or ())
    names = [*supervised, *features]

    def first(kind):
        found = (n for n in names if n in features and isinstance(features[n], kind))
        return next(found, None)

    image = first(tfds.features.Image)
    if image is None:
        raise ValueError(
            "open_source: `source` must name a set of images. Received: "
            f"'tfds:{builder.info.full_name}' with the features {', '.join(features)}."
        )
    if np.dtype(features[image].np_dtype).kind != "u":
        # TFDS keeps floats as the bits of PNGs, which are no picture.
        raise ValueError(
            "open_source: `source` must name a set of images of unsigned integers. "
            f"Received: 'tfds:{builder.info.full_name}', whose {image!r} is of "
            f"{np.dtype(features[image].np_dtype)}."
        )
    label = first(tfds.features.ClassLabel)
    if label is None:
        label = next((n for n in features if _is_list_of_classes(features[n])), None)
    return image, label


def _is_list_of_classes(feature):
    tfds = _tfds()
    is_list = isinstance(feature, tfds.features.Sequence)
    return is_list and isinstance(feature.feature, tfds.features.ClassLabel)


def _tfds():
    import tensorflow_datasets

    return tensorflow_datasets


def _records(file_format, instructions):
    if file_format == "array_record":
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        return ArrayRecordDataSource(instructions)
    if file_format == "tfrecord":
        return _TFRecords(instructions)
    raise ValueError(
        "open_source: sets of TensorFlow Datasets must be prepared as array_record or "
        f"tfrecord. Received: {file_format!r}."
    )


class _TFRecords:
    """Records of TFRecord files by position."""

    def __init__(self, instructions):
        self._files = []
        for instruction in instructions:
            offsets = _offsets(instruction.filename)
            end = instruction.skip + instruction.examples_in_shard
            if instruction.take >= 0:
                end = instruction.skip + instruction.take
            self._files.append((instruction.filename, offsets[instruction.skip : end]))
        counts = [len(offsets) for _, offsets in self._files]
        self._ends = list(itertools.accumulate(counts))

    def __len__(self):
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index):
        number = bisect.bisect_right(self._ends, index)
        filename, offsets = self._files[number]
        before = self._ends[number - 1] if number else 0
        offset, length = offsets[index - before]
        with open(filename, "rb") as file:
            file.seek(offset)
            return file.read(length)


def _offsets(filename):
    """Where each record of a file begins and how long it is, (n, 2)."""
    offsets, position, size = [], 0, os.path.getsize(filename)
    with open(filename, "rb") as file:
        while position + _BEFORE <= size:
            file.seek(position)
            (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
            start = position + _BEFORE
            position = start + length + _BEHIND
            if position > size:
                break
            offsets.append((start, length))
    if position != size:
        raise ValueError(
            f"open_source: the file {str(filename)!r} is cut off. Received: {size} "
            f"bytes, where the records need {position}. Prepare the set again."
        )
    return np.array(offsets, np.int64).reshape(-1, 2)
