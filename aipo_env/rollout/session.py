"""Plays one `Dialogue` with real agents and a verifier, and keeps the token record.

    session = Session(task, rules, codec, pool, verifier, aided=True, key=key)
    session.show(voice.open(session.open()))     # the prompt, in the policy's tokens
    message = await session.advance(completion)  # what comes back, None at the end
    episode = session.episode()

`drive.play` is the loop over these.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, InitVar, dataclass, field, replace

from aipo_env.agents.base import Agent, AgentLost, AgentReply, AgentRequest, BudgetSpent
from aipo_env.agents.forged import marked_if_forged
from aipo_env.agents.pool.agent_pool import AgentPool
from aipo_env.agents.pool.journal import request_hash
from aipo_env.codecs.base import Codec
from aipo_env.episode import Episode, TokenRecord, TokenRun
from aipo_env.errors import ToolError, VerifierError, error_text, is_hopeless
from aipo_env.keys import short_seed
from aipo_env.records import (
    CONSULT_KINDS,
    Author,
    CodeTests,
    Completion,
    Consult,
    Message,
    Span,
    StopReason,
    Task,
    Verdict,
)
from aipo_env.rollout.dialogue import (
    Answer,
    Consults,
    Dialogue,
    Ended,
    Feedback,
)
from aipo_env.rollout.rules import DialogueRules
from aipo_env.text import encodable
from aipo_env.threads import all_of
from aipo_env.tokenizers.base import Piece
from aipo_env.tools.toolbox import Toolbox
from aipo_env.verifiers.base import (
    EpisodeView,
    Verifier,
    rewards_turns,
    run_turn_reward,
    run_verifier,
)
from aipo_env.verifiers.leaks.check import gives_away

_NOTHING = AgentReply(text="")
"""What an agent said that gave no reply."""


@dataclass(eq=False, repr=False)
class Session:
    """One running episode.

    Args:
        task: What is to be solved.
        rules: Limits and prompts.
        codec: How calls and replies look in text.
        pool: The agents, by role.
        verifier: What says whether the answer is right.
        aided: Whether the policy is told of the agents and may consult.
        toolbox: The environment's tools; this episode gets its own of those with state.
        key: Names the episode within a run; every random draw and journal entry of its
            consultations derives from it and from nothing else.
        group_id: Shared by the rollouts of one task in one step.
        policy_version: The number of the policy's weights, for the record.
    """

    task: Task
    rules: InitVar[DialogueRules]
    codec: InitVar[Codec]
    pool: AgentPool
    verifier: Verifier
    _: KW_ONLY
    aided: InitVar[bool]
    toolbox: Toolbox = field(default_factory=Toolbox)
    key: tuple[int, ...] = (0,)
    group_id: str = ""
    policy_version: int = 0

    def __post_init__(self, rules: DialogueRules, codec: Codec, aided: bool) -> None:
        offered = tuple(role for role in CONSULT_KINDS if role in self.pool.agents)
        self.dialogue = Dialogue(
            self.task,
            rules,
            codec,
            aided=aided,
            offered=offered,
            tools=self.toolbox.names,
        )
        self.tools = self.toolbox.open(self.task)
        self._turn_rewards: dict[str, float] = {}
        self.messages: list[Message] = []
        self._num_prompt = 0
        """How many of the messages are the prompt."""
        self.verdict: Verdict | None = None
        self.stop_reason: StopReason | None = None
        self._marked_turns: list[str] = []
        """The policy's turns as agents are shown them."""
        self.token_runs: list[TokenRun] = []
        """The token record so far, in runs of tokens that stand together."""
        self.is_consulting = False
        """Whether it waits for the answers to a turn's calls."""

    async def prepare(self) -> None:
        """Make the tools that have a state of their own.

        If one cannot be made, the episode fails.
        """
        if not self.toolbox.has_state:
            return
        try:
            await self.tools.start(self.pool.limits.deadline_s)
        except ToolError as error:
            self.fail(StopReason.TOOL_ERROR, str(error))

    async def close(self) -> None:
        """Close the tools that have a state. May be called twice."""
        if self.toolbox.has_state:
            await self.tools.close()

    def open(self) -> tuple[Message, ...]:
        """Return the prompt."""
        messages = self.dialogue.open()
        self.messages += messages
        self._num_prompt = len(messages)
        return messages

    def show(self, pieces: Sequence[Piece]) -> None:
        """Record what the policy is shown, and end the episode where a limit does.

        What does not fit into the context is not recorded: the policy never sees it.
        """
        num_tokens = sum(len(token_ids) for token_ids, _ in pieces)
        # Before it is recorded, unlike the limits below: this one cannot be overrun.
        if not self.dialogue.fits(num_tokens):
            self.abort(StopReason.CONTEXT_OVERFLOW)
            return
        for token_ids, span in pieces:
            self._record(token_ids, span)
        self.dialogue.count_shown(num_tokens)
        reason = self.dialogue.exhausted()
        if reason is not None:
            self.abort(reason)

    async def advance(
        self, completion: Completion, on_answer: Callable[[], None] = lambda: None
    ) -> Message | None:
        """Take one completion of the policy; return what it sees next.

        Whatever a text does to what reads it ends this episode alone, with
        `environment_error`.

        Args:
            completion: The policy's turn.
            on_answer: Called when the turn is the final answer, before it is verified.

        Returns:
            What came back; None when the episode is over.

        Raises:
            RuntimeError: The episode was over already.
            AgentLost, BudgetSpent, ConfigError, ImportError, SandboxUnavailable: The
                run is to stop.
        """
        if self.stop_reason is not None:
            raise RuntimeError(f"the episode is over: {self.stop_reason}")
        try:
            return await self._take(completion, on_answer)
        except Exception as error:
            # Those concern every episode; any other error, this one's text.
            if is_hopeless(error) or isinstance(error, AgentLost | BudgetSpent):
                raise
            self.fail(StopReason.ENVIRONMENT_ERROR, error_text(error))
            return None

    async def _take(
        self, completion: Completion, on_answer: Callable[[], None]
    ) -> Message | None:
        """Take a completion: record it, and do what it asks for."""
        sampled = Span(
            completion.text,
            Author.POLICY,
            token_ids=tuple(completion.token_ids),
            logprobs=completion.logprobs,
        )
        self._record(sampled.token_ids, sampled)
        # A message is text: its tokens stand in the record, once.
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
        await self._reward_turn(completion.text)
        # A verifier that failed at the turn's reward has ended the episode.
        return message if self.stop_reason is None else None

    def abort(self, reason: StopReason) -> None:
        """End the episode from outside; a reason that it has already stays."""
        self.stop_reason = self.stop_reason or reason

    def fail(self, reason: StopReason, fault: str) -> None:
        """End the episode because something failed, unless it is over.

        Args:
            reason: What kind of thing failed.
            fault: What the verdict says of it.
        """
        if self.stop_reason is not None:
            return
        self.verdict = Verdict(correct=None, reward=None, status="error", reason=fault)
        self.stop_reason = reason

    def episode(self) -> Episode:
        """Return the record.

        Raises:
            RuntimeError: The episode is still running.
        """
        if self.stop_reason is None:
            raise RuntimeError("the episode is still running")
        parts = self._reward_parts()
        return Episode(
            task=self.task,
            aided=self.dialogue.aided,
            messages=tuple(self.messages),
            turns=tuple(self.dialogue.turns),
            consults=self.dialogue.consults,
            tokens=TokenRecord.join(self.token_runs),
            verdict=self.verdict,
            reward=math.fsum(parts.values()) if parts else None,
            reward_parts=parts,
            stop_reason=self.stop_reason,
            group_id=self.group_id,
            num_forged=self.dialogue.num_forged,
            num_invalid=self.dialogue.num_invalid,
            policy_version=self.policy_version,
        )

    @property
    def turn_reward(self) -> float:
        """What all turns so far have earned; the verdict's reward is not in it."""
        return math.fsum(self._turn_rewards.values())

    def _reward_parts(self) -> dict[str, float]:
        """Return the addends of the reward by name; none where something failed."""
        assert self.stop_reason is not None
        if self.stop_reason.is_error:
            return {}
        if self.verdict is None:
            # A limit ended it before an answer, which is worth nothing.
            parts: dict[str, float] = {"verdict": 0.0}
        elif self.verdict.reward is None:
            return {}
        else:
            parts = dict(self.verdict.parts) or {"verdict": self.verdict.reward}
        _add(parts, self._turn_rewards)
        return parts

    async def _judge(self, text: str) -> None:
        """Have the final turn verified.

        A verifier that fails says nothing about the policy: there is no reward then.

        Raises:
            ConfigError, ImportError, SandboxUnavailable: Nothing could ever be
                verified.
        """
        view = self._view(text)
        self.verdict = await run_verifier(self.verifier, self.task, text, view)
        if self.verdict.reward is None:
            self.stop_reason = StopReason.VERIFIER_ERROR
        elif self.verdict.status == "no_answer":
            self.stop_reason = StopReason.NO_ANSWER
        else:
            self.stop_reason = StopReason.COMPLETED

    async def _reward_turn(self, text: str) -> None:
        """Take what a turn that is not the last one earns."""
        # A view holds all messages so far: none is made that nobody looks at.
        if not rewards_turns(self.verifier):
            return
        view = self._view(text)
        try:
            parts = await run_turn_reward(self.verifier, self.task, text, view)
        except VerifierError as error:
            self.fail(StopReason.VERIFIER_ERROR, str(error))
        else:
            _add(self._turn_rewards, parts)

    def _view(self, text: str) -> EpisodeView:
        """Return what a verifier is shown of the episode."""
        return EpisodeView(
            task=self.task,
            answer=text,
            messages=tuple(self.messages),
            consults=self.dialogue.consults,
            tools=self.tools.instances,
            reward_parts=dict(self._turn_rewards),
            aided=self.dialogue.aided,
        )

    async def _consult(self, need: Consults) -> Message:
        """Answer the calls of one turn concurrently, in call order."""
        trace = encodable("\n".join(self._trace_lines()))
        questions = [self._ask(consult, trace) for consult in need.pending]
        self.is_consulting = True
        try:
            if len(questions) == 1:
                # The usual case needs no task of its own.
                [question] = questions
                return self.dialogue.reply([await question])
            return self.dialogue.reply(await all_of(questions))
        finally:
            self.is_consulting = False

    def _trace_lines(self) -> Iterator[str]:
        """Yield the messages after the prompt as agents are shown them.

        A reply that the policy made up is marked as its own words: an agent that took
        it for another's would build on it.
        """
        turn = 0
        for message in self.messages[self._num_prompt :]:
            if message.role != "assistant":
                yield message.content
                continue
            if turn == len(self._marked_turns):
                # Once for each turn: it is shown again with every later question.
                is_forged = self.dialogue.has_forged(turn)
                marked = marked_if_forged(message.content, is_forged=is_forged)
                self._marked_turns.append(marked)
            yield self._marked_turns[turn]
            turn += 1

    async def _ask(self, call: Consult, trace: str) -> Consult:
        """Ask one agent and write the account of it."""
        if call.status == "denied":
            return self.dialogue.account(call)
        tool = self.tools.tools.get(call.kind)
        request = self._request(call, trace, tool)
        outcome = await self.pool.consult(request, tool)
        reply = outcome.reply or _NOTHING
        account = replace(
            call,
            agent_id=reply.agent_id or request.agent_id,
            reply=reply.text,
            status="answered" if reply.text else "failed",
            tokens=reply.tokens,
            cost_usd=reply.cost_usd,
            retries=outcome.retries,
            prompt_hash=request_hash(request),
            error=outcome.error,
            seconds=outcome.seconds,
            token_ids=reply.token_ids,
            logprobs=reply.logprobs,
        )
        is_leak = await self._gives_away(account)
        return self.dialogue.account(account, gives_away=is_leak)

    def _request(self, call: Consult, trace: str, tool: Agent | None) -> AgentRequest:
        """Return what an agent, or a tool of this episode's own, is asked."""
        key = (*self.key, call.call_id)
        tests = self.task.tests if call.kind == "verify" else None
        public_tests: CodeTests | None = None
        # What checks outputs is as good as a solution: where there is a checker, no
        # tests leave.
        if tests and tests.public and "program" not in tests.compare:
            # The public tests stand in both places: nothing of the hidden ones leaves,
            # nor a program that passes.
            public_tests = replace(tests, hidden=tests.public, solution="")
        return AgentRequest(
            kind=call.kind,
            query=call.query,
            problem=encodable(self.task.prompt),
            trace=trace,
            seed=short_seed(key),
            key=key,
            is_private=bool(self.task.withheld),
            agent_id=tool.agent_id if tool else self.pool.agent_id(call.kind),
            public_tests=public_tests,
        )

    async def _gives_away(self, account: Consult) -> bool:
        """Return whether an agent's reply gives the gold answer away."""
        if account.status != "answered" or not account.is_agents:
            return False
        # What the policy had said itself is no news in a reply.
        said = self.dialogue.own_words(account.query)
        return await gives_away(self.dialogue.gold, account.reply, said)

    def _record(self, token_ids: Sequence[int], span: Span) -> None:
        """Record tokens with the span they belong to.

        Only if they are the very tokens that the span's author sampled, its
        log-probabilities are theirs.

        Args:
            token_ids: As the policy is shown them; a tokenizer may cut a text in
                another way than it was sampled.
            span: The text they stand for.
        """
        num_tokens = len(token_ids)
        is_sampled = tuple(token_ids) == span.token_ids[:num_tokens]
        run = TokenRun(
            token_ids=token_ids,
            author=int(span.author),
            call_id=span.call_id,
            turn=len(self.dialogue.turns),
            logprobs=span.logprobs[:num_tokens] if is_sampled else (),
            is_content=span.is_content,
        )
        self.token_runs.append(run)


def _add(parts: dict[str, float], further: Mapping[str, float]) -> None:
    """Add further addends of a reward to those of the same names."""
    for name, value in further.items():
        parts[name] = parts.get(name, 0.0) + value
