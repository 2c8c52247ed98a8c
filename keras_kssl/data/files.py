"""Folders and lists of image files."""

import collections
import copy
import csv
import hashlib
import io
import os
import pathlib

import numpy as np

from keras_kssl._checks import check_that
from keras_kssl.data.decoding import EXTENSIONS, BrokenImage, read_header
from keras_kssl.data.encoded import MAX_BROKEN, EncodedSource, for_each

LABELS_FILE = "labels.csv"
_SKIPPED_FOLDERS = ("__MACOSX",)


class FileSource(EncodedSource):
    """Image files of many sizes and formats, read when they are needed.

    Opening reads every header, about 0.1 ms each; files with a broken one are left out
    and listed in `broken`. A file that is broken behind a good header is found when it
    is used.

    Args:
        root: folder that the names are relative to.
        files: names of the files.
        labels: a class name for each file, "" where it is not known; or `None`.
        name: what messages call the source.
        max_broken: share of files that may be unreadable. Default 0.1.
    """

    def __init__(self, root, files, labels=None, name="files", max_broken=MAX_BROKEN):
        if not files:
            raise ValueError(
                f"{name}: `source` must hold image files. Received: none with an "
                f"ending such as {', '.join(sorted(EXTENSIONS))}."
            )
        self.root = pathlib.Path(root)
        headers, broken = _read_headers(self.root, files)
        class_names = codes = None
        if labels is not None:
            class_names, codes = _codes(labels)
        channels = _most_common(header.channels for header in headers.values())
        deep = _most_common(header.is_deep for header in headers.values())
        for file, header in list(headers.items()):
            if header.channels != channels:
                broken[file] = f"{header.channels} channels, where most have {channels}"
                del headers[file]
        kept = [i for i, file in enumerate(files) if file in headers]
        super().__init__(
            name,
            None if codes is None else codes[kept],
            class_names,
            channels,
            "float32" if deep else "uint8",
            max_broken,
        )
        self.broken = broken
        self.files = [files[i] for i in kept]
        self.sizes = np.array(
            [(headers[file].height, headers[file].width) for file in self.files]
        ).reshape(-1, 2)
        self.formats = collections.Counter(h.format for h in headers.values())
        self.left_out = len(broken)
        self.check_broken()

    def __len__(self):
        return len(self.files)

    def content(self, index):
        return self.root / self.files[index]

    def name_of(self, index):
        return self.files[index]

    def some_sizes(self, count=100):
        del count
        return self.sizes

    def fingerprint(self):
        """Digits that differ for other names or lengths of files."""
        digest = hashlib.blake2b(digest_size=8)
        for file in self.files:
            try:
                size = os.stat(self.root / file).st_size
            except OSError:
                size = -1
            digest.update(f"{file}\0{size}\0".encode())
        return digest.hexdigest()

    def take(self, count):
        return self.only(np.arange(min(count, len(self))))

    def listed_as(self, files):
        """A source of exactly these files in this order, there or not.

        For training that goes on after files were added or taken away: positions keep
        their meaning, what is gone counts as broken, what is new is left out.
        """
        known = {file: i for i, file in enumerate(self.files)}
        chosen = self.only([known.get(file, 0) for file in files])
        chosen.files = list(files)
        if chosen.labels is not None:
            chosen.labels[[file not in known for file in files]] = -1
        return chosen

    def only(self, indices):
        """A source of the images at these positions, without reading headers again."""
        chosen = copy.copy(self)
        chosen.files = [self.files[i] for i in indices]
        chosen.sizes = self.sizes[indices]
        if self.labels is not None:
            chosen.labels = self.labels[indices]
        chosen.broken = dict(self.broken)
        return chosen


def open_folder(path, limit=None, max_broken=MAX_BROKEN):
    """All image files in a folder and the folders in it, in the order of their names.

    Labels come from the file `labels.csv` in the folder, with columns `file` and
    `label`, if there is one; else from the folders, where all images are in two or
    more of them: the first part of a file's path is its class. Otherwise there are
    none.
    """
    name = f"folder:{path}"
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        kind = "a file" if root.is_file() else "not there"
        raise FileNotFoundError(
            f"open_source: `source` must name a folder. Received: {name!r}, which is "
            f"{kind}."
        )
    files = sorted(_walk(root))
    labels = None
    if (root / LABELS_FILE).is_file():
        known = dict(_read_csv(root / LABELS_FILE))
        labels = [known.get(file, "") for file in files]
        check_that(
            any(labels) or not files,
            name,
            LABELS_FILE,
            "a table of `file` and `label` that names files of the folder",
            list(known)[:3],
            f"Such as {files[:1]}: paths relative to the folder.",
        )
    else:
        folders = [file.partition("/")[0] if "/" in file else "" for file in files]
        if "" not in folders and len(set(folders)) > 1:
            labels = folders
    part = slice(0, limit)
    labels = None if labels is None else labels[part]
    return FileSource(root, files[part], labels, name, max_broken)


def open_list(path, limit=None, max_broken=MAX_BROKEN):
    """Image files named in a text file, one a line, or in a CSV file.

    A CSV file has a header with a column `file` and, for labels, a column `label`.
    Names are relative to the folder of the list.
    """
    name = f"files:{path}"
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"open_source: there is no file {str(path)!r}. Received: source={name!r}."
        )
    if path.suffix.lower() == ".csv":
        rows = _read_csv(path)
        files = [file for file, _ in rows]
        labels = [label for _, label in rows]
        labels = labels if any(labels) else None
    else:
        files = [line.strip() for line in _read_text(path).splitlines()]
        files = [file for file in files if file]
        labels = None
    part = slice(0, limit)
    labels = None if labels is None else labels[part]
    return FileSource(path.parent, files[part], labels, name, max_broken)


def _walk(root):
    """Relative paths of image files, each real folder once."""
    seen = set()

    def visit(folder, prefix):
        try:
            status = os.stat(folder)
            entries = list(os.scandir(folder))
        except OSError:
            return
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _SKIPPED_FOLDERS:
                continue
            if entry.is_dir():
                yield from visit(entry.path, f"{prefix}{entry.name}/")
            elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
                yield prefix + entry.name

    return visit(root, "")


def _read_text(path):
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"open_source: {str(path)!r} must be text in UTF-8. Received: {error}."
        ) from None


def _read_csv(path):
    """Rows (file, label) of a table with a header; label "" where there is none."""
    text = _read_text(path)
    if "\0" in text:
        raise ValueError(f"open_source: {str(path)!r} must be text. Received: zeros.")
    try:
        reader = csv.DictReader(
            io.StringIO(text, newline=""), strict=True, skipinitialspace=True
        )
        columns = [column.strip() for column in reader.fieldnames or ()]
        reader.fieldnames = columns
        if "file" not in columns:
            raise ValueError(
                f"open_source: {str(path)!r} must have a column `file` and may have "
                f"`label`. Received: columns {columns}."
            )
        rows = [
            ((row["file"] or "").strip(), (row.get("label") or "").strip())
            for row in reader
        ]
    except csv.Error as error:
        raise ValueError(
            f"open_source: {str(path)!r} must be a table in CSV. Received: {error} in "
            f"line {reader.line_num}."
        ) from None
    return [(file, label) for file, label in rows if file]


def _codes(labels):
    """Names of the classes and the number of each label's class, -1 for ""."""
    names = {label for label in labels if label}
    if all(name.isdecimal() for name in names):
        class_names = sorted(names, key=lambda name: (int(name), name))
    else:
        class_names = sorted(names)
    numbers = {name: i for i, name in enumerate(class_names)}
    codes = np.array([numbers.get(label, -1) for label in labels], np.int32)
    return class_names, codes


def _read_headers(root, files):
    """Headers of the files that have one, and why the others have none."""
    found = [None] * len(files)

    def read(position):
        try:
            found[position] = read_header(root / files[position])
        except BrokenImage as error:
            found[position] = str(error)

    for_each(read, len(files), "looking at files")
    pairs = list(zip(files, found, strict=True))
    headers = {file: header for file, header in pairs if not isinstance(header, str)}
    return headers, {file: why for file, why in pairs if isinstance(why, str)}


def _most_common(values):
    counts = collections.Counter(values)
    return counts.most_common(1)[0][0] if counts else 3
