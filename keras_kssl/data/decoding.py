"""Encoded images to arrays: photos of every kind, and arrays with more channels.

Photos (JPEG, PNG, WebP, BMP, GIF, TIFF and what else PIL opens) become RGB whatever
they are: gray ones three times the same channel, CMYK ones converted, transparent ones
laid on white, animations their first picture, rotated as their EXIF tag says. NumPy
files and TIFFs of more than four channels keep their channels.
"""

import contextlib
import dataclasses
import io
import logging

import numpy as np
from PIL import Image, ImageOps

PHOTO_CHANNELS = 3
EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".npy")
)
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)
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
    """Whether a channel has more than 8 bits."""


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
        dtype: "uint8", 0 ... 255, or "float32", in [0, 1], which keeps what is deeper
            than 8 bits.
        prepare: function of (height, width) that is called once the header is read and
            may return an integer: JPEGs then shrink by a power of two of at most this
            number while they are decoded, which saves most of the time.

    Returns:
        The array, and what `prepare` was given: (array, (height, width)).

    Raises:
        BrokenImage: for what cannot be decoded or has other channels.
    """
    with _opened(file) as image:
        shape = (image.header.height, image.header.width)
        shrink = prepare(*shape) if prepare is not None else 1
        array = _checked(lambda: image.read(channels, shrink or 1))
    if array.ndim != 3 or array.shape[2] != channels or array.size == 0:
        raise BrokenImage(
            f"an array of shape {array.shape}, not of {channels} channels"
        )
    return _as_dtype(array, dtype), shape


class _Photo:
    """An image that PIL opens, lazily."""

    def __init__(self, file):
        self._image = Image.open(file)
        width, height = self._image.size
        if self._image.getexif().get(_ORIENTATION) in _TURNED:
            width, height = height, width
        is_deep = self._image.mode in _DEEP_MODES
        self.header = Header(self._image.format, height, width, PHOTO_CHANNELS, is_deep)

    def read(self, channels, shrink):
        image = self._image
        if shrink > 1:
            width, height = image.size
            # Does nothing to formats that cannot shrink while they are decoded.
            image.draft(None, (width // shrink, height // shrink))
        if image.mode in _DEEP_MODES:
            largest = _DEEP_MODES[image.mode]
            image = ImageOps.exif_transpose(image)
            array = np.asarray(image, dtype=np.float32)[..., np.newaxis] / largest
            return np.repeat(array, PHOTO_CHANNELS, axis=2)
        image = ImageOps.exif_transpose(image)
        if "A" in image.getbands() or "transparency" in image.info:
            image = image.convert("RGBA")
            paper = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(paper, image)
        if channels == 1:
            return np.asarray(image.convert("L"))[..., np.newaxis]
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


class _Array:
    """An array; of a NumPy file on disk, only what is asked for is read."""

    def __init__(self, name, array):
        if array.ndim not in (2, 3) or 0 in array.shape:
            raise BrokenImage(
                f"an array of shape {array.shape}, not (height, width, channels)"
            )
        if array.dtype.kind not in "uf":
            raise BrokenImage(f"values of type {array.dtype}, not unsigned or float")
        self._array = array if array.ndim == 3 else array[..., np.newaxis]
        self.header = Header(name, *self._array.shape, array.dtype != np.uint8)

    def read(self, channels, shrink):
        del channels, shrink
        return np.array(self._array)


def _read_tiff(stream):
    """A TIFF that PIL does not open, such as one of many channels."""
    try:
        import tifffile
    except ImportError:
        raise BrokenImage(
            "a TIFF that takes another reader: pip install 'keras_kssl[tiff]'"
        ) from None
    # What it finds wrong is raised too, or does not matter.
    tifffile.logger().setLevel(logging.CRITICAL)
    with tifffile.TiffFile(stream) as file:
        page = file.pages[0]
        size = stream.seek(0, io.SEEK_END)
        is_plain = page.compression == tifffile.COMPRESSION.NONE
        # A header that is wrong may ask for millions of strips.
        if page.nbytes > (size if is_plain else _LARGEST_TIFF):
            raise BrokenImage(
                f"a file of {size} bytes for {page.nbytes} bytes of image"
            )
        return page.asarray()


@contextlib.contextmanager
def _opened(file):
    """An open image; whatever goes wrong in opening it is a `BrokenImage`."""
    with contextlib.ExitStack() as stack:
        yield _checked(lambda: _open(file, stack))


def _open(file, stack):
    is_path = not isinstance(file, bytes)
    # The stack closes it.
    stream = open(file, "rb") if is_path else io.BytesIO(file)  # noqa: SIM115
    stack.enter_context(stream)
    start = stream.read(6)
    stream.seek(0)
    if not start:
        raise BrokenImage("an empty file")
    if start == _NPY_START:
        source, mode = (file, "r") if is_path else (stream, None)
        return _Array("NPY", np.load(source, mmap_mode=mode, allow_pickle=False))
    try:
        return _Photo(stream)
    except Image.UnidentifiedImageError:
        if start[:4] not in _TIFF_STARTS:
            raise BrokenImage("no image of a known format") from None
    stream.seek(0)
    return _Array("TIFF", _read_tiff(stream))


def _checked(action):
    """Runs `action`; whatever it raises becomes a `BrokenImage` that says why."""
    try:
        return action()
    except BrokenImage:
        raise
    except MemoryError:
        raise BrokenImage("too large for the memory") from None
    # Readers of formats raise nearly everything on files made to be wrong.
    except Exception as error:
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
