"""N replicas equal one device: losses, metrics, weights, statistics, kernel scale.

Each layout of devices is a process of its own, or several: devices have to be there
before a backend starts.
"""

import os
import pathlib
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_kssl.models import layers
from tests import replica_objectives, replica_runs
from tests.conftest import is_quick

ROOT = pathlib.Path(__file__).resolve().parent.parent
ON_JAX = keras.backend.backend() == "jax"
slow = pytest.mark.slow
# Kind, devices, processes.
# Two devices, in one process and in two.
TWO_DEVICES = {
    "jax": [("jax", 2, 1), ("jax_workers", 2, 2)],
    "tensorflow": [("mirrored", 2, 1), ("multi_worker", 2, 2)],
}[keras.backend.backend()]
# Two processes on JAX take minutes and tell little more than two devices in one.
SLOW_LAYOUTS = {
    "jax": [("jax_workers", 2, 2), ("jax", 4, 1), ("jax", 8, 1)],
    "tensorflow": [("mirrored", 4, 1)],
}[keras.backend.backend()]
LAYOUTS = [layout for layout in TWO_DEVICES if layout not in SLOW_LAYOUTS]
TOLERANCE = 1e-5
# Numbers of this size count as rounding: the gradient of a bias before a batch
# normalisation is 0, and what is computed in its place about 1e-8.
FLOOR = 0.1


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def run(path, kind, count, workers, group):
    """Results of one layout of devices, made once in a test run."""
    if path.is_file():
        return dict(np.load(path))
    ports = [str(port) for port in free_ports(workers)] if workers > 1 else []
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "tests.replica_runs", kind, str(count), str(path)]
    command.append(group)
    processes = [
        subprocess.Popen(
            [*command, str(worker), *ports],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for worker in range(workers)
    ]
    said = [process.communicate(timeout=600)[0] for process in processes]
    codes = {process.returncode for process in processes}
    assert codes == {0}, "\n".join(said)[-4000:]
    return dict(np.load(path))


@pytest.fixture(scope="module")
def group(request):
    """Which methods are trained: all of them with the slow tests."""
    return "quick" if is_quick(request.config) else "methods"


@pytest.fixture(scope="module")
def alone(tmp_path_factory, group):
    return run(tmp_path_factory.mktemp("alone") / "one.npz", "one", 1, 1, group)


@pytest.fixture(
    scope="module",
    params=[*LAYOUTS, *(pytest.param(layout, marks=slow) for layout in SLOW_LAYOUTS)],
    ids=lambda layout: f"{layout[0]}_{layout[1]}",
)
def together(request, tmp_path_factory, group):
    kind, count, workers = request.param
    path = tmp_path_factory.mktemp("together") / f"{kind}_{count}.npz"
    return run(path, kind, count, workers, group)


@pytest.mark.parametrize(
    "method",
    [
        name if name in replica_runs.QUICK else pytest.param(name, marks=slow)
        for name in replica_runs.METHODS
    ],
)
def test_replicas_equal_one_device(method, alone, together):
    """After 5 steps with augmentation: relative to each array's largest number."""
    assert_equal_runs(method, alone, together)


@slow
def test_replicas_equal_one_device_with_small_crops_and_micro_batches(tmp_path):
    alone = run(tmp_path / "one.npz", "one", 1, 1, "small_crops")
    for kind, count, workers in TWO_DEVICES:
        path = tmp_path / f"{kind}_{count}.npz"
        together = run(path, kind, count, workers, "small_crops")
        for method in replica_runs.SMALL_CROPS:
            assert_equal_runs(method, alone, together)


def assert_equal_runs(method, alone, together):
    names = [name for name in alone if name.startswith(f"{method}/")]
    assert len(names) > 30
    far = {}
    for name in names:
        expected, found = alone[name].astype("float64"), together[name]
        error = np.abs(found - expected).max() / max(np.abs(expected).max(), FLOOR)
        if not error <= TOLERANCE:
            far[name] = error
    assert far == {}


@pytest.fixture(scope="module")
def objectives_found(tmp_path_factory):
    path = tmp_path_factory.mktemp("objectives") / "found.npz"
    command = [sys.executable, "-m", "tests.replica_objectives", str(path)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=600)
    return dict(np.load(path))


@slow
@pytest.mark.skipif(ON_JAX, reason="on JAX a batch that is shared out is one array")
@pytest.mark.parametrize("dim", [replica_objectives.DIM, 2 * replica_objectives.BATCH])
def test_objectives_on_replicas_are_those_of_the_global_batch(objectives_found, dim):
    names = [key.split("/")[2] for key in objectives_found if key.endswith("/loss")]
    assert len(set(names)) > 10
    for name in names:
        for what in ("loss", "gradient"):
            alone, together = (
                objectives_found[f"{dim}/{kind}/{name}/{what}"]
                for kind in ("alone", "together")
            )
            scale = np.abs(alone).max()
            np.testing.assert_allclose(
                together, alone, rtol=0, atol=1e-5 * scale, err_msg=f"{name} {what}"
            )


@pytest.mark.skipif(ON_JAX, reason="lists the operations of TensorFlow's graph")
@pytest.mark.parametrize(
    "method",
    [
        "hsic_gram_target",
        pytest.param("hsic_features_target", marks=slow),
        pytest.param("sfrik_3", marks=slow),
    ],
)
def test_every_operation_of_a_step_has_an_xla_kernel_and_a_known_shape(
    method, monkeypatch
):
    """What a TPU asks of a step, as far as a machine without one can tell."""
    import tensorflow as tf
    from tensorflow.python.framework import kernels

    # The kernels of large maps are in question too.
    monkeypatch.setattr(layers, "_FEWEST_NUMBERS", 0)

    # Compiling something registers the kernels.
    tf.function(lambda x: x + 1, jit_compile=True)(1.0)
    compiled = {
        kernel.op
        for kernel in kernels.get_all_registered_kernels().kernel
        if kernel.device_type == "XLA_CPU_JIT"
    }
    model = replica_runs.model_of(method)
    model.compile(model.optimizer, jit_compile=True)
    model.optimizer.build(model.trainable_variables)
    images = np.zeros((8, 16, 16, 3), "uint8")
    step = tf.function(model.train_step, jit_compile=True)
    graph = step.get_concrete_function((images,)).graph
    # What a fused kernel keeps for its gradient has the shape that a device wants.
    kept = {
        operation.outputs[5].name
        for operation in graph.get_operations()
        if operation.type == "FusedBatchNormV3"
    }
    unknown = [
        operation.name
        for operation in graph.get_operations()
        for output in operation.outputs
        if output.dtype != tf.resource
        and not output.shape.is_fully_defined()
        and kept.isdisjoint(tensor.name for tensor in (output, *operation.inputs))
    ]
    assert unknown == []
    definition = graph.as_graph_def()
    functions = [function.node_def for function in definition.library.function]
    used = {node.op for nodes in (definition.node, *functions) for node in nodes}
    assert used - compiled - {"Placeholder", "NoOp", "Const"} == set()
    # And it does compile.
    assert np.isfinite(model.train_on_batch(images)[0])
