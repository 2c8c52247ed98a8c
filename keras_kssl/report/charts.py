"""Lines over axes, as numbers for an SVG picture that takes its colours from the page.

The template `charts.html` draws what is computed here.
"""

import dataclasses
import math

# Lines are told apart by colour and by dashes, of which the style sheet has so many.
NUM_STYLES = 8
# Points of a line that show their numbers under the mouse.
_MARKS = 60
# From so few on, points are drawn as dots.
_DOTS = 30
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 24
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a chart: its points, and how it looks.

    Where there is no number, as in epochs that were not judged, the line goes straight
    on to the next one.
    """

    name: str
    x: list
    y: list
    style: int = 0


@dataclasses.dataclass(frozen=True)
class Mark:
    """A point that says what it is."""

    x: float
    y: float
    style: int
    text: str


@dataclasses.dataclass(frozen=True)
class Chart:
    """A chart in pixels of its own: (0, 0) is the top left corner.

    Attributes:
        title: what it shows, for those who cannot see it.
        paths: style and SVG path of each line.
        x_ticks, y_ticks: places and texts.
        has_dots: whether marks are drawn, not only felt.
    """

    title: str
    x_name: str
    width: int
    height: int
    paths: list[tuple[int, str]]
    marks: list[Mark]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    has_dots: bool

    left, right, top, bottom = _LEFT, _RIGHT, _TOP, _BOTTOM


def chart(title, lines, x_name, log=False, width=320, height=190):
    """The `Chart` of lines.

    Args:
        title: what it shows.
        lines: `Line`s, each with a finite point, above 0 on logarithmic axes.
        x_name: what stands under the horizontal axis.
        log: whether both axes are logarithmic.
        width, height: of the picture.
    """
    points = [
        [(x, y) for x, y in zip(line.x, line.y, strict=True) if _is_shown(x, y, log)]
        for line in lines
    ]
    x_axis = _Axis([x for of_line in points for x, _ in of_line], log, pad=0.0)
    y_axis = _Axis([y for of_line in points for _, y in of_line], log, pad=0.06)

    def place(x, y):
        return (
            round(_LEFT + x_axis.place(x) * (width - _LEFT - _RIGHT), 1),
            round(height - _BOTTOM - y_axis.place(y) * (height - _TOP - _BOTTOM), 1),
        )

    marks = []
    for line, shown in zip(lines, points, strict=True):
        step = -(-len(shown) // _MARKS)
        # From the end, because the last point matters most.
        for x, y in shown[::-1][::step]:
            text = f"{line.name}, {x_name} {x:g}: {y:.4g}"
            marks.append(Mark(*place(x, y), line.style, text))
    return Chart(
        title=title,
        x_name=x_name,
        width=width,
        height=height,
        paths=[
            (line.style, "M" + "L".join("{} {}".format(*place(x, y)) for x, y in shown))
            for line, shown in zip(lines, points, strict=True)
        ],
        marks=marks,
        x_ticks=[(place(x, y_axis.low)[0], text) for x, text in x_axis.ticks(5)],
        y_ticks=[(place(x_axis.low, y)[1], text) for y, text in y_axis.ticks(5)],
        has_dots=max(map(len, points)) <= _DOTS,
    )


def _is_shown(x, y, log):
    return math.isfinite(y) and not (log and min(x, y) <= 0)


class _Axis:
    """Values on a line from 0 to 1."""

    def __init__(self, values, log, pad):
        self.log = log
        low, high = self._scaled(min(values)), self._scaled(max(values))
        if low == high:
            half = 0.5 if log else abs(low) / 10 or 1.0
            low, high = low - half, high + half
        pad *= high - low
        self._low, self._high = low - pad, high + pad
        self.low = 10.0**self._low if log else self._low

    def place(self, value):
        return (self._scaled(value) - self._low) / (self._high - self._low)

    def ticks(self, wanted):
        """Round values on the axis, about as many as wanted, with their texts."""
        if self.log:
            powers = range(math.ceil(self._low), math.floor(self._high) + 1)
            step = max(1, round(len(powers) / wanted))
            if len(powers) > 1:
                return [(10.0**k, _power(k)) for k in powers[::-1][::step]]
            low, high = 10.0**self._low, 10.0**self._high
        else:
            low, high = self._low, self._high
        step = _round_step((high - low) / wanted)
        first, last = math.ceil(low / step), math.floor(high / step)
        digits = max(0, -math.floor(math.log10(step)))
        return [(i * step, f"{i * step:,.{digits}f}") for i in range(first, last + 1)]

    def _scaled(self, value):
        return math.log10(value) if self.log else float(value)


def _power(exponent):
    if 0 <= exponent <= 3:
        return str(10**exponent)
    return "10" + str(exponent).translate(_SUPERSCRIPTS)


def _round_step(step):
    """The smallest of 1, 2, 5 times a power of ten that is no smaller than a step."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= step * (1 - 1e-9))
