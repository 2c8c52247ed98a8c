"""Fine-tunes an exported encoder in every consumer, each in an environment of its own.

    python tests/consumers/run.py [CONSUMER ...] [--environments DIR]

needs keras_kssl, TensorFlow and a package index; prints a table, and ends with exit
code 1 where a consumer does other than EXPECTED says. DIR keeps the environments (about
2 GB each) for the next time.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
ENCODER = HERE.parent.parent / "saved_models" / "ssl_hsic_resnet10_cifar10"
TRAIN, TEST = 400, 500
TOLERANCE = 1e-4
MODERN = ("tensorflow==2.21.*", "keras==3.15.*")
# tensorflow_hub 0.16 asks setuptools for pkg_resources, which newer ones do not have.
HUB = ("tensorflow_hub==0.16.1", "setuptools<81")


@dataclasses.dataclass(frozen=True)
class Consumer:
    """Packages of an environment, and the programs that run in it."""

    packages: tuple
    programs: tuple
    environment: dict = dataclasses.field(default_factory=dict)


CONSUMERS = {
    "today": Consumer(
        packages=(*MODERN, "tf_keras==2.21.*", *HUB),
        programs=("tensorflow_alone", "hub", "keras_3"),
    ),
    "addons": Consumer(
        packages=("tensorflow==2.15.1", "tensorflow-addons==0.23.0", *HUB),
        programs=("addons",),
    ),
    "keras_cv": Consumer(
        packages=(*MODERN, "keras-cv==0.9.0", *HUB[1:]),
        programs=("cv_layers",),
        environment={"KERAS_BACKEND": "tensorflow"},
    ),
}
ALL, HEAD, NO_STATISTICS = "all", "head only", "weights, no statistics"
# What moves in fine-tuning where it is not everything.
EXPECTED = {
    "hub.KerasLayer()": HEAD,
    "Lambda of tf.saved_model.load": HEAD,
    "TFSMLayer, serve alone": NO_STATISTICS,
}


class NoIndex(Exception):
    """No package index can be reached."""


def python_of(name, folder):
    """The interpreter of a consumer's environment, which is made where it is not."""
    place = folder / name
    python = place / "bin" / "python"
    mark = place / "packages.txt"
    packages = CONSUMERS[name].packages
    if mark.is_file() and mark.read_text() == "\n".join(packages):
        return python
    shutil.rmtree(place, ignore_errors=True)
    _done([sys.executable, "-m", "venv", str(place)])
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "-q"]
    # The smallest of the packages tells whether there is an index.
    probe = [*pip, "download", "--no-deps", "-d", str(place), HUB[0]]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        raise NoIndex("no package index can be reached")
    _done([*pip, "install", *packages])
    mark.write_text("\n".join(packages))
    return python


def _done(command, environment=None):
    """The output of a command; its last words in an error where it fails."""
    done = subprocess.run(
        command,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        words = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise RuntimeError(f"{' '.join(command)} ended with:\n{words}")
    return done.stdout


def prepare(folder):
    """Writes SavedModel, labelled images and the encoder's features.

    Returns:
        Accuracy of a linear classifier on the features, the encoder left as it is.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    import keras_kssl as kssl

    encoder = kssl.zoo.load(str(ENCODER))
    kssl.export.saved_model(encoder, folder / "encoder")
    images = np.random.default_rng(0).random((4, 31, 45, 3), dtype="float32")
    arrays = {"images": images, "features": encoder(images)}
    for split, limit in (("train", TRAIN), ("test", TEST)):
        source = kssl.data.open_source(f"builtin:digits:{split}", limit=limit)
        pixels, positions = source.read(np.arange(limit))
        arrays[f"{split}_images"] = (pixels / 255).astype("float32")
        arrays[f"{split}_labels"] = source.labels[positions]
    np.savez(folder / "trial.npz", **arrays)
    features = {
        split: encoder.predict(arrays[f"{split}_images"], verbose=0)
        for split in ("train", "test")
    }
    scaler = StandardScaler().fit(features["train"])
    scores = []
    for strength in (0.01, 0.1, 1.0, 10.0):
        classifier = LogisticRegression(C=strength, max_iter=2000)
        classifier.fit(scaler.transform(features["train"]), arrays["train_labels"])
        test = scaler.transform(features["test"])
        scores.append(classifier.score(test, arrays["test_labels"]))
    return max(scores)


def outcome(report):
    """What has moved, in the words of `EXPECTED`."""
    if not report["moved_weights"]:
        return HEAD
    if report["moved_weights"] < report["weights"]:
        return f"{report['moved_weights']} weights of {report['weights']}"
    if not report["moved_statistics"]:
        return NO_STATISTICS
    is_all = report["moved_statistics"] == report["statistics"]
    return ALL if is_all else f"{report['moved_statistics']} statistics"


def faults(report, frozen):
    """What is wrong with the report of a loader, in words."""
    expected = EXPECTED.get(report["loader"], ALL)
    if report["difference"] > TOLERANCE:
        yield f"features differ by {report['difference']:.1g}"
    if report["moved_by_inference"]:
        yield f"inference moved {report['moved_by_inference']} variables"
    if outcome(report) != expected:
        yield f"moved: {outcome(report)}, expected: {expected}"
    if expected == ALL and report["accuracy"] <= frozen:
        yield "no better than frozen features"


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("consumers", nargs="*", default=[*CONSUMERS])
    parser.add_argument("--environments", type=pathlib.Path)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        environments = options.environments or folder / "environments"
        pythons = {n: python_of(n, environments) for n in options.consumers}
        frozen = prepare(folder)
        print(f"frozen features, linear classifier: {frozen:.3f}\n")
        print("environment  loader | features within | moved | accuracy | faults")
        all_faults = []
        for name, python in pythons.items():
            consumer = CONSUMERS[name]
            for program in consumer.programs:
                script = str(HERE / f"{program}.py")
                command = [str(python), script, str(folder)]
                said = _done(command, {"PYTHONPATH": "", **consumer.environment})
                for report in json.loads(said.rpartition("REPORT")[2]):
                    wrong = [*faults(report, frozen)]
                    all_faults += wrong
                    cells = (
                        f"{name:12s} {report['loader']}",
                        f"{report['difference']:.0e}",
                        outcome(report),
                        f"{report['accuracy']:.3f}",
                        "; ".join(wrong) or "none",
                    )
                    print(" | ".join(cells), flush=True)
    return 1 if all_faults else 0


if __name__ == "__main__":
    sys.exit(main())
