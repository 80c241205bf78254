"""Drives one `Dialogue` against real agents and a real verifier, and keeps the token record.

session = Session(task, rules, codec, pool, verifier, aided=True, key=(seed, step, group, rollout))
for message in session.open(): ...          # feed them to the policy, `session.record` what it was fed
message = await session.advance(completion)  # what the policy sees next, or None at the end
episode = session.episode()
"""

import asyncio
import atexit
import hashlib
import os
import re
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, InitVar, dataclass, replace
from functools import cache
from threading import Thread
from typing import Any, TypeVar

from aipo_env.agents.base import AgentReply, AgentRequest
from aipo_env.agents.pool import AgentPool, check_cancelled, request_hash
from aipo_env.codecs.base import Codec
from aipo_env.dialogue import Answer, Consults, Dialogue, DialogueRules, Ended, Feedback
from aipo_env.episode import Episode, Run, TokenRecord
from aipo_env.errors import SandboxUnavailable, VerifierError
from aipo_env.records import (
    CONSULT_KINDS,
    Author,
    Completion,
    Consult,
    Message,
    Span,
    StopReason,
    Task,
    Verdict,
)
from aipo_env.verifiers.base import Verifier
from aipo_env.verifiers.math_equiv import compare, last_boxed, normalise

T = TypeVar("T")
_NOTHING = AgentReply(text="")

_BLANKS = re.compile(r"[\s$]+")
MAX_BARE_ANSWER = 60
"""A reply that is longer than the answer by more characters is more than an answer."""
LONG_ANSWER = 6
"""Normalised characters from which an answer is looked for anywhere in a reply."""


@dataclass(eq=False, repr=False)
class Session:
    """One running episode.

    Args:
        key: Names the episode within a run; every random draw and journal entry of its consultations
            derives from it and from nothing else.
        group_id: Shared by the rollouts of one task in one step.
    """

    task: Task
    rules: InitVar[DialogueRules]
    codec: InitVar[Codec]
    pool: AgentPool
    verifier: Verifier
    _: KW_ONLY
    aided: InitVar[bool]
    key: tuple[int, ...] = (0,)
    group_id: str = ""
    policy_version: int = 0

    def __post_init__(self, rules: DialogueRules, codec: Codec, aided: bool) -> None:
        self.dialogue = Dialogue(self.task, rules, codec, aided=aided)
        self.messages: list[Message] = []
        self.consults: list[Consult] = []
        self.verdict: Verdict | None = None
        self.stop_reason: StopReason | None = None
        self._runs: list[Run] = []

    def open(self) -> tuple[Message, ...]:
        """Return the prompt."""
        messages = self.dialogue.open()
        self.messages += messages
        return messages

    def record(self, token_ids: Sequence[int], span: Span) -> None:
        """Record tokens that the policy was fed, with the span they belong to.

        Only if they are the very tokens that the span's author sampled, its log-probabilities are theirs.
        """
        self._append(token_ids, span)
        self.dialogue.saw(len(token_ids))

    async def advance(self, completion: Completion) -> Message | None:
        """Take one completion of the policy; return what it sees next, or None when the episode is over.

        Raises:
            RuntimeError: The episode was over already.
        """
        if self.stop_reason is not None:
            raise RuntimeError(f"the episode is over: {self.stop_reason}")
        token_ids, span = (
            tuple(completion.token_ids),
            Span(completion.text, Author.POLICY),
        )
        self._append(
            token_ids, replace(span, token_ids=token_ids, logprobs=completion.logprobs)
        )
        self.messages.append(Message("assistant", (span,)))
        need = self.dialogue.receive(completion)
        if isinstance(need, Ended):
            self.stop_reason = need.reason
            return None
        if isinstance(need, Answer):
            await self._judge(need.text)
            return None
        message = (
            need.message if isinstance(need, Feedback) else await self._consult(need)
        )
        self.messages.append(message)
        return message

    def abort(self, reason: StopReason) -> None:
        """End the episode from outside."""
        self.stop_reason = self.stop_reason or reason

    def episode(self) -> Episode:
        """Return the record; the session must be over."""
        if self.stop_reason is None:
            raise RuntimeError("the episode is still running")
        failed = self.stop_reason.is_error
        reward = None if failed else (self.verdict.reward if self.verdict else 0.0)
        return Episode(
            task=self.task,
            aided=self.dialogue.aided,
            messages=tuple(self.messages),
            turns=tuple(self.dialogue.turns),
            consults=tuple(sorted(self.consults, key=lambda consult: consult.call_id)),
            tokens=TokenRecord.join(self._runs),
            verdict=self.verdict,
            reward=reward,
            reward_parts={} if reward is None else {"verdict": reward},
            stop_reason=self.stop_reason,
            group_id=self.group_id,
            num_forged=self.dialogue.num_forged,
            num_invalid=self.dialogue.num_invalid,
            policy_version=self.policy_version,
        )

    async def _judge(self, text: str) -> None:
        """Have the final turn verified. A verifier that fails says nothing about the policy.

        Raises:
            SandboxUnavailable: Nothing could ever be verified on this machine.
        """
        try:
            verdict = await self.verifier.verify(self.task, text)
            if not isinstance(verdict, Verdict):
                raise VerifierError(f"no Verdict, but {type(verdict).__name__}")
            self.verdict = verdict
        except SandboxUnavailable:
            raise
        except (
            Exception,
            SystemExit,
            asyncio.CancelledError,
        ) as error:  # it may be somebody else's program
            check_cancelled()
            fault = f"{type(error).__name__}: {error}"
            self.verdict = Verdict(
                correct=None, reward=None, status="error", reason=fault
            )
        if self.verdict.reward is None:
            self.stop_reason = StopReason.VERIFIER_ERROR
        else:
            answered = self.verdict.status != "no_answer"
            self.stop_reason = (
                StopReason.COMPLETED if answered else StopReason.NO_ANSWER
            )

    async def _consult(self, need: Consults) -> Message:
        """Answer the calls of one turn concurrently, in call order."""
        trace = "\n".join(message.content for message in self.messages[2:])
        asked = [self._ask(consult, trace) for consult in need.pending]
        # A single call, the usual case, needs no task of its own.
        return self.dialogue.reply(
            [await asked[0]] if len(asked) == 1 else await asyncio.gather(*asked)
        )

    async def _ask(self, call: Consult, trace: str) -> Consult:
        """Ask one agent and write the account of it."""
        if call.status == "denied":
            self.consults.append(call)
            return call
        key, tests = (
            (*self.key, call.call_id),
            self.task.tests if call.kind == "verify" else None,
        )
        request = AgentRequest(
            kind=call.kind,
            query=call.query,
            problem=self.task.prompt,
            trace=trace,
            seed=_seed(key),
            key=key,
            is_private=bool(self.task.withheld),
            agent_id=self.pool.agent_id(call.kind),
            public_tests=replace(tests, hidden=tests.public)
            if tests and tests.public
            else None,
        )
        outcome = await self.pool.consult(request)
        said = outcome.reply or _NOTHING
        is_leak = call.kind in CONSULT_KINDS and leaks(
            said.text, self.task.answer, self._said(call.query)
        )
        shown = _NOTHING if is_leak else said
        account = replace(
            call,
            agent_id=said.agent_id or request.agent_id,
            reply=shown.text,
            status="leaked" if is_leak else "answered" if said.text else "failed",
            tokens=said.tokens,
            cost_usd=said.cost_usd,
            retries=outcome.retries,
            prompt_hash=request_hash(request),
            error=outcome.error,
            seconds=outcome.seconds,
            token_ids=shown.token_ids,
            logprobs=shown.logprobs,
        )
        self.consults.append(account)
        return account

    def _said(self, query: str) -> str:
        """Return the policy's own words that let a reply repeat the gold answer.

        A short answer counts as said in this very query only: a policy that has listed all digits has said nothing.
        """
        if len(normalise(self.task.answer)) < LONG_ANSWER:
            return query
        return "\n".join(
            message.content for message in self.messages if message.role == "assistant"
        )

    def _append(self, token_ids: Sequence[int], span: Span) -> None:
        is_sampled = tuple(token_ids) == span.token_ids[: len(token_ids)]
        logprobs = span.logprobs[: len(token_ids)] if is_sampled else ()
        turn = len(self.dialogue.turns)
        self._runs.append(
            (token_ids, int(span.author), span.call_id, turn, logprobs, span.is_content)
        )


def leaks(reply: str, gold: str, said: str) -> bool:
    """Return whether a reply gives the gold answer away.

    It does when the answer it gives (box, "answer is", or all it says) equals the gold, or when a gold of at
    least six normalised characters stands in it as a whole token sequence; not when the policy said it first.
    """
    plain = normalise(gold)
    if not plain or _holds(plain, said):
        return False
    if plain.isdecimal() and not any(map(str.isnumeric, reply)):
        return False  # no notation of a number does without: the usual case, and spares most of the work
    bare = reply.strip(" \t\r\n;")
    given = (
        last_boxed(reply),
        bare if len(bare) <= MAX_BARE_ANSWER + len(gold) else "",
    )
    if any(compare(text, gold)[0] for text in given if text):
        return True
    stated = r"(?i:answer\s*(?:is|equals|:|=))[\s:=*_`$\"'(\[]*"
    return _holds(plain, reply, stated) or (
        len(plain) >= LONG_ANSWER and _holds(plain, reply)
    )


def _holds(answer: str, text: str, before: str = "") -> bool:
    """Return whether a normalised answer stands in a text, however spaced, with no letter or digit beside it."""
    # Most texts do not hold it at all, and building the pattern costs more than the rest of a consultation.
    if _BLANKS.sub("", answer) not in _BLANKS.sub("", text):
        return False
    spaced = r"[\s$]*".join(map(re.escape, answer))
    return re.search(rf"{before}(?<![\w.]){spaced}(?!\w|\.\d)", text) is not None


def _seed(key: tuple[int, ...]) -> int:
    """Return a 32-bit seed that depends on the whole key."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:4], "big")


@cache
def _loop(process_id: int) -> asyncio.AbstractEventLoop:
    """Return the background event loop of this process; a forked child has no thread of its parent's."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever, name="aipo-env", daemon=True)
    thread.start()

    def end() -> None:
        """Have what runs in the loop close its connections."""
        with suppress(TimeoutError):
            if os.getpid() == process_id:
                asyncio.run_coroutine_threadsafe(
                    loop.shutdown_asyncgens(), loop
                ).result(1)
                loop.call_soon_threadsafe(loop.stop)
                thread.join(1)

    atexit.register(end)
    return loop


def run_sync(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine from synchronous code: the only bridge there is. Works inside a running loop too.

    An interruption (Ctrl-C) cancels the work.

    Raises:
        RuntimeError: It is called by work that it runs itself, say by an agent that steps an environment.
    """
    loop = _loop(os.getpid())
    if asyncio._get_running_loop() is loop:
        work.close()
        raise RuntimeError(
            "run_sync() inside what run_sync() runs would wait for itself. Await the work."
        )
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
