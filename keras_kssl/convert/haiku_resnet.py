"""The checkpoints of SSL-HSIC's authors: Haiku's ResNets to encoders."""

from keras_kssl._checks import check_choice, check_that
from keras_kssl.convert.arrays import arrays_of
from keras_kssl.convert.failures import listed
from keras_kssl.convert.layout import build, configuration

SUFFIXES = (".npy",)
# Where in a checkpoint the parameters and the running statistics of a network are. For
# their evaluation the authors take those of "average".
_NETWORKS = {
    "average": (("ema_state", "online_params"), ("experiment_state", "online_state")),
    "online": (
        ("experiment_state", "online_params"),
        ("experiment_state", "online_state"),
    ),
    "target": (
        ("experiment_state", "target_params"),
        ("experiment_state", "target_state"),
    ),
}
NETWORKS = tuple(_NETWORKS)
_STEM = "/~/initial_conv"
# Haiku's place of a variable: a module below the layer's, and the name in it.
_KINDS = {
    "kernel": ("", "w"),
    "gamma": ("", "scale"),
    "beta": ("", "offset"),
    "moving_mean": ("/~/mean_ema", "average"),
    "moving_variance": ("/~/var_ema", "average"),
}
_STATISTICS = ("moving_mean", "moving_variance")
_LAYERS = {"conv": "conv", "bn": "batchnorm"}


def from_ssl_hsic_checkpoint(
    source, network="average", mean=None, std=None, dtype=None, name=None
):
    """An encoder from a checkpoint.npy of the SSL-HSIC authors' training code.

    For the ResNet-50, -101 and -152 of that code, of any width; its ResNet-18 and -34
    have a projection in the first stage that ours have not, and are refused. The file
    is read as data: nothing that it names is imported or run, and what is no array, no
    plain value and no state of an optimizer ends the reading.

    Args:
        source: path of the checkpoint.npy, or the dictionary in it.
        network: "average", the slow average of the online network's parameters, with
            which the authors evaluate; "online"; or "target". Running statistics are
            not averaged: "average" has those of the online network. Default "average".
        mean, std: of the images in [0, 1], one number per channel, by which the network
            was trained to have them normalised. Default: ImageNet's, as in that code.
        dtype, name: as for `ResNet`.

    Returns:
        `models.ResNet` with `padding="same"`, as Haiku pads. Features equal Haiku's:
        1e-5 of the largest in float32. Projector, predictor and classifier are left
        out.

    Raises:
        ValueError: for files that are damaged, hold other things, or hold weights that
            are not those of one ResNet.

    ```python
    encoder = from_ssl_hsic_checkpoint("checkpoint.npy")
    ```
    """
    caller = "from_ssl_hsic_checkpoint"
    check_choice(caller, "network", network, NETWORKS)
    arrays = arrays_of(caller, source, SUFFIXES)
    parameters, statistics = _NETWORKS[network]
    found = {
        kind: _below(caller, arrays, place)
        for kind, place in (("parameters", parameters), ("statistics", statistics))
    }
    prefix = _prefix(caller, found["parameters"])
    unused = {
        place
        for place in found["parameters"]
        if place[0].startswith(f"{prefix}/") and place[0] != f"{prefix}/~/logits"
    }

    def value_of(place, weight):
        below, kind = _KINDS[weight]
        key = f"{prefix}/~/{_haiku_layer(place)}{below}", kind
        group = "statistics" if weight in _STATISTICS else "parameters"
        if key not in found[group]:
            raise ValueError(
                f"{caller}: the checkpoint must hold all {group} of the network. "
                f"Received: one without {'/'.join(key)!r:.200}."
            )
        unused.discard(key)
        value = found[group][key]
        if weight != "kernel" and value.shape[:-1] == (1, 1, 1):
            value = value.reshape(-1)
        return "/".join(key), value

    blocks = []
    while (f"{prefix}/~/block_group_{len(blocks)}/~/block_0/~/conv_0", "w") in unused:
        group = f"{prefix}/~/block_group_{len(blocks)}/~/"
        inside = [module for module, _ in unused if module.startswith(group)]
        blocks.append(
            len({module.removeprefix(group).split("/")[0] for module in inside})
        )
    configured = configuration(
        caller,
        blocks,
        (f"{prefix}/~/block_group_0/~/block_0/~/conv_2", "w") in unused,
        found["parameters"][prefix + _STEM, "w"].shape,
    )
    check_that(
        configured["stem"] == "imagenet",
        caller,
        "source",
        "a network with a first convolution of 7 x 7",
        f"{configured['stem']!r} stem",
    )
    options = {"mean": mean, "std": std, "dtype": dtype, "name": name}
    encoder = build(caller, {**configured, "padding": "same", **options}, value_of)
    if unused:
        names = sorted("/".join(place) for place in unused)
        raise ValueError(
            f"{caller}: the network must be a ResNet without other layers than ours. "
            f"Received: one with {len(unused)} parameters more, "
            f"{listed(names)}."
        )
    return encoder


def _below(caller, arrays, place):
    """Arrays of one dictionary of Haiku, by module and name."""
    found = {
        key[len(place) :]: array
        for key, array in arrays.items()
        if key[: len(place)] == place and len(key) == len(place) + 2
    }
    check_that(
        found,
        caller,
        "source",
        f"a checkpoint of SSL-HSIC's code, with arrays in {'/'.join(place)}",
        listed(sorted({"/".join(key[:2]) for key in arrays})),
    )
    return found


def _prefix(caller, parameters):
    """Name of the one ResNet among the modules."""
    fitting = [
        module.removesuffix(_STEM)
        for (module, name), array in parameters.items()
        if module.endswith(_STEM) and name == "w" and array.ndim == 4
    ]
    check_that(
        len(fitting) == 1,
        caller,
        "source",
        f"a checkpoint with one ResNet, the module of which has {_STEM[3:]}",
        listed(fitting or sorted({module for module, _ in parameters})),
    )
    return fitting[0]


def _haiku_layer(place):
    """Haiku's name of a layer below that of the network."""
    kind = _LAYERS[place.kind]
    if place.stage == 0:
        return f"initial_{kind}"
    block = f"block_group_{place.stage - 1}/~/block_{place.block - 1}/~"
    if place.is_shortcut:
        return f"{block}/shortcut_{kind}"
    return f"{block}/{kind}_{place.index - 1}"
