"""The twelve classification sets on which papers compare encoders, and any other."""

import csv
import dataclasses
import functools
import io
import json
import pathlib

from keras_kssl._checks import check_choice, check_that
from keras_kssl._files import held_by_this_process, local_path, write_whole
from keras_kssl.data import open_source
from keras_kssl.evaluation.extraction import fingerprint
from keras_kssl.evaluation.metrics import METRICS
from keras_kssl.evaluation.protocols import evaluate, settings_of
from keras_kssl.evaluation.record import Record, known_results

PROTOCOLS = ("logreg", "finetune-100")


@dataclasses.dataclass(frozen=True)
class TransferSet:
    """A classification set as the papers use it.

    Attributes:
        tfds: its name in TensorFlow Datasets; `None` where it is not there.
        train, validation, test: its splits; no validation where a part of the
            training images is held out.
        metric: what the papers report.
    """

    tfds: str | None
    train: str = "train"
    validation: str | None = None
    test: str = "test"
    metric: str = "top_1"


SETS = {
    "food101": TransferSet("food101", test="validation"),
    "cifar10": TransferSet("cifar10"),
    "cifar100": TransferSet("cifar100"),
    "birdsnap": TransferSet(None),
    "sun397": TransferSet("sun397/standard-part1-120k"),
    "cars": TransferSet("cars196"),
    "aircraft": TransferSet(None, validation="validation", metric="mean_per_class"),
    "voc2007": TransferSet("voc/2007", validation="validation", metric="map_11"),
    "dtd": TransferSet("dtd", validation="validation"),
    "pets": TransferSet("oxford_iiit_pet", metric="mean_per_class"),
    "caltech101": TransferSet("caltech101", metric="mean_per_class"),
    "flowers": TransferSet(
        "oxford_flowers102", validation="validation", metric="mean_per_class"
    ),
}


def transfer_suite(
    encoder,
    out,
    sets=tuple(SETS),
    folder=None,
    protocols=PROTOCOLS,
    seeds=(0,),
    changes=None,
    size=None,
    batch_size=256,
    name="encoder",
    say=print,
):
    """Judges an encoder on many labelled sets and writes one table.

    A set is looked for in the folder `folder/SET` first, with its parts as folders
    `train`, `test` and, if there is one, `validation`, each with a folder per class;
    then, for the twelve sets of the papers, among the prepared sets of TensorFlow
    Datasets. What is not there is named, with what to do, and the others go on.

    The folder `out` gets SET.json (see `Record`) for each set and table.md and
    table.csv for all. A set that was judged by the same encoder, protocols, settings
    and seeds is not judged again, so that the same call goes on where it stopped.

    Args:
        encoder: as in `evaluate`.
        out: folder to write to.
        sets: names: of the twelve, `SETS`, or of folders in `folder`, of which
            "NAME:mean_per_class" changes what is counted.
        folder: folder with sets; `None` for none.
        protocols, seeds, changes, size, batch_size, say: as in `evaluate`. Default: the
            papers' linear protocol, `logreg`, and fine-tuning, `finetune-100`.
        name: what the table calls the encoder.

    Returns:
        dict from each set to the list of its results, or to the sentence that says why
        there are none.
    """
    out = local_path("transfer", out)
    plan = {set_name: _located(set_name, folder) for set_name in sets}
    changes = changes or {}
    # What is wrong with the protocols is found before the first set is opened.
    asked = {
        "encoder": fingerprint(encoder),
        "protocols": {p: settings_of(p, changes.get(p, {})) for p in protocols},
        "seeds": list(seeds),
        "size": size,
    }
    judge = functools.partial(
        evaluate,
        encoder,
        protocols=protocols,
        seeds=seeds,
        changes=changes,
        size=size,
        batch_size=batch_size,
    )
    out.mkdir(parents=True, exist_ok=True)
    found = {}
    with held_by_this_process(out, "transfer"):
        for set_name, (sources, metric) in plan.items():
            say(f"{set_name}:")
            path, facts = out / f"{set_name}.json", {**asked, "metric": metric}
            try:
                found[set_name] = _judged(judge, path, sources, facts, say)
            except (ValueError, TypeError, OSError, ImportError) as error:
                found[set_name] = str(error)
                say(f"  left out: {error}")
            _write_table(found, protocols, out, name)
    return found


def describe_table(found, protocols, name):
    """Markdown: a row per set, a column per protocol, and what was left out."""
    lines = [
        f"| {name} | metric | {' | '.join(protocols)} |",
        "|---|---|" + "---|" * len(protocols),
    ]
    for row in _rows(found, protocols):
        cells = [_cell(*row[p]) if p in row else "" for p in protocols]
        metric = row["metric"].replace("_", " ")
        lines.append(f"| {row['set']} | {metric} | {' | '.join(cells)} |")
    reasons = {n: why for n, why in found.items() if isinstance(why, str)}
    lines += [""] * bool(reasons)
    lines += [f"{set_name} was left out: {why}" for set_name, why in reasons.items()]
    return "\n".join(lines) + "\n"


def _located(set_name, folder):
    """Sources of a set by part, and its metric."""
    set_name, _, metric = set_name.partition(":")
    if metric:
        check_choice("transfer", "sets", metric, METRICS)
    known = SETS.get(set_name)
    parts = {} if folder is None else _parts_in(pathlib.Path(folder) / set_name)
    if parts:
        return parts, metric or (known.metric if known else "top_1")
    check_that(
        known is not None or folder is not None,
        "transfer",
        "sets",
        f"of {', '.join(SETS)}, or folders in `folder`",
        set_name,
    )
    if known is None or known.tfds is None:
        where = pathlib.Path(folder or "FOLDER") / set_name
        return {"missing": str(where)}, metric or "top_1"
    splits = {"train": known.train, "test": known.test}
    if known.validation:
        splits["validation"] = known.validation
    sources = {part: f"tfds:{known.tfds}:{split}" for part, split in splits.items()}
    return sources, metric or known.metric


def _parts_in(path):
    path = path.expanduser()
    names = ("train", "test", "validation")
    found = {name: f"folder:{path / name}" for name in names if (path / name).is_dir()}
    return found if {"train", "test"} <= found.keys() else {}


def _judged(judge, path, sources, asked, say):
    """Results for one set: those on disk, or new ones."""
    if "missing" in sources:
        raise FileNotFoundError(
            "the set is not on this machine and not in TensorFlow Datasets. Put its "
            f"images into {sources['missing']}/train and /test, a folder per class."
        )
    # As JSON gives it back.
    asked = json.loads(json.dumps({**asked, "sources": sources}))
    known = known_results(path, asked)
    if known is not None:
        say("  known already")
        return known
    opened = {part: open_source(text) for part, text in sources.items()}
    record = Record(asked["encoder"], sources["train"], sources["test"], path)
    record.facts["asked"] = asked
    return judge(
        **opened,
        metric=asked["metric"],
        say=lambda line: say(f"  {line}"),
        record=record.add,
    )


def _rows(found, protocols):
    for set_name, results in found.items():
        if isinstance(results, str):
            continue
        row = {"set": set_name, "metric": results[0]["metric"]}
        for protocol, result in zip(protocols, results, strict=True):
            # One number for each: the last, such as that of most neighbours.
            (*_, score) = result["scores"].values()
            row[protocol] = score["mean"], score["std"], len(score["values"])
        yield row


def _write_table(found, protocols, out, name):
    write_whole(out / "table.md", describe_table(found, protocols, name))
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["set", "metric", "protocol", "mean", "std", "values"])
    for row in _rows(found, protocols):
        for protocol in protocols:
            writer.writerow([row["set"], row["metric"], protocol, *row[protocol]])
    write_whole(out / "table.csv", text.getvalue())


def _cell(mean, deviation, count):
    return f"{100 * mean:.1f}" + f" ± {100 * deviation:.1f}" * (count > 1)
