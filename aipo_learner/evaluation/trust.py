"""What a run's folder may name without being asked for: it may be somebody else's.

`aipo eval` measures a policy in the world that its folder's `config.json` names. That
file is data from outside: unless its reader trusts it, nothing that it names imports
code, starts a program, or asks anybody over the network.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aipo_env import (
    ConfigError,
    Environment,
    find_dataset,
    parse_spec,
    source_spec,
)

_HARMLESS_AGENTS = ("none", "scripted", "notes")
_HARMLESS_VERIFIERS = ("auto", "math", "choice")
_HARMLESS_CODECS = ("tags", "hermes", "openai", "macro")
_HARMLESS_WORLDS = ("toy",)
"""Ours, without parts that the folder chooses. Whatever is in none of these lists needs
trust: a new part is not harmless until somebody has seen that it is.
"""
_FIRST = ""
"""Under this name `parse_spec` returns a spec's first option where it has no name."""
_DATASET_OPTIONS = {_FIRST, "limit", "split"}
"""Options that do no more than choose among the rows of a data set."""
_FILE_OPTIONS = {_FIRST, "path", "prompt", "answer", "id", "split", "test", "limit"}
"""Options that do no more than choose among the rows and columns of a file."""
_OWN_ID = re.compile(r"AIPO-[\w-]+")
"""Ids that we register; one with a colon or a namespace imports a package."""


def check_trusted(environment: Environment, path: Path) -> None:
    """Check that an environment holds only what is harmless.

    Args:
        environment: As a run's folder describes it.
        path: The file that does, for the message.

    Raises:
        ConfigError: It names more, or what it names is no spec.
    """
    foreign = _foreign_parts(environment)
    if foreign:
        raise ConfigError(
            f"eval: {path} names {foreign[0]!r}, which is code of its own, or asks"
            " somebody. If it is your own run, or you have read that, add --trust-run;"
            " otherwise name another environment: --environment ID."
        )


def _foreign_parts(environment: Environment) -> list[Any]:
    """Return whatever an environment names that is not known to be harmless."""
    row = environment.to_dict()
    foreign: list[Any] = []
    for agent in _agent_specs(row.get("agents", "none")):
        if not _is_plain(agent, _HARMLESS_AGENTS):
            foreign.append(agent)
    source = row.get("source", "toy")
    if not _is_harmless_source(source):
        foreign.append(source)
    if row.get("verifier", "auto") not in _HARMLESS_VERIFIERS:
        foreign.append(row["verifier"])
    if row.get("codec", "tags") not in _HARMLESS_CODECS:
        foreign.append(row["codec"])
    # A tool is always code of somebody's.
    foreign += row.get("tools", [])
    if environment.id and not _OWN_ID.fullmatch(environment.id):
        foreign.append(environment.id)
    return foreign


def _agent_specs(agents: Any) -> list[Any]:
    """Return the specs in `agents`, which is one of them, or an object by role."""
    is_by_role = isinstance(agents, Mapping) and "type" not in agents
    return list(agents.values()) if is_by_role else [agents]


def _is_harmless_source(spec: Any, *, is_within: bool = False) -> bool:
    """Return whether a source is ours, a file, or a data set that we know by name."""
    # A known data set may be named without "hf:", as on the command line.
    kind, options = parse_spec(source_spec(spec), "run")
    # One within another would have to be followed to any depth.
    if kind == "mix" and not is_within:
        sources = options.get("sources")
        if not isinstance(sources, Mapping | list) or len(options) > 1:
            return False
        return all(_is_harmless_source(source, is_within=True) for source in sources)
    if kind == "hf":
        # Others are somebody's to choose, and would be fetched with the user's own key.
        dataset = str(options.get(_FIRST, ""))
        is_known = find_dataset(dataset) is not None
        return is_known and options.keys() <= _DATASET_OPTIONS
    if kind == "file":
        return options.keys() <= _FILE_OPTIONS
    if kind == "shipped":
        return options.keys() == {_FIRST}
    return _is_plain(source_spec(spec), _HARMLESS_WORLDS)


def _is_plain(spec: Any, harmless: Sequence[str]) -> bool:
    """Return whether a spec names something harmless, with plain values for options."""
    kind, options = parse_spec(spec, "run")
    # An object may be a spec within, which names something itself.
    are_plain = all(
        isinstance(value, int | float | str | list) for value in options.values()
    )
    return kind in harmless and are_plain
