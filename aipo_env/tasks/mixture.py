"""Several sources as one, each with its share of what is trained on.

gsm8k + file:mine.jsonl
0.7*file:mine.jsonl,prompt=question + 0.3*gsm8k
{"type": "mix", "sources": {"file:mine.jsonl": 0.7, "gsm8k": 0.3}}
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aipo_env.errors import ConfigError, shown
from aipo_env.records import Split, Task
from aipo_env.registry import FIRST, Spec, parse_spec
from aipo_env.tasks.base import TaskSource, TaskTable, build_source, readings_per_epoch
from aipo_env.tasks.spellings import source_spec

_SPLITS: tuple[Split, ...] = ("train", "test")


@dataclass(frozen=True)
class _Member:
    """One source of a mixture; its tasks have their names within the mixture."""

    name: str
    weight: float | None
    tasks: Mapping[Split, Sequence[Task]]
    skipped: Mapping[str, int]
    default_agents: Spec
    is_checked: bool


def mix(sources: Mapping[str, float] | Sequence[Spec], seed: int = 0) -> TaskTable:
    """Return the tasks of several sources as those of one.

    Without weights an epoch has every training task once. With weights each source has
    its share of every epoch, and the smaller ones are read round and round: an epoch is
    as long as it takes to read every task of every source at least once. Held-out tasks
    are there once each, whatever the weights.

    A task is called by its source's name and its own, and its `source` is that name,
    by which metrics tell the sources apart.

    Args:
        sources: Weights by spec, or specs alone; what JSON writes as an object or a
            list.
        seed: Handed on to the sources.

    Raises:
        ConfigError: A weight is not positive, a source is endless or stands twice, or
            weights differ so much that an epoch would never end.
        DataError: A source cannot be read.
    """
    weights = _weights(sources)
    members: list[_Member] = []
    names: set[str] = set()
    for spec, weight in weights:
        name = _free_name(_short_name(spec), names)
        names.add(name)
        members.append(_member(name, build_source(spec, seed), weight))
    table = TaskTable(
        name=" + ".join(member.name for member in members),
        tasks={split: _joined(members, split) for split in _SPLITS},
        skipped=_all_skipped(members),
        default_agents=_common_agents(members),
        is_checked=all(member.is_checked for member in members),
        weights={
            member.name: member.weight
            for member in members
            if member.weight is not None
        },
    )
    if table.weights:
        # Weights that do not fit are told of now, and not at the first task.
        readings_per_epoch(table)
    return table


def _all_skipped(members: Sequence[_Member]) -> dict[str, int]:
    """Return what all members left out, by member and reason."""
    return {
        f"{member.name}: {reason}": count
        for member in members
        for reason, count in member.skipped.items()
    }


def _common_agents(members: Sequence[_Member]) -> Spec:
    """Return who is consulted about the tasks of every member, or nobody."""
    first, *others = [member.default_agents for member in members]
    return first if all(agents == first for agents in others) else "none"


def _joined(members: Sequence[_Member], split: Split) -> list[Task]:
    return [task for member in members for task in member.tasks[split]]


def _weights(
    sources: Mapping[str, float] | Sequence[Spec],
) -> list[tuple[Spec, float | None]]:
    """Return the sources with their weights, or with none."""
    given: Any = sources
    if isinstance(given, list | tuple) and len(given) > 1:
        return [(spec, None) for spec in given]
    if not isinstance(given, Mapping) or len(given) < 2:
        raise ConfigError(
            f"task 'mix': sources={shown(given)} must be an object of weights by"
            ' source, as in {"gsm8k": 0.3, "file:mine.jsonl": 0.7}, or a list of'
            " sources, two or more."
        )
    for spec, weight in given.items():
        is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not is_number or not 0 < weight < math.inf:
            raise ConfigError(
                f"task 'mix': the weight {shown(weight)} of {spec!r} must be a positive"
                " number."
            )
    return list(given.items())


def _member(name: str, source: TaskSource, weight: float | None) -> _Member:
    """Return a source as a member; raise ConfigError where it is endless."""
    if getattr(source, "weights", None):
        raise ConfigError(
            f"task 'mix': {name!r} is a mixture with weights itself. Name its sources"
            " beside the others."
        )
    tasks: dict[Split, Sequence[Task]] = {}
    for split in _SPLITS:
        size = source.num_tasks(split)
        if size is None:
            raise ConfigError(
                f"task 'mix': {name!r} is endless, and only sources of a known size are"
                " mixed. Write some of its tasks into a file."
            )
        tasks[split] = [
            _renamed(source.task(split, index), name) for index in range(size)
        ]
    # Any source may have these attributes, and none must.
    return _Member(
        name=name,
        weight=weight,
        tasks=tasks,
        skipped=getattr(source, "skipped", {}),
        default_agents=getattr(source, "default_agents", "none"),
        is_checked=getattr(source, "is_checked", False),
    )


def _renamed(task: Task, source: str) -> Task:
    return replace(task, id=f"{source}/{task.id}", source=source)


def _short_name(spec: Spec) -> str:
    """Return what a source is called: "gsm8k", "mine.jsonl"."""
    name, options = parse_spec(source_spec(spec), "task")
    first = options.get(FIRST) or options.get("path") or options.get("name") or name
    return str(first).rstrip("/").rpartition("/")[2] or name


def _free_name(name: str, taken: set[str]) -> str:
    """Return a name, with a number where it is taken."""
    free = name
    number = 2
    while free in taken:
        free = f"{name}-{number}"
        number += 1
    return free
