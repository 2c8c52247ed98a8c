"""The two views of SFRIK's policy, photo by photo with Pillow: a yardstick.

What torchvision's transforms do with Pillow's images, in the same order.
"""

import random

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps


def crop(image, size, scale):
    width, height = image.size
    for _ in range(10):
        area = width * height * random.uniform(*scale)
        ratio = np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            break
    else:
        w = h = min(width, height)
        left, top = (width - w) // 2, (height - h) // 2
    box = (left, top, left + w, top + h)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def turn_hue(image, factor):
    hue, saturation, value = image.convert("HSV").split()
    turned = np.asarray(hue) + np.uint8(int(factor * 255) % 256)
    return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert(
        "RGB"
    )


def jitter(image, view):
    def around(strength):
        return random.uniform(max(0, 1 - strength), 1 + strength)

    changes = [
        lambda x: ImageEnhance.Brightness(x).enhance(around(view.brightness)),
        lambda x: ImageEnhance.Contrast(x).enhance(around(view.contrast)),
        lambda x: ImageEnhance.Color(x).enhance(around(view.saturation)),
        lambda x: turn_hue(x, random.uniform(-view.hue, view.hue)),
    ]
    for change in random.sample(changes, 4):
        image = change(image)
    return image


def make_view(image, view):
    """A view of a photo by the settings of a `keras_kssl.augment.View`, as an array."""
    image = crop(image, view.size, view.crop_scale)
    if random.random() < view.flip:
        image = ImageOps.mirror(image)
    if random.random() < view.jitter:
        image = jitter(image, view)
    if random.random() < view.grayscale:
        image = ImageOps.grayscale(image).convert("RGB")
    if random.random() < view.blur:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(*view.blur_sigma)))
    if random.random() < view.solarize:
        image = ImageOps.solarize(image, 128)
    return np.asarray(image, "float32") / 255.0


def views_of(path, policy):
    """All views of a file."""
    with Image.open(path) as image:
        image = image.convert("RGB")
    return [make_view(image, view) for view in policy.views]
