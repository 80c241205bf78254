"""Writes docs/evidence.md from rows alone: `make evidence-report`.

Every sentence names the rows behind it. Rows that do not fit are named, and are in no
number.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.arms import START, Table, find_table, table_names
from experiments.results import RESULTS, Results, read_results
from experiments.statistics import Difference, difference, pass_at, retention, spread

PAGE = Path(__file__).parents[1] / "docs" / "evidence.md"
_CONTENTS = Path(__file__).parent / "evidence_head.md"
"""What stands before the tables."""


def write_page(page: Path = PAGE, results: Path = RESULTS) -> None:
    """Write the page."""
    parts = [_CONTENTS.read_text(encoding="utf-8").strip()]
    tables = [find_table(name) for name in table_names()]
    found = {table.name: read_results(table, results) for table in tables}
    parts += refutations(tables, found)
    for table in tables:
        parts += table_section(table, found[table.name])
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def refutations(tables: Sequence[Table], found: dict[str, Results]) -> Iterator[str]:
    """Yield what would refute the method, each with what the rows say of it."""
    yield "## What would refute it"
    questions = (
        ("Is `masked` as good?", "masked"),
        (
            "Is `on_policy` as good, which imitates plainly whatever helped?",
            "on_policy",
        ),
    )
    ours = ("aipo", "floored_03")
    for question, rival in questions:
        lines = [
            line
            for table in tables
            for method in ours
            if method in table.methods and rival in table.methods
            for line in _comparisons(table, found[table.name], method, rival)
        ]
        answer = "\n".join(lines) or "- no rows yet"
        yield f"**{question}**\n\n{answer}"


def _comparisons(
    table: Table, results: Results, method: str, rival: str
) -> Iterator[str]:
    """Yield a line per world in which both methods have rows of the same seeds."""
    for world in table.worlds:
        seeds = _common_seeds(table, results, world, (method, rival))
        if not seeds:
            continue
        gap = _difference(results, world, method, rival, seeds)
        rows = ", ".join(map(str, seeds))
        yield (
            f"- {world}: `{method}` is {_signed(gap)} against `{rival}`, alone"
            f" (table {table.name}, seeds {rows})."
        )


def table_section(table: Table, results: Results) -> Iterator[str]:
    """Yield a table's section: the numbers of each world, and what is missing."""
    yield f"## {table.name.capitalize()}\n\n{table.question}"
    for world in table.worlds:
        section = "\n".join(_world_table(table, results, world))
        if section:
            yield section
    missing = [arm for arm in table.arms() if arm.key not in results.rows]
    if missing:
        yield f"{len(missing)} of {len(table.arms())} arms have no row yet."
    if results.faults:
        faults = "\n".join(f"- {fault}" for fault in results.faults)
        yield f"Lines that are in no number:\n\n{faults}"


def _world_table(table: Table, results: Results, world: str) -> Iterator[str]:
    most = table.measure.samples
    head = (
        *("method", "alone", f"against `{table.against}`", f"pass@{most} alone"),
        *("aided", "retained", "KL from start", "entropy", "agents' tokens", "seeds"),
    )
    rows = list(_method_rows(table, results, world))
    if not rows:
        return
    yield f"### {world}\n"
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _method_rows(
    table: Table, results: Results, world: str
) -> Iterator[tuple[str, ...]]:
    for method in (START, *table.methods):
        seeds = _common_seeds(table, results, world, (method,))
        if not seeds:
            continue
        rows = [results.rows[world, method, seed].values for seed in seeds]
        alone = spread([_share(row["alone"]) for row in rows])
        most = [
            float(pass_at(row["alone"], table.measure.samples).mean()) for row in rows
        ]
        aided = spread([_share(row["aided"]) for row in rows])
        drifts = [row["drift"] for row in rows]
        yield (
            f"`{method}`",
            f"{alone.mean:.3f} ({alone.low:.3f} – {alone.high:.3f})",
            _against(table, results, world, method),
            f"{spread(most).mean:.3f}",
            f"{aided.mean:.3f}",
            _retained(results, world, method, seeds),
            f"{spread([drift['kl_start'] for drift in drifts]).mean:.2f}",
            f"{spread([drift['entropy'] for drift in drifts]).mean:.2f}",
            f"{spread([row['agent_tokens'] for row in rows]).mean:,.0f}",
            str(len(seeds)),
        )


def _against(table: Table, results: Results, world: str, method: str) -> str:
    if method == table.against:
        return ""
    seeds = _common_seeds(table, results, world, (method, table.against))
    if not seeds:
        return "–"
    return _signed(_difference(results, world, method, table.against, seeds))


def _difference(
    results: Results, world: str, one: str, other: str, seeds: Sequence[int]
) -> Difference:
    columns = [
        [
            pass_at(results.rows[world, method, seed].values["alone"], 1)
            for seed in seeds
        ]
        for method in (one, other)
    ]
    return difference(*columns)


def _retained(results: Results, world: str, method: str, seeds: Sequence[int]) -> str:
    """Return success on what the starting policy solved, "–" where that is nothing."""
    kept: list[float] = []
    for seed in seeds:
        row = results.rows[world, method, seed].values
        start = results.rows.get((world, START, seed))
        if "retained" in row:
            kept.append(_share(row["retained"]))
        elif start is not None:
            share = retention(start.values["alone"], row["alone"])
            kept += [] if share is None else [share]
    return f"{spread(kept).mean:.3f}" if kept else "–"


def _common_seeds(
    table: Table, results: Results, world: str, methods: Sequence[str]
) -> list[int]:
    return [
        seed
        for seed in table.seeds
        if all((world, method, seed) in results.rows for method in methods)
    ]


def _share(column: dict[str, Any]) -> float:
    """Return the share of all samples that were right."""
    return float(pass_at(column, 1).mean())


def _signed(gap: Difference) -> str:
    return f"{gap.mean:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"


if __name__ == "__main__":
    write_page()
