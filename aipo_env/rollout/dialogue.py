"""All rules of one episode, as a pure state machine: no I/O, no await, no clock.

    messages = dialogue.open()
    need = dialogue.receive(completion)   # Consults | Answer | Feedback | Ended
    consult = dialogue.account(consult)  # of each, once it was answered
    message = dialogue.reply(consults)    # after all: what the policy sees next

`fits`, `count_shown` and `exhausted` count the tokens that the policy is shown.

Limits, malformed calls, denied calls and forged markup are decided here, nowhere else.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from aipo_env.budgets import counted, spent_limit
from aipo_env.codecs.base import Codec, Parsed
from aipo_env.records import (
    CONSULT_KINDS,
    Author,
    Call,
    Completion,
    Consult,
    ConsultKind,
    ConsultStatus,
    Message,
    Span,
    StopReason,
    Task,
    Turn,
)
from aipo_env.rollout.prompt import system_prompt
from aipo_env.rollout.quotes import MIN_QUOTE_CHARS, Quotable
from aipo_env.rollout.rules import REPLY_METRICS, DialogueRules
from aipo_env.text import encodable
from aipo_env.verifiers.leaks.gold import Gold, is_short

MAX_CALLS = 64
"""A turn of more calls is malformed: each of them is answered, even if it is denied."""
MAX_COUNTED = 1_000
"""Marks of a call in a turn, up to which each is taken apart."""
MAX_READ_CHARS = 10_000
"""Of a turn with more marks only so many characters are read."""
UNKNOWN = "unknown"
"""Stands for a reply that is withheld, or of an agent that does not know."""
_NOT_KNOWING = ("unknown", "unsure")
"""What our prompts have an agent say that does not know."""
_DRESS = " \t\n.,;:!…*_`\"'“”\u2018\u2019()[]"
"""What may stand around the word of an agent that does not know."""
TOOL_DENIED = "no calls left"
"""What stands in place of a tool's answer beyond its budget."""


@dataclass(frozen=True, slots=True)
class Consults:
    """Answer these calls, then call `reply` with the account of each, in order.

    Each is the beginning of its account: "denied", and then it is not executed, or
    "failed" until it is answered.
    """

    pending: tuple[Consult, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The final answer: verify this text; the episode is over."""

    text: str


@dataclass(frozen=True, slots=True)
class Feedback:
    """The turn was malformed; the policy sees this message and goes on."""

    message: Message


@dataclass(frozen=True, slots=True)
class Ended:
    """A limit ended the episode."""

    reason: StopReason


Need = Consults | Answer | Feedback | Ended


class Dialogue:
    """One episode's state.

    Args:
        codec: Reads calls to roles only if agents are offered.
        aided: False is deployment: the plain prompt, and calls to agents are plain
            text.
        offered: The roles that somebody answers for.
        tools: The names of the tools that there are.
    """

    def __init__(
        self,
        task: Task,
        rules: DialogueRules,
        codec: Codec,
        *,
        aided: bool,
        offered: Sequence[ConsultKind] = CONSULT_KINDS,
        tools: Sequence[str] = (),
    ) -> None:
        self.task = task
        self.rules = rules
        self.codec = codec
        self.aided = aided
        self.offered: tuple[ConsultKind, ...] = ()
        if aided:
            self.offered = tuple(role for role in rules.kinds if role in offered)
        self.tools: tuple[str, ...] = ()
        if aided or rules.tools_when == "always":
            self.tools = tuple(tools)
        self.gold = Gold.of(task)
        self.turns: list[Turn] = []
        self.num_policy_tokens = 0
        self.num_context_tokens = 0
        self.num_forged = 0
        self.num_invalid = 0
        self._forging_turns: set[int] = set()
        self._pending: tuple[Consult, ...] = ()
        # Calls by role or tool, and what replies took by `counted`'s names.
        self._charged: Counter[str] = Counter()
        self._spent = defaultdict[str, float](float)
        self._num_calls = 0
        # By id: calls of one turn end in any order.
        self._accounts: dict[int, Consult] = {}

    @property
    def num_consults(self) -> int:
        """Consultations of agents charged so far."""
        return sum(self._charged[role] for role in CONSULT_KINDS)

    @property
    def num_tool_calls(self) -> int:
        """Calls of tools charged so far."""
        return self._charged.total() - self.num_consults

    def open(self) -> tuple[Message, ...]:
        """Return the prompt."""
        text = system_prompt(
            self.rules, self.codec, offered=self.offered, has_tools=bool(self.tools)
        )
        system = Span(text, Author.PROMPT)
        task = Span(self.task.prompt, Author.PROMPT)
        return (Message("system", (system,)), Message("user", (task,)))

    def stop_strings(self) -> tuple[str, ...]:
        """Return the strings after which the policy's turn ends."""
        if not self._reads_calls:
            return ()
        return self.codec.stop_strings(self.offered)

    @property
    def _reads_calls(self) -> bool:
        """Whether there is anything to call; if not, markup is plain text."""
        return bool(self.offered or self.tools)

    def token_limit(self) -> int:
        """Return how many tokens the next completion may have."""
        num_left = min(self._policy_tokens_left(), self.context_left())
        return max(0, num_left)

    def exhausted(self) -> StopReason | None:
        """Return the limit that forbids another completion, if one does."""
        if self.token_limit():
            return None
        return self._token_reason()

    @property
    def consults(self) -> tuple[Consult, ...]:
        """The accounts of all calls that have ended, in the order of the calls."""
        return tuple(self._accounts[call_id] for call_id in sorted(self._accounts))

    def fits(self, num_tokens: int) -> bool:
        """Return whether the policy may be shown so many tokens without an overflow."""
        return num_tokens <= self.context_left()

    def count_shown(self, num_tokens: int) -> None:
        """Count tokens that the policy was shown, and did not sample, as context."""
        self.num_context_tokens += num_tokens

    def receive(self, completion: Completion) -> Need:
        """Take one completion and say what is wanted next."""
        # Before this completion is counted: by then both limits may be reached.
        reason_if_cut = self._token_reason()
        self.num_policy_tokens += len(completion.token_ids)
        self.num_context_tokens += len(completion.token_ids)
        parsed = self._parsed(completion.text)
        self.num_forged += parsed.num_forged
        if parsed.num_forged:
            self._forging_turns.add(len(self.turns))
        turn = Turn(completion.text, completion.finish_reason, parsed.calls)
        self.turns.append(turn)
        if completion.finish_reason == "error":
            return Ended(StopReason.POLICY_ERROR)
        if completion.finish_reason == "length":
            return Ended(reason_if_cut)
        if not parsed.calls and not parsed.malformed:
            return Answer(completion.text)
        if parsed.malformed:
            self.num_invalid += 1
        if self.num_invalid > self.rules.max_invalid:
            return Ended(StopReason.PARSE_ERROR)
        if len(self.turns) >= self.rules.max_turns:
            return Ended(StopReason.MAX_TURNS)
        if parsed.malformed:
            text = f"Malformed call: {parsed.malformed}. Nothing was asked."
            return Feedback(self._answer_turn((Span(text, Author.ENV),)))
        self._pending = tuple(self._admit(call) for call in parsed.calls)
        return Consults(self._pending)

    def _parsed(self, text: str) -> Parsed:
        """Return what a completion asks for, no more than `MAX_CALLS` things."""
        if not self._reads_calls:
            return Parsed()
        marks = self.codec.macros(self.offered).values()
        num_marks = sum(text.count(opening) for opening, _ in marks)
        if num_marks > MAX_COUNTED:
            # To take each of them apart would hold everybody up.
            beginning = self.codec.parse(text[:MAX_READ_CHARS])
            return _too_many(num_marks, beginning.num_forged)
        parsed = self.codec.parse(text)
        num_calls = len(parsed.calls)
        if num_calls > MAX_CALLS:
            return _too_many(num_calls, parsed.num_forged)
        return parsed

    def reply(self, consults: Sequence[Consult]) -> Message:
        """Take what came of each pending call; return what the policy sees.

        Every call that was made is charged, whatever came of it, and a reply is charged
        for what it took, shown or withheld.
        """
        if len(consults) != len(self._pending):
            raise ValueError(
                f"{len(consults)} replies for {len(self._pending)} pending calls"
            )
        # Made only for agents' words: those of tools are in no loss, whosever they are.
        may_quote = any(
            consult.is_agents
            and consult.status == "answered"
            and len(consult.reply) >= MIN_QUOTE_CHARS
            for consult in consults
        )
        quotable = self._quotable() if may_quote else Quotable()
        spans: list[Span] = []
        for pending, consult in zip(self._pending, consults, strict=True):
            if consult.status in ("answered", "leaked"):
                self._spend(consult)
            rendered = self.codec.render_reply(pending.kind, self._body(consult))
            for span in rendered:
                spans += _without_quotes(_as_sampled(span, consult), quotable)
        self._pending = ()
        return self._answer_turn(tuple(spans))

    def account(self, consult: Consult, *, gives_away: bool = False) -> Consult:
        """Record what came of one call; return it as `reply` is to have it.

        Args:
            gives_away: An agent's reply states the gold answer. It is withheld, and the
                call leaked; of a gold with few candidates it is shown, and the call has
                revealed it.
        """
        if gives_away and is_short(self.gold):
            consult = replace(consult, reveals=True)
        elif gives_away:
            consult = replace(
                consult, status="leaked", reply="", token_ids=(), logprobs=()
            )
        self._accounts[consult.call_id] = consult
        return consult

    def own_words(self, query: str) -> str:
        """Return the policy's own words that let a reply repeat the gold answer.

        A gold with few candidates counts as said in this very query only: a policy that
        has listed all digits has said nothing.
        """
        if is_short(self.gold):
            return query
        return "\n".join(turn.completion for turn in self.turns)

    def _body(self, consult: Consult) -> Span:
        """Return the reply's text: the agent's, or a notice.

        A reply that is withheld reads like one of an agent that does not know.
        """
        if consult.status == "answered":
            author = Author.AGENT if consult.kind in CONSULT_KINDS else Author.TOOL
            return Span(
                self._unified_unknown(consult),
                author,
                consult.agent_id,
                consult.call_id,
                is_content=True,
            )
        if consult.status == "leaked":
            notice = UNKNOWN
        elif consult.status != "denied":
            notice = self.codec.unavailable
        elif consult.kind in CONSULT_KINDS:
            notice = self.codec.denied
        else:
            notice = TOOL_DENIED
        return Span(notice, Author.ENV, call_id=consult.call_id)

    def _unified_unknown(self, consult: Consult) -> str:
        """Return a reply, or `UNKNOWN` if it says no more than not to know."""
        may_be_withheld = consult.is_agents and not is_short(self.gold)
        if not may_be_withheld:
            return consult.reply
        bare = consult.reply.strip(_DRESS).casefold()
        if bare in _NOT_KNOWING:
            # Else the policy could tell which of the two it was.
            return UNKNOWN
        return consult.reply

    def has_forged(self, turn: int) -> bool:
        """Return whether the policy made up a reply in a turn."""
        return turn in self._forging_turns

    def _quotable(self) -> Quotable:
        """Return the policy's own words, as the codec writes them into a reply.

        Its queries stand apart: a codec may have read them out of JSON.
        """
        turns = "\n".join(turn.completion for turn in self.turns)
        asked = (*self.consults, *self._pending)
        queries = "\n".join(consult.query for consult in asked)
        return Quotable(self._as_replied(turns), self._as_replied(queries))

    def _as_replied(self, text: str) -> str:
        """Return a text as it stands in an agent's reply."""
        body = Span(text, Author.AGENT, is_content=True)
        rendered = self.codec.render_reply(CONSULT_KINDS[0], body)
        return "".join(span.text for span in rendered if span.is_content)

    def may_consult(self, kind: str) -> bool:
        """Return whether a call to a role or a tool would be answered, not denied."""
        is_there = kind in self.offered or kind in self.tools
        return is_there and self._within_budgets(kind)

    def _within_budgets(self, kind: str) -> bool:
        """Return whether the budgets allow another call."""
        rules = self.rules
        if kind in CONSULT_KINDS:
            num_charged = self.num_consults
            budget = rules.consult_budget
        else:
            num_charged = self.num_tool_calls
            budget = rules.tool_budget
        if num_charged >= budget:
            return False
        budget_of_kind = rules.budget_per_kind.get(kind, budget)
        if self._charged[kind] >= budget_of_kind:
            return False
        return not spent_limit(rules.reply_budget, self._spent, kind)

    def _spend(self, consult: Consult) -> None:
        """Charge a reply to the budgets of replies, in all and of its role."""
        amounts = (consult.tokens, consult.cost_usd)
        for metric, amount in zip(REPLY_METRICS, amounts, strict=True):
            for name in counted(consult.kind, metric):
                self._spent[name] += amount

    def _admit(self, call: Call) -> Consult:
        """Charge a call to the budgets, or deny it."""
        is_known = call.kind in self.rules.kinds or call.kind in self.tools
        is_allowed = is_known and self._within_budgets(call.kind)
        # A role that nobody answers for is asked in vain, which costs nothing.
        is_there = call.kind in self.offered or call.kind in self.tools
        if is_allowed and is_there:
            self._charged[call.kind] += 1
        call_id = self._num_calls
        self._num_calls += 1
        status: ConsultStatus = "failed" if is_allowed else "denied"
        return Consult(
            kind=call.kind,
            agent_id="",
            query=encodable(call.query),
            reply="",
            status=status,
            call_id=call_id,
            turn=len(self.turns),
        )

    def _answer_turn(self, spans: tuple[Span, ...]) -> Message:
        """Record what came back in the last turn and return it as a message."""
        message = Message("user", spans)
        self.turns[-1] = replace(self.turns[-1], feedback=message.content)
        return message

    def _token_reason(self) -> StopReason:
        """Return which of the limits of tokens is the next."""
        if self.context_left() < self._policy_tokens_left():
            return StopReason.CONTEXT_OVERFLOW
        return StopReason.MAX_SAMPLED_TOKENS

    def _policy_tokens_left(self) -> int:
        return self.rules.max_policy_tokens - self.num_policy_tokens

    def context_left(self) -> int:
        """Return how many tokens the episode may still grow by."""
        return self.rules.max_context_tokens - self.num_context_tokens


def _too_many(num_calls: int, num_forged: int) -> Parsed:
    """Return what a turn of too many calls is taken for: malformed."""
    fault = f"{num_calls} calls stand in one turn; at most {MAX_CALLS} may"
    return Parsed((), fault, num_forged)


def _as_sampled(span: Span, consult: Consult) -> Span:
    """Return a reply's body with the tokens it was sampled as."""
    if not consult.token_ids or not span.is_content:
        return span
    if span.text != consult.reply:
        # A codec had to change it, so that those tokens spell another text.
        return span
    if span.text == UNKNOWN:
        # One that is withheld has no tokens of its own either.
        return span
    return replace(span, token_ids=consult.token_ids, logprobs=consult.logprobs)


def _without_quotes(span: Span, quotable: Quotable) -> Sequence[Span]:
    """Return an agent's words, with what they quote of the policy's set apart."""
    if span.author != Author.AGENT or not span.is_content:
        return (span,)
    parts = list(quotable.parts(span.text))
    if not any(is_quoted for _, is_quoted in parts):
        return (span,)
    spans: list[Span] = []
    for text, is_quoted in parts:
        author = Author.ENV if is_quoted else span.author
        # Its tokens, if they are known, are those of the whole.
        part = replace(span, text=text, author=author, token_ids=(), logprobs=())
        spans.append(part)
    return spans
