"""The records that flow through an environment: small, frozen, checked when made."""

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
"""What a policy may consult: the Knowledge, the Reasoning or the Verify Agent."""
CONSULT_KINDS: tuple[ConsultKind, ...] = get_args(ConsultKind)
"""All of these roles."""

Split = Literal["train", "test"]
"""Training tasks, and those kept for evaluation."""

FinishReason = Literal["stop", "length", "error"]
"""Why an engine ended a completion: a stop string or end token, a limit, a failure."""

_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a pair: what JSON and broken decoders may leave in a text of Python's."""


def holds_half_pair(text: str) -> bool:
    """Return whether a text holds half a surrogate pair: it has no bytes, no tokens."""
    return _SURROGATE.search(text) is not None


class Author(IntEnum):
    """Who wrote a token.

    Tokens of `POLICY`, and reply content of `AGENT`, enter the objective; those of
    `TOOL` and `ENV` only where a run learns them as observations.
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
        """True when something else than the policy failed; nobody trains on that."""
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
            `entry`. "asserts": likewise, tested by Python that calls it.
        public: Tests that the policy and its agents may see; `{"input", "output"}`
            texts for "stdin", `{"args": [...], "expected": ...}` JSON values for
            "function", `{"code"}` for "asserts".
        hidden: The tests that decide; in no agent's request and in no prompt.
        entry: What is called: "name" or "Solution.name".
        compare: How outputs are compared, a "mode" of `COMPARE_MODES` with what it
            takes. Empty: exactly, as the kind has it. "float_tokens_by_line" and
            "json_float" take "rtol" and "atol", numbers from 0 to less than 1.
            "livecodebench": programs are run, and results compared, as that benchmark
            does. "checker" takes "program", Python that defines `check(input, expected,
            output)`; it returns True, or False or a text that says what is wrong.
        prelude: Python that is put before every program: what its author may take for
            granted.
        time_limit_s: Seconds per test, from 0.01 to 300.
        memory_mb: MiB per test, a whole number, 16,384 at most.
        output_mb: MiB that a program may print per test, 16 at most; a test that
            expects more than half as much raises it.
        threads: Threads at once, the first included, 64 at most. The stack of each is
            memory; the first one's is as large as the memory.
        packages: What may be imported beside Python's library: of `GRANTABLE`.
        solution: A program that passes; nobody is shown it. `aipo tasks --solutions`
            runs it.

    The machine that runs the tests may allow less of time, memory, output and threads.

    Raises:
        DataError: A field is of the wrong type or a test lacks a part; the message
            names it.
    """

    kind: Literal["stdin", "function", "asserts"] = "stdin"
    public: tuple[Mapping[str, Any], ...] = ()
    hidden: tuple[Mapping[str, Any], ...] = ()
    entry: str = ""
    compare: Mapping[str, Any] = field(default_factory=dict)
    prelude: str = ""
    time_limit_s: float = 2.0
    memory_mb: int = 256
    output_mb: int = 1
    threads: int = 8
    packages: tuple[str, ...] = ()
    solution: str = ""

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
        self._check_source("prelude", self.prelude)
        self._check_source("solution", self.solution)
        self._check_compare()
        self._check_limits()
        self._check_packages()

    def _check_tests(self, name: str) -> None:
        """Take a list of tests that some program can pass."""
        rows: Any = getattr(self, name)
        is_list = isinstance(rows, list | tuple)
        _check(is_list, f"tests: field {name!r}", "a list of objects", rows)
        for number, row in enumerate(rows):
            self._check_test(f"tests: {name}[{number}]", row)
        # The only way to set a field of a frozen dataclass.
        object.__setattr__(self, name, tuple(rows))

    def _check_test(self, place: str, row: Any) -> None:
        """Take a test that has its parts, each of a form that some program can meet."""
        parts = _TEST_PARTS[self.kind]
        names = [f"{part} ({kind.__name__})" for part, kind in parts.items()]
        form = f"an object with {' and '.join(names)}"
        has_all = isinstance(row, Mapping) and parts.keys() <= row.keys()
        _check(has_all, place, form, row)
        for part, kind in parts.items():
            _check(isinstance(row[part], kind), place, form, row)
        for part in parts:
            fault = _PART_FAULTS[part](row[part])
            if fault:
                raise DataError(
                    f"{place}: field {part!r} {fault}, so no program can be given it or"
                    " come to it. Correct or delete the test."
                )

    def _check_entry(self) -> None:
        """Take the name of a function, or of a method and its class."""
        entry: Any = self.entry
        _check(isinstance(entry, str), "tests: field 'entry'", "text", entry)
        if self.kind == "stdin":
            return
        if not entry:
            raise DataError(
                f"tests: a task of kind {self.kind!r} needs 'entry', the name of what"
                " is called."
            )
        is_short = len(entry) <= MAX_ENTRY_CHARS
        form = f'"name" or "Class.name", of {MAX_ENTRY_CHARS} characters at most'
        is_fit = is_short and _is_entry(entry)
        _check(is_fit, "tests: field 'entry'", form, entry)

    def _check_source(self, name: str, source: Any) -> None:
        """Take a text that can be Python; whether it is, the sandbox says."""
        _check(isinstance(source, str), f"tests: field {name!r}", "text", source)
        fault = ""
        if holds_half_pair(source):
            fault = "half a surrogate pair"
        elif "\0" in source:
            fault = "a null character"
        if fault:
            raise DataError(
                f"tests: field {name!r} holds {fault}, with which no program is"
                " Python. Delete it."
            )

    def _check_compare(self) -> None:
        """Take a way to compare that its kind of test has, and tolerances below 1."""
        compare: Any = self.compare
        what = "tests: field 'compare'"
        _check(isinstance(compare, Mapping), what, "an object", compare)
        # A parquet file has every field in every row: an empty one is not there.
        compare = {name: value for name, value in compare.items() if value is not None}
        object.__setattr__(self, "compare", compare)
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
        for name in compare.keys() - {"mode"} - set(_MODE_FIELDS.get(mode, ())):
            fit = [
                repr(other) for other in modes if name in _MODE_FIELDS.get(other, ())
            ]
            way_out = f"Use the mode {' or '.join(fit)}, or leave" if fit else "Leave"
            raise DataError(
                f"{what}: {name!r} says nothing in mode {mode!r}. {way_out} it out."
            )
        for name in ("rtol", "atol"):
            value = compare.get(name, 0)
            # From 1 on a relative tolerance tells no number from 0.
            is_fit = _is_number(value) and 0 <= value < 1
            form = "a number from 0 to less than 1"
            _check(is_fit, f"{what}: {name!r}", form, value)
        if mode == "checker":
            program = compare.get("program")
            is_text = isinstance(program, str) and program.strip() != ""
            form = "Python that defines check(input, expected, output)"
            _check(is_text, f"{what}: 'program'", form, program)
            self._check_source("compare", program)

    def _check_limits(self) -> None:
        """Take limits within what any machine is asked for; memory is in whole MiB."""
        time_s: Any = self.time_limit_s
        form = f"a number of seconds from {MIN_TIME_LIMIT_S} to {MAX_TIME_LIMIT_S}"
        is_time = _is_number(time_s) and MIN_TIME_LIMIT_S <= time_s <= MAX_TIME_LIMIT_S
        _check(is_time, "tests: field 'time_limit_s'", form, time_s)
        most = {
            "memory_mb": (MAX_MEMORY_MB, "of MiB "),
            "output_mb": (MAX_OUTPUT_MB, "of MiB "),
            "threads": (MAX_THREADS, ""),
        }
        for name, (most_of_it, unit) in most.items():
            value: Any = getattr(self, name)
            # 256.0, which a parquet file makes of 256, is whole.
            is_in_range = _is_number(value) and 0 < value <= most_of_it
            is_whole = is_in_range and value == int(value)
            form = f"a whole number {unit}from 1 to {most_of_it}"
            _check(is_whole, f"tests: field {name!r}", form, value)
            object.__setattr__(self, name, int(value))

    def _check_packages(self) -> None:
        """Take names of packages that there are; a list becomes a tuple."""
        packages: Any = self.packages
        is_list = isinstance(packages, list | tuple)
        are_known = is_list and all(name in GRANTABLE for name in packages)
        form = f"a list of names, of {', '.join(GRANTABLE)}"
        _check(are_known, "tests: field 'packages'", form, packages)
        object.__setattr__(self, "packages", tuple(dict.fromkeys(packages)))


MIN_TIME_LIMIT_S = 0.01
"""In less no program runs, and every one would be too slow."""
MAX_TIME_LIMIT_S = 300
"""No test takes longer: a file of tasks does not choose how long a machine is held."""
MAX_MEMORY_MB = 16_384
"""No task asks for more: a file of tasks does not choose what a machine can bear."""
MAX_OUTPUT_MB = 16
"""No program prints more; a test that expects more can be passed by none."""
MAX_THREADS = 64
"""No task asks for more."""
GRANTABLE = ("numpy",)
"""What a task may have its programs import beside Python's library."""
MAX_ENTRY_CHARS = 200
"""A longer name is none that anybody wrote."""
MAX_DEPTH = 100
"""Lists and objects within one another; no reader of JSON need read what is deeper."""
COMPARE_MODES = {
    "stdin": ("tokens_by_line", "float_tokens_by_line", "livecodebench", "checker"),
    "function": ("exact_json", "json_float", "livecodebench", "checker"),
    "asserts": ("asserts",),
}
"""Ways to compare, by the kind of test; the first is the default."""
_MODE_FIELDS = {
    "float_tokens_by_line": ("rtol", "atol"),
    "json_float": ("rtol", "atol"),
    "checker": ("program",),
}
"""What a mode takes beside its name."""
_COMPARE_FIELDS = ("mode", "rtol", "atol", "program")
_MIB = 2**20
_TOO_LONG = f"is longer than {MAX_OUTPUT_MB} MiB"


def json_fault(value: Any) -> str:
    """Return why a value cannot be written as JSON and read again; empty if it can."""
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


def _output_fault(text: str) -> str:
    """Return why no program prints a text; empty where one can."""
    if len(text) > MAX_OUTPUT_MB * _MIB:
        return _TOO_LONG
    return _text_fault(text)


def _expected_fault(value: Any) -> str:
    """Return why no program comes to a value; empty where one can."""
    fault = depth_fault(value)
    if fault:
        return fault
    try:
        num_chars = len(json.dumps(value))
    except (TypeError, ValueError):  # too many digits for Python, not for a program
        return ""
    return _TOO_LONG if num_chars > MAX_OUTPUT_MB * _MIB else ""


def depth_fault(value: Any) -> str:
    """Return that a value is nested too deeply; empty where it is not."""
    # Level by level, and not by recursion, which would end at Python's own limit.
    level = _containers([value])
    for _ in range(MAX_DEPTH):
        next_level: list[Any] = []
        for outer in level:
            inner = outer.values() if isinstance(outer, Mapping) else outer
            next_level += _containers(inner)
        if not next_level:
            return ""
        level = next_level
    return _TOO_DEEP


_TOO_DEEP = f"is nested deeper than {MAX_DEPTH}"


def _containers(values: Iterable[Any]) -> list[Any]:
    """Return the lists and objects among values."""
    return [value for value in values if isinstance(value, list | tuple | Mapping)]


def _is_number(value: Any) -> bool:
    """Return whether a value is a number; True, an instance of int, is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_entry(text: str) -> bool:
    """Return whether a program can define what a text names: "name" or "Class.name"."""
    names = text.split(".")
    if len(names) > 2 or not all(map(_is_defined_name, names)):
        return False
    if len(names) == 1:
        return True
    # A method's name with two bars in front is another outside its class.
    method = names[1]
    is_private = method.startswith("__") and not method.endswith("__")
    return not is_private


def _is_defined_name(name: str) -> bool:
    """Return whether a program can define this name."""
    # Python takes another spelling for the usual one, and finds no other.
    is_usual = unicodedata.normalize("NFKC", name) == name
    return name.isidentifier() and not keyword.iskeyword(name) and is_usual


def _check(holds: bool, field: str, form: str, value: object) -> None:
    """Raise DataError that names a field and what is valid, unless it holds."""
    if not holds:
        raise DataError(f"{field} must be {form}, got {shown(value)}.")


_TEST_PARTS: dict[str, dict[str, type]] = {
    "stdin": {"input": str, "output": str},
    "function": {"args": list, "expected": object},
    "asserts": {"code": str},
}
_PART_FAULTS: dict[str, Callable[[Any], str]] = {
    "input": _text_fault,
    "output": _output_fault,
    "args": json_fault,
    "expected": _expected_fault,
    "code": _text_fault,
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
        is_list = isinstance(choices, list | tuple)
        are_texts = is_list and all(isinstance(text, str) for text in choices)
        _check(are_texts, f"{who}: field 'choices'", "a list of texts", choices)
        for text in choices:
            self._check_pairs("choices", text)
        is_object = isinstance(self.meta, Mapping)
        _check(is_object, f"{who}: field 'meta'", "an object", self.meta)
        fault = depth_fault(self.meta)
        if fault:
            raise DataError(f"{who}: field 'meta' {fault}. Flatten or delete it.")
        object.__setattr__(self, "choices", tuple(choices))
        tests: Any = self.tests
        if tests is None or isinstance(tests, CodeTests):
            return
        form = "an object with the tests, or null"
        _check(isinstance(tests, Mapping), f"{who}: field 'tests'", form, tests)
        # A parquet file has every field in every row: an empty one is not there. Fields
        # that are not ours are what a dataset keeps for itself.
        valid = CodeTests.__dataclass_fields__
        fields = {
            name: value
            for name, value in tests.items()
            if name in valid and value is not None
        }
        object.__setattr__(self, "tests", CodeTests(**fields))

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
    """A run of text with one author.

    Args:
        text: The text.
        author: Who wrote it.
        agent_id: Which agent or tool; empty for everybody else.
        call_id: The consultation it belongs to; -1 where it belongs to none.
        is_content: True for a reply's body, false for its wrapper and all else.
        token_ids, logprobs: There if the author is a model that sampled the text with
            the policy's tokenizer. They are no part of the text's record: in the token
            record they stand anyway.
    """

    text: str
    author: Author
    agent_id: str = ""
    call_id: int = -1
    is_content: bool = False
    token_ids: tuple[int, ...] = field(default=(), compare=False, repr=False)
    logprobs: tuple[float, ...] = field(default=(), compare=False, repr=False)

    def told(self) -> dict[str, Any]:
        """Return what libraries and clients of others are told of it; it fits in JSON.

        Returns:
            `text`, `author` (the name, in small letters) and `is_content`.
        """
        return {
            "text": self.text,
            # A number, in an episode that was read from a file.
            "author": Author(self.author).name.lower(),
            "is_content": self.is_content,
        }


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
    """What the policy wrote in one turn.

    Args:
        text: What the tokens spell.
        token_ids: The ids that were sampled, never re-tokenised; empty where only the
            text is known.
        logprobs: Their log-probabilities in nats as the sampler had them, NaN where
            unknown; none, or one of each token.
        finish_reason: Why the engine ended it.

    Raises:
        ValueError: The numbers of tokens and log-probabilities differ, or one is
            infinite.
    """

    text: str
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    finish_reason: FinishReason = "stop"

    def __post_init__(self) -> None:
        num_logprobs = len(self.logprobs)
        num_tokens = len(self.token_ids)
        if num_logprobs not in (0, num_tokens):
            raise ValueError(f"{num_logprobs} logprobs for {num_tokens} token ids")
        if any(math.isinf(logprob) for logprob in self.logprobs):
            raise ValueError(
                "an infinite logprob: a sampled token had a probability; unknown is NaN"
            )


@dataclass(frozen=True, slots=True)
class Call:
    """A consultation that the policy asked for.

    Args:
        kind: An agent's role, or a tool's name.
        query: What it is asked.
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
        """Whether an agent was asked, and not a tool called."""
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
"""Named addends of one reward: each becomes a curve."""
MAX_PART_CHARS = 100
"""Of such a name."""
_SUM_TOLERANCE = 1e-6
"""How far the parts may be from the reward, relative to the largest of all of these."""


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
        is_text = plain.strip() != "" and plain.isprintable()
        if not is_text or len(plain) > MAX_PART_CHARS:
            fault = f"a part of the reward is named {shown(name)}"
            form = f"printable text of 1 to {MAX_PART_CHARS} characters"
            raise ValueError(f"{fault}; a name is {form}")
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
        sizes = [1.0, abs(reward), *map(abs, parts.values())]
        total = sum(parts.values())
        # A sum that overflows is no number, which is not within any tolerance.
        is_sum = abs(total - reward) <= _SUM_TOLERANCE * max(sizes)
        if parts and not is_sum:
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
