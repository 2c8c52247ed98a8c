"""Encoded images to arrays: photos of every kind, and arrays with more channels.

Photos (JPEG, PNG, WebP, BMP, GIF, TIFF and what else PIL opens) become RGB whatever
they are: gray ones three times the same channel, CMYK ones converted, transparent ones
laid on white, animations their first picture, rotated as their EXIF tag says. Of 16
bits per channel gray photos keep all, colours the upper 8. NumPy files and TIFFs of
more than four channels keep their channels.
"""

import contextlib
import dataclasses
import errno
import io
import logging
import os
import stat

import numpy as np
from PIL import Image, ImageOps

PHOTO_CHANNELS = 3
EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".npy")
)
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_SAMPLES = 256, 257, 277
_MOST_PHOTO_SAMPLES = 4
_TOO_MANY_OPEN = (errno.EMFILE, errno.ENFILE)
_DEEP_MODES = {"I;16": 65535, "I;16B": 65535, "I;16L": 65535, "I": 65535, "F": 1}
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_LARGEST_TIFF = 2**31
_NPY_START = b"\x93NUMPY"


class BrokenImage(ValueError):
    """An image that cannot be read; the message says why, not which."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What can be told of an image without decoding it."""

    format: str
    height: int
    width: int
    channels: int
    """3 for every photo; otherwise the number of channels."""
    is_deep: bool
    """Whether a channel has more than 8 bits that are kept."""


def read_header(file):
    """`Header` of an image file (a path) or of its content (bytes).

    Raises:
        BrokenImage: where it is none. A file may be broken behind a good header.
    """
    with _opened(file) as image:
        return image.header


def decode(file, channels=PHOTO_CHANNELS, dtype="uint8", prepare=None):
    """Decodes an image to an array (H, W, channels).

    Args:
        file: path, or content as bytes.
        channels: channels that the array must have; 3 makes RGB of photos.
        dtype: "uint8", 0 ... 255, or "float32", in [0, 1], which keeps more than 8
            bits where the header says `is_deep`.
        prepare: function of (height, width) that is called once the header is read and
            may return an integer: JPEGs then shrink by a power of two of at most this
            number while they are decoded, which saves most of the time.

    Returns:
        The array, and what `prepare` was given: (array, (height, width)).

    Raises:
        BrokenImage: for what cannot be decoded or has other channels.
    """
    with _opened(file, to_decode=True) as image:
        shape = (image.header.height, image.header.width)
        shrink = prepare(*shape) if prepare is not None else 1
        array = checked(lambda: image.read(shrink or 1))
    if array.ndim != 3 or array.shape[2] != channels or array.size == 0:
        raise BrokenImage(
            f"an array of shape {array.shape}, not of {channels} channels"
        )
    return _as_dtype(array, dtype), shape


class _Photo:
    """An image that PIL opens, lazily."""

    def __init__(self, file, to_decode):
        image = self._image = Image.open(file)
        width, height = image.size
        if image.format == "TIFF":
            # Some versions of PIL have turned this size already.
            width, height = image.tag_v2[_TIFF_WIDTH], image.tag_v2[_TIFF_HEIGHT]
        # PIL decodes a whole PNG to look for a tag behind the pixels.
        if image.format != "PNG" or "exif" in image.info or to_decode:
            turned = image.getexif().get(_ORIENTATION) in _TURNED
            width, height = (height, width) if turned else (width, height)
        is_deep = image.mode in _DEEP_MODES
        self.header = Header(image.format, height, width, PHOTO_CHANNELS, is_deep)

    @property
    def has_more_channels(self):
        """Whether PIL would leave out channels of a TIFF."""
        if self._image.format != "TIFF":
            return False
        return self._image.tag_v2.get(_TIFF_SAMPLES, 1) > _MOST_PHOTO_SAMPLES

    def read(self, shrink):
        image = self._image
        if shrink > 1:
            width, height = image.size
            # Does nothing to formats that cannot shrink while they are decoded.
            image.draft(None, (width // shrink, height // shrink))
        if image.mode in _DEEP_MODES:
            largest = _DEEP_MODES[image.mode]
            ImageOps.exif_transpose(image, in_place=True)
            array = np.asarray(image, dtype=np.float32)[..., np.newaxis] / largest
            return np.repeat(array, PHOTO_CHANNELS, axis=2)
        ImageOps.exif_transpose(image, in_place=True)
        if "A" in image.getbands() or "transparency" in image.info:
            image = image.convert("RGBA")
            paper = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(paper, image)
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


class _Array:
    """An array of a known shape, read when it is asked for."""

    def __init__(self, name, shape, dtype, load):
        if len(shape) not in (2, 3) or 0 in shape:
            raise BrokenImage(
                f"an array of shape {shape}, not (height, width, channels)"
            )
        if dtype.kind not in "uf":
            raise BrokenImage(f"values of type {dtype}, not unsigned or float")
        self._shape = (*shape, 1)[:3]
        self._load = load
        self.header = Header(name, *self._shape, dtype != np.uint8)

    def read(self, shrink):
        del shrink
        return self._load().reshape(self._shape)


def _numpy_file(file, stream):
    if isinstance(file, bytes):
        array = np.load(stream, allow_pickle=False)
        return _Array("NPY", array.shape, array.dtype, lambda: array)
    # Mapped for its header alone: to read a mapped file that has been cut off since
    # would kill the process.
    header = np.load(file, mmap_mode="r", allow_pickle=False)
    return _Array(
        "NPY",
        header.shape,
        header.dtype,
        lambda: np.load(stream, allow_pickle=False),
    )


def _tiff_of_many_channels(stream, stack):
    try:
        import tifffile
    except ImportError:
        raise BrokenImage(
            "a TIFF that takes another reader: pip install 'keras_kssl[tiff]'"
        ) from None
    # What it finds wrong is raised too, or does not matter.
    tifffile.logger().setLevel(logging.CRITICAL)
    page = stack.enter_context(tifffile.TiffFile(stream)).pages[0]
    size = stream.seek(0, io.SEEK_END)
    is_plain = page.compression == tifffile.COMPRESSION.NONE
    # A header that is wrong may ask for millions of strips.
    if page.nbytes > (size if is_plain else _LARGEST_TIFF):
        raise BrokenImage(f"a file of {size} bytes for {page.nbytes} bytes of image")
    # Channels, the samples S, may come first.
    order = [page.axes.find(axis) for axis in "YXS"[: len(page.shape)]]
    if sorted(order) != list(range(len(page.shape))):
        raise BrokenImage(f"a TIFF of axes {page.axes}, not rows, columns, channels")
    shape = tuple(page.shape[axis] for axis in order)
    return _Array("TIFF", shape, page.dtype, lambda: page.asarray().transpose(order))


@contextlib.contextmanager
def _opened(file, to_decode=False):
    """An open image; whatever goes wrong in opening it is a `BrokenImage`."""
    with contextlib.ExitStack() as stack:
        yield checked(lambda: _open(file, stack, to_decode))


def _open(file, stack, to_decode):
    is_path = not isinstance(file, bytes)
    # A pipe would be waited for without end.
    if is_path and not stat.S_ISREG(os.stat(file).st_mode):
        raise BrokenImage("no regular file")
    # The stack closes it.
    stream = open(file, "rb") if is_path else io.BytesIO(file)  # noqa: SIM115
    stack.enter_context(stream)
    start = stream.read(6)
    stream.seek(0)
    if not start:
        raise BrokenImage("an empty file")
    if start == _NPY_START:
        return _numpy_file(file, stream)
    try:
        photo = _Photo(stream, to_decode)
    except Image.UnidentifiedImageError:
        if start[:4] not in _TIFF_STARTS:
            raise BrokenImage("no image of a known format") from None
    else:
        if not photo.has_more_channels:
            return photo
    stream.seek(0)
    return _tiff_of_many_channels(stream, stack)


def checked(action):
    """Runs `action`; whatever it raises becomes a `BrokenImage` that says why.

    Only what says nothing of the image passes: too many open files.
    """
    try:
        return action()
    except BrokenImage:
        raise
    except MemoryError:
        raise BrokenImage("too large for the memory") from None
    # Readers of formats raise nearly everything on files made to be wrong.
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _TOO_MANY_OPEN:
            raise
        if isinstance(error, OSError) and error.strerror:
            raise BrokenImage(error.strerror) from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BrokenImage(reason) from None


def _as_dtype(array, dtype):
    kind = array.dtype.kind
    if kind == "f":
        array = array.astype(np.float32, copy=False)
        smallest, largest = float(array.min()), float(array.max())
        if not 0.0 <= smallest <= largest <= 1.0:
            raise BrokenImage(
                f"floats from {smallest:g} to {largest:g}, not from 0 to 1"
            )
        return array if dtype == "float32" else np.rint(array * 255).astype(np.uint8)
    if array.dtype == np.uint8 and dtype == "uint8":
        return array
    scaled = array.astype(np.float32) / np.float32(np.iinfo(array.dtype).max)
    return scaled if dtype == "float32" else np.rint(scaled * 255).astype(np.uint8)
