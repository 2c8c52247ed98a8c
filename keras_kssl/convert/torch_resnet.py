"""PyTorch's ResNets, in torchvision's form: their state dicts to encoders and back."""

import dataclasses
import os
import re

import numpy as np

from keras_kssl._checks import check_that
from keras_kssl._files import staged
from keras_kssl.convert import pth, safetensors
from keras_kssl.convert.arrays import arrays_of
from keras_kssl.convert.failures import listed
from keras_kssl.convert.layout import (
    build,
    check_resnet,
    check_symmetric,
    configuration,
    places,
)

SUFFIXES = (".pth", ".pt", ".tar", ".safetensors")
_WRITERS = {".pth": pth.write, ".pt": pth.write, ".safetensors": safetensors.write}
WRITTEN = tuple(_WRITERS)
_KINDS = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_SHORTCUT = {"conv": 0, "bn": 1}
_COUNTER = "num_batches_tracked"
# What every ResNet has. The second keeps the first convolution of a block from being
# taken for that of the network.
_MARKS = ("conv1.weight", "layer1.0.conv1.weight")
_OF_ENCODER = re.compile(r"(conv1|bn1|layer\d)\.")


def from_torch_resnet(
    source, mean=None, std=None, prefix=None, ignore=("fc",), dtype=None, name=None
):
    """An encoder with the weights of a PyTorch ResNet, PyTorch not being needed.

    For weights under torchvision's names: torchvision's own, the published backbones of
    SFRIK, VICReg and Barlow Twins, and training checkpoints that hold such a network
    somewhere. Depth, width, stem and channels are found from the names and shapes: a
    first kernel of 7 x 7 is the "imagenet" stem, one of 3 x 3 the "cifar" stem, which
    is taken to have stride 1 and no pooling behind it.

    Files are read as data: nothing that they name is imported or run, and a file of
    anything else than tensors, numbers, texts and their containers is refused.

    Args:
        source: a path ending in .pth, .pt, .pth.tar (what `torch.save` writes, in
            either of its forms) or .safetensors; or a state dict, of NumPy arrays or of
            PyTorch tensors, in other dictionaries or not.
        mean, std: of the images in [0, 1], one number per channel, by which the network
            was trained to have them normalised; the encoder does it itself. Default:
            ImageNet's, as `ResNet`.
        prefix: what stands before the encoder's names, such as "module.backbone.", with
            the keys that lead to the state dict in a checkpoint. Default: what makes
            the names fit, which must be one prefix only.
        ignore: names of parts that are left out, below the prefix or beside it.
            Default: torchvision's classifier.
        dtype, name: as for `ResNet`.

    Returns:
        `models.ResNet`. Features equal PyTorch's: 1e-5 of the largest in float32.

    Raises:
        ValueError: for files that are damaged, hold other things, or hold weights that
            are not those of one ResNet; also for weights that the encoder has no place
            for and `ignore` does not name. BatchNorm's counters of batches are not
            needed; what lies in other dictionaries of a checkpoint than the state dict,
            such as an optimizer's state, is not looked at.

    >>> from keras_kssl.models import ResNet
    >>> state = to_torch_state_dict(ResNet(10, width=0.125, stem="cifar", seed=0))
    >>> wrapped = {"model": {f"module.{name}": value for name, value in state.items()}}
    >>> encoder = from_torch_resnet({"epoch": 3, **wrapped})
    >>> encoder.depth, encoder.width, encoder.stem
    (10, 0.125, 'cifar')
    """
    found = find_torch_resnet("from_torch_resnet", source, prefix, ignore)
    return found.encoder(mean=mean, std=std, dtype=dtype, name=name)


@dataclasses.dataclass(frozen=True)
class TorchResNet:
    """The state dict of a ResNet, found among arrays.

    Attributes:
        caller: who asked, for messages.
        prefix: what stands before its names.
        state: dictionary from torchvision's names to arrays.
        left_out: full names of arrays that were to be ignored.
    """

    caller: str
    prefix: str
    state: dict
    left_out: tuple

    def encoder(self, **options):
        """A `ResNet` of these weights; `options` are further arguments of it."""
        blocks = []
        while f"layer{len(blocks) + 1}.0.conv1.weight" in self.state:
            stage = f"layer{len(blocks) + 1}"
            inside = [name for name in self.state if name.startswith(f"{stage}.")]
            blocks.append(len({name.split(".")[1] for name in inside}))
        unused = dict(self.state)

        def value_of(place, weight):
            name = f"{torch_layer(place)}.{_KINDS[weight]}"
            if name not in self.state:
                raise ValueError(
                    f"{self.caller}: the state dict must hold all weights of the "
                    f"network. Received: one without {self.prefix + name!r:.200}."
                )
            unused.pop(name, None)
            value = self.state[name]
            if weight == "kernel" and value.ndim == 4:
                value = value.transpose(2, 3, 1, 0)
            return self.prefix + name, value

        out, channels, height, width = self.state[_MARKS[0]].shape
        configured = configuration(
            self.caller,
            blocks,
            "layer1.0.conv3.weight" in self.state,
            (height, width, channels, out),
        )
        encoder = build(self.caller, {**configured, **options}, value_of)
        if unused:
            raise ValueError(
                f"{self.caller}: the network must be a ResNet of torchvision's form. "
                f"Received: one with {len(unused)} weights more, "
                f"{listed(self.prefix + name for name in unused)}."
            )
        return encoder


def find_torch_resnet(caller, source, prefix=None, ignore=()):
    """The one ResNet in a file or in nested dictionaries: a `TorchResNet`."""
    arrays = arrays_of(caller, source, SUFFIXES)
    names = {place: ".".join(place) for place in arrays}
    fitting = {
        names[place].removesuffix(_MARKS[0]): place[:-1]
        for place in arrays
        if place[-1].endswith(_MARKS[0])
        and (*place[:-1], place[-1].removesuffix(_MARKS[0]) + _MARKS[1]) in arrays
        and arrays[place].ndim == 4
    }
    check_that(
        fitting,
        caller,
        "source",
        f"weights under torchvision's names, {' and '.join(_MARKS)} among them",
        listed(sorted(names.values())),
    )
    if prefix is None and len(fitting) == 1:
        (prefix,) = fitting
    if prefix not in fitting:
        known = listed((f"prefix={each!r}" for each in sorted(fitting)), 8)
        raise ValueError(
            f"{caller}: `prefix` must say where the one network is that is meant. "
            f"Received: prefix={prefix!r}. Fitting: {known}."
        )
    dictionary = fitting[prefix]
    # Parts may be named from below the prefix or from below what it begins with.
    heads = [".".join((*dictionary, ""))]
    for component in prefix.removeprefix(heads[0]).split(".")[:-1]:
        heads.append(f"{heads[-1]}{component}.")
    state, left_out, unused = {}, [], {}
    for place, array in arrays.items():
        name = names[place]
        if place[:-1] != dictionary or name.endswith(_COUNTER):
            continue
        below = [name.removeprefix(head) for head in heads if name.startswith(head)]
        if any(f"{each}.".startswith(f"{part}.") for each in below for part in ignore):
            left_out.append(name)
        elif name.startswith(prefix) and _OF_ENCODER.match(below[-1]):
            state[below[-1]] = array
        else:
            unused[name] = below[-1].split(".")[0]
    if unused:
        more = listed(map(repr, (*ignore, *sorted(set(unused.values())))), 16)
        raise ValueError(
            f"{caller}: the state dict must hold nothing that the encoder has no place "
            f"for. Received: {len(unused)} arrays more, {listed(unused)}. To leave "
            f"them out, say so: ignore=[{more}]."
        )
    return TorchResNet(caller, prefix, state, tuple(left_out))


def torch_layer(place):
    """torchvision's name of a layer."""
    if place.stage == 0:
        return f"{place.kind}1"
    block = f"layer{place.stage}.{place.block - 1}"
    if place.is_shortcut:
        return f"{block}.downsample.{_SHORTCUT[place.kind]}"
    return f"{block}.{place.kind}{place.index}"


def to_torch_state_dict(encoder):
    """The weights of an encoder under torchvision's names, in torchvision's order.

    `torchvision.models.resnet50().load_state_dict(...)` takes them, as tensors
    (`torch.from_numpy`) and with `strict=False`, because there is no classifier. A
    "cifar" stem needs a first convolution of 3 x 3 and stride 1 and no pooling there.
    `encoder.mean` and `encoder.std` are not in it: normalise images in [0, 1] by them.

    Args:
        encoder: `models.ResNet` with symmetric padding.

    Returns:
        Dictionary from names to NumPy arrays, copies of the weights. Weights that came
        from a state dict come back bit for bit. `num_batches_tracked`, int64, is 0:
        Keras does not count, and PyTorch needs it only where momentum is None.

    Raises:
        TypeError: for other models than ours. ValueError: for `padding="same"`.

    >>> from keras_kssl.models import ResNet
    >>> state = to_torch_state_dict(ResNet(18, width=0.125))
    >>> state["layer2.0.downsample.0.weight"].shape
    (16, 8, 1, 1)
    """
    check_resnet("to_torch_state_dict", encoder)
    check_symmetric("to_torch_state_dict", encoder)
    state = {}
    for place, layer in places(encoder):
        for weight in place.weights:
            value = np.array(getattr(layer, weight).value)
            if weight == "kernel":
                value = np.ascontiguousarray(value.transpose(3, 2, 0, 1))
            state[f"{torch_layer(place)}.{_KINDS[weight]}"] = value
        if place.kind == "bn":
            state[f"{torch_layer(place)}.{_COUNTER}"] = np.zeros((), np.int64)
    return state


def torch_file(encoder, path, overwrite=False):
    """Writes an encoder as a state dict that PyTorch opens, without PyTorch.

    Args:
        encoder: `models.ResNet` with symmetric padding.
        path: local file ending in .pth or .pt, which `torch.load(path,
            weights_only=True)` opens, or in .safetensors. Missing parents are made.
        overwrite: whether a file at `path` is replaced. Default False.

    Returns:
        The path written, as a string.

    Raises:
        FileExistsError: there is something at `path`.
        TypeError, ValueError: as `to_torch_state_dict`; and for other suffixes.
        RuntimeError: what was written does not come back bit for bit; nothing is left
            at `path`.
    """
    state = to_torch_state_dict(encoder)
    suffix = os.path.splitext(str(path))[1]
    check_that(
        suffix in _WRITERS,
        "torch_file",
        "path",
        f"a file name ending in {', '.join(_WRITERS)}",
        str(path),
    )
    with staged("torch_file", path, overwrite, os.path.isfile) as (temporary, final):
        _WRITERS[suffix](state, temporary)
        found = find_torch_resnet("torch_file", temporary).state
        for name, value in state.items():
            if not name.endswith(_COUNTER) and found[name].tobytes() != value.tobytes():
                raise RuntimeError(
                    f"torch_file: what was written must come back bit for bit. "
                    f"Received: another {name}. Nothing was left at the path."
                )
    return final
