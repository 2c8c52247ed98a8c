"""Images, masks and depths in files, read when they are needed."""

import pathlib

import numpy as np
from PIL import Image

from keras_kssl._checks import check_that
from keras_kssl.data.decoding import (
    EXTENSIONS,
    BrokenImage,
    checked,
    decode,
    read_header,
)
from keras_kssl.data.encoded import for_each
from keras_kssl.evaluation.dense.sets import DenseSet

CLASSES_FILE = "classes.txt"
_FOLDERS = {"segmentation": "masks", "depth": "depths"}
_TARGET_ENDINGS = {
    "segmentation": (".png", ".npy"),
    "depth": (".npy", ".png", ".tif", ".tiff"),
}
_MILLIMETRES = 1000.0
_MASK_MODES = ("P", "L")
_DEEP_MODES = ("I;16", "I;16B", "I;16L", "I")


class Files:
    """Files as a sequence of what they hold.

    Args:
        name: what messages call the set.
        paths: the files.
        read: function from a path to an array, which raises `BrokenImage`.
    """

    def __init__(self, name, paths, read):
        self.name = name
        self.paths = paths
        self._read = read

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return readable(self.name, self.paths[index], self._read)


def readable(name, path, read):
    """read(path); where the file is broken an error names it."""
    try:
        return read(path)
    except BrokenImage as error:
        raise ValueError(
            f"{name}: files must be readable. Received: {str(path)!r}: {error}. Repair "
            "it or leave it out."
        ) from None


def open_folder(path, task):
    """Photos in DIR/images with masks or depths of the same names beside them."""
    name = f"folder:{path}"
    root = existing_folder(name, path)
    if task not in _FOLDERS:
        raise ValueError(
            f"{name}: a folder must be for segmentation or depth. Received: {task}. "
            "Boxes come from voc:DIR or npz:FILE.npz."
        )
    kind, endings = _FOLDERS[task], _TARGET_ENDINGS[task]
    images = sorted(
        entry
        for entry in existing_folder(name, root / "images").iterdir()
        if entry.suffix.lower() in EXTENSIONS and not entry.name.startswith(".")
    )
    check_that(images, name, "images", "image files in the folder", str(root))
    beside = {
        entry.stem: entry
        for entry in existing_folder(name, root / kind).iterdir()
        if entry.suffix.lower() in endings
    }
    missing = [entry.name for entry in images if entry.stem not in beside]
    if missing:
        raise FileNotFoundError(
            f"{name}: every image must have a file of its name in {kind!r}, "
            f"{' or '.join(endings)}. Received: none for {len(missing)} of "
            f"{len(images)} images, such as {missing[0]!r}."
        )
    class_names = None
    if task == "segmentation":
        class_names = read_classes(name, root)
        if class_names is None:
            raise FileNotFoundError(
                f"{name}: there must be a file {CLASSES_FILE!r} with the name of a "
                "class in each line, that of class 0 first. Received: none."
            )
    targets = [beside[entry.stem] for entry in images]
    return open_files(name, task, images, targets, class_names)


def open_files(name, task, images, targets, class_names=None):
    """A set of files for segmentation or depth, whose sizes are compared at once."""
    check_sizes(name, images, targets)
    read = read_mask if task == "segmentation" else read_depth
    return DenseSet(
        task,
        Files(name, images, read_image),
        Files(name, targets, read),
        class_names,
        name,
        [path.name for path in images],
        check=False,
    )


def check_sizes(name, images, targets):
    """Raises `ValueError` for files whose headers cannot be read or do not agree."""

    def check(position):
        pair = (images[position], targets[position])
        image, target = (readable(name, path, read_header) for path in pair)
        sizes = [(header.height, header.width) for header in (image, target)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"{name}: a target must have the size of its image, {sizes[0][0]} x "
                f"{sizes[0][1]} pixels for {pair[0].name!r}. Received: "
                f"{pair[1].name!r} of {sizes[1][0]} x {sizes[1][1]} pixels."
            )

    for_each(check, len(images), "looking at files")


def read_image(path):
    """A photo or an array (H, W, C), uint8."""
    return decode(path, read_header(path).channels)[0]


def read_mask(path):
    """Class numbers (H, W) of a PNG with a palette or gray, or of an NPY file."""

    def read():
        if path.suffix.lower() == ".npy":
            return np.load(path, allow_pickle=False)
        with Image.open(path) as image:
            if image.mode not in _MASK_MODES:
                raise BrokenImage(
                    f"a mask of mode {image.mode}, not with a palette or gray"
                )
            return np.asarray(image)

    return checked(read)


def read_depth(path):
    """Metres (H, W), float32, of an NPY file, a 16-bit PNG or a float TIFF."""

    def read():
        if path.suffix.lower() == ".npy":
            return np.load(path, allow_pickle=False)
        with Image.open(path) as image:
            if image.mode == "F":
                return np.asarray(image)
            if image.mode not in _DEEP_MODES:
                raise BrokenImage(
                    f"depths of mode {image.mode}, not 16-bit millimetres"
                )
            return np.asarray(image, np.float32) / np.float32(_MILLIMETRES)

    return checked(read)


def read_classes(name, root):
    """Names in DIR/classes.txt, one a line; `None` where there is no such file."""
    path = root / CLASSES_FILE
    if not path.is_file():
        return None
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name}: {CLASSES_FILE!r} must be text in UTF-8. Received: {error}."
        ) from None
    names = [line.strip() for line in lines if line.strip()]
    rule = "a different name in each line"
    check_that(names and len(set(names)) == len(names), name, CLASSES_FILE, rule, names)
    return names


def existing_folder(name, path):
    """The path of a folder that is there."""
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        kind = "a file" if root.is_file() else "not there"
        raise FileNotFoundError(
            f"{name}: {str(root)!r} must be a folder. Received: it is {kind}."
        )
    return root
