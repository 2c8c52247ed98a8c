"""Pictures of a run: its curves, and its embeddings before and after."""

import csv
import pathlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import threadpoolctl

from keras_kssl import profiles

_MAP_POINTS = 1000


def draw_curves(metrics_csv, path, title=""):
    """Draws every column of a metrics file over the epochs, one panel each.

    Args:
        metrics_csv: file with a header and a row per epoch, as Keras's CSVLogger
            writes it.
        path: PNG file to write.
        title: heading of the picture.
    """
    with open(metrics_csv, newline="") as file:
        rows = list(csv.DictReader(file))
    # Keras writes NA for validation metrics where nothing was validated.
    names = [name for name in rows[0] if all(row[name] != "NA" for row in rows)]
    names.remove("epoch")
    # The loss first, then by name, so that pictures of two runs compare at a glance.
    names.sort(key=lambda name: (name != "loss", name))
    epochs = np.array([int(row["epoch"]) + 1 for row in rows])
    columns = min(4, len(names))
    num_rows = -(-len(names) // columns)
    figure = _figure(3.2 * columns, 2.4 * num_rows)
    for i, name in enumerate(names, start=1):
        axes = figure.add_subplot(num_rows, columns, i)
        values = np.array([float(row[name]) for row in rows])
        known = ~np.isnan(values)
        # Epochs that were not measured lie between the points.
        marker = None if known.all() else "."
        axes.plot(epochs[known], values[known], color="#1f5fa8", marker=marker)
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.set_xlabel("epoch", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        _trim(axes)
    figure.suptitle(title)
    return _write(figure, path)


def draw_grid(rows, titles, path):
    """Draws rows of images, one below the other.

    Args:
        rows: lists of images (H, W, 3), floats in [0, 1], of any sizes; all of one
            length.
        titles: what stands beside each row.
        path: PNG file to write.
    """
    columns = max(len(row) for row in rows)
    figure = _figure(1.3 * columns + 0.5, 1.3 * len(rows))
    # One pair of axes, in units of images: a pair each would take most of the time.
    axes = figure.add_subplot()
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            height, width = 0.47 * np.array(image.shape[:2]) / max(image.shape[:2])
            place = (j - width, j + width, i + height, i - height)
            axes.imshow(image, interpolation="nearest", extent=place)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks(range(len(rows)), titles, rotation=90, va="center")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return _write(figure, path)


def draw_kernels(kernels, dim, path, degree=8):
    """Draws rotation-invariant kernels: their profiles, and which degrees they hold.

    Each kernel is drawn without its mean over the sphere and scaled to 1 at equal
    embeddings, because neither matters to where a uniformity term is least: left over
    the inner product, right the share of each degree in Σ b_l, on a scale of powers;
    degrees with a share of 0 or less are left out.

    Args:
        kernels: dictionary from title to kernel: a name, a pair of a name and its
            parameter, or a function of inner products, see
            `kernels.legendre_coefficients`; or a sequence of coefficients b_1 ... b_L.
        dim: dimension q of the embeddings, at least 2.
        path: PNG file to write.
        degree: highest degree that is drawn.

    >>> import tempfile
    >>> kernels = {"SFRIK": (1.0, 40.0, 40.0), "uniformity": ("gaussian", 2.5)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     draw_kernels(kernels, dim=64, path=f"{folder}/kernels.png").name
    'kernels.png'
    """
    figure = _figure(10.0, 4.2)
    left, right = figure.subplots(1, 2)
    inner_products = np.linspace(-1.0, 1.0, 401)
    for position, (title, kernel) in enumerate(kernels.items()):
        profile, coefficients = _profile_of(kernel, dim, degree)
        values, top = profile(inner_products), profile(np.ones(1))[0]
        style = {"color": _colour(2 * position), "label": title}
        left.plot(
            inner_products,
            (values - coefficients[0]) / (top - coefficients[0]),
            **style,
        )
        # A share of nothing has no place on a scale of powers.
        shares = coefficients[1:] / (top - coefficients[0])
        shares[shares <= 0] = np.nan
        right.plot(range(1, len(coefficients)), shares, marker="o", **style)
    left.set_xlabel("inner product t of two embeddings")
    left.set_ylabel("kernel, without its mean, of its largest value")
    right.set_yscale("log")
    right.set_xlabel("degree l")
    right.set_ylabel("share of b_l")
    right.set_xticks(range(1, degree + 1))
    right.legend(fontsize=8)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        _trim(axes)
    figure.suptitle(f"Kernels on the unit sphere of dimension {dim}", fontsize=11)
    return _write(figure, path)


def _profile_of(kernel, dim, degree):
    """A kernel's profile and its coefficients b_0 ... b_L."""
    is_pair = isinstance(kernel, tuple | list) and isinstance(kernel[0], str)
    if not (is_pair or isinstance(kernel, str) or callable(kernel)):
        coefficients = np.array([0.0, *kernel])
        return lambda t: profiles.legendre_sum(t, dim, coefficients), coefficients
    name, parameter = kernel if is_pair else (kernel, None)
    coefficients, errors = profiles.expansion(name, dim, degree, parameter)
    coefficients[np.abs(coefficients) <= errors] = 0.0
    if callable(kernel):
        return kernel, coefficients
    return profiles.profile_function(name, parameter), coefficients


def draw_maps(panels, labels, path, class_names=None, seed=0):
    """Draws 2-D maps (t-SNE) of several sets of features of the same images.

    Args:
        panels: dictionary from title to features (n, d); the first 1,000 rows count.
        labels: classes (n,), which give the colours.
        path: PNG file to write.
        class_names: names of the classes for the legend.
        seed: integer seed of the maps.
    """
    labels = np.asarray(labels)[:_MAP_POINTS]
    classes = np.unique(labels)
    figure = _figure(5.2 * len(panels) + 1.0, 5.4)
    maps = map_features([np.asarray(f)[:_MAP_POINTS] for f in panels.values()], seed)
    for i, (title, points) in enumerate(zip(panels, maps, strict=True), start=1):
        axes = figure.add_subplot(1, len(panels), i)
        for position, label in enumerate(classes):
            name = str(label) if class_names is None else str(class_names[label])
            axes.scatter(
                *points[labels == label].T,
                s=9,
                color=_colour(position),
                label=name,
                linewidths=0,
            )
        axes.set_title(title, fontsize=11)
        axes.set_xticks([])
        axes.set_yticks([])
        _trim(axes)
    if len(classes) <= 20:
        axes.legend(
            fontsize=8, markerscale=2, loc="center left", bbox_to_anchor=(1.0, 0.5)
        )
    return _write(figure, path)


def draw_scores(scores, choices, path):
    """Draws scores of several rows over seeds, and the learning rates that were tried.

    Args:
        scores: dictionary from a title, a panel each, to a dictionary from a row's name
            to its values, one for each seed; a dot each, a bar for their mean and
            standard deviation.
        choices: dictionary from a row's name to its points (learning rate, score), one
            more panel; empty for none.
        path: PNG file to write.
    """
    names = list(dict.fromkeys(name for panel in scores.values() for name in panel))
    columns = len(scores) + bool(choices)
    longest = max(map(len, names))
    figure = _figure(3.4 * columns + 0.075 * longest, 1.3 + 0.34 * len(names))
    for i, (title, panel) in enumerate(scores.items(), start=1):
        axes = figure.add_subplot(1, columns, i)
        for position, name in enumerate(names):
            values = np.asarray(panel.get(name, ()), float)
            place = len(names) - 1 - position
            if len(values):
                spread = values.std(ddof=1) if len(values) > 1 else 0.0
                mean, colour = values.mean(), _colour(position)
                axes.errorbar(mean, place, xerr=spread, fmt="|", color=colour, ms=14)
                axes.plot(values, np.full(len(values), place), "o", color=colour, ms=4)
        axes.set_title(title, fontsize=10)
        axes.set_ylim(-0.6, len(names) - 0.4)
        axes.set_yticks(range(len(names)), names[::-1] if i == 1 else [""] * len(names))
        axes.grid(alpha=0.3)
        _trim(axes)
    if choices:
        axes = figure.add_subplot(1, columns, columns)
        for name, points in choices.items():
            colour = _colour(names.index(name) if name in names else len(names))
            axes.plot(*zip(*sorted(points), strict=True), "o-", color=colour, ms=4)
        axes.set_title("chosen by", fontsize=10)
        axes.set_xscale("log")
        axes.set_xlabel("learning rate", fontsize=8)
        axes.grid(alpha=0.3)
        _trim(axes)
    return _write(figure, path)


def map_features(sets, seed=0):
    """Features, scaled to unit length, in two dimensions: t-SNE.

    Args:
        sets: sets of features, each (n, d), n at least 4; they are mapped side by side,
            each by one thread.
        seed: integer seed of the maps.

    Returns:
        Points (n, 2) for each set.
    """
    # A thousand steps of a few milliseconds: more threads for one map save little, and
    # on a busy machine wait for each other for most of the time.
    with threadpoolctl.threadpool_limits(1), ThreadPoolExecutor() as threads:
        return list(threads.map(lambda features: _map(features, seed), sets))


def _map(features, seed):
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from sklearn.preprocessing import normalize

    count, dim = features.shape
    components = min(50, dim, count - 1)
    features = normalize(features.astype("float64"))
    reduced = PCA(components, random_state=seed).fit_transform(features)
    perplexity = min(30.0, (count - 1) / 3.0)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    return tsne.fit_transform(reduced)


def _colour(position):
    import matplotlib

    return matplotlib.colormaps["tab20"](position % 20)


def _figure(width, height):
    # Not pyplot: it keeps global state and may look for a screen.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _trim(axes):
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _write(figure, path):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
