"""How a ResNet is laid out: its layers by stage and block, whatever they are called."""

import dataclasses
import re

import keras
import numpy as np

from keras_kssl._checks import check_that, message
from keras_kssl.models.resnet import STAGES, ResNet

_NAME = re.compile(
    r"(?:stem|stage(?P<stage>\d)_block(?P<block>\d+))_"
    r"(?P<shortcut>shortcut_)?(?P<kind>conv|bn)(?P<index>\d?)"
)
_STEMS = {7: "imagenet", 3: "cifar"}
_WEIGHTS = {
    "conv": ("kernel",),
    "bn": ("gamma", "beta", "moving_mean", "moving_variance"),
}


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a layer with weights stands.

    `stage` and `block` count from 1 and are 0 for the stem; `index` counts the layers
    of a kind, "conv" or "bn", within a block from 1 and is 0 for its shortcut.
    """

    stage: int
    block: int
    kind: str
    index: int

    @property
    def is_shortcut(self):
        return self.stage > 0 and self.index == 0

    @property
    def weights(self):
        """Names of the layer's variables."""
        return _WEIGHTS[self.kind]


def places(encoder):
    """Pairs of place and layer, block by block, shortcuts last, as torchvision does."""
    found = []
    for layer in encoder.layers:
        match = _NAME.fullmatch(layer.name)
        if match is not None:
            stage, block, index = (
                int(match[part] or 0) for part in ("stage", "block", "index")
            )
            found.append((Place(stage, block, match["kind"], index), layer))

    def order(pair):
        place = pair[0]
        last = place.is_shortcut
        return place.stage, place.block, last, place.index, place.kind == "bn"

    return sorted(found, key=order)


def configuration(caller, blocks, is_bottleneck, stem_kernel):
    """Arguments of `ResNet` for what a file or a model of another library holds.

    Args:
        caller: who asks, for messages.
        blocks: blocks per stage.
        is_bottleneck: whether blocks have three convolutions instead of two.
        stem_kernel: shape of the first kernel, (height, width, in, out).
    """
    depths = {stage: depth for depth, stage in STAGES.items()}
    kind = "bottlenecks" if is_bottleneck else "basic blocks"
    known = ", ".join(f"{depth}: {stage[0]}" for depth, stage in STAGES.items())
    depth = depths.get((tuple(blocks), is_bottleneck))
    if depth is None:
        raise ValueError(
            f"{caller}: the blocks of the stages must be those of a known ResNet "
            f"({known}). Received: {tuple(blocks)!s:.100} {kind}."
        )
    height, width, input_channels, channels = stem_kernel
    if height != width or height not in _STEMS or channels % 8:
        raise ValueError(
            f"{caller}: the first convolution must be 7 x 7 or 3 x 3, to a multiple of "
            f"8 channels. Received: {height} x {width}, to {channels} channels."
        )
    return {
        "depth": depth,
        "width": channels / 64,
        "stem": _STEMS[height],
        "input_channels": input_channels,
    }


def build(caller, options, value_of):
    """A ResNet with given weights.

    Args:
        caller: who asks, for messages.
        options: arguments of `ResNet`.
        value_of: function from a place and the name of a variable to the name of the
            array that it holds, for messages, and the array.

    Raises:
        ValueError: for an array of another shape than the variable's, before any
            memory is taken for the network.
    """
    with keras.StatelessScope(initialize_variables=False):
        skeleton = ResNet(**options)
    for place, layer in places(skeleton):
        for weight in place.weights:
            name, value = value_of(place, weight)
            shape = tuple(getattr(layer, weight).shape)
            if value.shape != shape:
                raise ValueError(
                    f"{caller}: `{name}` must have the shape of a ResNet-"
                    f"{options['depth']} of width {options['width']:g}. Received: a "
                    f"shape that here is {value.shape} instead of {shape}. Wide "
                    "bottlenecks and grouped convolutions are not known."
                )
            check_that(
                value.dtype.kind in "fV",  # V: bfloat16
                caller,
                name,
                "of floating-point numbers",
                str(value.dtype),
            )
    encoder = ResNet(**options)
    for place, layer in places(encoder):
        for weight in place.weights:
            variable = getattr(layer, weight)
            value = value_of(place, weight)[1]
            variable.assign(np.asarray(value, variable.dtype))
    return encoder


def check_resnet(caller, encoder):
    """Raises `TypeError` for anything but a ResNet of this library."""
    if not isinstance(encoder, ResNet):
        raise TypeError(
            message(caller, "encoder", "a keras_kssl.models.ResNet", encoder)
        )


def check_symmetric(caller, encoder):
    """Raises `ValueError` where others would pad images otherwise."""
    check_that(
        encoder.padding == "symmetric",
        caller,
        "encoder",
        "padded symmetrically, as PyTorch pads",
        f"ResNet with padding={encoder.padding!r}",
        "The same weights would give other features there.",
    )
