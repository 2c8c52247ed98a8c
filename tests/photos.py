"""Makes folders of photos with everything that real folders have in them."""

import io

import numpy as np
from PIL import Image


def picture(height, width, seed=0, channels=3):
    """Smooth colours with some grain, uint8 (height, width, channels)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 6, channels), dtype=np.uint8)
    planes = [
        Image.fromarray(coarse[..., i]).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        for i in range(channels)
    ]
    grain = rng.normal(0.0, 4.0, (height, width, channels))
    smooth = np.stack([np.asarray(plane) for plane in planes], axis=-1)
    return np.clip(smooth + grain, 0, 255).astype(np.uint8)


def encoded(image, form="JPEG", **options):
    stream = io.BytesIO()
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    image.save(stream, form, **options)
    return stream.getvalue()


def turned(image, orientation, form="JPEG"):
    """A photo that says by an EXIF tag how it is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {} if form in ("PNG", "TIFF") else {"quality": 95}
    return encoded(image, form, exif=exif, **options)


def odd_files(size=(40, 48), seed=0):
    """Content by file name: good files of every kind."""
    height, width = size
    rgb = picture(height, width, seed)
    gray = Image.fromarray(rgb).convert("L")
    alpha = np.concatenate([rgb, rgb[..., :1]], axis=2)
    deep = (np.asarray(gray).astype(np.uint16) * 257).astype(np.uint16)
    return {
        "plain.jpg": encoded(rgb),
        "UPPER.JPEG": encoded(rgb),
        "gray.jpg": encoded(gray),
        "cmyk.jpg": encoded(Image.fromarray(rgb).convert("CMYK")),
        "turned.jpg": turned(rgb, 6),
        "rgb.png": encoded(rgb, "PNG"),
        "alpha.png": encoded(alpha, "PNG"),
        "palette.png": encoded(Image.fromarray(rgb).convert("P"), "PNG"),
        "gray_alpha.png": encoded(Image.fromarray(alpha).convert("LA"), "PNG"),
        "deep.png": encoded(deep, "PNG"),
        "bits.png": encoded(gray.convert("1"), "PNG"),
        "photo.webp": encoded(rgb, "WEBP"),
        "old.bmp": encoded(rgb, "BMP"),
        "moving.gif": encoded(
            Image.fromarray(rgb),
            "GIF",
            save_all=True,
            append_images=[Image.fromarray(255 - rgb)],
        ),
        "scan.tif": encoded(rgb, "TIFF"),
        "deep.tiff": encoded(deep, "TIFF"),
        "wrong_ending.png": encoded(rgb),
        "tiny.png": encoded(rgb[:1, :1], "PNG"),
        "thin.png": encoded(rgb[:1], "PNG"),
        "with space äöü.jpg": encoded(rgb),
    }


def broken_files(seed=0):
    """Content by file name: files that are no images, or half of one."""
    whole = encoded(picture(64, 64, seed))
    png = encoded(picture(64, 64, seed), "PNG")
    return {
        "empty.jpg": b"",
        "text.jpg": b"this is no image",
        "half.jpg": whole[: len(whole) // 2],
        "head.jpg": whole[:30],
        "half.png": png[: len(png) // 2],
        "flipped.png": png[:60] + bytes(255 - b for b in png[60:200]) + png[200:],
        "page.webp": b"<html>404</html>",
    }


def write_folder(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder
