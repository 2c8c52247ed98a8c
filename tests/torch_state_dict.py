"""Where a PyTorch weight is in one of our ResNets: a map of names of its own."""

import re


def find_variable(encoder, torch_name):
    """The variable of `encoder` that holds the PyTorch weight `torch_name`."""
    torch_layer, kind = torch_name.rsplit(".", 1)
    layer = encoder.get_layer(keras_layer_name(torch_layer))
    attribute = {
        "weight": "gamma" if hasattr(layer, "gamma") else "kernel",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    }[kind]
    return getattr(layer, attribute)


def keras_layer_name(torch_layer):
    """ "layer2.0.downsample.1" -> "stage2_block1_shortcut_bn"."""
    inner = re.fullmatch(r"layer(\d)\.(\d+)\.(.+)", torch_layer)
    if inner is None:
        return {"conv1": "stem_conv", "bn1": "stem_bn"}[torch_layer]
    stage, block, part = inner.groups()
    shortcuts = {"downsample.0": "shortcut_conv", "downsample.1": "shortcut_bn"}
    return f"stage{stage}_block{int(block) + 1}_{shortcuts.get(part, part)}"


def to_keras_layout(value):
    """Convolution kernels from (out, in, height, width) to (height, width, in, out)."""
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
