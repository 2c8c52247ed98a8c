"""KerasHub's ResNet backbones, which its detectors and segmenters take, and ours."""

import keras
import numpy as np

from keras_kssl._checks import check_that, message
from keras_kssl.convert.layout import (
    build,
    check_resnet,
    check_symmetric,
    configuration,
    places,
)
from keras_kssl.models.resnet import STAGES

_BLOCKS = {False: "basic_block", True: "bottleneck_block"}
_STRIDES = [1, 2, 2, 2]


def to_keras_hub(encoder):
    """An encoder as KerasHub's backbone, for the tasks of KerasHub that stand on one.

    The backbone gives the last feature map; `backbone.pyramid_outputs` has the maps
    of the stages as "P2" to "P5". Their averages over positions are the encoder's
    features. It takes images that are normalised already, as KerasHub's preprocessors
    do it; the encoder itself takes images in [0, 1]. `keras_hub_image_converter` gives
    the preprocessor's layer for it; by hand it is `(images - encoder.mean) /
    encoder.std`.

    Needs KerasHub: `pip install 'keras_kssl[hub]'`.

    Args:
        encoder: `models.ResNet` of width 1 with the "imagenet" stem and symmetric
            padding, the only kind that KerasHub has.

    Returns:
        `keras_hub.models.ResNetBackbone` with copies of the weights, for images of any
        size, of the encoder's dtype policy and channels. Feature maps equal the
        encoder's: 1e-5 of the largest in float32.

    Raises:
        TypeError: for other models than ours. ValueError: for other ResNets than those
        above. ImportError: KerasHub is not installed.

    ```python
    backbone = to_keras_hub(encoder)
    backbone.save_to_preset("presets/mine")
    keras_hub_image_converter(encoder, 224).save_to_preset("presets/mine")
    classifier = keras_hub.models.ImageClassifier.from_preset(
        "presets/mine", num_classes=10)
    ```
    """
    caller = "to_keras_hub"
    check_resnet(caller, encoder)
    check_symmetric(caller, encoder)
    stem = encoder.get_layer("stem_conv")
    check_that(
        encoder.stem == "imagenet" and stem.filters == 64,
        caller,
        "encoder",
        "a ResNet of width 1 with stem='imagenet', the kind that KerasHub has",
        f"ResNet with width={encoder.width:g}, stem={encoder.stem!r}",
        "Export other encoders as a SavedModel or a .keras file.",
    )
    keras_hub = _keras_hub(caller)
    blocks, is_bottleneck = STAGES[encoder.depth]
    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=list(blocks),
        stackwise_num_strides=_STRIDES,
        block_type=_BLOCKS[is_bottleneck],
        image_shape=(None, None, encoder.input_channels),
        data_format="channels_last",
        dtype=encoder.get_config()["dtype"],
    )
    for place, layer in places(encoder):
        theirs = backbone.get_layer(_hub_layer(place))
        for weight in place.weights:
            getattr(theirs, weight).assign(getattr(layer, weight).value)
    return backbone


def keras_hub_image_converter(encoder, image_size=None):
    """The layer of KerasHub that turns pixels in [0, 255] into its backbone's input.

    Args:
        encoder: `models.ResNet` whose `mean` and `std` are taken.
        image_size: side in pixels to which images are brought, their shorter side
            resized and the middle cut out. Default: images keep their size.

    Returns:
        `keras_hub.layers.ResNetImageConverter` with a scale of 1 / (255 std) and an
        offset of -mean / std.

    Raises:
        TypeError: for other models than ours. ImportError: KerasHub is not installed.
    """
    caller = "keras_hub_image_converter"
    check_resnet(caller, encoder)
    if image_size is not None:
        encoder.check_image_size(image_size, image_size)
    return _keras_hub(caller).layers.ResNetImageConverter(
        image_size=image_size and (image_size, image_size),
        scale=[1 / (255 * std) for std in encoder.std],
        offset=[
            -mean / std for mean, std in zip(encoder.mean, encoder.std, strict=True)
        ],
        crop_to_aspect_ratio=True,
        interpolation="bicubic",
        antialias=True,
        data_format="channels_last",
    )


def from_keras_hub(backbone, mean=None, std=None, name=None):
    """An encoder with the weights of a backbone of KerasHub.

    For ResNet-18 to ResNet-152, such as the preset "resnet_50_imagenet"; not for the
    kinds ResNetV2 (pre-activation) and ResNet-vd.

    Args:
        backbone: `keras_hub.models.ResNetBackbone`.
        mean, std: of the images in [0, 1], one number per channel, by which the
            backbone was trained to have them normalised; the encoder does it itself. An
            image converter with scale s and offset o stands for `std = 1 / (255 s)` and
            `mean = -o std`. Default: ImageNet's, as KerasHub's presets have them.
        name: as for `ResNet`.

    Returns:
        `models.ResNet` with copies of the weights, of the backbone's dtype policy.
        Features equal the averages of the backbone's last map.

    Raises:
        TypeError: for other models. ValueError: for kinds of ResNets that are not ours.
        ImportError: KerasHub is not installed.
    """
    caller = "from_keras_hub"
    kind = _keras_hub(caller).models.ResNetBackbone
    if not isinstance(backbone, kind):
        rule = "a keras_hub.models.ResNetBackbone"
        raise TypeError(message(caller, "backbone", rule, backbone))
    for argument, value in {
        "use_pre_activation": False,
        "input_conv_kernel_sizes": [7],
        "stackwise_num_strides": _STRIDES,
    }.items():
        found = getattr(backbone, argument)
        found = list(found) if isinstance(found, list | tuple) else found
        rule = f"a backbone with {argument}={value}, as our ResNets have it"
        check_that(found == value, caller, "backbone", rule, f"{argument}={found}")
    rule = f"a backbone with block_type {' or '.join(map(repr, _BLOCKS.values()))}"
    check_that(
        backbone.block_type in _BLOCKS.values(),
        caller,
        "backbone",
        rule,
        f"block_type={backbone.block_type!r}",
    )

    def value_of(place, weight):
        layer = _hub_layer(place)
        value = getattr(backbone.get_layer(layer), weight)
        return f"{layer}.{weight}", np.asarray(keras.ops.convert_to_numpy(value))

    first = backbone.get_layer("conv1_conv")
    options = configuration(
        caller,
        backbone.stackwise_num_blocks,
        backbone.block_type == _BLOCKS[True],
        tuple(first.kernel.shape),
    )
    options |= {"mean": mean, "std": std, "name": name}
    return build(caller, {**options, "dtype": first.dtype_policy.name}, value_of)


def _hub_layer(place):
    """KerasHub's name of a layer."""
    if place.stage == 0:
        return f"conv1_{place.kind}"
    block = f"stack{place.stage - 1}_block{place.block - 1}"
    return f"{block}_{place.index}_{place.kind}"


def _keras_hub(caller):
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError(
            f"{caller}: needs KerasHub. Install it: pip install 'keras_kssl[hub]'."
        ) from error
    return keras_hub
