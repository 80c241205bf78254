"""Episodes in a file: ours exactly, those made elsewhere completed, and what is wrong
with a line.
"""

import itertools
import json
import re
import types
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from aipo_env.episode import Episode, TokenRecord
from aipo_env.errors import DataError, message_of, shown, suggest
from aipo_env.files import bounded_lines, check_line
from aipo_env.records import Author

MAX_FAULTS = 50
"""More faults of a line are not told."""
MAX_UNKNOWN = 5
"""Nor are more fields that do not exist."""
_hints = cache(get_type_hints)
_MAY_LACK = ("aided", "turns", "consults", "tokens", "verdict", "reward", "stop_reason")
_KINDS: dict[Any, tuple[set[type], str]] = {
    str: ({str}, "text"),
    bool: ({bool}, "true or false"),
    int: ({int}, "a whole number of 32 bits"),
    float: ({int, float}, "a number below 2^31"),
    float | None: ({int, float, type(None)}, "a number below 2^31 or null"),
}
_COLUMNS: dict[str, tuple[set[type], float, float]] = {
    "token_ids": ({int}, 0, 2**31 - 1),
    "author": ({int}, 0, 5),
    "call_id": ({int}, -1, 2**31 - 1),
    "turn": ({int}, 0, 2**15 - 1),
    "behaviour_logprobs": ({float, int, type(None)}, -1e30, 1e-3),
    "is_content": ({bool}, False, True),
    "policy_version": ({int}, -1, 2**31 - 1),
}
"""The types of a token record's columns, and their least and greatest values."""


def read_episodes(path: Path) -> Iterator[Episode]:
    """Read episodes from a JSON-lines file: ours exactly as written, others completed
    as docs/episodes.md says.

    Raises:
        DataError: The file is missing, or a line is no episode; the message names file,
            line and fault.
    """
    for number, episode, faults in _lines(path):
        if episode is None:
            more = (
                f" `aipo lint {path}` lists all its faults." if len(faults) > 1 else ""
            )
            raise DataError(
                f"{path}, line {number}: not an episode: {faults[0]} Mend or delete"
                f" it.{more}"
            )
        yield episode


def lint_episodes(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield (line, "error" or "note", what is wrong or what training will assume); line
    0 is the whole file.

    Raises:
        DataError: There is no such file.
    """
    groups: dict[tuple[str, str], list[float | None]] = {}
    for number, episode, faults in _lines(path):
        yield from ((number, "error", fault) for fault in faults)
        if episode is not None:
            if episode.task.withheld and episode.task.prompt == episode.task.withheld:
                yield (
                    number,
                    "error",
                    "its text was withheld when it was written: nothing to learn from.",
                )
            yield from ((number, "note", note) for note in _assumptions(episode))
            groups.setdefault((episode.group_id, episode.task.id), []).append(
                episode.reward
            )
    for kind, count in sorted(Counter(map(_group_kind, groups.values())).items()):
        yield 0, "note", f"{count} of {len(groups)} groups {kind}."


def _lines(path: Path) -> Iterator[tuple[int, Episode | None, list[str]]]:
    """Yield the number of each line, its episode or None, and its faults."""
    if not path.is_file():
        raise DataError(
            f"{path}: no such file. Give a .jsonl file of episodes, as `aipo train`"
            " writes them."
        )
    with path.open("rb") as file:
        for number, line in enumerate(bounded_lines(file), 1):
            yield number, *_parse(line)


def _parse(line: bytes) -> tuple[Episode | None, list[str]]:
    try:
        check_line(line)
        row = json.loads(line, parse_constant=_refuse)
        if isinstance(row, dict):
            row = {**row, "messages": _messages(row.get("messages", []))}
        if faults := _some(_record(row, Episode, "")) or _some(_order(row)):
            return None, faults
        return Episode.from_dict(_complete(row)), []
    except (OverflowError, RecursionError, TypeError, ValueError) as error:
        return None, [f"{message_of(error).removesuffix('.')}."]


def _some(faults: Iterator[str]) -> list[str]:
    """Return the first of a line's faults: it may be nothing else."""
    some = list(islice(faults, MAX_FAULTS))
    if next(faults, None) is not None:
        some.append("and more.")
    return some


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON; write null for an unknown value")


def _messages(messages: Any) -> Any:
    """Return messages with spans: `{"role", "content"}` is a message of one span, and
    authors may be named.
    """
    if not isinstance(messages, list):
        return messages
    spanned, author = [], Author.PROMPT
    for message in messages:
        if isinstance(message, dict):
            is_turn = message.get("role") == "assistant"
            author = Author.ENV if is_turn else author
            whole = {
                "text": message.get("content"),
                "author": Author.POLICY if is_turn else author,
            }
            spans = message.get("spans", [whole])
            rest = {name: value for name, value in message.items() if name != "content"}
            message = {
                **rest,
                "spans": list(map(_span, spans)) if isinstance(spans, list) else spans,
            }
        spanned.append(message)
    return spanned


def _span(span: Any) -> Any:
    if not isinstance(span, dict):
        return span
    author = Author.__members__.get(str(span.get("author")).upper(), span.get("author"))
    return {"is_content": author == Author.AGENT, **span, "author": author}


def _record(row: Any, kind: Any, place: str) -> Iterator[str]:
    """Yield what is wrong with the JSON form of a record: unknown, missing and wrong
    fields.
    """
    if not isinstance(row, dict):
        yield f"{place or 'the line'} is {shown(row)}; an object is needed."
        return
    may_lack = _MAY_LACK if kind is Episode else ()
    hints, known = _hints(kind), {item.name: item for item in fields(kind) if item.repr}
    dot = f"{place}." if place else ""
    unknown = [name for name in row if name not in known]
    for name in unknown[:MAX_UNKNOWN]:
        yield f"{dot}{name[:80]}: no such field. {suggest(name[:80], known)}"
    if len(unknown) > MAX_UNKNOWN:
        yield f"{dot}…: {len(unknown) - MAX_UNKNOWN} more fields that do not exist."
    for name, item in known.items():
        if name not in row:
            if (
                name not in may_lack
                and item.default is MISSING
                and item.default_factory is MISSING
            ):
                yield f"{dot}{name} is missing."
        elif row[name] is not None or name not in may_lack:
            yield from _value(row[name], hints[name], dot + name)


def _value(value: Any, kind: Any, place: str) -> Iterator[str]:
    """Yield what is wrong with a value that should be of an annotated type."""
    origin, parts = get_origin(kind), get_args(kind)
    if kind is TokenRecord:
        yield from _tokens(value)
    elif origin in (tuple, Mapping):
        if not isinstance(value, list if origin is tuple else dict):
            yield (
                f"{place} is {shown(value)};"
                f" {'a list' if origin is tuple else 'an object'} is needed."
            )
            return
        items = enumerate(value) if isinstance(value, list) else value.items()
        for name, item in items:
            yield from _value(
                item,
                parts[-1] if origin is Mapping else parts[0],
                f"{place}[{shown(name)}]",
            )
    elif origin in (Union, types.UnionType) and kind not in _KINDS:
        if value is not None:
            yield from _value(value, parts[0], place)
    elif is_dataclass(kind):
        yield from _record(value, kind, place)
    elif origin is Literal or (isinstance(kind, type) and issubclass(kind, Enum)):
        valid = parts or tuple(member.value for member in kind)
        if isinstance(value, bool) or value not in valid:
            yield f"{place} is {shown(value)}. {suggest(str(value), map(str, valid))}"
    elif kind is Any:
        json.dumps(value, allow_nan=False)
    elif type(value) not in _KINDS[kind][0] or (
        isinstance(value, int | float) and not abs(value) < 2**31
    ):
        yield f"{place} is {shown(value)}; {_KINDS[kind][1]} is needed."


def _tokens(columns: Any) -> Iterator[str]:
    """Yield what is wrong with a token record."""
    if not isinstance(columns, dict) or not {"token_ids", "author"} <= columns.keys():
        yield (
            f"tokens is {shown(columns)}; an object with at least token_ids and author,"
            " or null, is needed."
        )
        return
    unknown = 0
    for name, column in columns.items():
        if name not in _COLUMNS:
            unknown += 1
            if unknown <= MAX_UNKNOWN:
                yield f"tokens.{name[:80]}: no such column. {suggest(name, _COLUMNS)}"
        elif not isinstance(column, list):
            yield f"tokens.{name} is {shown(column)}; a list is needed."
        else:
            kinds, low, high = _COLUMNS[name]
            for place, value in enumerate(column):
                if type(value) not in kinds or not (
                    value is None or low <= value <= high
                ):
                    null = " or null" if type(None) in kinds else ""
                    yield (
                        f"tokens.{name}[{place}] is {shown(value)}; {low} to"
                        f" {high}{null} is needed."
                    )
                    break
    if unknown > MAX_UNKNOWN:
        yield f"tokens.…: {unknown - MAX_UNKNOWN} more columns that do not exist."
    most = _COLUMNS["turn"][2]
    if "turn" not in columns and isinstance(columns["author"], list):
        num_turns = max(_turns(columns["author"]), default=0)
        if num_turns > most:
            yield (
                f"tokens.turn is missing, and by author there are {num_turns} turns;"
                f" {most} at most are read."
            )


def _turns(authors: list[Any]) -> list[int]:
    """Return the turn of each token: one ends where the policy stops writing."""
    ends = [
        now != Author.POLICY and before == Author.POLICY
        for before, now in itertools.pairwise(authors)
    ]
    return [0, *itertools.accumulate(map(int, ends))][: len(authors)]


def _order(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the order of messages that are to become tokens."""
    roles = [message["role"] for message in row["messages"]]
    is_by_turns = re.fullmatch("s?u(au)*a?", "".join(role[0] for role in roles))
    if not is_by_turns and not (row.get("tokens") or {}).get("token_ids"):
        needed = "user and assistant by turns, after a system message if there is one"
        yield (
            f"messages: the roles are {shown(roles)}; without tokens they are to be"
            f" {needed}."
        )


def _complete(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checked row with all that it may leave out."""
    # An episode of ours that ended without a verdict says so by null.
    given = {
        name: value
        for name, value in row.items()
        if value is not None or name == "verdict"
    }
    written = [
        message["spans"]
        for message in row["messages"]
        if message["role"] == "assistant"
    ]
    own = [
        "".join(span["text"] for span in spans if span["author"] == Author.POLICY)
        for spans in written
    ]
    columns, reward = given.get("tokens") or {}, given.get("reward")
    authors = columns.get("author", [])
    is_right = (reward or 0) > 0
    verdict = {
        "correct": is_right,
        "reward": reward,
        "status": "correct" if is_right else "wrong",
    }
    spans = (span for message in row["messages"] for span in message["spans"])
    return {
        "aided": any(span["author"] == Author.AGENT for span in spans),
        "consults": [],
        "verdict": None if reward is None else verdict,
        "reward": None,
        "stop_reason": "completed",
        **given,
        "turns": (
            given.get("turns")
            or [{"completion": text, "finish_reason": "stop"} for text in own]
        ),
        "tokens": {
            "token_ids": [],
            "author": [],
            "call_id": [-1] * len(authors),
            "turn": _turns(authors),
            "behaviour_logprobs": [None] * len(authors),
            "is_content": [author == Author.AGENT for author in authors],
            **columns,
        },
    }


def _assumptions(episode: Episode) -> Iterator[str]:
    """Yield what training takes for granted about an episode, and what it cannot
    use.
    """
    own = episode.tokens.policy_mask
    logprobs = episode.tokens.behaviour_logprobs[own]
    parts = sum(episode.reward_parts.values())
    if not len(own):
        yield (
            "no tokens: its text is tokenised with the chat template of the policy in"
            " training."
        )
    elif not own.any():
        yield "nothing of it is the policy's: it counts in its group's baseline only."
    elif not logprobs.any():
        yield (
            "every log-probability of the policy's tokens is 0: an unknown one is null."
        )
    elif np.isnan(logprobs).any():
        yield (
            "unknown log-probabilities: those tokens count as sampled by the policy at"
            " its update."
        )
    if (episode.policy_versions[~own] >= 0).any():
        yield (
            "tokens.policy_version is to be -1 where the policy did not write: it is"
            " not looked at there."
        )
    if episode.reward is None:
        what_then = (
            "its group is left out"
            if episode.stop_reason.is_error
            else "it is verified again"
        )
        yield f"no reward: {what_then}."
    elif episode.reward_parts and abs(parts - episode.reward) > 1e-6:
        yield f"its reward is {episode.reward}, but reward_parts add up to {parts}."


def _group_kind(rewards: list[float | None]) -> str:
    if len(rewards) == 1:
        return "hold one episode, which is compared with nothing and teaches nothing"
    if None in rewards:
        return "hold an episode without reward"
    return "have equal rewards and teach nothing" if len(set(rewards)) == 1 else "teach"
