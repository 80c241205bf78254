"""Small charts as inline SVG, coloured by the page: series `s0`, `s1`, … differ in
colour and in dash.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from aipo_env import escape_terminal

NUM_STYLES = 7
WIDTH, HEIGHT = 440, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 14, 10, 42
_MAX_POINTS = 400
_LEAST = 1e-6
"""An axis of values that are all smaller goes up to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line: its name, its style (a number), its points, and a band `low` to `high`
    where known.
    """

    name: str
    style: int
    xs: Sequence[float]
    ys: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


def smoothed(series: Series) -> Series:
    """Return the centred moving mean over about a fifteenth of the series."""
    reach = len(series.ys) // 30
    windows = [
        series.ys[max(0, i - reach) : i + reach + 1] for i in range(len(series.ys))
    ]
    means = [sum(window) / len(window) for window in windows]
    return Series(name=series.name, style=series.style, xs=series.xs, ys=means)


def line_chart(
    lines: Sequence[Series],
    *,
    label: str,
    x_label: str,
    faint: Sequence[Series] = (),
    share: bool = True,
    log2_x: bool = False,
) -> str:
    """Return an SVG of lines over x.

    Args:
        label: What the chart shows, for readers who cannot see it.
        faint: Lines behind the others, such as values before smoothing.
        share: y is a share, shown in per cent up to 100; else any number.
        log2_x: x is a power of two each, on a logarithmic axis; points are marked.
    """
    xs = [x for line in lines for x in line.xs]
    ys = [
        y
        for line in (*lines, *faint)
        for part in (line.ys, line.low, line.high)
        for y in part
    ]
    # An axis of next to nothing has no ticks to tell apart.
    top = max(ys) if max(ys) > _LEAST else 1.0
    y_ticks = _ticks(min(0.0, *ys), 1.0 if share else top)
    x_ticks = sorted(set(xs)) if log2_x else _ticks(0, max(xs))
    plot = _Plot((x_ticks[0], max(xs)), (y_ticks[0], y_ticks[-1]), log2_x)
    parts = [
        plot.row(tick, _percent(tick) if share else f"{tick:g}") for tick in y_ticks
    ]
    parts += [plot.column(tick, f"{tick:,.0f}") for tick in x_ticks if tick <= max(xs)]
    parts += [
        f'<text class="axis" x="{(_LEFT + WIDTH - _RIGHT) / 2:.0f}"'
        f' y="{HEIGHT - 5}">{x_label}</text>'
    ]
    parts += [plot.band(line) for line in lines if line.low]
    parts += [plot.path(line, "faint") for line in faint]
    parts += [plot.path(line, "line") for line in lines]
    parts += [plot.marks(line) for line in lines if log2_x]
    return (
        f'<svg role="img" aria-label="{_text(label)}" viewBox="0 0 {WIDTH}'
        f' {HEIGHT}">{"".join(parts)}</svg>'
    )


def legend_key(style: int) -> str:
    """Return a small SVG that shows a line's colour and dash."""
    line = f'<line class="line s{style % NUM_STYLES}" x1="1" x2="29" y1="5" y2="5"/>'
    return f'<svg class="key" aria-hidden="true" viewBox="0 0 30 10">{line}</svg>'


@dataclass(frozen=True, slots=True)
class _Plot:
    """Where data stand in the picture."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    log2_x: bool

    def x(self, value: float) -> float:
        low, high, at = (
            math.log2(x) if self.log2_x else x for x in (*self.x_range, value)
        )
        return _LEFT + (at - low) / ((high - low) or 1) * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return (
            HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)
        )

    def row(self, tick: float, text: str) -> str:
        y, kind = self.y(tick), "grid zero" if tick == 0 else "grid"
        grid = (
            f'<line class="{kind}" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}"'
            f' y2="{y:.1f}"/>'
        )
        return (
            f'{grid}<text class="value" x="{_LEFT - 8}" y="{y + 4:.1f}">{text}</text>'
        )

    def column(self, tick: float, text: str) -> str:
        return (
            f'<text class="axis" x="{self.x(tick):.1f}"'
            f' y="{HEIGHT - _BOTTOM + 18}">{text}</text>'
        )

    def path(self, line: Series, kind: str) -> str:
        stride = -(-len(line.xs) // _MAX_POINTS)
        points = self._points(line.xs[::stride], line.ys[::stride])
        return (
            f'<polyline class="{kind} s{line.style % NUM_STYLES}" points="{points}"/>'
        )

    def band(self, line: Series) -> str:
        around = self._points(
            [*line.xs, *reversed(line.xs)], [*line.high, *reversed(line.low)]
        )
        return f'<polygon class="band s{line.style % NUM_STYLES}" points="{around}"/>'

    def marks(self, line: Series) -> str:
        return "".join(
            f'<circle class="dot s{line.style % NUM_STYLES}" cx="{self.x(x):.1f}"'
            f' cy="{self.y(y):.1f}" r="3"><title>{_text(line.name)}: {100 * y:.1f}% at'
            f" {x:g}</title></circle>"
            for x, y in zip(line.xs, line.ys, strict=True)
        )

    def _points(self, xs: Sequence[float], ys: Sequence[float]) -> str:
        return " ".join(
            f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in zip(xs, ys, strict=True)
        )


def _ticks(low: float, high: float) -> list[float]:
    """Return four to seven round numbers that enclose `low` and, but for one step,
    `high`.
    """
    raw = max(high - low, 1e-9) / 4
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(
        scale * factor for factor in (1, 2, 2.5, 5, 10) if scale * factor >= raw * 0.99
    )
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def _percent(value: float) -> str:
    return f"{100 * value:.0f}%".replace("-", "−")


def _text(text: str) -> str:
    return escape(escape_terminal(text))
