"""Commands that judge an encoder: evaluate, transfer and report."""

import dataclasses
import pathlib
from typing import Annotated, Literal

import tyro

from keras_kssl.cli.words import (
    changes_of,
    integers,
    load_encoder,
    size_of_run,
    unused,
)


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Measure the accuracy of a run's encoder on labelled images.

    Example: kssl evaluate runs/a --train npz:train.npz --test npz:test.npz
    """

    run_folder: Annotated[pathlib.Path, tyro.conf.Positional]
    """Run folder, an encoder's file, a preset of kssl zoo, or an address."""
    train: str
    """Labelled images to learn from."""
    test: str
    """Labelled images to measure on."""
    validation: str | None = None
    """Labelled images to choose hyper-parameters by. Default: a tenth of those to learn
    from."""
    protocols: str = "knn,linear"
    """What to measure, separated by commas: knn, linear, linear-sfrik, linear-hsic,
    logreg, few-shot, finetune-1, finetune-10, finetune-100; or, on dense sets
    (voc:DIR:SPLIT, folder:DIR, npz:FILE), segmentation, detection, depth."""
    seeds: str = "0,1,2"
    """Seeds, separated by commas; a protocol runs once for each."""
    change: tuple[str, ...] = ()
    """Settings other than the protocols' own, such as finetune-100.steps=500."""
    metric: Literal["top_1", "mean_per_class"] = "top_1"
    """Accuracy over all images, or its mean over the classes."""
    size: int | None = None
    """Side to which images of many sizes are brought. Default: that of the run."""
    batch_size: int = 256
    """Images per call of the encoder."""
    out: pathlib.Path | None = None
    """JSON file to write the results to. Default: evaluation.json in the run folder, or
    evaluation_2.json where that is there, and so on."""

    def run(self):
        protocols = [name.strip() for name in self.protocols.split(",")]
        seeds = integers("seeds", self.seeds)
        changes = changes_of(self.change)
        encoder = load_encoder(self.run_folder)
        from keras_kssl import evaluation

        out = self.out
        if out is None and self.run_folder.is_dir():
            out = unused(self.run_folder / "evaluation.json")
        record = evaluation.Record(self.run_folder, self.train, self.test, out)
        evaluation.evaluate(
            encoder,
            self.train,
            self.test,
            protocols,
            self.validation,
            seeds,
            changes,
            self.metric,
            self.size or size_of_run(self.run_folder),
            self.batch_size,
            record=record.add,
        )
        if out is not None:
            print(f"Written: {out}")


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Judge a run's encoder on many labelled sets; one table. Goes on where it stopped.

    Example: kssl transfer runs/a --sets dtd,pets,mybirds --folder sets --out transfer/a
    """

    run_folder: Annotated[pathlib.Path, tyro.conf.Positional]
    """Run folder, an encoder's file, a preset of kssl zoo, or an address."""
    out: pathlib.Path
    """Folder to write the results and the table to."""
    sets: str = "all"
    """Sets, separated by commas: of the twelve that the papers compare on (all), or
    folders in --folder; NAME:mean_per_class counts the classes alike."""
    folder: pathlib.Path | None = None
    """Folder with sets that are not in TensorFlow Datasets, each with train/ and test/,
    and in these a folder per class."""
    protocols: str = "logreg,finetune-100"
    """What to measure, as in kssl evaluate."""
    seeds: str = "0"
    """Seeds, separated by commas; a protocol runs once for each."""
    change: tuple[str, ...] = ()
    """Settings other than the protocols' own, such as finetune-100.steps=500."""
    size: int | None = None
    """Side to which images are brought. Default: that of the run."""
    batch_size: int = 256
    """Images per call of the encoder."""

    def run(self):
        encoder = load_encoder(self.run_folder)
        from keras_kssl.evaluation import transfer

        names = tuple(transfer.SETS)
        if self.sets != "all":
            names = tuple(name.strip() for name in self.sets.split(","))
        protocols = tuple(name.strip() for name in self.protocols.split(","))
        found = transfer.transfer_suite(
            encoder,
            self.out,
            names,
            self.folder,
            protocols,
            integers("seeds", self.seeds),
            changes_of(self.change),
            self.size or size_of_run(self.run_folder),
            self.batch_size,
            name=str(self.run_folder),
        )
        print()
        print(transfer.describe_table(found, protocols, self.run_folder))
        print(f"Written: {self.out}")


@dataclasses.dataclass(frozen=True)
class Report:
    """Write a report on a run, or a comparison of several, as one HTML file.

    Example: kssl report runs/a runs/b --out a_and_b.html
    """

    runs: Annotated[tuple[pathlib.Path, ...], tyro.conf.Positional]
    """Run folders, one or several."""
    out: pathlib.Path | None = None
    """HTML file to write, in place of what is there. Default: report.html in the run
    folder; for several runs, in the current folder."""
    images: int = 1000
    """Number of images for the map, the neighbours and the spectrum."""

    def run(self):
        from keras_kssl import report

        path = report.write(self.runs, self.out, self.images)
        print(f"Written: {path}")
