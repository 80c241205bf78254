"""Runs many episodes at once with no barrier between them: a slot that falls free is filled at once.

    runner = EpisodeRunner(build_scenario(), policy, concurrency=64, group_size=8)
    async for group in runner.groups(100): ...

A rollout that fails is an episode that says so, with `reward` None; it stops nothing else. To leave the loop
early and have what still runs ended before going on, open the iterator with `contextlib.aclosing`.
"""

import asyncio
import gc
import sys
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import get_args

from aipo_env.agents.base import BudgetSpent
from aipo_env.agents.pool import check_cancelled
from aipo_env.envs.byte_tokenizer import ByteTokenizer
from aipo_env.envs.token_session import TokenSession
from aipo_env.envs.tokenizer import Tokenizer
from aipo_env.episode import Episode
from aipo_env.errors import ConfigError, SandboxUnavailable, check_choice, check_whole
from aipo_env.records import Completion, Message, Split, StopReason, Task, Verdict
from aipo_env.scenario import Scenario
from aipo_env.session import Session

Policy = Callable[
    [Sequence[Message], tuple[str, ...], int], Awaitable[str | Completion]
]
"""Takes the messages so far, the strings after which a turn ends and the most tokens a turn may have."""
_GC_THRESHOLDS = (50_000, 20, 100)
"""While episodes run. They leave no cycles behind, and a collection among a thousand of them, with all their messages,
holds the event loop up for a tenth of a second."""
_Finished = asyncio.Queue[tuple[int, Episode] | Exception]


@dataclass(frozen=True, slots=True)
class Group:
    """All rollouts of one task, in the order of their numbers, failed ones included."""

    task: Task
    episodes: tuple[Episode, ...]

    @property
    def is_whole(self) -> bool:
        """Whether every rollout has a reward. A group that is not whole is never trained on unseen."""
        return all(episode.reward is not None for episode in self.episodes)


@dataclass(eq=False)
class EpisodeRunner:
    """Plays the tasks of a scenario with a policy.

    Args:
        policy: Says text, which is encoded by `tokenizer` and cut at the limit, or a `Completion`, whose token
            ids, if it has any, are kept as they are and must be that tokenizer's.
        concurrency: Episodes at once. The agents' own limit is the scenario's `PoolLimits.concurrency`.
        group_size: Rollouts per task. They share the task and differ in the last part of their key,
            (seed, group, rollout).
        seed: Draws the order of a finite source's tasks and whatever agents draw.
        aided: Whether the policy is told of the agents and may consult.
        deadline_s: Seconds after which an episode is ended with `rollout_timeout`; None: never.
        tokenizer: Encodes what the policy is shown.
        policy_version: Put on episodes that start after it is set.

    Equal seeds and a policy that says the same give equal episodes, at any concurrency.

    Raises:
        ConfigError: An argument is out of range.
    """

    scenario: Scenario
    policy: Policy
    _: KW_ONLY
    concurrency: int = 64
    group_size: int = 1
    split: Split = "train"
    seed: int = 0
    aided: bool = True
    deadline_s: float | None = None
    tokenizer: Tokenizer = field(default_factory=ByteTokenizer)
    policy_version: int = 0
    _running: dict[Session, asyncio.Timeout] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        for name, low in (("concurrency", 1), ("group_size", 1), ("seed", 0)):
            check_whole(f"runner: {name}", getattr(self, name), low)
        check_choice("runner: split", self.split, get_args(Split))
        if self.deadline_s is not None and not self.deadline_s > 0:
            raise ConfigError(
                f"runner: deadline_s={self.deadline_s!r} must be positive, or None for none."
            )

    async def episodes(
        self, num: int | None = None, *, start: int = 0
    ) -> AsyncGenerator[Episode, None]:
        """Yield `num` episodes from number `start` on, as they finish; without end when `num` is None.

        Raises:
            DataError: The source has no task to give.
        """
        async with aclosing(self._run(num, start)) as finished:
            async for _, episode in finished:
                yield episode

    async def groups(
        self, num: int | None = None, *, start: int = 0
    ) -> AsyncGenerator[Group, None]:
        """Yield `num` groups from number `start` on, each when its last rollout has finished.

        Raises:
            DataError: The source has no task to give.
        """
        size = self.group_size
        gathered: defaultdict[int, dict[int, Episode]] = defaultdict(dict)
        async with aclosing(
            self._run(None if num is None else num * size, start * size)
        ) as finished:
            async for position, episode in finished:
                rollouts = gathered[position // size]
                rollouts[position % size] = episode
                if len(rollouts) == size:
                    del gathered[position // size]
                    yield Group(
                        episode.task, tuple(rollouts[number] for number in range(size))
                    )

    def cancel(self) -> None:
        """End the episodes that run now; they come as `cancelled`, and the next ones start."""
        for session, deadline in self._running.items():
            if not deadline.expired():
                session.abort(StopReason.CANCELLED)
                deadline.reschedule(0)

    async def _run(
        self, num: int | None, start: int
    ) -> AsyncGenerator[tuple[int, Episode], None]:
        """Yield episodes with their numbers as they finish."""
        num = sys.maxsize if num is None else num
        positions = iter(range(start, start + num))
        # As many may wait to be taken as may run, so that a slow consumer holds the workers up.
        finished: _Finished = asyncio.Queue(self.concurrency)
        workers: list[asyncio.Task[None]] = []
        thresholds = gc.get_threshold()
        gc.set_threshold(*map(max, thresholds, _GC_THRESHOLDS))
        try:
            for _ in range(min(num, self.concurrency)):
                workers.append(asyncio.create_task(self._work(positions, finished)))
                await asyncio.sleep(
                    0
                )  # starting all in one go would hold up the event loop
            for _ in range(num):
                item = await finished.get()
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            gc.set_threshold(*thresholds)
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, positions: Iterator[int], finished: _Finished) -> None:
        """Play one episode after another."""
        try:
            for position in positions:
                episode = await self._play(position)
                check_cancelled()
                await finished.put((position, episode))
        except Exception as error:  # of the task source: the policy's are episodes
            await finished.put(error)

    async def _play(self, position: int) -> Episode:
        """Play one episode to its end, whatever end that is."""
        group, rollout = divmod(position, self.group_size)
        session = self.scenario.rollout(
            self.split,
            self.seed,
            group,
            rollout,
            aided=self.aided,
            policy_version=self.policy_version,
        )
        try:
            async with asyncio.timeout(self.deadline_s) as deadline:
                self._running[session] = deadline
                await self._turns(session)
        except (BudgetSpent, SandboxUnavailable):
            raise
        except (
            Exception,
            SystemExit,
            asyncio.CancelledError,
        ) as error:  # a policy may be anybody's program
            check_cancelled()
            if session.stop_reason is None:
                fault = f"{type(error).__name__}: {error}"
                session.verdict = Verdict(
                    correct=None, reward=None, status="error", reason=fault
                )
                session.abort(
                    StopReason.ROLLOUT_TIMEOUT
                    if deadline.expired()
                    else StopReason.POLICY_ERROR
                )
        finally:
            del self._running[session]
        return session.episode()

    async def _turns(self, session: Session) -> None:
        """Let the policy speak until the session is over."""
        running = TokenSession(session, self.tokenizer)
        running.open()
        while session.stop_reason is None:
            dialogue = session.dialogue
            said = await self.policy(
                tuple(session.messages), dialogue.stop_strings(), dialogue.token_limit()
            )
            check_cancelled()
            if isinstance(said, Completion):
                token_ids = said.token_ids or tuple(running.tokenizer.encode(said.text))
                running.tokenizer.decode(
                    token_ids
                )  # which raises for ids of another tokenizer
                await running.take(replace(said, token_ids=token_ids))
            elif isinstance(said, str):
                await running.say_async(said)
            else:
                raise TypeError(
                    f"the policy must return text or a Completion, got {type(said).__name__}"
                )
