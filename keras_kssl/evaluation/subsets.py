"""Parts of a labelled set: so many of each class, or those that a list names."""

import pathlib

import numpy as np

from keras_kssl._checks import check_integer, check_number, check_that

HELD_OUT = 0.1


def balanced_subset(labels, fraction=None, per_class=None, seed=0):
    """Positions of a part of a labelled set that has as many images of each class.

    Within each class images are taken in an order keyed by the seed and the class, so
    that a smaller part of the same seed lies within a larger one, and what is drawn is
    the same on every machine. Of a class that has too few images all are taken.

    Args:
        labels: integers (n,); -1, "not known", is never chosen.
        fraction: share of all labelled images, above 0 and at most 1: of each class
            that share of n / classes images, rounded, at least 1; 1 takes all images.
        per_class: or the number of images of each class.
        seed: integer of at least 0.

    Returns:
        Positions, increasing integers.

    >>> balanced_subset(np.array([0, 1, 1, 0, 1, 2]), per_class=1, seed=3).tolist()
    [0, 1, 5]
    """
    caller = "balanced_subset"
    check_that(
        (fraction is None) != (per_class is None),
        caller,
        "fraction",
        "given, or else `per_class`",
        fraction,
    )
    check_integer(caller, "seed", seed, minimum=0)
    labels = np.asarray(labels)
    classes, counts = np.unique(labels[labels >= 0], return_counts=True)
    check_that(len(classes) > 0, caller, "labels", "known for some images", labels)
    if per_class is None:
        check_number(caller, "fraction", fraction, 0.0, 1.0)
        check_that(fraction > 0, caller, "fraction", "above 0", fraction)
        if fraction == 1:
            # The whole set, of whose classes some may have more images than others.
            return np.flatnonzero(labels >= 0)
        per_class = max(1, round(fraction * counts.sum() / len(classes)))
    check_integer(caller, "per_class", per_class, minimum=1)
    chosen = []
    for class_number in classes:
        positions = np.flatnonzero(labels == class_number)
        stream = np.random.Philox(np.random.SeedSequence((seed, int(class_number))))
        # NumPy promises that these bits never change; of permutations it does not.
        order = np.argsort(stream.random_raw(len(positions)), kind="stable")
        chosen.append(positions[order[:per_class]])
    return np.sort(np.concatenate(chosen))


def listed_subset(source, path):
    """Positions of the files of a source that a list names.

    For published parts, such as SimCLR's lists of 1% and 10% of ImageNet's file names.

    Args:
        source: a source of files, such as of `"folder:DIR"`.
        path: text file, a name a line: of the file alone, or with its folders.

    Returns:
        Positions, increasing integers.

    Raises:
        ValueError: for sources without file names, and for names that are not there or
            that several files have.
    """
    caller = "listed_subset"
    files = getattr(source, "files", None)
    check_that(files is not None, caller, "source", "a source of files", source)
    lines = pathlib.Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    wanted = [line.strip() for line in lines if line.strip()]
    check_that(len(wanted) > 0, caller, "path", "a list of file names", str(path))
    known = {}
    for position, file in enumerate(files):
        known.setdefault(file, []).append(position)
        name = pathlib.PurePosixPath(file).name
        if name != file:
            known.setdefault(name, []).append(position)
    missing = [name for name in wanted if len(known.get(name, ())) != 1]
    check_that(
        not missing,
        caller,
        "path",
        f"a list of files that {source.name} has, each once",
        str(path),
        f"{len(missing)} of {len(wanted)} are not, such as {', '.join(missing[:3])}.",
    )
    return np.unique([known[name][0] for name in wanted])


def split_off(caller, count, share, seed):
    """Positions of a training part and of a part that is held out to choose on it."""
    check_that(
        count >= 1 / share,
        caller,
        "train",
        f"at least {round(1 / share)} examples, a share of {share:g} of which is held "
        "out to choose by",
        count,
    )
    order = np.random.default_rng(seed).permutation(count)
    held_out, kept = np.split(order, [round(share * count)])
    return kept, held_out


def parts_to_choose_by(caller, x, y, validation, seed):
    """Examples to learn from while something is chosen, to choose by, and to end with.

    Args:
        caller: name for errors.
        x, y: features and labels of the training examples.
        validation: features and labels to choose by; `None` for a tenth of the
            training examples.
        seed: integer that fixes that tenth.

    Returns:
        Three pairs of features and labels; the last holds both others.
    """
    if validation is None:
        kept, held_out = split_off(caller, len(x), HELD_OUT, seed)
        return (x[kept], y[kept]), (x[held_out], y[held_out]), (x, y)
    whole = tuple(map(np.concatenate, zip((x, y), validation, strict=True)))
    return (x, y), validation, whole
