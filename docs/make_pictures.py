"""Draw the pictures of README and docs/architecture.md.

python docs/make_pictures.py            # architecture.svg
python docs/make_pictures.py runs/demo  # learning_curves.svg too, from a demo's folder
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

DOCS = Path(__file__).parent
COLOURS = """
svg { --soft: #59626b; --line: #dfddd7; --card: #ffffff; --ink: #1f252b;
  --env: #e3eef6; --learner: #f8e9dc; --help: #e1f1e9;
  --s0: #0069a8; --s1: #c2540a; --s2: #2a8060; }
@media (prefers-color-scheme: dark) { svg { --soft: #a3acb5; --line: #30363d;
  --card: #1b1f24; --ink: #e7e5e0; --env: #17303f; --learner: #3d2a1a; --help: #17382a;
  --s0: #62b5ee; --s1: #f0945a; --s2: #5cc79c; } }
text { font-family: system-ui, sans-serif; font-size: 12px; fill: var(--soft); }
.back { fill: var(--card); }
"""
CURVES = """
.s0 { --series: var(--s0); } .s1 { --series: var(--s1); --dash: 7 3; }
.s2 { --series: var(--s2); --dash: 2 3; }
.axis { text-anchor: middle; } .value { text-anchor: end; }
.title { font-size: 14px; fill: var(--ink); }
.grid { stroke: var(--line); } .grid.zero { stroke: var(--soft); }
.line, .faint { fill: none; stroke: var(--series); stroke-linejoin: round; }
.line { stroke-width: 2.25; stroke-dasharray: var(--dash, none); }
.faint { stroke-width: 1; opacity: .35; }
"""
BOXES = """
.env { fill: var(--env); } .learner { fill: var(--learner); }
.help { fill: var(--help); }
.name { font-size: 14px; fill: var(--ink); } .edge { stroke: var(--soft); fill: none; }
.middle { text-anchor: middle; }
"""
CHART_WIDTH, CHART_HEIGHT = 440, 250
"""Of each chart, as the report draws it."""
CHART_LEFT = 46
"""Where its lines begin; titles and the legend begin there too."""
CHARTS_TOP = 30
"""Above the charts, there are their titles."""
LEGEND_COLUMN = 150
"""Width of an arm's part of the legend."""
LEGEND_TOP = 290
KEY_WIDTH, KEY_HEIGHT = 30, 10
"""Of the piece of line that stands for an arm in the legend."""
CURVES_HEIGHT = 310
"""Of the picture: titles, charts, legend."""


def learning_curves(folder: Path) -> str:
    """Return success alone and with agents over the rollouts of a demo's three arms."""
    from aipo_learner.reporting.arms import read_arms
    from aipo_learner.reporting.charts import legend_key, line_chart, smoothed

    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    arms = list(read_arms(folder, summary))
    parts: list[str] = []
    titles = {
        "success/unaided": "Success alone, in training",
        "success/aided": "Success with agents, in training",
    }
    for column, (metric, title) in enumerate(titles.items()):
        curves = [arm.curve(metric) for arm in arms]
        lines = [curve for curve in curves if curve is not None]
        chart = line_chart(
            [smoothed(line) for line in lines],
            label=title,
            x_label="rollouts",
            faint=lines,
        )
        left = column * CHART_WIDTH
        title_left = left + CHART_LEFT
        placed = sized(chart, CHART_WIDTH, CHART_HEIGHT)
        parts.append(f'<text class="title" x="{title_left}" y="20">{title}</text>')
        parts.append(f'<g transform="translate({left} {CHARTS_TOP})">{placed}</g>')
    for number, arm in enumerate(arms):
        left = CHART_LEFT + number * LEGEND_COLUMN
        key = sized(legend_key(arm.style), KEY_WIDTH, KEY_HEIGHT)
        text_left = left + KEY_WIDTH + 8
        parts.append(f'<g transform="translate({left} {LEGEND_TOP})">{key}</g>')
        parts.append(
            f'<text x="{text_left}" y="{LEGEND_TOP + 9}">{escape(arm.title)}</text>'
        )
    return picture(len(titles) * CHART_WIDTH, CURVES_HEIGHT, CURVES, parts)


def sized(svg: str, width: int, height: int) -> str:
    """Return an SVG with a size in pixels; without, it fills the place it has."""
    return svg.replace("<svg ", f'<svg width="{width}" height="{height}" ', 1)


@dataclass(frozen=True)
class Box:
    """A part of the project.

    Args:
        kind: Which side it belongs to: env, learner or help.
        column: Where it stands, from the left.
        row: From above.
        name: Of its file or class.
        says: What it is.
    """

    kind: str
    column: int
    row: int
    name: str
    says: str

    @property
    def middle(self) -> tuple[int, int]:
        """The middle of the box, in pixels."""
        x = FIRST_MIDDLE[0] + self.column * COLUMN_WIDTH
        y = FIRST_MIDDLE[1] + self.row * ROW_HEIGHT
        return x, y


TASK = Box("env", 0, 0, "tasks/", "problem and gold answer")
DIALOGUE = Box("env", 1, 0, "Dialogue", "the rules of an episode")
VOICE = Box("learner", 2, 0, "samplers/", "the policy writes a turn")
AGENTS = Box("help", 0, 1, "agents/", "verify, knowledge, reason")
CODECS = Box("env", 1, 1, "codecs/", "a call, or an answer?")
TOOLS = Box("env", 0, 2, "tools/", "functions of the world")
VERIFIERS = Box("env", 1, 2, "verifiers/", "answer → verdict")
EPISODE = Box("env", 1, 3, "Episode", "every token with its author")
ADVANTAGES = Box("learner", 2, 3, "learn/advantages", "a group → numbers")
OBJECTIVE = Box("learner", 2, 2, "learn/objective", "the AIPO loss")
UPDATE = Box("learner", 2, 1, "learn/update", "an optimiser step")
ARROWS = (
    (TASK, DIALOGUE, "prompt"),
    (DIALOGUE, VOICE, "messages"),
    (VOICE, CODECS, "text, ids"),
    (CODECS, AGENTS, "consult"),
    (CODECS, TOOLS, "call"),
    (AGENTS, DIALOGUE, "reply"),
    (CODECS, VERIFIERS, "answer"),
    (VERIFIERS, EPISODE, "reward"),
    (EPISODE, ADVANTAGES, "groups"),
    (ADVANTAGES, OBJECTIVE, "rows"),
    (OBJECTIVE, UPDATE, "gradient"),
    (UPDATE, VOICE, "weights"),
)
BOX_WIDTH, BOX_HEIGHT = 176, 52
FIRST_MIDDLE = (110, 50)
"""Middle of the box in the first column and row."""
COLUMN_WIDTH, ROW_HEIGHT = 255, 92
"""From one box's middle to the next one's; arrows and their labels fit between."""
ARCHITECTURE_SIZE = (730, 376)
"""Of the picture: three columns and four rows."""


def architecture() -> str:
    """Return the flow of an episode and of a step, with the rooms that do it."""
    marker = (
        '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4"'
        ' orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#808890"/></marker></defs>'
    )
    boxes: set[Box] = set()
    parts = [marker]
    for start, end, label in ARROWS:
        boxes.update((start, end))
        parts += arrow(start, end, label)
    # In an order of their own, since that of a set differs from run to run.
    for box in sorted(boxes, key=lambda box: (box.row, box.column)):
        parts += drawn(box)
    width, height = ARCHITECTURE_SIZE
    return picture(width, height, BOXES, parts)


def arrow(start: Box, end: Box, label: str) -> Iterator[str]:
    """Yield a line from the edge of one box to that of another, with its label."""
    start_x, start_y = start.middle
    end_x, end_y = end.middle
    across = end_x - start_x
    down = end_y - start_y
    # The share of the line, from middle to middle, that runs within a box: it leaves
    # the box by the nearer of its sides.
    share_to_side = BOX_WIDTH / 2 / abs(across) if across else 1.0
    share_to_edge = BOX_HEIGHT / 2 / abs(down) if down else 1.0
    inside = min(share_to_side, share_to_edge)
    x1 = start_x + across * inside
    x2 = end_x - across * inside
    y1 = start_y + down * inside
    y2 = end_y - down * inside
    yield (
        f'<line class="edge" x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}"'
        ' marker-end="url(#tip)"/>'
    )
    x = (x1 + x2) / 2
    y = (y1 + y2) / 2
    # Above a level line, beside any other.
    is_level = down == 0
    if is_level:
        yield f'<text class="middle" x="{x:.0f}" y="{y - 6:.0f}">{label}</text>'
    else:
        yield f'<text x="{x + 6:.0f}" y="{y + 4:.0f}">{label}</text>'


def drawn(box: Box) -> Iterator[str]:
    """Yield a box with its name and what it is."""
    x, y = box.middle
    left = x - BOX_WIDTH // 2
    top = y - BOX_HEIGHT // 2
    yield (
        f'<rect class="{box.kind}" x="{left}" y="{top}" width="{BOX_WIDTH}"'
        f' height="{BOX_HEIGHT}" rx="8"/>'
    )
    yield f'<text class="name middle" x="{x}" y="{y - 4}">{escape(box.name)}</text>'
    yield f'<text class="middle" x="{x}" y="{y + 14}">{escape(box.says)}</text>'


def picture(width: int, height: int, style: str, parts: Sequence[str]) -> str:
    """Return an SVG for itself, light or dark as its reader's screen is."""
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        f' width="{width}" height="{height}">\n<style>{COLOURS}{style}</style>\n'
        f'<rect class="back" width="100%" height="100%" rx="10"/>\n{body}\n</svg>\n'
    )


def main() -> None:
    """Write what can be drawn."""
    (DOCS / "architecture.svg").write_text(architecture(), encoding="utf-8")
    for folder in map(Path, sys.argv[1:]):
        curves = learning_curves(folder)
        (DOCS / "learning_curves.svg").write_text(curves, encoding="utf-8")


if __name__ == "__main__":
    main()
