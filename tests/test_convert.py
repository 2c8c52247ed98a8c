"""Encoders from weights of others, and back: PyTorch, KerasHub, SSL-HSIC's authors."""

import collections
import copy
import functools

import keras
import numpy as np
import pytest
from keras import ops

from keras_kssl import cli, convert
from keras_kssl.convert import pth, torch_resnet
from keras_kssl.convert.arrays import arrays_of
from keras_kssl.convert.layout import places
from keras_kssl.convert.torch_resnet import find_torch_resnet, torch_layer
from keras_kssl.models import ResNet
from tests.weight_files import Calling, named, write_npy

# What these do is the same on both backends; compiling it for JAX takes a minute.
tensorflow_only = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="a minute of compiling on JAX"
)
SMALL = {"width": 0.125, "stem": "cifar"}
IMAGES = np.random.default_rng(0).random((2, 33, 45, 3), "float32")
KINDS = ("weight", "bias", "running_mean", "running_var")


def trained(*arguments, **options):
    """A ResNet all weights of which are random, as after a training."""
    encoder = ResNet(*arguments, **options)
    rng = np.random.default_rng(0)
    for variable in encoder.weights:
        if variable.path.endswith(("gamma", "moving_variance")):
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif not variable.path.endswith("kernel"):
            variable.assign(rng.normal(0, 0.2, variable.shape))
    return encoder


@pytest.fixture(scope="module")
def encoder():
    return trained(10, **SMALL, seed=0)


@pytest.fixture(scope="module")
def state(encoder):
    return convert.to_torch_state_dict(encoder)


def weights_of(encoder):
    return {weight.path: ops.convert_to_numpy(weight) for weight in encoder.weights}


def assert_same_weights(found, expected):
    found, expected = weights_of(found), weights_of(expected)
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(found[path], value)


def assert_close_to_scale(found, expected, tolerance=1e-5):
    found, expected = ops.convert_to_numpy(found), ops.convert_to_numpy(expected)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


# PyTorch.


def torchvision_names(blocks, convolutions):
    """Names of a torchvision ResNet without its classifier, in its order."""
    layers = ["conv1", "bn1"]
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            prefix = f"layer{stage}.{block}"
            for index in range(1, convolutions + 1):
                layers += [f"{prefix}.conv{index}", f"{prefix}.bn{index}"]
            if block == 0 and (stage > 1 or convolutions == 3):
                layers += [f"{prefix}.downsample.0", f"{prefix}.downsample.1"]
    names = []
    for layer in layers:
        if "conv" in layer or layer.endswith("downsample.0"):
            names.append(f"{layer}.weight")
        else:
            names += [f"{layer}.{kind}" for kind in (*KINDS, "num_batches_tracked")]
    return names


SHAPES = {18: ((2, 2, 2, 2), 2), 50: ((3, 4, 6, 3), 3), 101: ((3, 4, 23, 3), 3)}


@pytest.mark.any_backend
@pytest.mark.parametrize("depth", SHAPES)
def test_layers_have_torchvisions_names(depth):
    with keras.StatelessScope(initialize_variables=False):
        encoder = ResNet(depth, width=0.125)
    names = [torch_layer(place) for place, _ in places(encoder)]
    of_layers = [n.rpartition(".")[0] for n in torchvision_names(*SHAPES[depth])]
    assert names == list(dict.fromkeys(of_layers))


def test_state_dicts_have_torchvisions_names_and_come_back(encoder, state):
    assert list(state) == torchvision_names((1, 1, 1, 1), 2)
    assert state["layer1.0.bn1.num_batches_tracked"].dtype == np.int64
    found = convert.from_torch_resnet(state)
    assert (found.depth, found.width, found.stem) == (10, 0.125, "cifar")
    assert_same_weights(found, encoder)


@pytest.mark.slow
def test_bottlenecks_come_back_from_state_dicts():
    encoder = trained(50, width=0.125)
    state = convert.to_torch_state_dict(encoder)
    assert list(state) == torchvision_names(*SHAPES[50])
    assert_same_weights(convert.from_torch_resnet(state), encoder)


@pytest.mark.any_backend
def test_state_dicts_are_copies(encoder, state):
    assert state["layer2.0.downsample.0.weight"].shape == (16, 8, 1, 1)
    taken = convert.to_torch_state_dict(encoder)
    taken["bn1.bias"][:] = 7
    assert not (ops.convert_to_numpy(encoder.get_layer("stem_bn").beta) == 7).any()


@pytest.fixture(scope="module")
def golden_encoder(golden):
    return convert.from_torch_resnet(golden.folder / "resnet18_seed0.pth", **PLAIN)


PLAIN = {"mean": (0.0,) * 3, "std": (1.0,) * 3}


@pytest.mark.any_backend
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_pytorchs_file_comes_back_bit_for_bit(golden, golden_encoder, suffix, tmp_path):
    path = convert.torch_file(golden_encoder, tmp_path / "new" / f"w{suffix}")
    ours = arrays_of("test", path, (suffix,))
    theirs = arrays_of("test", golden.folder / "resnet18_seed0.pth", (".pth",))
    assert (
        list(ours) == list(theirs) if suffix == ".pth" else ours.keys() == theirs.keys()
    )
    for (name,), array in theirs.items():
        assert ours[name,].dtype == array.dtype
        assert ours[name,].shape == array.shape
        if not name.endswith("num_batches_tracked"):
            assert ours[name,].tobytes() == array.tobytes()


@tensorflow_only
def test_outputs_equal_pytorchs_from_either_format(golden, golden_encoder, tmp_path):
    recorded = golden("resnet_torch_resnet18")
    path = convert.torch_file(golden_encoder, tmp_path / "w.safetensors")
    again = convert.from_torch_resnet(path, **PLAIN)
    for encoder, sizes in ((golden_encoder, (64, 224)), (again, (64,))):
        for size in sizes:
            images = recorded[f"x{size}"].transpose(0, 2, 3, 1)
            found = ops.convert_to_numpy(encoder(images, training=False))
            expected = recorded[f"eval{size}_f64"]
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.any_backend
def test_pytorch_reads_what_we_read(golden, golden_encoder):
    torch = pytest.importorskip("torch")
    path = golden.folder / "resnet18_seed0.pth"
    ours = convert.to_torch_state_dict(golden_encoder)
    theirs = torch.load(path, weights_only=True)
    assert list(theirs) == list(ours)
    for name, value in theirs.items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(ours[name], value.numpy())


@pytest.mark.any_backend
def test_tensors_of_pytorch_are_taken_in_bfloat16_and_with_gradients(encoder, state):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(value) for name, value in state.items()}
    tensors["conv1.weight"] = torch.nn.Parameter(tensors["conv1.weight"])
    assert_same_weights(convert.from_torch_resnet(tensors), encoder)
    rounded = tensors["conv1.weight"].bfloat16()
    found = convert.from_torch_resnet({**tensors, "conv1.weight": rounded})
    expected = rounded.detach().float().numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(found.get_layer("stem_conv").kernel), expected
    )


@pytest.mark.any_backend
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_numbers_of_other_precisions_are_taken(state, dtype):
    other = {name: value.astype(dtype) for name, value in state.items()}
    found = convert.to_torch_state_dict(convert.from_torch_resnet(other))
    for name, value in other.items():
        np.testing.assert_array_equal(found[name], value.astype("float32"))


def found_state(source, **options):
    return find_torch_resnet("test", source, **options)


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "prefix", ["", "module.", "backbone.", "module.backbone.", "encoder.", "resnet."]
)
@pytest.mark.parametrize("key", [None, "state_dict", "model"])
def test_prefixes_and_checkpoints_are_understood(state, prefix, key):
    source = {prefix + name: value for name, value in state.items()}
    if key is not None:
        optimizer = {"state": {0: {"momentum": np.zeros(3)}}}
        source = {"epoch": 3, key: source, "optimizer": optimizer}
    found = found_state(source)
    assert found.prefix == (f"{key}.{prefix}" if key else prefix)
    assert found.left_out == ()
    expected = {n: v for n, v in state.items() if not n.endswith("num_batches_tracked")}
    assert found.state.keys() == expected.keys()
    assert all(found.state[name] is value for name, value in expected.items())


@pytest.mark.any_backend
def test_channels_stem_and_normalisation_are_found_or_taken():
    state = convert.to_torch_state_dict(trained(10, 0.25, input_channels=2))
    options = {"mean": (0.1, 0.2), "std": (0.3, 0.4), "name": "mine"}
    found = convert.from_torch_resnet(state, dtype="mixed_bfloat16", **options)
    config = found.get_config()
    assert (config["width"], config["stem"], config["input_channels"]) == (
        0.25,
        "imagenet",
        2,
    )
    assert config["padding"] == "symmetric"
    assert config["dtype"] == "mixed_bfloat16"
    assert {name: config[name] for name in options} == options


@pytest.mark.any_backend
def test_of_two_encoders_the_one_that_is_meant_must_be_named(state):
    source = {f"encoder_q.{name}": value for name, value in state.items()}
    source |= {f"encoder_k.{name}": -value for name, value in state.items()}
    with pytest.raises(ValueError, match=r"'encoder_k\.', prefix='encoder_q\.'"):
        found_state(source)
    with pytest.raises(ValueError, match=r"Received: prefix='encoder_x\.'"):
        found_state(source, prefix="encoder_x.")
    found = found_state(source, prefix="encoder_k.", ignore=["encoder_q"])
    np.testing.assert_array_equal(found.state["bn1.bias"], -state["bn1.bias"])


@pytest.mark.any_backend
def test_the_classifier_is_left_out_and_other_parts_must_be_named(state, encoder):
    classifier = {"fc.weight": np.zeros((9, 64)), "fc.bias": np.zeros(9)}
    assert found_state({**state, **classifier}, ignore=("fc",)).left_out == (
        "fc.weight",
        "fc.bias",
    )
    assert_same_weights(convert.from_torch_resnet({**state, **classifier}), encoder)
    wrapped = {f"module.backbone.{name}": value for name, value in state.items()}
    wrapped |= {f"module.projector.{name}": value for name, value in classifier.items()}
    with pytest.raises(
        ValueError, match=r"2 arrays more.*ignore=\['fc', 'projector'\]"
    ):
        convert.from_torch_resnet(wrapped)
    found = convert.from_torch_resnet(wrapped, ignore=("projector",))
    assert_same_weights(found, encoder)
    with pytest.raises(ValueError, match=r"fc\.weight, fc\.bias.*ignore=\['fc'\]"):
        convert.from_torch_resnet({**state, **classifier}, ignore=())


def changed(state, **changes):
    state = dict(state)
    for name, value in changes.items():
        name = name.replace("__", ".")
        if value is None:
            del state[name]
        else:
            state[name] = value
    return state


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"bn1__bias": None}, r"without 'bn1\.bias'"),
        ({"layer4__0__downsample__1__running_var": None}, r"without 'layer4\.0\.down"),
        (
            {"layer3__1__conv1__weight": np.zeros((32, 32, 3, 3))},
            r"\(1, 1, 2, 1\) basic",
        ),
        (
            {"layer2__0__extra__weight": np.zeros(3)},
            r"1 weights more, layer2\.0\.extra",
        ),
        ({"bn1__bias": np.zeros(9, "f4")}, r"`bn1\.bias` must have the shape"),
        ({"layer2__0__conv1__weight": np.zeros((16, 4, 3, 3))}, "grouped convolutions"),
        ({"bn1__bias": np.zeros(8, "i4")}, "of floating-point numbers"),
        ({"conv1__weight": np.zeros((8, 3, 5, 5))}, "must be 7 x 7 or 3 x 3"),
        ({"conv1__weight": np.zeros((9, 3, 3, 3))}, "multiple of 8 channels"),
        ({"conv1__weight": np.zeros(3)}, "weights under torchvision's names"),
        ({"conv1__weight": None}, "weights under torchvision's names"),
    ],
)
def test_state_dicts_of_other_networks_are_refused(state, changes, reason):
    with pytest.raises(ValueError, match=reason):
        convert.from_torch_resnet(changed(state, **changes))


@pytest.mark.any_backend
@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "x" * 10**6, "\u202eb"])
@pytest.mark.parametrize("place", ["fc{}.weight", "layer2.0.{}.weight", "{}.bn1.bias"])
def test_names_in_a_file_can_neither_flood_nor_steer_a_terminal(state, name, place):
    sources = [{**state, place.format(name): np.zeros(3, "f4")}]
    sources += [{place.format(name): np.zeros(3, "f4")}]
    sources += [{f"{name}.{key}": value for key, value in state.items()}]
    del sources[-1][f"{name}.bn1.bias"]
    for source in sources:
        with pytest.raises(ValueError, match="Received") as caught:
            convert.from_torch_resnet(source)
        text = str(caught.value)
        assert text.isprintable()
        assert len(text) < 1500


@pytest.mark.any_backend
def test_a_file_of_many_networks_is_refused_in_few_words(state):
    marks = ("conv1.weight", "layer1.0.conv1.weight")
    many = {f"{n}.{mark}": state[mark] for n in range(1000) for mark in marks}
    with pytest.raises(ValueError, match=r"prefix='0\.', .*\.\.\.$") as caught:
        convert.from_torch_resnet(many)
    assert len(str(caught.value)) < 1000
    others = {f"part{n}.weight": np.zeros(1, "f4") for n in range(1000)}
    with pytest.raises(ValueError, match="1000 arrays more") as caught:
        convert.from_torch_resnet({**state, **others})
    assert len(str(caught.value)) < 1000


@pytest.mark.any_backend
def test_encoders_that_pytorch_has_not_are_refused():
    same = ResNet(10, **SMALL, padding="same")
    with pytest.raises(ValueError, match="padded symmetrically, as PyTorch pads"):
        convert.to_torch_state_dict(same)
    with pytest.raises(TypeError, match=r"a keras_kssl\.models\.ResNet"):
        convert.to_torch_state_dict(keras.Sequential())


@pytest.mark.any_backend
def test_files_for_pytorch_appear_whole_or_not_at_all(encoder, tmp_path, monkeypatch):
    path = tmp_path / "w.pth"
    assert convert.torch_file(encoder, path) == str(path)
    with pytest.raises(FileExistsError, match="set overwrite=True"):
        convert.torch_file(encoder, path)
    convert.torch_file(encoder, path, overwrite=True)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"ending in \.pth, \.pt, \.safetensors"):
        convert.torch_file(encoder, tmp_path / "w.bin")

    def damaging(state, path):
        wrong = {**state, "bn1.bias": state["bn1.bias"] + 1}
        pth.write(wrong, path)

    monkeypatch.setitem(torch_resnet._WRITERS, ".pth", damaging)
    with pytest.raises(RuntimeError, match=r"Received: another bn1\.bias"):
        convert.torch_file(encoder, path, overwrite=True)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["w.pth"]


# The checkpoints of SSL-HSIC's authors.


def haiku_names(blocks, convolutions):
    """Haiku's names of the layers of a ResNet by ours."""
    names = {"stem_conv": "initial_conv", "stem_bn": "initial_batchnorm"}
    for group, count in enumerate(blocks):
        for block in range(count):
            ours = f"stage{group + 1}_block{block + 1}"
            theirs = f"block_group_{group}/~/block_{block}/~"
            for index in range(convolutions):
                names[f"{ours}_conv{index + 1}"] = f"{theirs}/conv_{index}"
                names[f"{ours}_bn{index + 1}"] = f"{theirs}/batchnorm_{index}"
            if block == 0 and (group > 0 or convolutions == 3):
                names[f"{ours}_shortcut_conv"] = f"{theirs}/shortcut_conv"
                names[f"{ours}_shortcut_bn"] = f"{theirs}/shortcut_batchnorm"
    return names


def haiku_parameters(encoder):
    """Parameters and state as Haiku holds them, the heads of SSL-HSIC among them."""
    parameters = {"projector/linear": {"w": np.zeros((3, 4), "f4")}}
    state = {"projector/batch_norm/~/mean_ema": {"average": np.zeros((1, 4), "f4")}}
    shape = ((3, 4, 6, 3), 3) if encoder.depth == 50 else ((1, 1, 1, 1), 2)
    for ours, theirs in haiku_names(*shape).items():
        layer = encoder.get_layer(ours)
        module = f"res_net50/~/{theirs}"
        if "bn" in ours:
            values = {
                name: ops.convert_to_numpy(getattr(layer, name)).reshape(1, 1, 1, -1)
                for name in ("gamma", "beta", "moving_mean", "moving_variance")
            }
            scale, offset, mean, variance = values.values()
            parameters[module] = {"scale": scale, "offset": offset}
            for name, value in {"mean_ema": mean, "var_ema": variance}.items():
                state[f"{module}/~/{name}"] = {
                    "counter": np.array(3, np.int32),
                    "hidden": value * 0.5,
                    "average": value,
                }
        else:
            parameters[module] = {"w": ops.convert_to_numpy(layer.kernel)}
    return parameters, state


@pytest.fixture(scope="module")
def hsic_encoder():
    return trained(10, width=0.125, padding="same", seed=0)


@pytest.fixture
def checkpoint(hsic_encoder):
    """What the authors' training saves: three networks, told apart by one bias."""
    parameters, state = haiku_parameters(hsic_encoder)
    marked = {}
    for number, name in enumerate(("online", "target", "average")):
        marked[name] = copy.deepcopy(parameters)
        marked[name]["res_net50/~/initial_batchnorm"]["offset"][:] = number
    other = copy.deepcopy(state)
    other["res_net50/~/initial_batchnorm/~/mean_ema"]["average"][:] = 5
    return {
        "experiment_state": {
            "online_params": marked["online"],
            "target_params": marked["target"],
            "online_state": state,
            "target_state": other,
            "kernel_params": {"hsic_loss": {"scale": np.ones((), "f4")}},
        },
        "ema_state": {
            "online_params": marked["average"],
            "ema_state": {"ema": {"average": np.zeros(3)}},
        },
    }


@pytest.mark.any_backend
@pytest.mark.parametrize(
    ("options", "bias", "mean"),
    [
        ({}, 2, None),
        ({"network": "average"}, 2, None),
        ({"network": "online"}, 0, None),
        ({"network": "target"}, 1, 5),
    ],
)
def test_the_network_of_the_authors_that_is_meant_is_taken(
    hsic_encoder, checkpoint, options, bias, mean
):
    found = convert.from_ssl_hsic_checkpoint(checkpoint, **options)
    assert (found.depth, found.width, found.padding) == (10, 0.125, "same")
    expected = weights_of(hsic_encoder)
    expected["stem_bn/beta"] = np.full(8, bias)
    if mean is not None:
        expected["stem_bn/moving_mean"] = np.full(8, mean)
    for path, value in weights_of(found).items():
        np.testing.assert_array_equal(value, expected[path], err_msg=path)


@pytest.mark.any_backend
def test_the_file_that_the_authors_write_is_read(checkpoint, tmp_path):
    flat_mapping = named("haiku._src.data_structures.FlatMapping")
    experiment, average = checkpoint["experiment_state"], checkpoint["ema_state"]
    saved = {
        "experiment_state": collections.OrderedDict(
            (name, Calling(flat_mapping, (value,)))
            for name, value in experiment.items()
        ),
        "ema_state": average,
    }
    adam = named("optax._src.transform.ScaleByAdamState")
    saved["experiment_state"]["kernel_opt_state"] = (Calling(adam, (1, {}, {})),)
    write_npy(tmp_path / "checkpoint.npy", saved)
    found = convert.from_ssl_hsic_checkpoint(tmp_path / "checkpoint.npy")
    assert_same_weights(found, convert.from_ssl_hsic_checkpoint(checkpoint))


def test_features_of_the_authors_networks_equal_haikus():
    haiku = pytest.importorskip("haiku")
    import jax

    encoder = trained(50, width=0.125, padding="same", seed=0)

    def forward(images, is_training):
        network = haiku.nets.ResNet(
            blocks_per_group=(3, 4, 6, 3),
            num_classes=256,
            channels_per_group=(32, 64, 128, 256),
            logits_config={"with_bias": False},
            initial_conv_config={"output_channels": 8},
            name="res_net50",
        )
        return network(images, is_training)

    transformed = haiku.transform_with_state(forward)
    parameters, state = haiku_parameters(encoder)
    del parameters["projector/linear"]
    parameters["res_net50/~/logits"] = {"w": np.eye(256, dtype="f4")}
    images = IMAGES[:, :32] * 0.5
    key = jax.random.PRNGKey(0)
    initialise = functools.partial(transformed.init, is_training=True)
    made, states = jax.eval_shape(initialise, key, images)
    shapes = {m: {n: v.shape for n, v in each.items()} for m, each in made.items()}
    assert shapes == {
        m: {n: v.shape for n, v in each.items()} for m, each in parameters.items()
    }
    assert set(states) == set(state) - {"projector/batch_norm/~/mean_ema"}
    normalised = ((images - encoder.mean) / np.array(encoder.std)).astype("f4")
    expected, _ = transformed.apply(parameters, state, None, normalised, False)
    saved = {
        "experiment_state": {"online_params": parameters, "online_state": state},
        "ema_state": {"online_params": parameters},
    }
    found = convert.from_ssl_hsic_checkpoint(saved)
    assert_close_to_scale(found(images, training=False), np.asarray(expected))


@pytest.mark.any_backend
def test_checkpoints_of_other_networks_are_refused(checkpoint):
    parameters = checkpoint["ema_state"]["online_params"]
    state = checkpoint["experiment_state"]["online_state"]

    def refused(reason, source=checkpoint, **options):
        with pytest.raises(ValueError, match=reason):
            convert.from_ssl_hsic_checkpoint(source, **options)

    refused("`network` must be one of 'average'", network="ema")
    refused("with arrays in ema_state/online_params", {"params": parameters})
    name = "res_net50/~/block_group_1/~/block_0/~/conv_1"
    kernel = parameters[name].pop("w")
    refused("all parameters.*block_group_1/~/block_0/~/conv_1/w")
    parameters[name]["w"] = kernel[:, :, :4]
    refused("must have the shape of a ResNet-10")
    parameters[name]["w"] = kernel
    kept = state.pop("res_net50/~/initial_batchnorm/~/var_ema")
    refused("all statistics.*var_ema/average")
    state["res_net50/~/initial_batchnorm/~/var_ema"] = kept
    parameters["res_net50/~/final_batchnorm"] = {"scale": np.ones(3, "f4")}
    refused("1 parameters more, res_net50/~/final_batchnorm/scale")
    del parameters["res_net50/~/final_batchnorm"]
    parameters["other/~/initial_conv"] = {"w": kernel}
    refused("a checkpoint with one ResNet")
    del parameters["other/~/initial_conv"]
    del parameters["res_net50/~/initial_conv"]
    refused("a checkpoint with one ResNet")


# KerasHub.


@pytest.fixture(scope="module")
def keras_hub():
    return pytest.importorskip("keras_hub")


def maps_of(encoder):
    names = [f"stage{stage}_output" for stage in range(1, 5)]
    return keras.Model(encoder.input, [encoder.get_layer(n).output for n in names])


@pytest.mark.any_backend
@pytest.mark.parametrize(
    "depth",
    [18, *(pytest.param(n, marks=pytest.mark.slow) for n in (34, 50, 101, 152))],
)
def test_kerashubs_backbone_gives_the_same_maps_and_comes_back(keras_hub, depth):
    statistics = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.4, 0.3)}
    encoder = trained(depth, seed=0, **statistics)
    backbone = convert.to_keras_hub(encoder)
    assert isinstance(backbone, keras_hub.models.ResNetBackbone)
    converter = convert.keras_hub_image_converter(encoder)
    normalised = converter(255 * IMAGES)
    pyramid = keras.Model(backbone.input, list(backbone.pyramid_outputs.values()))
    expected = maps_of(encoder)(IMAGES, training=False)
    for ours, theirs in zip(expected, pyramid(normalised, training=False), strict=True):
        assert_close_to_scale(theirs, ours)
    last = ops.mean(backbone(normalised, training=False), axis=(1, 2))
    features = encoder(IMAGES, training=False)
    assert_close_to_scale(last, features)
    back = convert.from_keras_hub(backbone, **statistics)
    assert back.depth == depth
    assert_same_weights(back, encoder)
    # Training moves the running statistics of both alike. Each normalisation by the
    # statistics of two images makes what was rounded larger, and there are up to 151.
    tolerance = 1e-4 if depth < 50 else 2e-2
    last = ops.mean(backbone(normalised, training=True), axis=(1, 2))
    assert_close_to_scale(last, encoder(IMAGES, training=True), tolerance)
    moved = weights_of(convert.from_keras_hub(backbone, **statistics))
    for path, value in weights_of(encoder).items():
        assert_close_to_scale(moved[path], value, tolerance)


@pytest.mark.any_backend
def test_a_preset_of_kerashub_comes_back_with_its_converter(keras_hub, tmp_path):
    encoder = trained(18, input_channels=1, mean=(0.4,), std=(0.2,))
    backbone = convert.to_keras_hub(encoder)
    backbone.save_to_preset(tmp_path / "preset")
    converter = convert.keras_hub_image_converter(encoder, 40)
    converter.save_to_preset(tmp_path / "preset")
    again = keras_hub.models.Backbone.from_preset(str(tmp_path / "preset"))
    loaded = keras_hub.layers.ImageConverter.from_preset(str(tmp_path / "preset"))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 1)).astype("f4")
    found = ops.mean(again(loaded(pixels)), axis=(1, 2))
    assert_close_to_scale(found, encoder(pixels / 255, training=False))
    assert loaded.image_size == (40, 40)


@pytest.mark.any_backend
def test_kinds_of_resnets_that_kerashub_or_we_have_not_are_refused(keras_hub, encoder):
    with pytest.raises(ValueError, match="width 1 with stem='imagenet'"):
        convert.to_keras_hub(encoder)
    with pytest.raises(TypeError, match=r"a keras_hub\.models\.ResNetBackbone"):
        convert.from_keras_hub(encoder)
    options = {
        "input_conv_filters": [64],
        "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64, 64, 64, 64],
        "stackwise_num_blocks": [1, 1, 1, 1],
        "stackwise_num_strides": [1, 2, 2, 2],
        "block_type": "basic_block",
    }
    for changes, reason in (
        ({"use_pre_activation": True}, "use_pre_activation=True"),
        ({"block_type": "basic_block_vd"}, "block_type='basic_block_vd'"),
        ({"input_conv_kernel_sizes": [3]}, "input_conv_kernel_sizes=.3."),
        ({"stackwise_num_strides": [1, 2, 2, 1]}, "stackwise_num_strides=.1, 2, 2, 1."),
        ({"stackwise_num_blocks": [1, 2, 1, 1]}, r"Received: \(1, 2, 1, 1\) basic"),
        ({}, "must have the shape of a ResNet-10"),
    ):
        backbone = keras_hub.models.ResNetBackbone(**options | changes)
        with pytest.raises(ValueError, match=reason):
            convert.from_keras_hub(backbone)


@pytest.mark.any_backend
def test_without_kerashub_the_line_that_installs_it_is_given(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "keras_hub", None)
    encoder = ResNet(10)
    for function in (
        convert.to_keras_hub,
        convert.from_keras_hub,
        convert.keras_hub_image_converter,
    ):
        with pytest.raises(ImportError, match=r"pip install 'keras_kssl\[hub\]'"):
            function(encoder)


# The command.


@pytest.mark.any_backend
@tensorflow_only
def test_the_command_converts_there_and_back(encoder, state, tmp_path, capsys):
    first, second, third = (tmp_path / n for n in ("a.pth", "b.keras", "c.safetensors"))
    saved = {f"module.{n}": v for n, v in state.items()}
    pth.write({**saved, "module.fc.bias": np.zeros(3, "f4")}, first)
    options = ["--mean", "0.5", "0.5", "0.5", "--std", "0.2", "0.2", "0.2"]
    assert cli.main(["convert", str(first), str(second), *options]) == 0
    text = capsys.readouterr().out
    assert "ResNet-10 of width 0.125 with the 'cifar' stem, 64 features" in text
    assert "Left out: module.fc.bias" in text
    found = keras.saving.load_model(second)
    assert (found.mean, found.std) == ((0.5,) * 3, (0.2,) * 3)
    assert cli.main(["convert", str(second), str(third)]) == 0
    assert_same_weights(convert.from_torch_resnet(third), encoder)


@pytest.mark.any_backend
@tensorflow_only
def test_the_command_reads_checkpoints_of_the_authors(checkpoint, tmp_path):
    write_npy(tmp_path / "checkpoint.npy", checkpoint)
    words = [str(tmp_path / "checkpoint.npy"), str(tmp_path / "e.keras")]
    assert cli.main(["convert", *words, "--network", "target"]) == 0
    found = keras.saving.load_model(words[1])
    assert_same_weights(found, convert.from_ssl_hsic_checkpoint(checkpoint, "target"))


@pytest.mark.any_backend
def test_the_command_refuses_wrong_input_in_a_sentence(encoder, tmp_path, capsys):
    names = ("e.keras", "same.keras", "w.pth", "w.npy")
    keras_file, same, broken, checkpoint = (str(tmp_path / name) for name in names)
    encoder.save(keras_file)
    ResNet(10, **SMALL, padding="same").save(same)
    for path in (broken, checkpoint):
        with open(path, "wb") as file:
            file.write(b"broken")
    out = str(tmp_path / "out.pth")
    for words, reason in (
        ([keras_file, str(tmp_path / "out.bin")], "ending in .pth, .pt, .safetensors"),
        ([keras_file, broken], "set overwrite=True"),
        ([same, out], "padded symmetrically"),
        ([broken, out], "not a file of torch.save"),
        ([checkpoint, out], "not start as a file of numpy.save"),
        ([str(tmp_path / "none.pth"), out], "a file that is there"),
        ([keras_file, out, "--prefix", "a."], "left out for an encoder of Keras"),
        ([keras_file, out, "--std", "1"], "left out for an encoder of Keras"),
        ([broken, out, "--network", "target"], "left out for a file of PyTorch"),
        ([checkpoint, out, "--ignore", "a"], "left out for a checkpoint.npy"),
    ):
        assert cli.main(["convert", *words]) == 2
        text = capsys.readouterr().err
        assert reason in text
        assert text.startswith("kssl: ")
        assert text.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
