"""Residual networks (ResNets) as image encoders, equal to torchvision's backbones."""

import keras
from keras import layers

from keras_kssl._checks import (
    check_choice,
    check_integer,
    check_number,
    check_that,
)
from keras_kssl._seeds import derived_seed
from keras_kssl.models.layers import BatchNorm, MaxPool, Normalize, SumReLU

# Depth -> (blocks per stage, whether the blocks are bottlenecks).
STAGES = {
    10: ((1, 1, 1, 1), False),
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
_MINIMUM_SIZES = {"imagenet": 32, "cifar": 8}
_PADDINGS = ("symmetric", "same")
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@keras.saving.register_keras_serializable(package="keras_kssl")
class ResNet(keras.Model):
    """Residual network from images to one feature vector per image.

    The form of torchvision ("v1.5": a bottleneck's stride sits on its 3x3 convolution),
    so that PyTorch checkpoints give equal outputs: convolutions without bias, symmetric
    zero padding, a projection (1x1 convolution and batch normalisation) on the shortcut
    where the shape changes, and global average pooling at the end.

    Args:
        depth: 10, 18, 34 (basic blocks), 50, 101 or 152 (bottlenecks). Depth 10, one
            block per stage, is for trials on small machines.
        width: factor above 0 on all channel counts, which are rounded to multiples of 8
            and at least 8. Default 1.0.
        stem: "imagenet" (7x7 convolution of stride 2, then 3x3 max pooling of stride 2)
            or "cifar" (3x3 convolution of stride 1) for images of about 32 pixels.
        input_channels: channels C of the images, at least 1. Default 3.
        mean: one number per channel, subtracted from the images. Default: ImageNet's
            for three channels, otherwise 0.5 for each.
        std: one number above 0 per channel, by which they are then divided. Default:
            ImageNet's for three channels, otherwise 0.25 for each.
        zero_init_last_gamma: whether the last batch normalisation of every block
            starts with scale 0, so that the block starts as its shortcut. Default True.
        padding: "symmetric", as PyTorch pads, or "same", as TensorFlow does, which
            where a stride is 2 adds less on the top and the left or nothing. Weights
            trained with one give other features with the other. Default "symmetric".
        seed: integer of at least 0 that fixes the initial weights (on one backend), or
            None for others each time. Default None.
        dtype: dtype policy of the layers, such as "mixed_bfloat16". Default: Keras's
            global policy.
        name: name of the model.

    Call arguments:
        images: tensor (B, H, W, C) of floats in [0, 1], H and W of at least
            `minimum_size` and free otherwise.
        training: whether batch statistics are used and the running ones updated.

    Returns:
        Features (B, num_features), float32 also under half-precision policies (float64
        under float64).

    Raises:
        ValueError: for an unknown depth, stem or padding and for numbers out of range.

    The layers are named stem_conv, stage1_block1_conv1, stage1_block1_bn1,
    stage1_block1_shortcut_conv, ...; stage1_output to stage4_output are the feature
    maps of the stages, for dense prediction, such as
    `encoder.get_layer("stage4_output").output`.

    ```python
    encoder = ResNet(depth=18, stem="cifar", seed=0)
    features = encoder(keras.ops.zeros((2, 32, 45, 3)))
    print(features.shape, encoder.count_params())    # (2, 512) 11178432
    ```

    References:
        - He et al. 2016, "Deep Residual Learning for Image Recognition",
          https://arxiv.org/abs/1512.03385. There the stride of a bottleneck sits on its
          first 1x1 convolution.
        - The code of SSL-HSIC has `padding="same"`, and a projection at the head of
          every stage: for basic blocks one more than here, in stage 1.
        - `width` widens the whole network; torchvision's wide_resnet50_2 widens the
          3x3 convolutions only.
    """

    def __init__(
        self,
        depth,
        width=1.0,
        stem="imagenet",
        input_channels=3,
        mean=None,
        std=None,
        zero_init_last_gamma=True,
        padding="symmetric",
        seed=None,
        dtype=None,
        name=None,
    ):
        check_choice("ResNet", "depth", depth, STAGES)
        width = check_number("ResNet", "width", width, minimum=0.0)
        check_that(width > 0, "ResNet", "width", "above 0", width)
        check_choice("ResNet", "stem", stem, _MINIMUM_SIZES)
        check_integer("ResNet", "input_channels", input_channels, minimum=1)
        check_choice("ResNet", "padding", padding, _PADDINGS)
        if seed is not None:
            check_integer("ResNet", "seed", seed, minimum=0)
        rgb = input_channels == 3
        mean = _per_channel(
            "mean", mean, _IMAGENET_MEAN if rgb else 0.5, input_channels
        )
        std = _per_channel("std", std, _IMAGENET_STD if rgb else 0.25, input_channels)
        policy = keras.dtype_policies.get(dtype)

        image_dtype = keras.backend.result_type(policy.compute_dtype, "float32")
        images = keras.Input((None, None, input_channels), dtype=image_dtype)
        builder = _Builder(policy, seed, zero_init_last_gamma, padding)
        x = Normalize(mean, std, dtype=policy, name="normalize")(images)
        x = builder.stem(x, _channels(64, width), stem)
        block_counts, bottleneck = STAGES[depth]
        for stage, block_count in enumerate(block_counts, start=1):
            channels = _channels(64 * 2 ** (stage - 1), width)
            x = builder.stage(x, stage, block_count, channels, bottleneck)
        # Averages of half-precision maps are taken, and handed on, in full precision.
        features = layers.GlobalAveragePooling2D(
            data_format="channels_last", dtype=image_dtype, name="features"
        )(x)
        super().__init__(images, features, name=name)

        self.depth = depth
        self.width = width
        self.stem = stem
        self.input_channels = input_channels
        self.mean = mean
        self.std = std
        self.zero_init_last_gamma = zero_init_last_gamma
        self.padding = padding
        self.seed = seed
        self._layer_policy = policy

    @property
    def num_features(self):
        """Length of the feature vectors."""
        return self.output_shape[-1]

    @property
    def minimum_size(self):
        """Smallest sensible side of an image, in pixels.

        From it on, the last feature map comes from at least one full stride: 32 pixels
        for the "imagenet" stem, 8 for "cifar". Smaller images run, on padding mostly.
        """
        return _MINIMUM_SIZES[self.stem]

    def check_image_size(self, height, width):
        """Raises `ValueError` for images smaller than `minimum_size`."""
        check_that(
            min(height, width) >= self.minimum_size,
            "ResNet",
            "image size",
            f"at least {self.minimum_size} x {self.minimum_size} pixels for the "
            f"{self.stem!r} stem",
            (height, width),
            "Resize the images or take stem='cifar'.",
        )

    def get_config(self):
        return {
            "depth": self.depth,
            "width": self.width,
            "stem": self.stem,
            "input_channels": self.input_channels,
            "mean": self.mean,
            "std": self.std,
            "zero_init_last_gamma": self.zero_init_last_gamma,
            "padding": self.padding,
            "seed": self.seed,
            "dtype": self._layer_policy.name,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


class _Builder:
    """Adds layers to the graph of a ResNet, each kernel with a seed of its own."""

    def __init__(self, policy, seed, zero_init_last_gamma, padding):
        self.policy = policy
        self.seed = seed
        self.zero_init_last_gamma = zero_init_last_gamma
        self.padding = padding
        self.kernel_count = 0

    def stem(self, x, channels, kind):
        size, stride = (7, 2) if kind == "imagenet" else (3, 1)
        x = self.conv(x, channels, size, stride, "stem_conv")
        x = self.relu(self.bn(x, "stem_bn"), "stem_relu")
        if kind == "imagenet":
            # After a ReLU, padding by 0 is padding by minus infinity.
            x, padding = self.padded(x, 3, 2, "stem_pool_pad")
            x = MaxPool(
                3,
                2,
                padding=padding,
                data_format="channels_last",
                dtype=self.policy,
                name="stem_pool",
            )(x)
        return x

    def stage(self, x, stage, block_count, channels, bottleneck):
        for block in range(1, block_count + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            prefix = f"stage{stage}_block{block}"
            add_residual = self.bottleneck if bottleneck else self.basic_block
            x = add_residual(x, channels, stride, prefix)
            last = block == block_count
            name = f"stage{stage}_output" if last else f"{prefix}_output"
            x = SumReLU(dtype=self.policy, name=name)(x)
        return x

    def basic_block(self, x, channels, stride, prefix):
        shortcut = self.shortcut(x, channels, stride, prefix)
        x = self.conv(x, channels, 3, stride, f"{prefix}_conv1")
        x = self.relu(self.bn(x, f"{prefix}_bn1"), f"{prefix}_relu1")
        x = self.conv(x, channels, 3, 1, f"{prefix}_conv2")
        x = self.bn(x, f"{prefix}_bn2", last=True)
        return layers.Add(dtype=self.policy, name=f"{prefix}_add")([x, shortcut])

    def bottleneck(self, x, channels, stride, prefix):
        shortcut = self.shortcut(x, 4 * channels, stride, prefix)
        x = self.conv(x, channels, 1, 1, f"{prefix}_conv1")
        x = self.relu(self.bn(x, f"{prefix}_bn1"), f"{prefix}_relu1")
        x = self.conv(x, channels, 3, stride, f"{prefix}_conv2")
        x = self.relu(self.bn(x, f"{prefix}_bn2"), f"{prefix}_relu2")
        x = self.conv(x, 4 * channels, 1, 1, f"{prefix}_conv3")
        x = self.bn(x, f"{prefix}_bn3", last=True)
        return layers.Add(dtype=self.policy, name=f"{prefix}_add")([x, shortcut])

    def shortcut(self, x, channels, stride, prefix):
        if stride == 1 and x.shape[-1] == channels:
            return x
        x = self.conv(x, channels, 1, stride, f"{prefix}_shortcut_conv")
        return self.bn(x, f"{prefix}_shortcut_bn")

    def conv(self, x, channels, size, stride, name):
        x, padding = self.padded(x, size, stride, f"{name}_pad")
        return layers.Conv2D(
            channels,
            size,
            strides=stride,
            padding=padding,
            data_format="channels_last",
            use_bias=False,
            kernel_initializer=self.he_normal(),
            dtype=self.policy,
            name=name,
        )(x)

    def he_normal(self):
        seed = derived_seed(self.seed, self.kernel_count)
        self.kernel_count += 1
        return keras.initializers.VarianceScaling(
            2.0, mode="fan_out", distribution="untruncated_normal", seed=seed
        )

    def bn(self, x, name, last=False):
        gamma = "zeros" if last and self.zero_init_last_gamma else "ones"
        return BatchNorm(name=name, gamma_initializer=gamma, dtype=self.policy)(x)

    def padded(self, x, size, stride, name):
        """The maps to slide a window over, and the padding that is left to it."""
        # "same" pads evenly where the stride is 1 only; elsewhere it favours the end.
        if stride == 1 or size == 1 or self.padding == "same":
            return x, "same"
        pad = layers.ZeroPadding2D(
            size // 2, data_format="channels_last", dtype=self.policy, name=name
        )
        return pad(x), "valid"

    def relu(self, x, name):
        return layers.ReLU(dtype=self.policy, name=name)(x)


def _channels(count, width):
    return max(8, int(count * width / 8 + 0.5) * 8)


def _per_channel(argument, values, default, input_channels):
    if values is None:
        values = default if isinstance(default, tuple) else (default,) * input_channels
    values = tuple(check_number("ResNet", argument, value) for value in values)
    check_that(
        len(values) == input_channels,
        "ResNet",
        argument,
        f"{input_channels} numbers, one per channel",
        values,
    )
    return values


def ResNet18(**options):
    """ResNet of 18 layers with 512 features. Options: those of `ResNet`."""
    return ResNet(18, **options)


def ResNet34(**options):
    """ResNet of 34 layers with 512 features. Options: those of `ResNet`."""
    return ResNet(34, **options)


def ResNet50(**options):
    """ResNet of 50 layers with 2048 features. Options: those of `ResNet`."""
    return ResNet(50, **options)


def ResNet101(**options):
    """ResNet of 101 layers with 2048 features. Options: those of `ResNet`."""
    return ResNet(101, **options)


def ResNet152(**options):
    """ResNet of 152 layers with 2048 features. Options: those of `ResNet`."""
    return ResNet(152, **options)
