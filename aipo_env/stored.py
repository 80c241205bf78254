"""Episodes in a file: ours exactly, others completed, and what is wrong with a line."""

import itertools
import json
import re
import types
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from itertools import islice
from pathlib import Path
from typing import (
    Any,
    Literal,
    NamedTuple,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np

from aipo_env.episode import Episode, TokenRecord
from aipo_env.errors import DataError, message_of, shown, suggest
from aipo_env.files import bounded_lines, check_line
from aipo_env.records import Author

MAX_FAULTS = 50
"""More faults of a line are not told."""
MAX_UNKNOWN = 5
"""Nor are more fields that do not exist."""
_MAX_NAME_CHARS = 80
"""So much of a field's name stands in a message."""
_NUMBER_END = 2**31
"""Numbers of a row are below it, so that each fits into 32 bits."""
_LAST_INT32 = 2**31 - 1
_LAST_INT16 = 2**15 - 1
_LEAST_LOGPROB = -1e30
"""JSON has no infinity; what is less overflows once it is added up."""
_GREATEST_LOGPROB = 1e-3
"""A log-probability is 0 at most; engines round."""
_SUM_TOLERANCE = 1e-6
"""How far the parts of a reward may be from it: as decimals they were rounded."""
_BY_TURNS = re.compile("s?u(au)*a?")
"""Initials of roles that a chat template takes: system, user and assistant by turns."""
_hints = cache(get_type_hints)
_MAY_LACK = ("aided", "turns", "consults", "tokens", "verdict", "reward", "stop_reason")
"""Fields of an episode that may be absent or null; `_complete` fills them in."""
_KINDS: dict[Any, tuple[set[type], str]] = {
    str: ({str}, "text"),
    bool: ({bool}, "true or false"),
    int: ({int}, "a whole number of 32 bits"),
    float: ({int, float}, "a number below 2^31"),
    float | None: ({int, float, type(None)}, "a number below 2^31 or null"),
}
"""The types that JSON's value of an annotated type has, and what it is called."""


class _Column(NamedTuple):
    """The types of a token record's column, and its least and greatest value."""

    kinds: set[type]
    low: float
    high: float


_COLUMNS = {
    "token_ids": _Column({int}, 0, _LAST_INT32),
    "author": _Column({int}, 0, 5),
    "call_id": _Column({int}, -1, _LAST_INT32),
    "turn": _Column({int}, 0, _LAST_INT16),
    "behaviour_logprobs": _Column(
        {float, int, type(None)}, _LEAST_LOGPROB, _GREATEST_LOGPROB
    ),
    "is_content": _Column({bool}, False, True),
    "policy_version": _Column({int}, -1, _LAST_INT32),
}


def read_episodes(path: Path) -> Iterator[Episode]:
    """Read episodes from a JSON-lines file.

    Ours come back exactly as written, others completed as docs/episodes.md says.

    Raises:
        DataError: The file is missing, or a line is no episode; the message names file,
            line and fault.
    """
    for number, episode, faults in _lines(path):
        if episode is None:
            more = ""
            if len(faults) > 1:
                more = f" `aipo lint {path}` lists all its faults."
            raise DataError(
                f"{path}, line {number}: not an episode: {faults[0]} Correct or delete"
                f" it.{more}"
            )
        yield episode


def lint_episodes(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield what is wrong with a file of episodes, and what training will assume.

    Each is (line, "error" or "note", text); line 0 is the whole file.

    Raises:
        DataError: There is no such file.
    """
    rewards_by_group: dict[tuple[str, str], list[float | None]] = {}
    for number, episode, faults in _lines(path):
        for fault in faults:
            yield number, "error", fault
        if episode is None:
            continue
        if episode.task.withheld and episode.task.prompt == episode.task.withheld:
            fault = "its text was withheld when it was written: nothing to learn from."
            yield number, "error", fault
        for note in _assumptions(episode):
            yield number, "note", note
        # Files of several runs may use one id for groups of different tasks.
        group = (episode.group_id, episode.task.id)
        rewards_by_group.setdefault(group, []).append(episode.reward)
    counts = Counter(map(_group_kind, rewards_by_group.values()))
    for kind, count in sorted(counts.items()):
        yield 0, "note", f"{count} of {len(rewards_by_group)} groups {kind}."


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
    """Return the episode of a line and no fault, or None and its faults."""
    try:
        check_line(line)
        row = json.loads(line, parse_constant=_refuse)
        if isinstance(row, dict):
            row = {**row, "messages": _messages(row.get("messages", []))}
        faults = _some(_record(row, Episode, ""))
        if not faults:
            # Of the order, which takes the forms of the fields for granted.
            faults = _some(_order(row))
        if faults:
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
    """Return messages with spans, whose authors may be named.

    `{"role", "content"}` is a message of one span. What has another form stays as it
    is: the check of the fields tells what is wrong with it.
    """
    if not isinstance(messages, list):
        return messages
    spanned: list[Any] = []
    # What stands before the first turn is the prompt; what comes behind, feedback.
    author_of_rest = Author.PROMPT
    for message in messages:
        if not isinstance(message, dict):
            spanned.append(message)
            continue
        author = author_of_rest
        if message.get("role") == "assistant":
            author = Author.POLICY
            author_of_rest = Author.ENV
        spanned.append(_with_spans(message, author))
    return spanned


def _with_spans(message: dict[str, Any], author: Author) -> dict[str, Any]:
    """Return a message with spans; without any it is one of an author."""
    whole = {"text": message.get("content"), "author": author}
    spans = message.get("spans", [whole])
    if isinstance(spans, list):
        spans = [_span(span) for span in spans]
    rest = {name: value for name, value in message.items() if name != "content"}
    return {**rest, "spans": spans}


def _span(span: Any) -> Any:
    """Return a span with its author's number; a reply's text is its content."""
    if not isinstance(span, dict):
        return span
    author = span.get("author")
    author = Author.__members__.get(str(author).upper(), author)
    return {"is_content": author == Author.AGENT, **span, "author": author}


def _record(row: Any, kind: Any, place: str) -> Iterator[str]:
    """Yield what is wrong with a record's JSON: unknown, missing and wrong fields.

    Args:
        row: What stands in its place.
        kind: The dataclass that it is to be.
        place: Where it stands, as `messages[0]`; empty for the whole line.
    """
    if not isinstance(row, dict):
        yield f"{place or 'the line'} is {shown(row)}; an object is needed."
        return
    may_lack = _MAY_LACK if kind is Episode else ()
    hints = _hints(kind)
    # What is left out of a repr is left out of the file.
    valid = {item.name: item for item in fields(kind) if item.repr}
    dot = f"{place}." if place else ""
    unknown = [name for name in row if name not in valid]
    for name in unknown[:MAX_UNKNOWN]:
        start = name[:_MAX_NAME_CHARS]
        yield f"{dot}{start}: no such field. {suggest(start, valid)}"
    if len(unknown) > MAX_UNKNOWN:
        yield f"{dot}…: {len(unknown) - MAX_UNKNOWN} more fields that do not exist."
    for name, item in valid.items():
        if name not in row:
            if name not in may_lack and not _has_default(item):
                yield f"{dot}{name} is missing."
        elif row[name] is not None or name not in may_lack:
            yield from _value(row[name], hints[name], dot + name)


def _has_default(item: Field[Any]) -> bool:
    return item.default is not MISSING or item.default_factory is not MISSING


def _value(value: Any, kind: Any, place: str) -> Iterator[str]:
    """Yield what is wrong with a value that should be of an annotated type."""
    origin = get_origin(kind)
    parts = get_args(kind)
    is_enum = isinstance(kind, type) and issubclass(kind, Enum)
    if kind is TokenRecord:
        yield from _tokens(value)
    elif origin is tuple:
        yield from _list(value, parts[0], place)
    elif origin is Mapping:
        yield from _object(value, parts[-1], place)
    elif origin in (Union, types.UnionType) and kind not in _KINDS:
        # The others are "a record or nothing".
        if value is not None:
            yield from _value(value, parts[0], place)
    elif is_dataclass(kind):
        yield from _record(value, kind, place)
    elif origin is Literal or is_enum:
        valid = parts or tuple(member.value for member in kind)
        # True equals 1, which is an author's number.
        if isinstance(value, bool) or value not in valid:
            yield f"{place} is {shown(value)}. {suggest(str(value), map(str, valid))}"
    elif kind is Any:
        json.dumps(value, allow_nan=False)
    else:
        kinds, name = _KINDS[kind]
        if type(value) not in kinds or _is_too_large(value):
            yield f"{place} is {shown(value)}; {name} is needed."


def _list(values: Any, kind: Any, place: str) -> Iterator[str]:
    """Yield what is wrong with a list whose items should be of a type."""
    if not isinstance(values, list):
        yield f"{place} is {shown(values)}; a list is needed."
        return
    for number, value in enumerate(values):
        yield from _value(value, kind, f"{place}[{shown(number)}]")


def _object(values: Any, kind: Any, place: str) -> Iterator[str]:
    """Yield what is wrong with an object whose values should be of a type."""
    if not isinstance(values, dict):
        yield f"{place} is {shown(values)}; an object is needed."
        return
    for name, value in values.items():
        yield from _value(value, kind, f"{place}[{shown(name)}]")


def _is_too_large(value: Any) -> bool:
    # Not `>=`, which a NaN would pass.
    return isinstance(value, int | float) and not abs(value) < _NUMBER_END


def _tokens(columns: Any) -> Iterator[str]:
    """Yield what is wrong with a token record."""
    if not isinstance(columns, dict) or not {"token_ids", "author"} <= columns.keys():
        yield (
            f"tokens is {shown(columns)}; an object with at least token_ids and author,"
            " or null, is needed."
        )
        return
    num_unknown = 0
    for name, values in columns.items():
        if name in _COLUMNS:
            yield from _column(name, values)
            continue
        num_unknown += 1
        if num_unknown <= MAX_UNKNOWN:
            start = name[:_MAX_NAME_CHARS]
            yield f"tokens.{start}: no such column. {suggest(name, _COLUMNS)}"
    if num_unknown > MAX_UNKNOWN:
        yield f"tokens.…: {num_unknown - MAX_UNKNOWN} more columns that do not exist."
    if "turn" in columns or not isinstance(columns["author"], list):
        return
    num_turns = max(_turns(columns["author"]), default=0)
    if num_turns > _LAST_INT16:
        yield (
            f"tokens.turn is missing, and by author there are {num_turns} turns;"
            f" {_LAST_INT16} at most are read."
        )


def _column(name: str, values: Any) -> Iterator[str]:
    """Yield what is wrong with a column: its form, or the first wrong value."""
    if not isinstance(values, list):
        yield f"tokens.{name} is {shown(values)}; a list is needed."
        return
    kinds, low, high = _COLUMNS[name]
    for place, value in enumerate(values):
        is_of_kind = type(value) in kinds
        if is_of_kind and (value is None or low <= value <= high):
            continue
        null = " or null" if type(None) in kinds else ""
        yield (
            f"tokens.{name}[{place}] is {shown(value)}; {low} to {high}{null} is"
            " needed."
        )
        return


def _turns(authors: list[Any]) -> list[int]:
    """Return the turn of each token: one ends where the policy stops writing."""
    ends = [
        now != Author.POLICY and before == Author.POLICY
        for before, now in itertools.pairwise(authors)
    ]
    turns = [0, *itertools.accumulate(map(int, ends))]
    return turns[: len(authors)]  # of no tokens there are none


def _order(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the order of messages that are to become tokens."""
    roles = [message["role"] for message in row["messages"]]
    initials = "".join(role[0] for role in roles)
    is_by_turns = _BY_TURNS.fullmatch(initials) is not None
    tokens = row.get("tokens") or {}
    if not is_by_turns and not tokens.get("token_ids"):
        needed = "user and assistant by turns, after a system message if there is one"
        yield (
            f"messages: the roles are {shown(roles)}; without tokens they are to be"
            f" {needed}."
        )


def _complete(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a checked row with all that it may leave out."""
    # An episode of ours that ended without a verdict says so by null.
    own = {
        name: value
        for name, value in row.items()
        if value is not None or name == "verdict"
    }
    spans = [span for message in row["messages"] for span in message["spans"]]
    return {
        "aided": any(span["author"] == Author.AGENT for span in spans),
        "consults": [],
        "verdict": _verdict(own.get("reward")),
        "reward": None,
        "stop_reason": "completed",
        **own,
        "turns": own.get("turns") or _turns_of_messages(row["messages"]),
        "tokens": _complete_tokens(own.get("tokens") or {}),
    }


def _verdict(reward: float | None) -> dict[str, Any] | None:
    """Return the verdict that a reward stands for; None where it is unknown."""
    if reward is None:
        return None
    is_right = reward > 0
    return {
        "correct": is_right,
        "reward": reward,
        "status": "correct" if is_right else "wrong",
    }


def _turns_of_messages(messages: list[Any]) -> list[dict[str, str]]:
    """Return a turn for each message of the policy's, of what it wrote itself."""
    turns: list[dict[str, str]] = []
    for message in messages:
        if message["role"] != "assistant":
            continue
        texts = [
            span["text"] for span in message["spans"] if span["author"] == Author.POLICY
        ]
        turns.append({"completion": "".join(texts), "finish_reason": "stop"})
    return turns


def _complete_tokens(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return a token record's columns with those that it may leave out."""
    authors = columns.get("author", [])
    return {
        "token_ids": [],
        "author": [],
        "call_id": [-1] * len(authors),
        "turn": _turns(authors),
        "behaviour_logprobs": [None] * len(authors),
        "is_content": [author == Author.AGENT for author in authors],
        **columns,
    }


def _assumptions(episode: Episode) -> Iterator[str]:
    """Yield what training assumes of an episode, and what it cannot use."""
    own = episode.tokens.policy_mask
    logprobs = episode.tokens.behaviour_logprobs[own]
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
    yield from _reward_assumptions(episode)


def _reward_assumptions(episode: Episode) -> Iterator[str]:
    """Yield what training takes for granted about an episode's reward."""
    if episode.reward is None:
        what_then = "it is verified again"
        if episode.stop_reason.is_error:
            what_then = "its group is left out"
        yield f"no reward: {what_then}."
        return
    if not episode.reward_parts:
        return
    total = sum(episode.reward_parts.values())
    if abs(total - episode.reward) > _SUM_TOLERANCE:
        yield f"its reward is {episode.reward}, but reward_parts add up to {total}."


def _group_kind(rewards: list[float | None]) -> str:
    """Return what is to be said of a group with these rewards."""
    if len(rewards) == 1:
        return "hold one episode, which is compared with nothing and teaches nothing"
    if None in rewards:
        return "hold an episode without reward"
    if len(set(rewards)) == 1:
        return "have equal rewards and teach nothing"
    return "teach"
