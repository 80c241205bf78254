"""The records that flow through an environment: small, frozen, checked at
construction.
"""

import json
import keyword
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from numbers import Real
from typing import Any, Literal, get_args

from aipo_env.errors import DataError, error_text, shown, suggest

ConsultKind = Literal["knowledge", "reason", "verify"]
"""What a policy may consult: the Knowledge Agent, the Reasoning Agent or the Verify
Agent.
"""
CONSULT_KINDS: tuple[ConsultKind, ...] = get_args(ConsultKind)

Split = Literal["train", "test"]
"""Training tasks, and those kept for evaluation."""

FinishReason = Literal["stop", "length", "error"]
"""Why an engine ended one completion: a stop string or end token, the token limit, or a
failure.
"""

_SURROGATE = re.compile("[\ud800-\udfff]")


def holds_half_pair(text: str) -> bool:
    """Return whether a text holds half a surrogate pair, which has no bytes and no
    tokens.
    """
    return _SURROGATE.search(text) is not None


class Author(IntEnum):
    """Who wrote a token. Only `POLICY` and reply content of `AGENT` ever enter the
    objective.
    """

    PROMPT = 0
    POLICY = 1
    AGENT = 2
    TOOL = 3
    ENV = 4
    TEMPLATE = 5


class StopReason(StrEnum):
    """Why an episode ended."""

    COMPLETED = "completed"
    NO_ANSWER = "no_answer"
    PARSE_ERROR = "parse_error"
    MAX_TURNS = "max_turns"
    MAX_SAMPLED_TOKENS = "max_sampled_tokens"
    CONTEXT_OVERFLOW = "context_overflow"
    ROLLOUT_TIMEOUT = "rollout_timeout"
    CANCELLED = "cancelled"
    VERIFIER_ERROR = "verifier_error"
    POLICY_ERROR = "policy_error"
    TOOL_ERROR = "tool_error"
    ENVIRONMENT_ERROR = "environment_error"

    @property
    def is_truncated(self) -> bool:
        """True when a limit of ours ended the episode, not the policy."""
        return self in _LIMITS | _FROM_OUTSIDE

    @property
    def is_error(self) -> bool:
        """True when something else than the policy failed; such an episode is not
        trained on.
        """
        return self in _FAILURES | _FROM_OUTSIDE


_LIMITS = {
    StopReason.MAX_TURNS,
    StopReason.MAX_SAMPLED_TOKENS,
    StopReason.CONTEXT_OVERFLOW,
}
_FROM_OUTSIDE = {StopReason.ROLLOUT_TIMEOUT, StopReason.CANCELLED}
_FAILURES = {
    StopReason.VERIFIER_ERROR,
    StopReason.POLICY_ERROR,
    StopReason.TOOL_ERROR,
    StopReason.ENVIRONMENT_ERROR,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeTests:
    """How a program is tested.

    Args:
        kind: "stdin": a program that reads and prints. "function": one that defines
            `entry`.
        public: Tests that the policy and its agents may see; `{"input", "output"}`
            texts for "stdin", `{"args": [...], "expected": ...}` JSON values for
            "function".
        hidden: The tests that decide; in no agent's request and in no prompt.
        entry: What is called: "name" or "Solution.name".
        compare: How outputs are compared: `{"mode": "tokens_by_line"}`, `{"mode":
            "exact_json"}`, or "float_tokens_by_line" and "json_float" with "rtol" and
            "atol", numbers from 0 to less than 1. Empty: exactly, as the kind has it.
        prelude: Python that is put before every program: what its author may take for
            granted.
        time_limit_s: Seconds per test, from 0.01 to 300.
        memory_mb: MiB per test, a whole number, 16,384 at most. The machine that runs
            the tests may allow less.

    Raises:
        DataError: A field is of the wrong type or a test lacks a part; the message
            names it.
    """

    kind: Literal["stdin", "function"] = "stdin"
    public: tuple[Mapping[str, Any], ...] = ()
    hidden: tuple[Mapping[str, Any], ...] = ()
    entry: str = ""
    compare: Mapping[str, Any] = field(default_factory=dict)
    prelude: str = ""
    time_limit_s: float = 2.0
    memory_mb: int = 256

    def __post_init__(self) -> None:
        kind: Any = self.kind
        is_kind = isinstance(kind, str) and kind in _TEST_PARTS
        if not is_kind:
            raise DataError(
                f"tests: field 'kind' is {shown(kind)}."
                f" {suggest(str(kind), _TEST_PARTS)}"
            )
        self._check_tests("public")
        self._check_tests("hidden")
        if not self.hidden:
            raise DataError(
                "tests: field 'hidden' holds no test, so nothing decides. Add at least"
                " one."
            )
        self._check_entry()
        self._check_prelude()
        self._check_compare()
        self._check_limits()

    def _check_tests(self, name: str) -> None:
        """Take a list of tests, each with its parts, which a program can be given and
        its output compared with.
        """
        rows: Any = getattr(self, name)
        parts = _TEST_PARTS[self.kind]
        wanted = " and ".join(
            f"{part} ({kind.__name__})" for part, kind in parts.items()
        )
        _check(
            isinstance(rows, list | tuple),
            f"tests: field {name!r}",
            "a list of objects",
            rows,
        )
        for number, row in enumerate(rows):
            has_all = isinstance(row, Mapping) and parts.keys() <= row.keys()
            is_fit = has_all and all(
                isinstance(row[part], kind) for part, kind in parts.items()
            )
            _check(is_fit, f"tests: {name}[{number}]", f"an object with {wanted}", row)
            for part in parts:
                if fault := _PART_FAULTS[part](row[part]):
                    raise DataError(
                        f"tests: {name}[{number}]: field {part!r} {fault}, so no"
                        " program can be given it or come to it. Mend or delete the"
                        " test."
                    )
        object.__setattr__(self, name, tuple(rows))

    def _check_entry(self) -> None:
        entry: Any = self.entry
        _check(isinstance(entry, str), "tests: field 'entry'", "text", entry)
        if self.kind != "function":
            return
        if not entry:
            raise DataError(
                "tests: a function task needs 'entry', the name of what is called."
            )
        names = entry.split(".") if len(entry) <= MAX_ENTRY_CHARS else []
        is_name = 1 <= len(names) <= 2 and all(map(_is_defined_name, names))
        # A method's name with two bars in front is another outside its class.
        is_private = names[1:] and names[1][:2] == "__" != names[1][-2:]
        is_name = is_name and not is_private
        wanted = f'"name" or "Class.name", of {MAX_ENTRY_CHARS} characters at most'
        _check(is_name, "tests: field 'entry'", wanted, entry)

    def _check_prelude(self) -> None:
        prelude: Any = self.prelude
        _check(isinstance(prelude, str), "tests: field 'prelude'", "text", prelude)
        for mark, what in (
            (holds_half_pair(prelude), "half a surrogate pair"),
            ("\0" in prelude, "a null character"),
        ):
            if mark:
                raise DataError(
                    f"tests: field 'prelude' holds {what}, with which no program is"
                    " Python. Delete it."
                )

    def _check_compare(self) -> None:
        """Take a way to compare that its kind of test has, with tolerances that tell
        right from wrong.
        """
        compare: Any = self.compare
        what = "tests: field 'compare'"
        _check(isinstance(compare, Mapping), what, "an object", compare)
        for name in compare:
            if name not in _COMPARE_FIELDS:
                raise DataError(
                    f"{what} has {shown(name)}. {suggest(str(name), _COMPARE_FIELDS)}"
                )
        modes = COMPARE_MODES[self.kind]
        mode = compare.get("mode", modes[0])
        if mode not in modes:
            raise DataError(
                f"{what}: mode is {shown(mode)}. {suggest(str(mode), modes)}"
            )
        for name in ("rtol", "atol"):
            if name not in compare:
                continue
            value = compare[name]
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            wanted = "a number from 0 to less than 1"
            _check(is_number and 0 <= value < 1, f"{what}: {name!r}", wanted, value)
            if "float" not in mode:
                raise DataError(
                    f"{what}: {name!r} says nothing in mode {mode!r}. Use the mode "
                    f"{modes[1]!r}, or leave it out."
                )

    def _check_limits(self) -> None:
        """Take limits that are numbers within what any machine is asked for; memory is
        counted in whole MiB.
        """
        time_s: Any = self.time_limit_s
        is_time = isinstance(time_s, int | float) and not isinstance(time_s, bool)
        wanted = f"a number of seconds from {MIN_TIME_LIMIT_S} to {MAX_TIME_LIMIT_S}"
        is_time = is_time and MIN_TIME_LIMIT_S <= time_s <= MAX_TIME_LIMIT_S
        _check(is_time, "tests: field 'time_limit_s'", wanted, time_s)
        memory: Any = self.memory_mb
        is_number = isinstance(memory, int | float) and not isinstance(memory, bool)
        is_whole = is_number and 0 < memory <= MAX_MEMORY_MB and memory == int(memory)
        wanted = f"a whole number of MiB from 1 to {MAX_MEMORY_MB}"
        _check(is_whole, "tests: field 'memory_mb'", wanted, memory)
        object.__setattr__(self, "memory_mb", int(memory))


MIN_TIME_LIMIT_S = 0.01
"""In less no program runs, and every one would be too slow."""
MAX_TIME_LIMIT_S = 300
MAX_MEMORY_MB = 16_384
"""No task asks for more: a file of tasks does not choose what a machine can bear."""
MAX_ENTRY_CHARS = 200
MAX_DEPTH = 100
"""Lists and objects within one another: what is nested deeper, no reader of JSON need
read.
"""
COMPARE_MODES = {
    "stdin": ("tokens_by_line", "float_tokens_by_line"),
    "function": ("exact_json", "json_float"),
}
"""Ways to compare, by the kind of test; the first is the default."""
_COMPARE_FIELDS = ("mode", "rtol", "atol")


def json_fault(value: Any) -> str:
    """Return why a value cannot be written as JSON and read again; empty where it can
    be.
    """
    try:
        json.dumps(value)
    except RecursionError:
        return _TOO_DEEP
    except (TypeError, ValueError) as error:
        return f"is no JSON ({error_text(error, 200)})"
    return depth_fault(value)


def _text_fault(text: str) -> str:
    """Return why no program reads or prints a text; empty where one can."""
    return "holds half a surrogate pair" if holds_half_pair(text) else ""


def depth_fault(value: Any) -> str:
    """Return that a value is nested too deeply; empty where it is not."""
    level = [value] if isinstance(value, list | tuple | Mapping) else []
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, Mapping) else outer)
            if isinstance(inner, list | tuple | Mapping)
        ]
        if not level:
            return ""
    return _TOO_DEEP


_TOO_DEEP = f"is nested deeper than {MAX_DEPTH}"


def _is_defined_name(name: str) -> bool:
    """Return whether a program can define this name: Python takes another spelling of
    it for the usual one.
    """
    is_usual = unicodedata.normalize("NFKC", name) == name
    return name.isidentifier() and not keyword.iskeyword(name) and is_usual


def _check(holds: bool, field: str, wanted: str, value: object) -> None:
    if not holds:
        raise DataError(f"{field} must be {wanted}, got {shown(value)}.")


_TEST_PARTS: dict[str, dict[str, type]] = {
    "stdin": {"input": str, "output": str},
    "function": {"args": list, "expected": object},
}
_PART_FAULTS: dict[str, Callable[[Any], str]] = {
    "input": _text_fault,
    "output": _text_fault,
    "args": json_fault,
    "expected": depth_fault,
}
"""What says why a test's part would fail every program, right or wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One problem with its ground truth.

    Args:
        id: Unique within its source.
        prompt: What the policy is asked.
        answer: The gold answer; no agent and no policy ever sees it. May be empty for a
            code task.
        kind: Which verifier decides: "math", "choice" or "code".
        choices: The options of a "choice" task, in the order of their letters; `answer`
            is a letter.
        tests: What decides a "code" task.
        meta: Anything JSON-able; `meta["bottleneck"]` names the help a toy task needs,
            and `meta["no_republish"]` says that the source forbids showing its text in
            public.

    Raises:
        DataError: A field is missing or of the wrong type; the message names it.
    """

    id: str
    prompt: str
    answer: str
    kind: str = "math"
    choices: tuple[str, ...] = ()
    tests: CodeTests | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        who = f"task {shown(self.id)}"
        for name in ("id", "prompt", "answer", "kind"):
            value = getattr(self, name)
            if name == "answer" and value == "" and self.tests is not None:
                continue
            is_text = isinstance(value, str) and value.strip() != ""
            _check(is_text, f"{who}: field {name!r}", "non-empty text", value)
            self._check_pairs(name, value)
        for name in ("source", "licence"):
            value = getattr(self, name)
            _check(isinstance(value, str), f"{who}: field {name!r}", "text", value)
        choices: Any = self.choices
        are_texts = isinstance(choices, list | tuple) and all(
            isinstance(text, str) for text in choices
        )
        _check(are_texts, f"{who}: field 'choices'", "a list of texts", choices)
        for text in choices:
            self._check_pairs("choices", text)
        _check(
            isinstance(self.meta, Mapping),
            f"{who}: field 'meta'",
            "an object",
            self.meta,
        )
        if fault := depth_fault(self.meta):
            raise DataError(f"{who}: field 'meta' {fault}. Flatten or delete it.")
        object.__setattr__(self, "choices", tuple(choices))
        tests: Any = self.tests
        if tests is None or isinstance(tests, CodeTests):
            return
        wanted = "an object with the tests, or null"
        _check(isinstance(tests, Mapping), f"{who}: field 'tests'", wanted, tests)
        known = CodeTests.__dataclass_fields__
        given = {
            name: value
            for name, value in tests.items()
            if name in known and value is not None
        }
        object.__setattr__(self, "tests", CodeTests(**given))

    def _check_pairs(self, name: str, text: str) -> None:
        """Raise DataError if a text holds half a surrogate pair."""
        if holds_half_pair(text):
            fault = "holds half a surrogate pair, which no tokenizer reads"
            raise DataError(f"task {shown(self.id)}: field {name!r} {fault}.")

    def __repr__(self) -> str:
        """Neither text nor answer: a repr ends in logs."""
        return f"Task(id={self.id!r}, kind={self.kind!r}, source={self.source!r})"

    @property
    def withheld(self) -> str:
        """What stands in public for each of its texts; empty when they may be shown."""
        if not self.meta.get("no_republish"):
            return ""
        return f"[withheld: {self.source or 'its source'} forbids republication]"


@dataclass(frozen=True, slots=True)
class Span:
    """A run of text with one author; `is_content` is true for a reply's body, false for
    its wrapper.

    `token_ids` and `logprobs` are there if the author is a model that sampled the text
    with the policy's tokenizer; they are no part of the text's record, in which the
    tokens stand anyway.
    """

    text: str
    author: Author
    agent_id: str = ""
    call_id: int = -1
    is_content: bool = False
    token_ids: tuple[int, ...] = field(default=(), compare=False, repr=False)
    logprobs: tuple[float, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message. `spans` say who wrote which part of it."""

    role: Literal["system", "user", "assistant"]
    spans: tuple[Span, ...]

    @property
    def content(self) -> str:
        """The whole text."""
        return "".join([span.text for span in self.spans])


@dataclass(frozen=True, slots=True)
class Completion:
    """What the policy wrote in one turn: `token_ids` are the ids that were sampled,
    never re-tokenised.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    finish_reason: FinishReason = "stop"

    def __post_init__(self) -> None:
        if len(self.logprobs) not in (0, len(self.token_ids)):
            raise ValueError(
                f"{len(self.logprobs)} logprobs for {len(self.token_ids)} token ids"
            )
        if any(math.isinf(logprob) for logprob in self.logprobs):
            raise ValueError(
                "an infinite logprob: a sampled token had a probability; unknown is NaN"
            )


@dataclass(frozen=True, slots=True)
class Call:
    """A consultation that the policy asked for: an agent's role or a tool's name, and
    what it is asked.
    """

    kind: str
    query: str


ConsultStatus = Literal["answered", "failed", "leaked", "denied"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Consult:
    """The account of one consultation.

    Args:
        status: "answered"; "failed" after all retries; "leaked": the reply gave the
            gold answer away and was withheld; "denied": over budget, never executed.
        reveals: The reply stated a gold answer that has few candidates, and was shown.
        reply: What the agent said, before markup in it was broken up; empty unless
            answered.
        seconds: Wall-clock time of the call, retries included. Excluded from equality:
            it is no outcome.
        tokens: Tokens of the reply as the agent counts them; 0 when it does not.
        token_ids, logprobs: As in `Span`, of the reply.
    """

    kind: str
    agent_id: str
    query: str
    reply: str
    status: ConsultStatus
    call_id: int
    turn: int
    tokens: int = 0
    retries: int = 0
    cost_usd: float = 0.0
    prompt_hash: str = ""
    error: str = ""
    reveals: bool = False
    seconds: float = field(default=0.0, compare=False)
    token_ids: tuple[int, ...] = field(default=(), compare=False, repr=False)
    logprobs: tuple[float, ...] = field(default=(), compare=False, repr=False)

    @property
    def is_agents(self) -> bool:
        """Whether an agent was asked; otherwise a tool was called, which is no
        consultation.
        """
        return self.kind in CONSULT_KINDS


ProgramFault = Literal[
    "timeout", "memory", "output_limit", "runtime_error", "compile_error", "infra_error"
]
"""Why a program that was run gave no output to judge."""
VerdictStatus = Literal[
    "correct", "wrong", "no_answer", "refused", "error", ProgramFault
]


FAILED: tuple[VerdictStatus, ...] = ("infra_error", "error")
"""Of a verifier or a gold answer that failed: such a verdict has no reward."""

MAX_PARTS = 64
MAX_PART_CHARS = 100


def finite(what: str, value: Any) -> float:
    """Return a number, of Python's or NumPy's, as `float`; `what` names it.

    Raises:
        ValueError: It is no number (text and True are none), not finite, or beyond what
            a float holds.
    """
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    try:
        number = float(value) if is_number else math.nan
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{what} is {shown(value)}; it must be a finite number")
    return number


def check_parts(parts: Iterable[tuple[Any, Any]]) -> dict[str, float]:
    """Return the named addends of a reward, given as pairs, in plain text and floats.

    Raises:
        ValueError: There are more than 64, two have one name, a name is no printable
            text of 1 to 100 characters, or a part is no finite number; the message
            names it.
    """
    checked: dict[str, float] = {}
    for name, value in parts:
        # A subclass of text may look otherwise from one call to the next.
        plain = str.__str__(name) if isinstance(name, str) else ""
        is_fit = plain.strip() and len(plain) <= MAX_PART_CHARS and plain.isprintable()
        if not is_fit:
            fault = f"a part of the reward is named {shown(name)}"
            wanted = f"printable text of 1 to {MAX_PART_CHARS} characters"
            raise ValueError(f"{fault}; a name is {wanted}")
        if plain in checked:
            raise ValueError(f"two parts of the reward are named {plain!r}")
        if len(checked) == MAX_PARTS:
            raise ValueError(f"a reward has at most {MAX_PARTS} parts")
        checked[plain] = finite(f"the part {plain!r} of the reward", value)
    return checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a verifier decided.

    Args:
        correct: Whether the answer is right; None where that is unknown.
        reward: What the answer earns: any finite number, also a part of 1 or a negative
            one. None when the verifier itself failed: such an episode is kept and never
            trained on.
        status: "correct"; "wrong"; "no_answer": nothing in the text could be judged;
            "refused"; what became of a program: "timeout", "memory", "output_limit",
            "runtime_error" or "compile_error"; or a failure that says nothing about the
            answer: "infra_error" of the sandbox, "error" of the verifier or the gold.
        extracted: What was taken for the answer.
        reason: Why, in words for people.
        stage: How far it came, for example "test 3 of 10".
        isolation: What a program was kept in by.
        parts: The named addends of the reward, at most 64. None given: the reward is
            one part, "verdict".

    Raises:
        ValueError: The reward or a part is no finite number (True and text are none), a
            part's name is no printable text of 1 to 100 characters, the parts do not
            add up to the reward, a failure has a reward, or what has no reward is
            correct.
    """

    correct: bool | None
    reward: float | None
    status: VerdictStatus
    extracted: str = ""
    reason: str = ""
    stage: str = ""
    isolation: str = "none"
    parts: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.parts, Mapping):
            raise ValueError(
                f"a verdict's parts are {shown(self.parts)}; give a mapping"
            )
        parts = check_parts(self.parts.items())
        object.__setattr__(self, "parts", parts)
        if self.reward is None:
            if self.correct:
                raise ValueError(
                    "a verdict says correct=True and has no reward; give one, or"
                    " correct=None for a failure"
                )
            return
        try:
            reward = finite("a verdict's reward", self.reward)
        except ValueError as error:
            raise ValueError(f"{error}, or None for a failure") from None
        object.__setattr__(self, "reward", reward)
        if self.status in FAILED:
            raise ValueError(
                f"a verdict of status {self.status!r} has the reward {reward}; what"
                " failed has None"
            )
        # Parts that cancel each other out are exact to their own size, not to that of
        # their sum.
        size = max([1.0, abs(reward), *map(abs, parts.values())])
        total = sum(parts.values())
        if parts and not abs(total - reward) <= 1e-6 * size:
            raise ValueError(
                f"a verdict's parts add up to {total}, but its reward is {reward}"
            )


@dataclass(frozen=True, slots=True)
class Turn:
    """One completion of the policy and what came back, in text."""

    completion: str
    finish_reason: FinishReason
    calls: tuple[Call, ...] = ()
    feedback: str = ""
