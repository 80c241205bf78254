"""Small charts as inline SVG, coloured by the page: series `s0`, `s1`, … differ in colour and in dash."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from aipo_env import escape_terminal

WIDTH, HEIGHT = 440, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 14, 10, 42
_MAX_POINTS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line: its name, its style (a number), its points, and a band `low` to `high` where known."""

    name: str
    style: int
    xs: Sequence[float]
    ys: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One line of a change chart: from `before`, where known, to `after`."""

    name: str
    style: int
    before: float | None
    after: float


def smoothed(series: Series) -> Series:
    """Return the centred moving mean over a fifteenth of the series."""
    reach = len(series.ys) // 30
    windows = [series.ys[max(0, i - reach) : i + reach + 1] for i in range(len(series.ys))]
    means = [sum(window) / len(window) for window in windows]
    return Series(name=series.name, style=series.style, xs=series.xs, ys=means)


def line_chart(
    lines: Sequence[Series], *, label: str, x_label: str, faint: Sequence[Series] = (), log2_x: bool = False
) -> str:
    """Return an SVG of lines over x; y is a share, or any number if a value exceeds 1.

    Args:
        label: What the chart shows, for readers who cannot see it.
        faint: Lines behind the others, such as values before smoothing.
        log2_x: x is a power of two each, on a logarithmic axis; points are marked.
    """
    xs = [x for line in lines for x in line.xs]
    ys = [y for line in (*lines, *faint) for part in (line.ys, line.low, line.high) for y in part]
    y_low, y_high = (_floor(min(ys)), 1.0) if max(ys) <= 1 else (_floor(min(ys)), max(ys) * 1.05)
    y_ticks = _ticks(y_low, y_high)
    x_ticks = sorted(set(xs)) if log2_x else _ticks(min(xs), max(xs))
    x_range = (min(xs), max(max(xs), min(xs) + 1))
    plot = _Plot(x_range, (min(y_low, y_ticks[0]), max(y_high, y_ticks[-1])), log2_x)
    parts = [plot.row(tick, _share(tick) if max(ys) <= 1 else f"{tick:g}") for tick in y_ticks]
    parts += [plot.column(tick, f"{tick:,.0f}") for tick in x_ticks]
    parts += [f'<text class="axis" x="{plot.x_mid:.0f}" y="{HEIGHT - 4}">{_text(x_label)}</text>']
    parts += [plot.band(line) for line in lines if line.low]
    parts += [plot.path(line, "faint") for line in faint]
    parts += [plot.path(line, "line") for line in lines]
    parts += [plot.marks(line) for line in lines if log2_x]
    return _svg(label, HEIGHT, parts)


def change_chart(groups: Sequence[tuple[str, Sequence[Change]]], *, label: str) -> str:
    """Return an SVG of shares before (ring) and after (dot), one row per change, under group headings."""
    left, pitch, parts, y = 92, 21, [], 4
    wide = WIDTH - left - 58

    def x(share: float) -> float:
        return left + wide * min(1.0, max(0.0, share))

    height = sum(24 + pitch * len(changes) for _, changes in groups) + 28
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="4" y2="{height - 22}"/>')
        parts.append(f'<text class="axis" x="{x(tick):.1f}" y="{height - 6}">{_share(tick)}</text>')
    for heading, changes in groups:
        y += 16
        parts.append(f'<text class="heading" x="0" y="{y}">{_text(heading)}</text>')
        for change in changes:
            y += pitch
            start = change.after if change.before is None else change.before
            middle, kind = y - 4, f"s{change.style % 6}"
            parts.append(f'<text class="name" x="{left - 10}" y="{y}">{_text(change.name)}</text>')
            ends = f'x1="{x(start):.1f}" x2="{x(change.after):.1f}"'
            parts.append(f'<line class="line {kind}" {ends} y1="{middle}" y2="{middle}"/>')
            if change.before is not None:
                parts.append(f'<circle class="ring {kind}" cx="{x(start):.1f}" cy="{middle}" r="4"/>')
            parts.append(f'<circle class="dot {kind}" cx="{x(change.after):.1f}" cy="{middle}" r="5"/>')
            parts.append(f'<text class="value" x="{WIDTH - 2}" y="{y}">{100 * change.after:.1f}%</text>')
        y += 8
    return _svg(label, height, parts)


@dataclass(frozen=True, slots=True)
class _Plot:
    """Where data stand in the picture."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    log2_x: bool

    @property
    def x_mid(self) -> float:
        return (_LEFT + WIDTH - _RIGHT) / 2

    def x(self, value: float) -> float:
        low, high = (math.log2(x) if self.log2_x else x for x in self.x_range)
        place = ((math.log2(value) if self.log2_x else value) - low) / (high - low)
        return _LEFT + place * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return HEIGHT - _BOTTOM - (value - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    def row(self, tick: float, text: str) -> str:
        y, kind = self.y(tick), "grid zero" if tick == 0 else "grid"
        grid = f'<line class="{kind}" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        return f'{grid}<text class="value" x="{_LEFT - 7}" y="{y + 4:.1f}">{text}</text>'

    def column(self, tick: float, text: str) -> str:
        return f'<text class="axis" x="{self.x(tick):.1f}" y="{HEIGHT - _BOTTOM + 17}">{text}</text>'

    def path(self, line: Series, kind: str) -> str:
        stride = -(-len(line.xs) // _MAX_POINTS)
        points = self._points(line.xs[::stride], line.ys[::stride])
        return f'<polyline class="{kind} s{line.style % 6}" points="{points}"/>'

    def band(self, line: Series) -> str:
        around = self._points([*line.xs, *reversed(line.xs)], [*line.high, *reversed(line.low)])
        return f'<polygon class="band s{line.style % 6}" points="{around}"/>'

    def marks(self, line: Series) -> str:
        return "".join(
            f'<circle class="dot s{line.style % 6}" cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="3">'
            f"<title>{_text(line.name)}: {100 * y:.1f}% at {x:g}</title></circle>"
            for x, y in zip(line.xs, line.ys, strict=True)
        )

    def _points(self, xs: Sequence[float], ys: Sequence[float]) -> str:
        return " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in zip(xs, ys, strict=True))


def _ticks(low: float, high: float) -> list[float]:
    """Return four to six round numbers from `low` to `high`."""
    raw = max(high - low, 1e-9) / 4
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(scale * factor for factor in (1, 2, 2.5, 5, 10) if scale * factor >= raw * 0.99)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def _floor(value: float) -> float:
    """Return 0, or for negative values the quarter below."""
    return math.floor(min(0.0, value) * 4) / 4


def _share(value: float) -> str:
    return f"{100 * value:.0f}%".replace("-", "−")


def _text(text: str) -> str:
    return escape(escape_terminal(text))


def _svg(label: str, height: int, parts: Sequence[str]) -> str:
    return f'<svg role="img" aria-label="{_text(label)}" viewBox="0 0 {WIDTH} {height}">{"".join(parts)}</svg>'
