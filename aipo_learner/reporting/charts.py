"""Small charts as inline SVG, which the page colours.

Series `s0`, `s1`, … differ in colour and in dash. Lengths are in units of the viewBox:
pixels, where the page does not scale it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from aipo_env import escape_terminal

NUM_STYLES = 7
"""Line styles that the page's style sheet has; further numbers begin anew."""
WIDTH, HEIGHT = 440, 250
"""Of a whole chart."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 10, 42
"""Margins around the lines: room for the axes' texts."""
_ROW_TEXT_GAP = 8
"""Between the text of a horizontal grid line and the line."""
_HALF_TEXT = 4
"""Down from a grid line to the foot of its text, so that its middle is on the line."""
_COLUMN_TEXT_DROP = 18
"""From the lower edge of the lines down to the texts of the x axis."""
_LABEL_RISE = 5
"""From the lower edge of the chart up to the foot of the x axis's name."""
_MARK_RADIUS = 3
_MAX_POINTS = 400
"""Points of a line that are drawn: about one for each unit of its width."""
_LEAST = 1e-6
"""An axis of values that are all smaller goes up to 1."""
_SMOOTHED_SHARE = 30
"""A moving mean reaches this part of the series to either side."""

_STEPS_WANTED = 4
"""Into so many steps an axis is divided at least."""
_ROUND_FACTORS = (1, 2, 2.5, 5, 10)
"""Distances of ticks that read well, times a power of ten."""
_LEAST_RANGE = 1e-15
"""An axis is taken to be so long at least: its step has a logarithm."""
_STEP_SLACK = 0.99
"""Share of the wanted step that a round one has to reach."""
_TICK_SLACK = 1e-9
"""Share of a step by which rounding may miss a tick."""
_TICK_DIGITS = 2
"""Digits of a step to which ticks are rounded, so that 3 x 0.1 is no
0.30000000000000004.
"""
_FLAT_SHARE = 1e-6
"""Values that differ by a smaller part of the largest are one value."""
_FLAT_MARGIN = 0.1
"""An axis of one value reaches this part of it to either side."""
_SMALLEST = 1e-12
"""Values that are all nearer to 0 are what rounding leaves of it."""
_MAX_READINGS = 120
"""Places of a chart at which its values can be read."""
_DECIMAL_RANGE = (1e-3, 1e6)
"""Numbers from the first up to the second are written without a power of ten."""
_AXIS_DIGITS, _READING_DIGITS = 5, 4
"""Digits of numbers beside an axis, and of those that are read from a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line of a chart.

    Args:
        name: For the legend.
        style: Number of its line style.
        xs: Its points, with `ys`.
        low: Lower edge of a band around it, at the same x; empty without one.
        high: Upper edge of it.
    """

    name: str
    style: int
    xs: Sequence[float]
    ys: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def smoothed(series: Series) -> Series:
    """Return the centred moving mean over about a fifteenth of the series."""
    reach = len(series.ys) // _SMOOTHED_SHARE
    means: list[float] = []
    for i in range(len(series.ys)):
        # A negative start would count from the end.
        start = max(0, i - reach)
        window = series.ys[start : i + reach + 1]
        means.append(sum(window) / len(window))
    return Series(name=series.name, style=series.style, xs=series.xs, ys=means)


def line_chart(
    lines: Sequence[Series],
    *,
    label: str,
    x_label: str,
    faint: Sequence[Series] = (),
    share: bool = True,
    fitted: bool = False,
    log2_x: bool = False,
) -> str:
    """Return an SVG of lines over x, whose values can be read where it is pointed at.

    Args:
        lines: One or more, none of them empty.
        label: What the chart shows, for readers who cannot see it.
        x_label: What x is; markup as it stands.
        faint: Lines behind the others, such as values before smoothing.
        share: y is a share, shown in per cent up to 100; else any number.
        fitted: The y axis goes from the least value to the greatest; else it has 0.
        log2_x: x is a power of two each, on a logarithmic axis; points are marked.
    """
    xs: list[float] = []
    for line in lines:
        xs.extend(line.xs)
    ys: list[float] = []
    for line in (*lines, *faint):
        ys.extend(line.ys)
        ys.extend(line.low)
        ys.extend(line.high)
    right = max(xs)
    if fitted:
        y_ticks = _fitted_ticks(min(ys), max(ys))
    else:
        # An axis of next to nothing has no ticks to tell apart.
        top = max(ys) if max(ys) > _LEAST else 1.0
        y_ticks = _ticks(min(0.0, *ys), 1.0 if share else top)
    x_ticks = sorted(set(xs)) if log2_x else _ticks(0, right)
    plot = _Plot(
        x_range=(x_ticks[0], right),
        y_range=(y_ticks[0], y_ticks[-1]),
        log2_x=log2_x,
    )
    # What comes later is drawn above what came before.
    parts: list[str] = []
    for tick in y_ticks:
        text = _percent(tick) if share else short_number(tick, _AXIS_DIGITS)
        parts.append(plot.row(tick, text))
    for tick in x_ticks:
        # The last tick may lie beyond the last point, where the lines' area ends.
        if tick <= right:
            parts.append(plot.column(tick, f"{tick:,.0f}"))
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(
        f'<text class="axis" x="{middle:.0f}" y="{HEIGHT - _LABEL_RISE}">{x_label}'
        "</text>"
    )
    parts += [plot.band(line) for line in lines if line.low]
    parts += [plot.path(line, "faint") for line in faint]
    parts += [plot.path(line, "line") for line in lines]
    if log2_x:
        parts += [plot.marks(line) for line in lines]
    else:
        # Before smoothing, where lines are smoothed.
        parts += plot.readings(faint or lines, x_label, share=share)
    return (
        f'<svg role="img" aria-label="{_text(label)}" viewBox="0 0 {WIDTH}'
        f' {HEIGHT}">{"".join(parts)}</svg>'
    )


def legend_key(style: int) -> str:
    """Return a small SVG that shows a line's colour and dash."""
    line = f'<line class="line s{style % NUM_STYLES}" x1="1" x2="29" y1="5" y2="5"/>'
    return f'<svg class="key" aria-hidden="true" viewBox="0 0 30 10">{line}</svg>'


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plot:
    """Where data stand in the picture, and how they are drawn there.

    Args:
        x_range: The x at the left and at the right edge.
        y_range: The y at the lower and at the upper edge; never the same.
        log2_x: Whether the x axis is logarithmic.
    """

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    log2_x: bool

    def x(self, value: float) -> float:
        """Return the picture's x of a value."""
        low, high = self.x_range
        if self.log2_x:
            low = math.log2(low)
            high = math.log2(high)
            value = math.log2(value)
        # A single power of two makes an axis of no length.
        length = (high - low) or 1
        return _LEFT + (value - low) / length * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Return the picture's y of a value; a picture's y grows downwards."""
        low, high = self.y_range
        height = HEIGHT - _TOP - _BOTTOM
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * height

    def row(self, tick: float, text: str) -> str:
        """Return a horizontal grid line with its text."""
        y = self.y(tick)
        kind = "grid zero" if tick == 0 else "grid"
        grid = (
            f'<line class="{kind}" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}"'
            f' y2="{y:.1f}"/>'
        )
        text_x = _LEFT - _ROW_TEXT_GAP
        text_y = y + _HALF_TEXT
        return f'{grid}<text class="value" x="{text_x}" y="{text_y:.1f}">{text}</text>'

    def column(self, tick: float, text: str) -> str:
        """Return the text of a tick of the x axis."""
        text_y = HEIGHT - _BOTTOM + _COLUMN_TEXT_DROP
        return f'<text class="axis" x="{self.x(tick):.1f}" y="{text_y}">{text}</text>'

    def path(self, line: Series, kind: str) -> str:
        """Return a line, of class `kind`."""
        # Rounded up, since a stride that is too short would keep too many points.
        stride = math.ceil(len(line.xs) / _MAX_POINTS)
        points = self._points(line.xs[::stride], line.ys[::stride])
        style = line.style % NUM_STYLES
        return f'<polyline class="{kind} s{style}" points="{points}"/>'

    def band(self, line: Series) -> str:
        """Return the area between a line's `low` and `high`."""
        # Along the upper edge, and back along the lower one.
        xs = [*line.xs, *reversed(line.xs)]
        ys = [*line.high, *reversed(line.low)]
        outline = self._points(xs, ys)
        style = line.style % NUM_STYLES
        return f'<polygon class="band s{style}" points="{outline}"/>'

    def marks(self, line: Series) -> str:
        """Return a mark at each point, which says its values when pointed at."""
        style = line.style % NUM_STYLES
        name = _text(line.name)
        marks: list[str] = []
        for x, y in zip(line.xs, line.ys, strict=True):
            marks.append(
                f'<circle class="dot s{style}" cx="{self.x(x):.1f}"'
                f' cy="{self.y(y):.1f}" r="{_MARK_RADIUS}">'
                f"<title>{name}: {share_text(y)} at {x:g}</title></circle>"
            )
        return "".join(marks)

    def readings(
        self, lines: Sequence[Series], x_label: str, *, share: bool
    ) -> list[str]:
        """Return areas that say the values of all lines at an x when pointed at."""
        values_at: dict[float, list[str]] = {}
        for line in lines:
            for x, y in zip(line.xs, line.ys, strict=True):
                value = share_text(y) if share else short_number(y, _READING_DIGITS)
                values_at.setdefault(x, []).append(f"{_text(line.name)}: {value}")
        xs = sorted(values_at)
        # Rounded up, since a stride that is too short would keep too many.
        stride = math.ceil(len(xs) / _MAX_READINGS)
        xs = xs[::stride]
        # Each area reaches halfway to its neighbours.
        middles = [(self.x(one) + self.x(next)) / 2 for one, next in pairwise(xs)]
        edges = [float(_LEFT), *middles, float(WIDTH - _RIGHT)]
        height = HEIGHT - _TOP - _BOTTOM
        areas: list[str] = []
        for x, (left, right) in zip(xs, pairwise(edges), strict=True):
            text = "\n".join([f"{x_label}: {x:,.0f}", *values_at[x]])
            areas.append(
                f'<rect class="reading" x="{left:.1f}" y="{_TOP}"'
                f' width="{max(0.0, right - left):.1f}" height="{height}">'
                f"<title>{text}</title></rect>"
            )
        return areas

    def _points(self, xs: Sequence[float], ys: Sequence[float]) -> str:
        """Return points as the attribute `points` lists them."""
        pairs = zip(xs, ys, strict=True)
        return " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in pairs)


def _ticks(low: float, high: float) -> list[float]:
    """Return four to seven round numbers that enclose `low` and `high`.

    The last may lie below `high`, or the first above `low`, by a rounding error only.
    """
    wanted = max(high - low, _LEAST_RANGE) / _STEPS_WANTED
    power_of_ten = 10.0 ** math.floor(math.log10(wanted))
    steps = [power_of_ten * factor for factor in _ROUND_FACTORS]
    # Ten times the power of ten is above the wanted step, so there is always one.
    step = next(step for step in steps if step >= wanted * _STEP_SLACK)
    # Without the slack, a bound that is a tick itself may get another one beyond it.
    first = math.floor(low / step + _TICK_SLACK)
    last = math.ceil(high / step - _TICK_SLACK)
    num_decimals = _TICK_DIGITS - math.floor(math.log10(step))
    return [round(index * step, num_decimals) for index in range(first, last + 1)]


def _fitted_ticks(low: float, high: float) -> list[float]:
    """Return round numbers that enclose values, and are never all the same."""
    largest = max(abs(low), abs(high))
    if largest < _SMALLEST:
        return _ticks(0.0, 1.0)
    if high - low < _FLAT_SHARE * largest:
        low -= _FLAT_MARGIN * largest
        high += _FLAT_MARGIN * largest
    return _ticks(low, high)


def short_number(value: float, num_digits: int = _READING_DIGITS) -> str:
    """Return a number in few characters, with a minus sign and no hyphen.

    >>> short_number(0.00025)
    '2.5e−4'
    """
    low, high = _DECIMAL_RANGE
    if value == 0 or low <= abs(value) < high:
        # All digits before the point, also where they are more than asked for.
        is_long = abs(value) >= 10 ** (num_digits - 1)
        text = f"{value:,.0f}" if is_long else f"{value:.{num_digits}g}"
        return text.replace("-", "−")
    mantissa, exponent = f"{value:.{num_digits - 1}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}".replace("-", "−")


def share_text(value: float) -> str:
    """Return a share in per cent, with one decimal."""
    return f"{100 * value:.1f}%".replace("-", "−")


def _percent(value: float) -> str:
    """Return a share in whole per cent, with a minus sign and no hyphen."""
    return f"{100 * value:.0f}%".replace("-", "−")


def _text(text: str) -> str:
    """Return a text as markup that shows it, whatever it holds."""
    return escape(escape_terminal(text))
