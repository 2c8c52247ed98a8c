"""NumPy archives of images, or of encoded images of one size."""

import pathlib
import zipfile
import zlib

import numpy as np

from keras_kssl._checks import check_that
from keras_kssl.data.arrays import ArraySource, check_labels
from keras_kssl.data.decoding import BrokenImage, decode
from keras_kssl.data.encoded import for_each

_BROKEN_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    # Encrypted, or compressed in an unknown way.
    RuntimeError,
)


def open_npz(path, limit):
    name = f"npz:{path}"
    arrays, keys = read_arrays(
        path, ("images", "jpeg", "offsets", "labels", "class_names")
    )
    labels = arrays.get("labels")
    if "images" in arrays:
        images = arrays["images"]
    elif "jpeg" in arrays and "offsets" in arrays:
        images, labels = _decode_all(
            name, arrays["jpeg"], arrays["offsets"], labels, limit
        )
    else:
        raise ValueError(
            f"open_source: {str(path)!r} must have an array `images`, or `jpeg` and "
            f"`offsets`. Received: source={name!r} with the arrays "
            f"{', '.join(keys) or '(none)'}."
        )
    return ArraySource(images, labels, arrays.get("class_names"), name=name)


def read_arrays(path, wanted):
    """Those of the wanted arrays that an archive has, and the names of all it has."""
    name = f"npz:{path}"
    path = str(pathlib.Path(path).expanduser())
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(
            f"open_source: there is no file {path!r}. Received: source={name!r}."
        )
    with open(path, "rb") as file:
        try:
            archive = np.load(file, allow_pickle=False)
            keys = archive.files
        except (*_BROKEN_ARCHIVE, AttributeError) as error:
            raise ValueError(
                f"open_source: {path!r} is no readable .npz file. Received: "
                f"source={name!r}. Write it with numpy.savez, or copy it again."
            ) from error
        arrays = {key: _read_array(archive, path, key) for key in wanted if key in keys}
    return arrays, keys


def _read_array(archive, path, key):
    try:
        return archive[key]
    except _BROKEN_ARCHIVE as error:
        raise ValueError(
            f"open_source: array `{key}` of {path!r} cannot be read ({error}). Copy "
            "the file again if it is cut off; arrays of Python objects are not read, "
            "since reading them runs code from the file."
        ) from error


def _decode_all(name, jpeg, offsets, labels, limit):
    check_that(
        jpeg.dtype == np.uint8 and jpeg.ndim == 1,
        name,
        "jpeg",
        "uint8 of one axis",
        (jpeg.dtype.name, jpeg.shape),
    )
    rule = "non-decreasing integers (n + 1,) from 0 to the length of `jpeg`"
    check_that(
        offsets.ndim == 1
        and np.issubdtype(offsets.dtype, np.integer)
        and len(offsets) >= 1
        and offsets[0] >= 0
        and np.all(offsets[1:] >= offsets[:-1])
        and offsets[-1] <= len(jpeg),
        name,
        "offsets",
        rule,
        offsets,
        f"Length of `jpeg`: {len(jpeg)}.",
    )
    if labels is not None:
        check_labels(name, labels, len(offsets) - 1)
    count = len(offsets) - 1
    if limit is not None:
        count = min(count, limit)
        labels = None if labels is None else labels[:count]
    check_that(count > 0, name, "offsets", "those of at least one image", offsets)

    def decode(index):
        return _decode(name, index, jpeg[offsets[index] : offsets[index + 1]])

    first = decode(0)
    images = np.empty((count, *first.shape), np.uint8)

    def decode_into_place(index):
        image = decode(index)
        if image.shape != first.shape:
            raise ValueError(
                f"{name}: all images must have one size. Received: image {index} of "
                f"{image.shape[:2]} pixels, image 0 of {first.shape[:2]}. Resize them "
                "before they are written to the file."
            )
        images[index] = image

    for_each(decode_into_place, count, f"decoding {name}")
    return images, labels


def _decode(name, index, encoded):
    try:
        return decode(encoded.tobytes())[0]
    except BrokenImage as error:
        raise ValueError(
            f"{name}: image {index} cannot be decoded ({error}). Write the file again "
            "without it."
        ) from error
