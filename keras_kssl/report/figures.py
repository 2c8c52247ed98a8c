"""What an encoder makes of images, as plain data for the page, or `Missing`."""

import numpy as np

from keras_kssl import pictures
from keras_kssl.report import charts, images, wording
from keras_kssl.report.neighbours import choose_queries, find_neighbours
from keras_kssl.report.reading import Missing
from keras_kssl.report.spectrum import spectrum_of

_QUERIES = 8
_NEIGHBOURS = 6
_GALLERY_SIDE = 112
_MAP_SIDE = 64
_FEWEST_FOR_A_MAP = 4
_LARGEST_LEGEND = 20
_COLOURS = (
    "#4e79a7",
    "#f28e2b",
    "#e15759",
    "#76b7b2",
    "#59a14f",
    "#d4ab1e",
    "#b07aa1",
    "#ff9da7",
    "#9c755f",
    "#8a817c",
)
_UNKNOWN = "#9aa0a6"


def feature_map(sample, features):
    """Test features in two dimensions, with the images in their places."""
    if len(sample) < _FEWEST_FOR_A_MAP:
        raise Missing(f"A map takes {_FEWEST_FOR_A_MAP} images or more.")
    (points,) = pictures.map_features([features])
    layout = images.lay_out(points)
    colours = _colours(sample)
    points = [
        {"x": x, "y": y, "name": _describe(sample, i), "colour": colours[i]}
        for i, (x, y) in enumerate(layout.places.tolist())
    ]
    for i in layout.shown:
        points[i]["picture"] = images.picture(sample.images[i], _MAP_SIDE)
    legend = {}
    if len(sample.classes) <= _LARGEST_LEGEND:
        legend = {sample.class_of(i): colours[i] for i in _first_of_classes(sample)}
    return {
        "layout": layout,
        "dots": [point for point in points if "picture" not in point],
        "thumbnails": [point for point in points if "picture" in point],
        "legend": legend,
        "has_classes": bool(sample.classes),
    }


def _colours(sample):
    """A colour for each image, that of its class."""
    count = len(sample.classes)
    if count == 0:
        return [_UNKNOWN] * len(sample)
    palette = _COLOURS
    if count > len(_COLOURS):
        palette = [
            f"hsl({360 * i // count} 55% {(45, 62)[i % 2]}%)" for i in range(count)
        ]
    of_class = dict(zip(sample.classes, palette, strict=False))
    return [of_class.get(int(label), _UNKNOWN) for label in sample.labels]


def _first_of_classes(sample):
    return [int(np.argmax(sample.labels == label)) for label in sample.classes]


def _describe(sample, position):
    name = sample.class_of(position)
    file = sample.names[position]
    return file if name is None else f"{name}: {file}"


def gallery(sample, features):
    """Queries with their nearest neighbours, and how many are of the query's class."""
    queries = choose_queries(len(sample), sample.labels, _QUERIES)
    rows, right, judged = [], 0, 0
    for found in find_neighbours(features, queries, _NEIGHBOURS):
        own = sample.class_of(found.query)
        near = []
        for position, similarity in zip(
            found.positions.tolist(), found.similarities.tolist(), strict=True
        ):
            name = sample.class_of(position)
            is_right = None if None in (own, name) else own == name
            judged += is_right is not None
            right += bool(is_right)
            near.append(
                {
                    "picture": images.picture(sample.images[position], _GALLERY_SIDE),
                    "name": _describe(sample, position),
                    "class": name,
                    "is_right": is_right,
                    "similarity": f"{similarity:.2f}",
                }
            )
        query = {
            "picture": images.picture(sample.images[found.query], _GALLERY_SIDE),
            "name": _describe(sample, found.query),
            "class": own,
        }
        rows.append({"query": query, "neighbours": near})
    return {"rows": rows, "right": right, "judged": judged}


def spectra(encoders):
    """Spectra of features overlaid, and their effective ranks in a table.

    Args:
        encoders: name, style of the line and features (n, d) of each.
    """
    lines, rows = [], []
    for name, style, features in encoders:
        spectrum = spectrum_of(features)
        shares = spectrum.shares
        directions = list(range(1, len(shares) + 1))
        lines.append(charts.Line(name, directions, shares.tolist(), style))
        rows.append(
            {
                "name": name,
                "style": style,
                "effective_rank": f"{spectrum.effective_rank:.1f}",
                "width": spectrum.width,
                "half": spectrum.directions_for(0.5),
                "most": spectrum.directions_for(0.9),
                "variance": wording.number(spectrum.eigenvalues.sum()),
            }
        )
    chart = charts.chart(
        "share of variance over direction", lines, "direction", True, 460, 300
    )
    return {"chart": chart, "rows": rows}
