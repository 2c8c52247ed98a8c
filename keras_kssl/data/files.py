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
# Tiny ImageNet keeps the labels of a part without class folders in it.
_ANNOTATIONS_FILE = "val_annotations.txt"
_SKIPPED_FOLDERS = ("__MACOSX",)


class FileSource(EncodedSource):
    """Image files of many sizes and formats, read when they are needed.

    Opening reads every header, a fraction of a millisecond each; files with a broken
    one are left out and listed in `broken`. A file that is broken behind a good header
    is found when it is used.

    Args:
        root: folder that the names are relative to.
        files: names of the files.
        labels: a class name for each file, "" where it is not known; or `None`.
        name: what messages call the source.
        max_broken: share of files that may be unreadable. Default 0.1.
        class_names: names of the classes, in the order of their numbers, where they
            are more than those in `labels`. Default: those in `labels`, sorted.
        unreadable: reasons by name for what could not even be listed.
    """

    def __init__(
        self,
        root,
        files,
        labels=None,
        name="files",
        max_broken=MAX_BROKEN,
        class_names=None,
        unreadable=None,
    ):
        if not files:
            raise ValueError(
                f"{name}: `source` must hold image files. Received: none with an "
                f"ending such as {', '.join(sorted(EXTENSIONS))}."
            )
        self.root = pathlib.Path(root)
        headers, broken = _read_headers(self.root, files)
        codes = None
        if labels is not None:
            class_names = class_names or _class_names(labels)
            numbers = {class_name: i for i, class_name in enumerate(class_names)}
            codes = np.array([numbers.get(label, -1) for label in labels], np.int32)
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
        self.broken = dict(unreadable or {})
        self.broken |= {printable(file): why for file, why in broken.items()}
        self.files = [files[i] for i in kept]
        self.sizes = np.array(
            [(headers[file].height, headers[file].width) for file in self.files]
        ).reshape(-1, 2)
        self.formats = collections.Counter(h.format for h in headers.values())
        self.check_broken()

    def __len__(self):
        return len(self.files)

    def content(self, index):
        return self.root / self.files[index]

    def name_of(self, index):
        return printable(self.files[index])

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
            digest.update(os.fsencode(file) + f"\0{size}\0".encode())
        return digest.hexdigest()

    def num_left_out(self):
        return len(self.broken.keys() - {printable(file) for file in self.files})

    def listed_as(self, files, max_broken=MAX_BROKEN):
        """A source of exactly these files in this order, there or not.

        For training that goes on after files were added or taken away: positions keep
        their meaning, what is gone counts as broken, what is new is left out.
        """
        known = {file: i for i, file in enumerate(self.files)}
        chosen = self.only([known.get(file, 0) for file in files])
        chosen.files = list(files)
        if chosen.labels is not None:
            chosen.labels[[file not in known for file in files]] = -1
        names = {printable(file) for file in files}
        chosen.broken = {n: why for n, why in self.broken.items() if n in names}
        chosen.max_broken = max_broken
        return chosen

    def only(self, indices):
        chosen = copy.copy(self)
        chosen.files = [self.files[i] for i in indices]
        chosen.sizes = self.sizes[indices]
        if self.labels is not None:
            chosen.labels = self.labels[indices]
        # What is broken is known of these images alone.
        names = {printable(file) for file in chosen.files}
        chosen.broken = {n: why for n, why in self.broken.items() if n in names}
        return chosen


def open_folder(path, limit=None, max_broken=MAX_BROKEN):
    """All image files in a folder and the folders in it, in the order of their names.

    Labels come from the file `labels.csv` in the folder, with columns `file` and
    `label`, if there is one; else from `val_annotations.txt`, as Tiny ImageNet has it;
    else from the folders, where all images are in two or more of them: the first part
    of a file's path is its class. Otherwise there are none.
    """
    name = f"folder:{path}"
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        kind = "a file" if root.is_file() else "not there"
        raise FileNotFoundError(
            f"open_source: `source` must name a folder. Received: {name!r}, which is "
            f"{kind}."
        )
    files, unreadable = _walk(root)
    labels = class_names = None
    table, known = _labels_in(root)
    if table is not None:
        labels = [known.get(file, "") for file in files]
        check_that(
            any(labels) or not files,
            name,
            table,
            "a table of files and labels that names files of the folder",
            list(known)[:3],
            f"Such as {files[:1]}: paths relative to the folder.",
        )
    else:
        folders = [file.partition("/")[0] if "/" in file else "" for file in files]
        if "" not in folders and len(set(folders)) > 1:
            labels = folders
    if labels is not None:
        class_names = _class_names(labels)
        labels = labels[:limit]
    return FileSource(
        root, files[:limit], labels, name, max_broken, class_names, unreadable
    )


def _labels_in(root):
    """Name of a table of labels in a folder, or `None`, and its labels by file."""
    if (root / LABELS_FILE).is_file():
        return LABELS_FILE, dict(_read_csv(root / LABELS_FILE))
    if (root / _ANNOTATIONS_FILE).is_file():
        # File, class and the corners of a box; the files are in the folder `images`.
        lines = _read_text(root / _ANNOTATIONS_FILE).splitlines()
        rows = [line.split() for line in lines if line.strip()]
        labels = {f"images/{row[0]}": row[1] for row in rows if len(row) > 1}
        return _ANNOTATIONS_FILE, labels
    return None, {}


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
    class_names = None
    if labels is not None:
        class_names = _class_names(labels)
        labels = labels[:limit]
    return FileSource(path.parent, files[:limit], labels, name, max_broken, class_names)


def printable(file):
    """A file's name on one line of text, whatever bytes it is made of."""
    text = os.fsencode(file).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _walk(root):
    """Image files and what cannot be listed.

    Each real folder counts once, under its real name where it has one in `root`.

    Returns:
        Sorted relative paths, and a dictionary of reasons by name.
    """
    seen, files, unreadable = set(), [], {}
    # Links last: a folder is known by its own name before a link leads to it.
    folders, links = [(root, "")], []
    while folders or links:
        folder, prefix = folders.pop() if folders else links.pop(0)
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            unreadable[printable(prefix)] = f"a folder: {error.strerror}"
            continue
        for entry in entries:
            name = prefix + entry.name
            if entry.name.startswith(".") or entry.name in _SKIPPED_FOLDERS:
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append((entry.path, name + "/"))
            elif entry.is_symlink() and os.path.isdir(entry.path):
                links.append((entry.path, name + "/"))
            elif os.path.splitext(entry.name)[1].lower() in EXTENSIONS:
                files.append(name)
    return sorted(files), unreadable


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


def _class_names(labels):
    """The different labels in their order, "" left out; numbers by their value."""
    names = {label for label in labels if label}
    if all(name.isdecimal() for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


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
