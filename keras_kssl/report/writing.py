"""From run folders to an HTML file."""

import os
import pathlib

import jinja2

from keras_kssl import __version__
from keras_kssl._checks import check_integer, check_that
from keras_kssl._files import local_path, write_whole
from keras_kssl.report import charts, comparing, figures, looking, parts, wording
from keras_kssl.report.reading import Missing, read


def write(runs, out=None, images=1000, say=print):
    """Writes a report on a run, or a comparison of several, as one HTML file.

    The file needs nothing else: pictures and styles are in it, it runs no script and
    loads nothing. What a run lacks is named, with the command that would make it.
    Maps, neighbours and spectra are computed from the run's encoder on the images that
    it was tested on, else on those that it was trained on: two passes of the encoder
    over them (one in a comparison), and t-SNE.

    Args:
        runs: a run folder, as `kssl pretrain` leaves it, or a list of up to 8.
        out: the file. Default: `report.html` in the run folder; for several runs, in
            the current folder. What is there is replaced.
        images: number of images to look at, at least 10, at equal distances in their
            source. Default 1000.
        say: function that prints a line on what is being done.

    Returns:
        Path of the file.

    Raises:
        FileNotFoundError: for a folder that holds no run.
        ValueError, TypeError: for a recipe that cannot be read, and wrong arguments.
        OSError: where the file cannot be written.

    Example::

        keras_kssl.report.write("runs/a")
        keras_kssl.report.write(["runs/a", "runs/b"], out="a_and_b.html")
    """
    runs = [runs] if isinstance(runs, str | os.PathLike) else list(runs)
    check_integer("report", "images", images, minimum=10)
    rule = f"one run folder, or up to {charts.NUM_STYLES}"
    check_that(1 <= len(runs) <= charts.NUM_STYLES, "report", "runs", rule, runs)
    records = [read(run) for run in runs]
    default = records[0].path if len(records) == 1 else pathlib.Path()
    out = default / "report.html" if out is None else local_path("report", out)
    check_that(not out.is_dir(), "report", "out", "a file", str(out))
    if len(records) == 1:
        page = _run_page(records[0], images, say)
    else:
        page = _comparison_page(records, images, say)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Names of files may hold bytes that are no text.
    write_whole(out, page.encode("utf-8", "backslashreplace"))
    return out


def _run_page(record, images, say):
    map_, gallery, spectra = _looks(record, images, say)
    say("views, tables")
    return _render(
        "run.html",
        record=record,
        facts=parts.facts(record),
        status=parts.status(record),
        accuracies=_or_missing(parts.accuracies, record),
        curves=_or_missing(parts.curves, record),
        evaluations=_or_missing(parts.evaluations, record),
        map=map_,
        gallery=gallery,
        spectra=spectra,
        views=_or_missing(parts.views, record),
        broken=parts.broken(record),
        options=parts.options(record.recipe),
    )


def _looks(record, count, say):
    """Map, gallery and spectra, each with the sample that it shows, or `Missing`."""
    try:
        encoder = looking.load_encoder(record)
        sample = _opened(record, count, say)
        say("features of the trained encoder")
        trained = looking.features_of(encoder, sample)
        say("features of the untrained encoder")
        encoder = looking.untrained_encoder(record, sample.images.shape[-1])
        untrained = looking.features_of(encoder, sample)
    except Missing as missing:
        return missing, missing, missing
    say("map, neighbours, spectrum")
    made = [
        _or_missing(figures.feature_map, sample, trained),
        _or_missing(figures.gallery, sample, trained),
        figures.spectra(
            [("after training", 0, trained), ("before training", 1, untrained)]
        ),
    ]
    return [
        part if isinstance(part, Missing) else {"sample": sample, **part}
        for part in made
    ]


def _opened(record, count, say):
    sample = looking.open_sample(record, count)
    say(f"{len(sample):,} of the {sample.total:,} images of {sample.source}")
    return sample


def _comparison_page(records, images, say):
    letters = comparing.letters(records)
    encoders, absent = [], []
    for style, (letter, record) in enumerate(zip(letters, records, strict=True)):
        say(f"{letter}: {record.path}")
        try:
            encoder = looking.load_encoder(record)
            sample = _opened(record, images, say)
            encoders.append((letter, style, looking.features_of(encoder, sample)))
        except Missing as missing:
            absent.append((letter, missing))
    return _render(
        "comparison.html",
        runs=list(zip(letters, records, strict=True)),
        accuracies=_or_missing(comparing.accuracies, records),
        evaluations=_or_missing(comparing.evaluations, records),
        options=comparing.differing_options(records),
        curves=_or_missing(comparing.curves, records),
        spectra=figures.spectra(encoders) if encoders else None,
        absent=absent,
    )


def _or_missing(make, *arguments):
    try:
        return make(*arguments)
    except Missing as missing:
        return missing


def _render(template, **content):
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_kssl.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["missing"] = lambda part: isinstance(part, Missing)
    return environment.get_template(template).render(
        version=__version__, wording=wording, **content
    )
