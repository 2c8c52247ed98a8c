"""The layout of the PASCAL VOC sets: VOCdevkit/VOC2007, VOCdevkit/VOC2012."""

import os
import pathlib
import xml.etree.ElementTree

from keras_kssl._checks import check_choice, check_that
from keras_kssl.data.decoding import read_header
from keras_kssl.evaluation.dense.files import (
    Files,
    existing_folder,
    open_files,
    read_classes,
    read_image,
    readable,
)
from keras_kssl.evaluation.dense.sets import DenseSet

CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
BACKGROUND = "background"
_LISTS = {"segmentation": "Segmentation", "detection": "Main"}
_MASK_FOLDERS = ("SegmentationClass", "SegmentationClassAug")
_LARGEST_XML = 2**24


def open_voc(rest, task):
    """A split of a folder in the layout of VOC, for segmentation or detection."""
    name = f"voc:{rest}"
    if task not in _LISTS:
        raise ValueError(
            f"{name}: VOC must be for segmentation or detection. Received: {task}."
        )
    folder, split = rest, "train"
    if not os.path.isdir(os.path.expanduser(rest)) and ":" in rest:
        folder, _, split = rest.rpartition(":")
    root = _set_folder(name, existing_folder(name, folder))
    names = _read_list(name, root, task, split)
    images = [root / "JPEGImages" / f"{stem}.jpg" for stem in names]
    _check_there(name, images)
    objects = read_classes(name, root) or CLASSES
    if task == "segmentation":
        masks = [_mask_path(root, stem) for stem in names]
        _check_there(name, masks)
        return open_files(name, task, images, masks, (BACKGROUND, *objects))
    paths = [root / "Annotations" / f"{stem}.xml" for stem in names]
    _check_there(name, paths)
    found = [read_annotation(name, path, objects) for path in paths]
    opened = DenseSet(
        task,
        Files(name, images, read_image),
        found,
        objects,
        name,
        [path.name for path in images],
        check=False,
    )
    for image, target in zip(images, found, strict=True):
        header = readable(name, image, read_header)
        opened.checked(f"{name}, {image.name}", (header.height, header.width), target)
    return opened


def read_annotation(name, path, class_names):
    """Objects of an annotation file: `boxes`, `labels` and `difficult`.

    Args:
        name: what messages call the set.
        path: XML file with `object` elements: `name`, `bndbox` with `xmin`, `ymin`,
            `xmax`, `ymax` (first and last pixel, counted from 1), `difficult`.
        class_names: names of the classes.
    """
    root = _parse(name, path)
    objects = {"boxes": [], "labels": [], "difficult": []}
    for element in root.iter("object"):
        label = (element.findtext("name") or "").strip()
        if label not in class_names:
            raise ValueError(
                f"{name}: objects must be of the known classes. Received: {label!r} in "
                f"{str(path)!r}. Name the classes of a set of your own in classes.txt, "
                "one a line."
            )
        corners = [
            _number(element.findtext(f"bndbox/{corner}"))
            for corner in ("xmin", "ymin", "xmax", "ymax")
        ]
        difficult = _number(element.findtext("difficult", "0"))
        if None in (*corners, difficult):
            raise ValueError(
                f"{name}: objects must have numbers `xmin`, `ymin`, `xmax` and `ymax` "
                f"in `bndbox`, and 0 or 1 in `difficult`. Received: another "
                f"{label!r} in {str(path)!r}."
            )
        left, top, right, bottom = corners
        objects["boxes"].append((left - 1.0, top - 1.0, right, bottom))
        objects["labels"].append(class_names.index(label))
        objects["difficult"].append(difficult != 0)
    return objects


def _parse(name, path):
    """The root of an XML file that declares nothing of its own."""
    reason = "an XML file without declarations of its own"
    try:
        if path.stat().st_size > _LARGEST_XML:
            raise ValueError(f"more than {_LARGEST_XML} bytes")
        # Of the one encoding in which the search below cannot be led astray.
        text = path.read_bytes().decode("utf-8-sig")
        # Entities may stand for gigabytes, or for other files.
        if "<!" in text.replace("<!--", ""):
            raise ValueError("a declaration")
        root = xml.etree.ElementTree.fromstring(text)
    except (OSError, ValueError, xml.etree.ElementTree.ParseError) as error:
        raise ValueError(
            f"{name}: an annotation must be {reason}. Received: {str(path)!r}: {error}."
        ) from None
    check_that(
        root.tag == "annotation", name, str(path), "an `annotation` of VOC", root.tag
    )
    return root


def _number(text):
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def _set_folder(name, folder):
    """The folder with `ImageSets`: this one, or the only VOC folder below it."""
    if (folder / "ImageSets").is_dir():
        return folder
    below = sorted(folder.glob("VOC20*/ImageSets"))
    below += sorted(folder.glob("VOCdevkit/VOC20*/ImageSets"))
    if len(below) != 1:
        found = ", ".join(str(path.parent.relative_to(folder)) for path in below)
        raise FileNotFoundError(
            f"{name}: the folder must hold `ImageSets`, or one VOC set. Received: "
            f"{found or 'none'} in {str(folder)!r}."
        )
    return below[0].parent


def _read_list(name, root, task, split):
    """Names of the images of a split, without ending."""
    folder = existing_folder(name, root / "ImageSets" / _LISTS[task])
    check_choice(
        name, "split", split, sorted(path.stem for path in folder.glob("*.txt"))
    )
    text = (folder / f"{split}.txt").read_text(encoding="utf-8-sig", errors="replace")
    names = [line.strip() for line in text.splitlines() if line.strip()]
    wrong = [n for n in names if len(n.split()) > 1 or pathlib.PurePath(n).name != n]
    check_that(
        names and not wrong,
        name,
        "split",
        "a list with the name of an image, without folder and ending, in each line",
        split,
        f"It holds {wrong[0]!r}." if wrong else "It is empty.",
    )
    return names


def _mask_path(root, stem):
    paths = [root / folder / f"{stem}.png" for folder in _MASK_FOLDERS]
    return next((path for path in paths if path.is_file()), paths[0])


def _check_there(name, paths):
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{name}: all files of the split must be there. Received: {len(missing)} "
            f"of {len(paths)} missing, such as {str(missing[0])!r}."
        )
