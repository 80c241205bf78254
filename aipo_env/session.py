"""Drives one `Dialogue` against real agents and a real verifier, and keeps the token record.

session = Session(task, rules, codec, pool, verifier, aided=True, key=(seed, step, group, rollout))
session.show(voice.open(session.open()))     # what the policy is shown, in its tokens
message = await session.advance(completion)  # what comes back, or None at the end
episode = session.episode()

`drive.play` is the loop over these.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, replace

from aipo_env.agents.base import AgentReply, AgentRequest
from aipo_env.agents.pool import AgentPool, request_hash
from aipo_env.codecs.base import Codec
from aipo_env.dialogue import Answer, Consults, Dialogue, DialogueRules, Ended, Feedback
from aipo_env.episode import Episode, Run, TokenRecord
from aipo_env.errors import SandboxUnavailable, VerifierError
from aipo_env.records import (
    Author,
    Completion,
    Consult,
    Message,
    Span,
    StopReason,
    Task,
    Verdict,
)
from aipo_env.threads import check_cancelled
from aipo_env.tokenizers.base import Piece
from aipo_env.verifiers.base import Verifier

_NOTHING = AgentReply(text="")


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
        self.verdict: Verdict | None = None
        self.stop_reason: StopReason | None = None
        self.runs: list[Run] = []
        """The token record so far, in runs of tokens that stand together."""

    def open(self) -> tuple[Message, ...]:
        """Return the prompt."""
        messages = self.dialogue.open()
        self.messages += messages
        return messages

    def show(self, pieces: Sequence[Piece]) -> None:
        """Record what the policy is shown, and end the episode where a limit does.

        What does not fit into the context is not recorded: the policy never sees it.
        """
        num_tokens = sum(len(token_ids) for token_ids, _ in pieces)
        if not self.dialogue.fits(num_tokens):
            self.abort(StopReason.CONTEXT_OVERFLOW)
            return
        for token_ids, span in pieces:
            self._record(token_ids, span)
        self.dialogue.saw(num_tokens)
        reason = self.dialogue.exhausted()
        if reason is not None:
            self.abort(reason)

    async def advance(
        self, completion: Completion, on_answer: Callable[[], None] = lambda: None
    ) -> Message | None:
        """Take one completion of the policy; return what it sees next, or None when the episode is over.

        `on_answer` is called when the completion is the final answer, before it is verified.

        Raises:
            RuntimeError: The episode was over already.
        """
        if self.stop_reason is not None:
            raise RuntimeError(f"the episode is over: {self.stop_reason}")
        span = Span(
            completion.text,
            Author.POLICY,
            token_ids=tuple(completion.token_ids),
            logprobs=completion.logprobs,
        )
        self._record(span.token_ids, span)
        text = Span(completion.text, Author.POLICY)
        self.messages.append(Message("assistant", (text,)))
        need = self.dialogue.receive(completion)
        if isinstance(need, Ended):
            self.stop_reason = need.reason
            return None
        if isinstance(need, Answer):
            on_answer()
            await self._judge(need.text)
            return None
        if isinstance(need, Feedback):
            message = need.message
        else:
            message = await self._consult(need)
        self.messages.append(message)
        return message

    def abort(self, reason: StopReason) -> None:
        """End the episode from outside."""
        self.stop_reason = self.stop_reason or reason

    def fail(self, reason: StopReason, fault: str) -> None:
        """End the episode because something failed; the verdict tells what. Not if it is over."""
        if self.stop_reason is None:
            self.verdict = Verdict(
                correct=None, reward=None, status="error", reason=fault
            )
            self.stop_reason = reason

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
            consults=self.dialogue.consults,
            tokens=TokenRecord.join(self.runs),
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
            return self.dialogue.account(call)
        key = (*self.key, call.call_id)
        tests = self.task.tests if call.kind == "verify" else None
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
        account = replace(
            call,
            agent_id=said.agent_id or request.agent_id,
            reply=said.text,
            status="answered" if said.text else "failed",
            tokens=said.tokens,
            cost_usd=said.cost_usd,
            retries=outcome.retries,
            prompt_hash=request_hash(request),
            error=outcome.error,
            seconds=outcome.seconds,
            token_ids=said.token_ids,
            logprobs=said.logprobs,
        )
        return self.dialogue.account(account)

    def _record(self, token_ids: Sequence[int], span: Span) -> None:
        """Record tokens with the span they belong to.

        Only if they are the very tokens that the span's author sampled, its log-probabilities are theirs.
        """
        is_sampled = tuple(token_ids) == span.token_ids[: len(token_ids)]
        run = Run(
            token_ids=token_ids,
            author=int(span.author),
            call_id=span.call_id,
            turn=len(self.dialogue.turns),
            logprobs=span.logprobs[: len(token_ids)] if is_sampled else (),
            is_content=span.is_content,
        )
        self.runs.append(run)


def _seed(key: tuple[int, ...]) -> int:
    """Return a 32-bit seed that depends on the whole key."""
    return int.from_bytes(hashlib.sha256(repr(key).encode()).digest()[:4], "big")
