"""Feature maps of an encoder: what dense tasks start from."""

import math

import keras
from keras import layers

from keras_kssl._checks import check_that, message
from keras_kssl.models.resnet import ResNet

_STAGES = tuple(f"stage{stage}_output" for stage in (1, 2, 3, 4))
_LAST_STAGE = "stage4_"
# Side of the image with which strides are found, where an encoder takes any.
_TRIAL_SIDE = 256


def feature_maps(encoder, with_output=False):
    """A model from images to feature maps of an encoder, finest first.

    It shares the encoder's weights. The maps of a `models.ResNet`, or of what `dilated`
    makes of one, are those of its four stages. Of any other functional Keras encoder it
    is the last map at every stride, that is the last output of a layer that has four
    axes and the side of the image divided by 1, 2, 4, ...

    Args:
        encoder: `models.ResNet`, or another functional or sequential Keras model from
            images (B, H, W, C).
        with_output: whether what the encoder itself returns follows the maps.

    Returns:
        `keras.Model` from images to a list of maps (B, h, w, d).

    Raises:
        TypeError: for what is no such model.
        ValueError: for a model without feature maps.

    >>> encoder = ResNet(depth=10, width=0.125, stem="cifar", seed=0)
    >>> [tuple(m.shape) for m in feature_maps(encoder)(keras.ops.zeros((1, 32, 45, 3)))]
    [(1, 32, 45, 8), (1, 16, 23, 16), (1, 8, 12, 32), (1, 4, 6, 64)]
    """
    _check_encoder("feature_maps", encoder)
    names = {layer.name for layer in encoder.layers}
    if names.issuperset(_STAGES):
        maps = [encoder.get_layer(name).output for name in _STAGES]
        last = encoder.outputs if with_output else []
        return keras.Model(encoder.inputs[0], [*maps, *last])
    walked, outputs = _all_maps(encoder)
    finest_first = {}
    if outputs:
        every = keras.Model(walked.inputs[0], outputs)
        for output, stride in zip(outputs, strides(every, exact=True), strict=True):
            if stride is not None:
                finest_first[stride] = output
    check_that(
        finest_first,
        "feature_maps",
        "encoder",
        "a model with layers whose outputs are maps (B, h, w, d) of the image's size "
        "divided by a power of 2",
        encoder.name,
        "Encoders of patches (vision transformers) have none.",
    )
    maps = [finest_first[stride] for stride in sorted(finest_first)]
    last = walked.outputs if with_output else []
    return keras.Model(walked.inputs[0], [*maps, *last])


def strides(maps, exact=False):
    """Pixels of the image for each step in each map: powers of 2.

    Args:
        maps: model from images to a list of maps, as `feature_maps` returns it.
        exact: whether maps of other sizes than ceil(side / stride) have `None`.

    Returns:
        List of integers.

    >>> strides(feature_maps(ResNet(depth=10, width=0.125)))
    [4, 8, 16, 32]
    """
    height, width, channels = maps.inputs[0].shape[1:]
    side = height or _TRIAL_SIDE
    shapes = maps.compute_output_shape((1, side, width or _TRIAL_SIDE, channels))
    shapes = shapes if isinstance(shapes, list) else [shapes]
    found = []
    for shape in shapes:
        # A map of ceil(side / s) steps: side / s <= steps < side / s + 1.
        stride = 2 ** max(0, math.ceil(math.log2(side / shape[1])))
        fits = shape[1] == math.ceil(side / stride)
        found.append(stride if fits or not exact else None)
    return found


def dilated(encoder):
    """A copy of a ResNet whose last stage keeps the resolution of the one before.

    All strides of the last stage become 1 and all its 3x3 convolutions have dilation 2,
    so that weights see what they saw, twice as densely: an "imagenet" stem then gives
    maps at stride 16 where it gave 32, at four times the cost of that stage. Weights
    are equal; features are not, since the first 3x3 convolution of the stage looks
    twice as far as it did.

    Args:
        encoder: `models.ResNet`; it stays as it is.

    Returns:
        Functional `keras.Model` with the layer names of the encoder.

    Raises:
        TypeError: for other encoders, whose last stage this cannot find.

    References: the encoder of FCN-16s in MoCo (https://arxiv.org/abs/1911.05722) and
    BYOL (https://arxiv.org/abs/2006.07733).

    >>> encoder = ResNet(depth=10, width=0.125, stem="cifar", seed=0)
    >>> dilated(encoder).get_layer("stage4_output").output.shape[-1]
    64
    >>> strides(feature_maps(dilated(encoder)))
    [1, 2, 4, 4]
    """
    if not isinstance(encoder, ResNet):
        rule = "a keras_kssl.models.ResNet, whose stages are known"
        remedy = "Take the feature maps of other encoders as they are."
        raise TypeError(message("dilated", "encoder", rule, encoder, remedy))

    def dilate(layer):
        config = layer.get_config()
        if layer.name.startswith(_LAST_STAGE):
            if isinstance(layer, layers.Conv2D):
                config["strides"] = (1, 1)
                if tuple(config["kernel_size"]) == (3, 3):
                    config["dilation_rate"] = (2, 2)
            elif isinstance(layer, layers.ZeroPadding2D):
                config["padding"] = 2
        return type(layer).from_config(config)

    copy = keras.models.clone_model(encoder, clone_function=dilate)
    copy.set_weights(encoder.get_weights())
    return copy


def copied(encoder):
    """A copy of an encoder with the same weights, which training may change."""
    _check_encoder("copied", encoder)
    copy = keras.models.clone_model(encoder)
    copy.set_weights(encoder.get_weights())
    return copy


def _all_maps(encoder):
    """An encoder as a graph, and all outputs of its layers with four axes."""
    found = []

    def call(layer, *args, **kwargs):
        output = layer(*args, **kwargs)
        is_map = isinstance(output, keras.KerasTensor) and len(output.shape) == 4
        if is_map and not isinstance(layer, layers.ZeroPadding2D):
            found.append(output)
        return output

    # A sequential model has no graph to walk through before it is a functional one.
    functional = keras.Model(encoder.inputs[0], encoder.outputs[0])
    walked = keras.models.clone_model(
        functional, clone_function=lambda layer: layer, call_function=call
    )
    return walked, found


def _check_encoder(caller, encoder):
    is_model = isinstance(encoder, keras.Model) and hasattr(encoder, "inputs")
    inputs = (encoder.inputs or []) if is_model else []
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        rule = "a functional or sequential Keras model from images (B, H, W, C)"
        remedy = "Functions and subclassed models do not show their feature maps."
        raise TypeError(message(caller, "encoder", rule, encoder, remedy))
