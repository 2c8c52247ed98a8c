"""ResNet encoders, against PyTorch's recorded numbers and torchvision's sizes."""

import inspect

import keras
import numpy as np
import pytest
from keras import ops

from keras_kssl import convert
from keras_kssl.convert import pth
from keras_kssl.models import resnet
from keras_kssl.models.layers import BatchNorm, Normalize
from keras_kssl.models.resnet import ResNet
from tests.torch_state_dict import find_variable, to_keras_layout

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
# Keras's conversion of its variables to NumPy lacks NumPy 2's copy keyword.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)
IDENTITY = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
DTYPES = [
    "float32",
    pytest.param(
        "float64",
        marks=pytest.mark.skipif(
            not ON_TENSORFLOW, reason="float64 on JAX needs jax_enable_x64"
        ),
    ),
]


@pytest.fixture(scope="module")
def recorded(golden):
    return golden("resnet_torch_resnet18")


@pytest.fixture(scope="module")
def torch_weights(golden):
    return pth.read(golden.folder / "resnet18_seed0.pth")


@pytest.fixture
def torch_encoder(torch_weights):
    def build(dtype):
        return convert.from_torch_resnet(torch_weights, dtype=dtype, **IDENTITY)

    return build


def images_of(recorded, size, dtype):
    return recorded[f"x{size}"].transpose(0, 2, 3, 1).astype(dtype)


def assert_close_to_scale(actual, expected, tolerance):
    """Largest deviation relative to the largest entry."""
    actual = ops.convert_to_numpy(actual)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("size", [64, 224])
@pytest.mark.parametrize("dtype", DTYPES)
def test_inference_equals_pytorch(recorded, torch_encoder, dtype, size):
    outputs = torch_encoder(dtype)(images_of(recorded, size, dtype), training=False)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    assert_close_to_scale(outputs, recorded[f"eval{size}_f64"], tolerance)


def test_every_stage_equals_pytorch(recorded, torch_encoder):
    encoder = torch_encoder("float32")
    names = {
        "stem_conv": "conv1",
        "stem_bn": "bn1",
        "stem_pool": "maxpool",
        **{f"stage{n}_output": f"layer{n}" for n in range(1, 5)},
    }
    maps = keras.Model(encoder.input, [encoder.get_layer(n).output for n in names])
    outputs = maps(images_of(recorded, 64, "float32"), training=False)
    for torch_name, output in zip(names.values(), outputs, strict=True):
        expected = recorded[f"eval64_stage_{torch_name}_f32"].transpose(0, 2, 3, 1)
        assert_close_to_scale(output, expected, 1e-5)


# At 64 px the last stage normalises over 8 positions, some of nearly equal value: the
# reference's own float32 run differs from its float64 run by several 1e-5.
@pytest.mark.parametrize("dtype", DTYPES)
def test_training_outputs_and_running_statistics_equal_pytorch(
    recorded, torch_encoder, torch_weights, dtype
):
    size, precision, tolerance = (
        (224, "f32", 1e-4) if dtype == "float32" else (64, "f64", 1e-9)
    )
    encoder = torch_encoder(dtype)
    outputs = encoder(images_of(recorded, size, dtype), training=True)
    assert_close_to_scale(outputs, recorded[f"train{size}_f64"], tolerance)

    prefix = f"train{size}_{precision}/"
    positions = positions_per_channel(encoder, size, batch=2)
    checked = 0
    for key, expected in recorded.items():
        if not key.startswith(prefix):
            continue
        name = key.removeprefix(prefix)
        variable = find_variable(encoder, name)
        if name.endswith("running_var"):
            # PyTorch stores the unbiased batch variance, Keras the biased one.
            n = positions[variable.path.split("/")[-2]]
            kept = 0.9 * torch_weights[name].astype("float64")
            expected = kept + (expected - kept) * (n - 1) / n
        assert_close_to_scale(variable, expected, tolerance)
        checked += 1
    assert checked == 2 * len(positions) == 40


def positions_per_channel(encoder, size, batch):
    names = [layer.name for layer in encoder.layers if hasattr(layer, "moving_mean")]
    maps = keras.Model(encoder.input, [encoder.get_layer(n).output for n in names])
    shapes = maps.compute_output_shape((batch, size, size, 3))
    return {
        name: int(np.prod(shape[:3])) for name, shape in zip(names, shapes, strict=True)
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_training_gradients_equal_pytorch(recorded, torch_encoder, dtype):
    encoder = torch_encoder(dtype)
    images = images_of(recorded, 64, dtype)
    gradients = gradients_of_weighted_sum(
        encoder, images, recorded["train64_cotangent"]
    )
    tolerance = 1e-3 if dtype == "float32" else 1e-9
    for key, expected in recorded.items():
        if key.startswith("train64_f64_grad/"):
            variable = find_variable(encoder, key.split("/")[1])
            actual = gradients[variable.path]
            assert_close_to_scale(actual, to_keras_layout(expected), tolerance)


def gradients_of_weighted_sum(encoder, images, weights):
    """Gradients of sum(features * weights) in training mode, by variable path."""
    variables = encoder.trainable_variables
    if ON_TENSORFLOW:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            features = encoder(images, training=True)
            total = ops.sum(features * ops.cast(weights, features.dtype))
        values = tape.gradient(total, [variable.value for variable in variables])
    else:
        import jax

        state = [variable.value for variable in encoder.non_trainable_variables]

        def total(parameters):
            features, _ = encoder.stateless_call(
                parameters, state, images, training=True
            )
            return ops.sum(features * weights)

        values = jax.jit(jax.grad(total))([variable.value for variable in variables])
    return {v.path: g for v, g in zip(variables, values, strict=True)}


def without_weights(*arguments, **options):
    """A ResNet of which only the shapes are wanted, in a fraction of the time."""
    with keras.StatelessScope(initialize_variables=False):
        return ResNet(*arguments, **options)


# torchvision's counts without the 1000-class layer; depth 10 by hand.
@pytest.mark.parametrize(
    ("depth", "parameters", "features"),
    [
        (10, 4_905_792, 512),
        (18, 11_689_512 - 513 * 1000, 512),
        (34, 21_797_672 - 513 * 1000, 512),
        (50, 25_557_032 - 2049 * 1000, 2048),
        (101, 44_549_160 - 2049 * 1000, 2048),
        (152, 60_192_808 - 2049 * 1000, 2048),
    ],
)
def test_parameter_counts_are_those_of_torchvision(depth, parameters, features):
    encoder = without_weights(depth)
    weights = encoder.trainable_weights
    assert sum(int(np.prod(weight.shape)) for weight in weights) == parameters
    assert encoder.num_features == features


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_named_functions_build_their_depth_and_pass_options_on(depth, monkeypatch):
    monkeypatch.setattr(resnet, "ResNet", lambda depth, **options: (depth, options))
    assert getattr(resnet, f"ResNet{depth}")(seed=3) == (depth, {"seed": 3})


@pytest.mark.parametrize(
    ("stem", "size", "expected"),
    [
        ("imagenet", (31, 45), [(8, 12), (4, 6), (2, 3), (1, 2)]),
        ("cifar", (31, 45), [(31, 45), (16, 23), (8, 12), (4, 6)]),
    ],
)
def test_stages_halve_odd_sizes_rounding_up(stem, size, expected):
    encoder = without_weights(10, width=0.125, stem=stem)
    maps = keras.Model(
        encoder.input,
        [encoder.get_layer(f"stage{n}_output").output for n in range(1, 5)],
    )
    shapes = maps.compute_output_shape((2, *size, 3))
    assert [shape[1:3] for shape in shapes] == expected


@pytest.mark.parametrize("channels", [1, 5])
def test_other_channel_counts_are_normalised_by_half_and_a_quarter(channels):
    encoder = without_weights(10, width=0.125, input_channels=channels)
    normalize = encoder.get_layer("normalize")
    images = np.full((2, 31, 45, channels), 1.0, "float32")
    np.testing.assert_array_equal(ops.convert_to_numpy(normalize(images)), 2.0)
    assert encoder.get_layer("stem_conv").kernel.shape == (7, 7, channels, 8)


def test_rgb_images_are_normalised_by_the_statistics_of_imagenet():
    images = np.random.default_rng(0).random((1, 31, 45, 3), "float32")
    expected = (images - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    actual = without_weights(10, width=0.125).get_layer("normalize")(images)
    np.testing.assert_allclose(ops.convert_to_numpy(actual), expected, atol=1e-6)


def test_same_padding_is_that_of_tensorflow():
    encoder = ResNet(10, width=0.125, padding="same", zero_init_last_gamma=False)
    images = np.random.default_rng(0).random((1, 32, 45, 3), "float32")
    names = {
        "stem": ("normalize", "stem_conv", 7),
        "stage2": ("stage1_output", "stage2_block1_conv1", 3),
        "pool": ("stem_relu", "stem_pool", 3),
    }
    wanted = [name for before, after, _ in names.values() for name in (before, after)]
    maps = keras.Model(encoder.input, [encoder.get_layer(n).output for n in wanted])
    found = dict(zip(wanted, map(ops.convert_to_numpy, maps(images)), strict=True))
    for before, after, size in names.values():
        windows = windows_of_tensorflow(found[before][0], size)
        if after == "stem_pool":
            expected = windows.max(axis=(2, 3))
        else:
            kernel = ops.convert_to_numpy(encoder.get_layer(after).kernel)
            expected = np.einsum("hwijc,ijcd->hwd", windows, kernel)
        assert_close_to_scale(found[after][0], expected, 1e-5)


def windows_of_tensorflow(maps, size):
    """What windows at stride 2 see: the padding needed, the odd pixel at the end."""
    for axis in (0, 1):
        length = maps.shape[axis]
        count = -(-length // 2)
        needed = max((count - 1) * 2 + size - length, 0)
        pads = [(0, 0)] * 3
        pads[axis] = (needed // 2, needed - needed // 2)
        maps = np.pad(maps, pads)
    windows = np.lib.stride_tricks.sliding_window_view(maps, (size, size), axis=(0, 1))
    return windows[::2, ::2].transpose(0, 1, 3, 4, 2)


# At 0.3 the products are 19.2, 38.4, 76.8 and 153.6.
@pytest.mark.parametrize(
    ("width", "expected"),
    [(2.0, [128, 256, 512, 1024]), (0.3, [16, 40, 80, 152]), (0.01, [8, 8, 8, 8])],
)
def test_width_scales_channels_in_multiples_of_eight(width, expected):
    encoder = without_weights(10, width=width)
    channels = [
        encoder.get_layer(f"stage{n}_output").output.shape[-1] for n in range(1, 5)
    ]
    assert channels == expected
    assert encoder.get_layer("stem_conv").filters == expected[0]
    assert encoder.num_features == expected[-1]


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_features_are_float32_under_half_precision_policies(policy):
    encoder = ResNet(10, width=0.125, dtype=policy)
    images = np.random.default_rng(0).random((2, 31, 45, 3), "float32")
    features = encoder(images)
    assert keras.backend.standardize_dtype(features.dtype) == "float32"
    half = policy.removeprefix("mixed_")
    assert encoder.get_layer("stage4_output").output.dtype == half
    full = ResNet(10, width=0.125)
    for weight, half_weight in zip(full.weights, encoder.weights, strict=True):
        weight.assign(ops.cast(half_weight.value, "float32"))
    # bfloat16 keeps 8 bits, over a dozen layers.
    assert_close_to_scale(features, ops.convert_to_numpy(full(images)), 0.03)


def test_images_reach_the_normalisation_unrounded_under_half_precision():
    images = np.float32(1 / 3) + np.zeros((1, 32, 32, 3), "float32")
    layer = Normalize(IDENTITY["mean"], IDENTITY["std"], dtype="mixed_bfloat16")
    np.testing.assert_array_equal(ops.convert_to_numpy(layer(images)), images)


def test_global_policy_is_taken_where_no_dtype_is_given():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        encoder = without_weights(10, width=0.125)
    finally:
        keras.config.set_dtype_policy("float32")
    assert encoder.get_config()["dtype"] == "mixed_bfloat16"
    copy = without_weights(**encoder.get_config())
    assert copy.get_layer("stem_conv").compute_dtype == "bfloat16"


def test_blocks_start_as_their_shortcuts():
    encoder = ResNet(10, width=0.125, seed=0)
    images = np.random.default_rng(0).random((2, 31, 45, 3), "float32")
    names = ["stem_pool", "stage1_output"]
    maps = keras.Model(encoder.input, [encoder.get_layer(n).output for n in names])
    before, after = (ops.convert_to_numpy(x) for x in maps(images, training=True))
    np.testing.assert_array_equal(after, before)
    assert before.std() > 0


@pytest.mark.parametrize(("depth", "last"), [(18, "bn2"), (50, "bn3")])
@pytest.mark.parametrize("zero", [True, False])
def test_only_the_last_scale_of_a_block_starts_at_zero(depth, last, zero):
    encoder = without_weights(depth, zero_init_last_gamma=zero)
    starts = {
        layer.name: float(layer.gamma_initializer((1,), "float32")[0])
        for layer in encoder.layers
        if hasattr(layer, "gamma")
    }
    expected = {name: 1.0 - (zero and name.endswith(last)) for name in starts}
    assert starts == expected


def test_kernels_start_with_the_he_standard_deviation_of_their_fan_out():
    encoder = ResNet(10, width=0.5, seed=0)
    for name, (size, out) in {
        "stem_conv": (7, 32),
        "stage1_block1_conv1": (3, 32),
        "stage2_block1_shortcut_conv": (1, 64),
        "stage4_block1_conv2": (3, 256),
    }.items():
        kernel = ops.convert_to_numpy(encoder.get_layer(name).kernel)
        expected = np.sqrt(2 / (size * size * out))
        # Four standard errors of a standard deviation.
        assert abs(kernel.std() / expected - 1) < 4 / np.sqrt(2 * kernel.size)
        # A truncated normal would stop at two standard deviations of its parent.
        assert np.abs(kernel).max() > 3 * expected


def kernels_of(encoder):
    return [
        ops.convert_to_numpy(layer.kernel)
        for layer in encoder.layers
        if hasattr(layer, "kernel")
    ]


def test_same_seed_gives_the_same_weights_and_other_seeds_others():
    first, again, other, free = (
        kernels_of(ResNet(10, width=0.125, seed=seed)) for seed in (1, 1, 2, None)
    )
    for i in range(len(first)):
        np.testing.assert_array_equal(first[i], again[i])
        for j in range(len(first)):
            assert not np.array_equal(first[i], other[j])
            assert not np.array_equal(first[i], free[j])


def test_kernels_of_one_shape_differ_within_a_network():
    kernels = kernels_of(ResNet(18, width=0.125, seed=0))
    firsts = [kernel.ravel()[0] / kernel.std() for kernel in kernels]
    assert len(set(np.round(firsts, 4))) == len(kernels)


def test_config_holds_exactly_the_arguments_of_the_constructor():
    arguments = (10, 0.125, "cifar", 2, (0.1, 0.2), (0.3, 0.4), False)
    arguments += ("same", 7)
    encoder = without_weights(*arguments, name="e")
    config = encoder.get_config()
    assert list(config) == list(inspect.signature(ResNet).parameters)
    assert config == {
        "depth": 10,
        "width": 0.125,
        "stem": "cifar",
        "input_channels": 2,
        "mean": (0.1, 0.2),
        "std": (0.3, 0.4),
        "zero_init_last_gamma": False,
        "padding": "same",
        "seed": 7,
        "dtype": "float32",
        "name": "e",
    }
    assert ResNet.from_config(config).get_config() == config


def test_a_saved_encoder_comes_back_with_class_config_and_outputs(tmp_path):
    encoder = ResNet(10, width=0.125, mean=(0.1, 0.2, 0.3))
    images = np.random.default_rng(0).random((2, 31, 45, 3), "float32")
    encoder(images, training=True)
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.models.load_model(tmp_path / "encoder.keras")
    assert type(loaded) is ResNet
    assert loaded.get_config() == encoder.get_config()
    np.testing.assert_array_equal(
        ops.convert_to_numpy(loaded(images)), ops.convert_to_numpy(encoder(images))
    )


@pytest.mark.parametrize(("stem", "minimum"), [("imagenet", 32), ("cifar", 8)])
def test_images_below_the_minimum_size_are_refused(stem, minimum):
    encoder = without_weights(10, width=0.125, stem=stem)
    assert encoder.minimum_size == minimum
    encoder.check_image_size(minimum, minimum + 1)
    with pytest.raises(ValueError, match=rf"{minimum} pixels.*Received.*{minimum - 1}"):
        encoder.check_image_size(minimum + 1, minimum - 1)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"depth": 20}, ValueError, "`depth` must be one of 10, 18"),
        ({"depth": 18, "width": 0}, ValueError, "`width` must be above 0"),
        ({"depth": 18, "width": "2"}, TypeError, "`width` must be a number"),
        ({"depth": 18, "stem": "cifer"}, ValueError, "Did you mean 'cifar'"),
        ({"depth": 18, "padding": "valid"}, ValueError, "`padding` must be one of"),
        ({"depth": 18, "input_channels": 0}, ValueError, "`input_channels` must be"),
        ({"depth": 18, "mean": (0.5,)}, ValueError, "3 numbers, one per channel"),
        ({"depth": 18, "std": (1.0, 1.0, 0.0)}, ValueError, "`std` must be"),
        ({"depth": 18, "seed": -1}, ValueError, "`seed` must be an integer"),
        ({"depth": 18, "seed": 0.5}, TypeError, "`seed` must be an integer"),
    ],
)
def test_wrong_arguments_are_named_with_what_was_received(arguments, error, message):
    with pytest.raises(error, match=message):
        ResNet(**arguments)


def test_batch_norm_has_the_constants_of_the_papers_and_takes_options():
    layer = BatchNorm(name="head_bn", scale=False, center=False)
    assert (layer.name, layer.momentum, layer.epsilon) == ("head_bn", 0.9, 1e-5)
    assert (layer.scale, layer.center, layer.synchronized) == (False, False, False)


def test_normalize_comes_back_from_its_config():
    layer = Normalize((0.1, 0.2), (0.3, 0.4), name="n")
    config = layer.get_config()
    assert {
        "mean": (0.1, 0.2),
        "std": (0.3, 0.4),
        "name": "n",
    }.items() <= config.items()
    assert Normalize.from_config(config).get_config() == config


@pytest.mark.parametrize(
    ("mean", "std"), [((), ()), ((0.5,), (1.0, 1.0)), ((0.5,), (0.0,))]
)
def test_normalize_refuses_statistics_that_do_not_fit(mean, std):
    with pytest.raises(ValueError, match=r"Normalize: `(mean|std)` must be"):
        Normalize(mean, std)
