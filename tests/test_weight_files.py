"""Readers and writers of weights: what projects write, and what attackers would."""

import collections
import contextlib
import json
import os
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest

from keras_kssl.convert import npy, pth, safetensors
from keras_kssl.convert.arrays import arrays_of
from tests import weight_files
from tests.weight_files import (
    Calling,
    Storage,
    named,
    parameter,
    tensor,
    write_legacy,
    write_npy,
    write_zip,
)

pytestmark = pytest.mark.any_backend

SUFFIXES = (".pth", ".safetensors", ".npy")
FORMATS = {".pth": pth, ".safetensors": safetensors}
NUMBERS = np.random.default_rng(0).normal(size=24).astype("float32")


def read(path):
    return arrays_of("test", path, SUFFIXES)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        assert found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes(), name


def arrays_of_all_kinds():
    kinds = ("f8", "f4", "f2", ml_dtypes.bfloat16, "i8", "i4", "i2", "i1", "u1", "?")
    arrays = {str(np.dtype(k)): (NUMBERS * 9).astype(k).reshape(2, 3, 4) for k in kinds}
    arrays["of no axes"] = np.array(7, np.int64)
    arrays["of no numbers"] = np.zeros((0, 3), np.float32)
    arrays["transposed"] = NUMBERS.reshape(4, 6).T
    arrays["every other"] = NUMBERS[::2]
    arrays["infinite"] = np.array([np.inf, -0.0, np.nan], np.float32)
    return arrays


@pytest.mark.parametrize("suffix", FORMATS)
def test_what_is_written_comes_back_bit_for_bit(suffix, tmp_path):
    path = tmp_path / f"weights{suffix}"
    FORMATS[suffix].write(arrays_of_all_kinds(), path)
    assert_same(FORMATS[suffix].read(path), arrays_of_all_kinds())


@pytest.mark.parametrize("suffix", FORMATS)
def test_the_same_weights_make_the_same_file(suffix, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        FORMATS[suffix].write({"w": NUMBERS}, tmp_path / folder / f"w{suffix}")
    first, second = ((tmp_path / name / f"w{suffix}").read_bytes() for name in "ab")
    assert first == second


def test_pytorch_opens_what_is_written(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pth"
    expected = arrays_of_all_kinds()
    pth.write(expected, path)
    found = torch.load(path, weights_only=True)
    assert list(found) == list(expected)
    for name, array in expected.items():
        if array.dtype == ml_dtypes.bfloat16:
            assert found[name].dtype == torch.bfloat16
            found[name], array = found[name].float(), array.astype("float32")
        np.testing.assert_array_equal(found[name].numpy(), array)


def test_the_safetensors_library_opens_what_is_written(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    expected = arrays_of_all_kinds()
    del expected["bfloat16"]  # which that library has for PyTorch only
    safetensors.write(expected, tmp_path / "w.safetensors")
    found = library.load_file(tmp_path / "w.safetensors")
    assert_same(found, expected)


def test_what_the_safetensors_library_writes_is_read(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    expected = {n: np.ascontiguousarray(a) for n, a in arrays_of_all_kinds().items()}
    expected["of no axes"] = expected["of no axes"].reshape(())
    del expected["bfloat16"]
    library.save_file(expected, tmp_path / "w.safetensors", {"format": "np"})
    assert_same(safetensors.read(tmp_path / "w.safetensors"), expected)


@pytest.mark.parametrize("is_zip", [True, False])
def test_what_pytorch_writes_is_read(is_zip, tmp_path):
    torch = pytest.importorskip("torch")
    base = torch.arange(24.0)
    layer = torch.nn.BatchNorm2d(3)
    saved = {
        "state_dict": layer.state_dict(),
        "half": base.half(),
        "brain": base.bfloat16(),
        "view": base.view(4, 6)[1:, ::2].t(),
        "whole": base,
        "parameter": torch.nn.Parameter(base[3:]),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 2),
        "optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1}]},
        "epoch": 3,
        "name": "é",
        "none": None,
        "yes": True,
        "pair": (1, 2.5),
        "many": [10**12, -1],
    }
    path = tmp_path / "weights.pth"
    torch.save(saved, path, _use_new_zipfile_serialization=is_zip)
    found = pth.read(path)
    for name in saved:
        if name == "state_dict":
            for key, value in saved[name].items():
                np.testing.assert_array_equal(found[name][key], value.numpy())
        elif name == "brain":
            assert found[name].dtype == ml_dtypes.bfloat16
            np.testing.assert_array_equal(found[name].astype("f4"), base.numpy())
        elif isinstance(saved[name], torch.Tensor):
            expected = saved[name].detach().numpy()
            np.testing.assert_array_equal(found[name], expected)
            assert found[name].dtype == expected.dtype
        else:
            assert found[name] == saved[name]


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_tensors_are_the_views_of_their_storages(write, order, tmp_path):
    storage = Storage(NUMBERS, "0", "FloatStorage")
    write(
        tmp_path / "w.pth",
        collections.OrderedDict(
            whole=tensor(storage, (2, 3, 4), (12, 4, 1)),
            transposed=tensor(storage, (3, 2), (1, 3), offset=5),
            parameter=parameter(tensor(storage, (4,), (2,), offset=1)),
            number=tensor(storage, (), (), offset=23),
            empty=tensor(storage, (0, 4), (4, 1)),
            counter=tensor(Storage(np.array([7]), "1", "LongStorage"), (), ()),
        ),
        order=order,
    )
    found = pth.read(tmp_path / "w.pth")
    expected = {
        "whole": NUMBERS.reshape(2, 3, 4),
        "transposed": NUMBERS[5:11].reshape(2, 3).T,
        "parameter": NUMBERS[1:9:2],
        "number": NUMBERS[23].reshape(()),
        "empty": np.zeros((0, 4), "f4"),
        "counter": np.array(7),
    }
    assert_same(found, expected)
    assert np.shares_memory(found["whole"], found["transposed"])


def test_arrays_are_found_by_their_place(tmp_path):
    value = {"model": {"a.b": tensor_of(NUMBERS)}, "more": [3, {"c": None}], "epoch": 3}
    write_zip(tmp_path / "w.pth", value)
    found = read(tmp_path / "w.pth")
    assert_same(found, {("model", "a.b"): NUMBERS})


def tensor_of(array, key="0"):
    return tensor(Storage(array, key, "FloatStorage"), array.shape, (1,))


@pytest.mark.parametrize("protocol", [3, 4])
def test_dictionaries_that_numpy_saves_are_read(protocol, tmp_path):
    value = {
        "params": {
            "a": np.arange(6.0).reshape(2, 3),
            "fortran": np.asfortranarray(np.arange(6, dtype="i4").reshape(2, 3)),
            "big": np.arange(3, dtype=">f4"),
            "scalar": np.float32(2.5),
            "number": np.array(3),
            "flag": np.array([True, False]),
        },
        "step": 3,
    }
    write_npy(tmp_path / "w.npy", value, protocol)
    found = read(tmp_path / "w.npy")
    assert found.keys() == {("params", name) for name in value["params"]}
    for name, array in value["params"].items():
        np.testing.assert_array_equal(found["params", name], array)
        assert found["params", name].dtype == array.dtype


def test_a_file_of_numpy_save_itself_is_read(tmp_path):
    value = {"a": {"w": NUMBERS}, "b": (1, [None])}
    np.save(tmp_path / "w.npy", value)
    assert npy.read(tmp_path / "w.npy").keys() == value.keys()
    assert_same(read(tmp_path / "w.npy"), {("a", "w"): NUMBERS})


def test_haikus_dictionaries_and_states_of_optimizers_are_read(tmp_path):
    haiku = "haiku._src.data_structures"
    inner = Calling(named(f"{haiku}.FlatMapping"), ({"w": NUMBERS},))
    old = Calling(named(f"{haiku}.frozendict"), ({"conv": {"w": NUMBERS[:3]}},))
    adam = Calling(named("optax._src.transform.ScaleByAdamState"), (1, inner, inner))
    lars = Calling(named("byol.utils.optimizers.LarsState"), ({"mu": NUMBERS[:2]},))
    value = {"params": {"conv": inner}, "old": old, "states": (adam, lars)}
    write_npy(tmp_path / "w.npy", value)
    found = read(tmp_path / "w.npy")
    assert_same(
        found,
        {
            ("params", "conv", "w"): NUMBERS,
            ("old", "conv", "w"): NUMBERS[:3],
            ("states", "0", "1", "w"): NUMBERS,
            ("states", "0", "2", "w"): NUMBERS,
            ("states", "1", "0", "mu"): NUMBERS[:2],
        },
    )


# Hostile files.


def refused(path, reason=None):
    """Fails unless the file is refused, in one sentence that holds the reason."""
    with pytest.raises(ValueError, match=reason) as caught:
        read(path)
    text = str(caught.value)
    assert text.startswith("test: `source` must be")
    assert "Received: source=" in text
    assert text.isprintable()
    assert len(text) < 1000


class Payload:
    """Would make a file if it were unpickled."""

    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


def payloads(victim):
    command = f"open({str(victim)!r}, 'w').close()"
    yield Payload(os.mkdir, str(victim))
    yield Payload(eval, command)
    yield Payload(exec, command)
    yield Payload(os.system, f"touch {victim}")
    yield Payload(getattr, os.mkdir, "__call__")
    yield Calling(named("torch.load"), (str(victim),))
    yield Payload(np.fromfile, str(victim))
    yield Calling(named("torch._utils._rebuild_tensor_v2"), (os.mkdir, 0, (), ()))


@pytest.mark.parametrize("write", [write_zip, write_legacy, write_npy])
def test_nothing_in_a_file_is_run(write, tmp_path):
    victim = tmp_path / "victim"
    path = tmp_path / ("w.npy" if write is write_npy else "w.pth")
    for payload in payloads(victim):
        for value in (payload, {"w": [payload]}):
            write(path, value)
            refused(path, "nothing of it was run")
            assert not victim.exists()


def test_names_that_may_be_called_are_called_with_nothing_else(tmp_path):
    rebuild = named("torch._utils._rebuild_tensor_v2")
    storage = Storage(NUMBERS, "0", "FloatStorage")
    for value in (
        Calling(rebuild, ("storage", 0, (1,), (1,))),
        Calling(rebuild, ()),
        Calling(collections.OrderedDict, (3,)),
        Calling(collections.OrderedDict, ([[1, 2]],)),
        Calling(collections.OrderedDict, (), {"__class__": 3}, iter([1])),
        Calling(named("torch.FloatStorage"), (3,)),
        Calling(rebuild, (named("torch.FloatStorage"), 0, (1,), (1,))),
        # A view that repeats one number claims more memory than there is behind it.
        tensor(tensor(storage, (24,), (0,), offset=23), (24,), (1,)),
    ):
        write_zip(tmp_path / "w.pth", {"w": value})
        refused(tmp_path / "w.pth", "makes no sense")


def test_a_pickle_of_its_own_is_no_file_of_pytorch(tmp_path):
    path = tmp_path / "w.pth"
    for content in (b"", b"\x80", pickle.dumps({"w": 3}), b"not at all", b"PK\x03\x04"):
        path.write_bytes(content)
        refused(path, "not a file of torch.save|cannot be read|is empty")


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((25,), (1,), 0),
        ((24,), (1,), 1),
        ((2, 2), (23, 2), 0),
        ((1_000_000, 1_000_000), (0, 0), 0),
        ((5, 5), (1, 1), 0),
        ((10**30,), (0,), 0),
    ],
)
def test_tensors_that_claim_more_than_their_storage_are_refused(
    shape, strides, offset, tmp_path
):
    storage = Storage(NUMBERS, "0", "FloatStorage")
    write_zip(tmp_path / "w.pth", {"w": tensor(storage, shape, strides, offset)})
    refused(tmp_path / "w.pth", "does not fit into its storage of 24 numbers")


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [
        ((2,), (-1,), 3),
        ((2,), (1,), -1),
        ((-2,), (1,), 0),
        ((2, 2), (1,), 0),
        ((2.0,), (1,), 0),
        (("2",), (1,), 0),
        ((1,) * 33, (1,) * 33, 0),
    ],
)
def test_tensors_without_a_shape_are_refused(shape, strides, offset, tmp_path):
    storage = Storage(NUMBERS, "0", "FloatStorage")
    write_zip(tmp_path / "w.pth", {"w": tensor(storage, shape, strides, offset)})
    refused(tmp_path / "w.pth", "makes no sense")


def test_storages_that_are_not_what_the_pickle_says_are_refused(tmp_path):
    path = tmp_path / "w.pth"
    data, _ = weight_files.dumped({"w": tensor_of(NUMBERS)})

    def write(entries):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in {"a/data.pkl": data, **entries}.items():
                archive.writestr(name, content)

    write({"a/data/0": NUMBERS.tobytes()})
    assert_same(read(path), {("w",): NUMBERS})
    write({})
    refused(path, "no storage '0'")
    write({"a/data/0": NUMBERS.tobytes()[:-1]})
    refused(path, "A storage of 24 numbers has 95 bytes")
    write({"a/data/0": NUMBERS.tobytes() * 2})
    refused(path, "A storage of 24 numbers has 192 bytes")
    two = [Storage(NUMBERS, "0", "FloatStorage"), Storage(NUMBERS, "0", "IntStorage")]
    write_zip(path, [tensor(storage, (2,), (1,)) for storage in two])
    refused(path, "disagree about the type")


@pytest.mark.parametrize(
    "name", ["../w", "/etc/w", "a/../../w", "..\\w", "../" + "w" * 60_000, "../\x1b[2J"]
)
def test_archives_that_point_out_of_themselves_are_refused(name, tmp_path):
    path = tmp_path / "w.pth"
    write_zip(path, {"w": tensor_of(NUMBERS)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"")
    refused(path, "points out of it")


def test_archives_that_pytorch_never_writes_are_refused(tmp_path):
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"0" * 10**6)
    assert path.stat().st_size < 10**4
    refused(path, "compressed")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/readme.txt", b"")
    refused(path, "without the one data.pkl")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"")
        archive.writestr("b/data.pkl", b"")
    refused(path, "without the one data.pkl")


def test_entries_that_lie_over_one_another_are_refused(tmp_path):
    path = tmp_path / "w.pth"
    value = {"a": tensor_of(NUMBERS), "b": tensor_of(NUMBERS + 1, "1")}
    write_zip(path, value)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        first, second = (archive.getinfo(f"archive/data/{key}") for key in "01")
    # The directory's last field before the name is where an entry begins.
    name = second.filename.encode()
    truth, lie = (struct.pack("<L", e.header_offset) + name for e in (second, first))
    assert content.count(truth) == 1
    path.write_bytes(content.replace(truth, lie))
    refused(path, "cannot be read")


def test_names_of_entries_do_not_flood_a_terminal(tmp_path):
    path = tmp_path / "w.pth"
    name = "w" * 60_000
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"a/{name}/data.pkl", b"")
    content = path.read_bytes()
    start = content.rindex(name.encode())
    path.write_bytes(content[:start] + b"v" + content[start + 1 :])
    refused(path, "cannot be read")


def test_an_entry_that_is_there_twice_counts_once_or_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    write_zip(path, {"w": tensor_of(NUMBERS)})
    is_told = pytest.warns(UserWarning, match="Duplicate name")
    with zipfile.ZipFile(path, "a") as archive, is_told:
        archive.writestr("archive/data/0", (NUMBERS + 1).tobytes())
    assert_same(read(path), {("w",): NUMBERS + 1})
    is_told = pytest.warns(UserWarning, match="Duplicate name")
    with zipfile.ZipFile(path, "a") as archive, is_told:
        archive.writestr("archive/data.pkl", b"")
    refused(path, "without the one data.pkl")


def test_links_in_an_archive_are_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(NUMBERS.tobytes())
    data, _ = weight_files.dumped({"w": tensor_of(NUMBERS)})
    link = zipfile.ZipInfo("a/data/0")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("a/data.pkl", data)
        archive.writestr(link, str(secret))
    refused(tmp_path / "w.pth", "A storage of 24 numbers has")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret", "w.pth"]


@pytest.mark.parametrize("write", [write_zip, write_npy])
def test_an_array_in_many_places_takes_its_memory_once(write, tmp_path):
    numbers = np.zeros(10**6, "f4")
    array = tensor_of(numbers) if write is write_zip else numbers
    path = tmp_path / ("w.npy" if write is write_npy else "w.pth")
    write(path, [array] * 1000)
    found = [*read(path).values()]
    assert len(found) == 1000
    assert all(np.shares_memory(each, found[0]) for each in found[1:])


def test_sizes_in_an_archive_that_are_not_true_are_refused(tmp_path):
    path = tmp_path / "w.pth"
    write_zip(path, {"w": tensor_of(NUMBERS)})
    content = path.read_bytes()
    # The directory at the end says how large each entry is, packed and not.
    sizes = struct.pack("<LL", NUMBERS.nbytes, NUMBERS.nbytes)
    assert content.count(sizes) == 2
    start = content.rindex(sizes)
    for length in (2**31, 97, 95):
        lie = struct.pack("<LL", length, length)
        path.write_bytes(content[:start] + lie + content[start + 8 :])
        refused(path, "cannot be read|larger than the file")


def test_texts_with_unknown_escapes_are_refused(tmp_path):
    # The standard library reads such texts, and warns of the escape.
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02S'\\q'\n.")
    refused(tmp_path / "w.pth", "makes no sense|instruction STRING")


def test_pickles_that_grow_without_end_are_refused(tmp_path):
    pairs = b"".join(b"](X\x02\x00\x00\x00%02dK\x01e" % number for number in range(99))
    ordered = b"ccollections\nOrderedDict\nq\x01"
    call = b"h\x01(h\x00tR"
    data = b"\x80\x02](" + pairs + b"eq\x00" + ordered + call * 40_000 + b"."
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("a/data.pkl", data)
    refused(tmp_path / "w.pth", "over 3000000 instructions")


def test_containers_nested_without_end_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr(
            "a/data.pkl", b"\x80\x02" + b"]" * 10**5 + b"a" * 99_999 + b"."
        )
    refused(tmp_path / "w.pth", "nested over 32 levels")


def test_containers_in_many_places_are_in_all_of_them_or_refused(tmp_path):
    shared = {"w": tensor_of(NUMBERS)}
    write_zip(tmp_path / "w.pth", {"a": shared, "b": [shared]})
    expected = {("a", "w"): NUMBERS, ("b", "0", "w"): NUMBERS}
    assert_same(read(tmp_path / "w.pth"), expected)
    shared["self"] = shared
    write_zip(tmp_path / "w.pth", shared)
    refused(tmp_path / "w.pth", "nested over 32 levels")
    many = []
    for _ in range(4):
        many = [many] * 2000
    write_zip(tmp_path / "w.pth", many)
    refused(tmp_path / "w.pth", "over 1000000 entries")


def written_by_hand(path, header, content=bytes(16)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content)


ENTRY = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"w": {**ENTRY, "data_offsets": [0, 17]}}, "outside of the file"),
        ({"w": {**ENTRY, "data_offsets": [-1, 15]}}, "outside of the file"),
        ({"w": {**ENTRY, "data_offsets": [16, 0]}}, "has -16 bytes"),
        ({"w": {**ENTRY, "data_offsets": [0]}}, "outside of the file"),
        ({"w": {**ENTRY, "data_offsets": "0"}}, "outside of the file"),
        ({"w": {**ENTRY, "shape": [2, 3]}}, "has 16 bytes"),
        ({"w": {**ENTRY, "shape": [2**62, 2**62]}}, "has 16 bytes"),
        ({"w": {**ENTRY, "shape": [-2, -2]}}, "no shape"),
        ({"w": {**ENTRY, "shape": [True, 4]}}, "no shape"),
        ({"w": {**ENTRY, "shape": [4.0]}}, "no shape"),
        ({"w": {**ENTRY, "shape": [1] * 33}}, "no shape"),
        ({"w": {**ENTRY, "dtype": "F8_E4M3"}}, "has the type 'F8_E4M3'"),
        ({"w": {**ENTRY, "dtype": 3}}, "has the type 3"),
        ({"w": {**ENTRY, "more": 3}}, "other than it should"),
        ({"w": 3}, "other than it should"),
        ({"v": ENTRY, "w": ENTRY}, "overlap"),
        ({"w": {**ENTRY, "shape": [2], "data_offsets": [8, 16]}}, "between them"),
        ({"w": {**ENTRY, "shape": [2], "data_offsets": [0, 8]}}, "all of its bytes"),
        ({}, "all of its bytes"),
        ([ENTRY], "no JSON object"),
        (b"{not json", "no JSON object"),
        (b'{"w": 1, "w": 2}', "a name twice"),
        (b"[" * 10**5, "no JSON object"),
        (b"\xff\xfe", "no JSON object"),
        (b"", "does not start"),
    ],
)
def test_safetensors_that_break_a_rule_are_refused(header, reason, tmp_path):
    written_by_hand(tmp_path / "w.safetensors", header)
    refused(tmp_path / "w.safetensors", reason)


def test_safetensors_headers_longer_than_the_file_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    for length in (2**63, 10**9, 25):
        path.write_bytes(struct.pack("<Q", length) + b"{}" + bytes(22))
        refused(path, "does not start with a safetensors header")


def test_files_of_numpy_that_are_no_checkpoint_are_refused(tmp_path):
    path = tmp_path / "w.npy"
    np.save(path, NUMBERS)
    refused(path, "an array of shape .24,. and type float32")
    np.save(path, np.array([{}, {}], object))
    refused(path, "an array of shape .2,. and type object")
    write_npy(path, {"w": np.array(["text"])})
    refused(path, "array of type 'U4', not of numbers")
    write_npy(path, {"w": np.array(["2020-01-01"], "M8[D]")})
    refused(path, "not of numbers")
    for content in (b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\x04\x00(((\n" + bytes(9)):
        path.write_bytes(content)
        refused(path, "does not start as a file of numpy.save")


@pytest.fixture
def small_files(tmp_path):
    """Files of all formats, and what each holds."""
    value = {"a": tensor_of(NUMBERS), "b": {"c": tensor_of(NUMBERS[:5], "1")}, "d": 3}
    write_zip(tmp_path / "zip.pth", value)
    write_legacy(tmp_path / "legacy.pth", value)
    safetensors.write({"a": NUMBERS, "c": NUMBERS[:5]}, tmp_path / "w.safetensors")
    write_npy(tmp_path / "w.npy", {"a": NUMBERS, "b": {"c": NUMBERS[:5]}, "d": 3})
    return sorted(tmp_path.iterdir())


def test_truncated_files_are_refused(small_files):
    for path in small_files:
        content = path.read_bytes()
        for length in range(0, len(content) - 1, 7):
            path.write_bytes(content[:length])
            refused(path)
        path.write_bytes(content)
        assert len(read(path)) == 2


def test_flipped_bits_give_an_array_or_a_refusal(small_files):
    rng = np.random.default_rng(0)
    for path in small_files:
        content = path.read_bytes()
        for _ in range(400):
            damaged = bytearray(content)
            for place in rng.integers(0, len(content), rng.integers(1, 4)):
                damaged[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            with contextlib.suppress(ValueError):
                assert all(isinstance(each, np.ndarray) for each in read(path).values())


def test_other_suffixes_and_missing_files_are_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"ending in \.pth, \.safetensors, \.npy.*w\.h5"
    ):
        read(tmp_path / "w.h5")
    with pytest.raises(FileNotFoundError, match=r"that is there.*w\.pth"):
        read(tmp_path / "w.pth")
