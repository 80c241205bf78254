"""Runs many episodes at once.

    runner = EpisodeRunner(build_scenario(), policy, concurrency=64, group_size=8)
    async for group in runner.groups(100): ...

`episodes` and `groups` know no barrier: a slot that falls free is filled at once.
`wave` opens every episode before the first turn and waits for the last, so that what a
sampler decodes together depends on the episodes alone.

A rollout that fails is an episode that says so, with `reward` None; it stops nothing
else. To leave the loop early and have what still runs ended before going on, open the
iterator with `contextlib.aclosing`.
"""

import asyncio
import gc
import sys
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import KW_ONLY, dataclass, field
from typing import get_args

from aipo_env.episode import Episode
from aipo_env.errors import ConfigError, check_choice, check_whole
from aipo_env.records import Split, StopReason, Task
from aipo_env.rollout.drive import begin, finish, running
from aipo_env.rollout.environment import Environment, EnvironmentSpec
from aipo_env.rollout.scenario import Scenario, build_scenario, byte_scenario
from aipo_env.rollout.session import Session
from aipo_env.rollout.voice import TextPolicy, TextVoices, Voice, Voices
from aipo_env.threads import all_of, check_cancelled
from aipo_env.tokenizers.base import Tokenizer
from aipo_env.tokenizers.bytes import ByteTokenizer

_GC_THRESHOLDS = (50_000, 20, 100)
"""Thresholds of the garbage collector while episodes run. They leave no cycles behind,
and a collection among a thousand of them, with all their messages, holds the event loop
up for a tenth of a second.
"""
_Finished = asyncio.Queue[tuple[int, Episode] | Exception]
"""Episodes with their positions in the reading; an error ends the run."""


@dataclass(frozen=True, slots=True)
class Group:
    """All rollouts of one task, in the order of their numbers, failed ones included."""

    task: Task
    episodes: tuple[Episode, ...]

    @property
    def is_whole(self) -> bool:
        """Whether every rollout has a reward.

        A group that is not whole is never trained on unseen.
        """
        return all(episode.reward is not None for episode in self.episodes)


@dataclass(eq=False)
class EpisodeRunner:
    """Plays the tasks of an environment with a policy.

    Args:
        environment: A scenario, or an `Environment`, a registered id, or a task source
            or its spec, which it is built from.
        policy: What gives each episode its voice, as a sampler does; or a function that
            says text, which is encoded by `tokenizer` and cut at the limit, or a
            `Completion`, whose token ids, if it has any, are kept as they are and must
            be that tokenizer's.
        concurrency: Episodes at once. The agents' own limit is the scenario's
            `PoolLimits.concurrency`.
        group_size: Rollouts per task. They share the task and differ in the last part
            of their key, (seed, group, rollout).
        seed: Draws the order of a finite source's tasks and whatever agents draw.
        aided: Whether the policy is told of the agents and may consult.
        deadline_s: Seconds after which an episode is ended with `rollout_timeout`;
            None: never.
        tokenizer: Encodes what a function is shown and says. Bytes unless another is
            given, and then the rules' limits of tokens count bytes, and are larger
            unless they are given, as in Gymnasium environments.
        policy_version: Put on episodes that start after it is set.
        on_episode: Called with each episode as it ends.

    Equal seeds and a policy that says the same give equal episodes, at any concurrency.

    Raises:
        ConfigError: An argument is out of range.
    """

    environment: Scenario | EnvironmentSpec
    policy: TextPolicy | Voices
    _: KW_ONLY
    concurrency: int = 64
    group_size: int = 1
    split: Split = "train"
    seed: int = 0
    aided: bool = True
    deadline_s: float | None = None
    tokenizer: Tokenizer = field(default_factory=ByteTokenizer)
    policy_version: int = 0
    on_episode: Callable[[Episode], None] | None = None
    scenario: Scenario = field(init=False, repr=False)
    _running: dict[Session, asyncio.Timeout] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        check_whole("runner: concurrency", self.concurrency, 1)
        check_whole("runner: group_size", self.group_size, 1)
        check_whole("runner: seed", self.seed, 0)
        check_choice("runner: split", self.split, get_args(Split))
        # Not `<= 0`, which NaN is not either.
        if self.deadline_s is not None and not self.deadline_s > 0:
            raise ConfigError(
                f"runner: deadline_s={self.deadline_s!r} must be positive, or None for"
                " none."
            )
        if isinstance(self.policy, Voices):
            self._voices: Voices = self.policy
            counts_bytes = False
        else:
            self._voices = TextVoices(self.policy, self.tokenizer)
            counts_bytes = isinstance(self.tokenizer, ByteTokenizer)
        if isinstance(self.environment, Scenario):
            self.scenario = self.environment
        elif counts_bytes:
            environment = Environment.of(self.environment)
            self.scenario = byte_scenario(environment, seed=self.seed)
        else:
            self.scenario = build_scenario(self.environment, seed=self.seed)

    async def episodes(
        self, num: int | None = None, *, start: int = 0
    ) -> AsyncGenerator[Episode, None]:
        """Yield `num` episodes from number `start` on, as they finish.

        Args:
            num: How many; None: without end.
            start: The number of the first, counting every rollout.

        Raises:
            DataError: The source has no task to give.
        """
        async with aclosing(self._run(num, start)) as finished:
            async for _, episode in finished:
                yield episode

    async def groups(
        self, num: int | None = None, *, start: int = 0
    ) -> AsyncGenerator[Group, None]:
        """Yield `num` groups from number `start` on.

        Each is yielded when its last rollout has finished.

        Args:
            num: How many; None: without end.
            start: The number of the first.

        Raises:
            DataError: The source has no task to give.
        """
        size = self.group_size
        num_episodes = None if num is None else num * size
        # By group, its rollouts by number: they finish in any order.
        gathered: defaultdict[int, dict[int, Episode]] = defaultdict(dict)
        async with aclosing(self._run(num_episodes, start * size)) as finished:
            async for position, episode in finished:
                group, number = divmod(position, size)
                rollouts = gathered[group]
                rollouts[number] = episode
                if len(rollouts) == size:
                    del gathered[group]
                    in_order = tuple(rollouts[index] for index in range(size))
                    yield Group(episode.task, in_order)

    async def wave(self, sessions: Sequence[Session]) -> list[Episode]:
        """Play sessions side by side; return their episodes in order.

        However many they are: `concurrency` does not hold here. All voices are there,
        and all prompts shown, before the first turn is written.
        """
        voices = [self._voices.voice(session.key) for session in sessions]
        pairs = list(zip(sessions, voices, strict=True))
        with _rare_collections():
            try:
                await all_of(session.prepare() for session in sessions)
                for session, voice in pairs:
                    begin(session, voice)
                return await all_of(
                    self._finish(session, voice) for session, voice in pairs
                )
            finally:
                # Those that ended are closed already; an error may have left others.
                for voice in voices:
                    voice.close()
                await all_of(session.close() for session in sessions)

    async def waves(
        self,
        sessions: Sequence[Session],
        further: Callable[[Sequence[Episode], int], Sequence[Session]],
    ) -> list[Episode]:
        """Play a wave, then whole further waves for as long as there are any.

        Args:
            further: Given all episodes so far and the number of the next wave, from 1
                on, returns its sessions: groups that are refilled, or aid for tasks
                that failed. Their keys must be their own; `rollout_key` makes them. An
                empty answer ends it.
        """
        episodes = await self.wave(sessions)
        number = 1
        more = further(episodes, number)
        while more:
            episodes += await self.wave(more)
            number += 1
            more = further(episodes, number)
        return episodes

    @property
    def num_consulting(self) -> int:
        """How many episodes wait for agents or tools now; any thread may ask."""
        # A copy, made in one go: the event loop adds and takes away meanwhile.
        return sum(session.is_consulting for session in list(self._running))

    def cancel(self) -> None:
        """End the episodes that run now, as `cancelled`; the next ones start."""
        for session, deadline in self._running.items():
            if session.stop_reason is None and not deadline.expired():
                # First, so that the deadline is not taken for the reason.
                session.abort(StopReason.CANCELLED)
                # Long past: what the episode waits for is cancelled at once.
                deadline.reschedule(0)

    async def _run(
        self, num: int | None, start: int
    ) -> AsyncGenerator[tuple[int, Episode], None]:
        """Yield episodes with their numbers as they finish."""
        if num is None:
            num = sys.maxsize
        # One iterator for all workers: who is free takes the next.
        positions = iter(range(start, start + num))
        # As many may wait to be taken as may run, so that a slow consumer holds the
        # workers up.
        finished: _Finished = asyncio.Queue(self.concurrency)
        workers: list[asyncio.Task[None]] = []
        with _rare_collections():
            try:
                for _ in range(min(num, self.concurrency)):
                    work = self._work(positions, finished)
                    workers.append(asyncio.create_task(work))
                    # Starting all in one go would hold up the event loop.
                    await asyncio.sleep(0)
                for _ in range(num):
                    item = await finished.get()
                    if isinstance(item, Exception):
                        raise item
                    yield item
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, positions: Iterator[int], finished: _Finished) -> None:
        """Play one episode after another."""
        try:
            for position in positions:
                episode = await self._play(position)
                # Somebody's program within may have swallowed that the run is over.
                check_cancelled()
                await finished.put((position, episode))
        # What can only end the run: what a policy raises is in its episode.
        except Exception as error:
            await finished.put(error)

    async def _play(self, position: int) -> Episode:
        """Play the episode of a position in the reading."""
        group, rollout = divmod(position, self.group_size)
        session = self.scenario.rollout(
            self.split,
            self.seed,
            group,
            rollout,
            aided=self.aided,
            policy_version=self.policy_version,
        )
        voice = self._voices.voice(session.key)
        async with running(session, voice):
            return await self._finish(session, voice)

    async def _finish(self, session: Session, voice: Voice) -> Episode:
        """Play an episode that has begun to its end, whatever end that is."""
        try:
            async with asyncio.timeout(self.deadline_s) as deadline:
                self._running[session] = deadline
                episode = await finish(session, voice)
        except TimeoutError:
            # Of something within, which is not for us to judge.
            if not deadline.expired():
                raise
            # `cancel` ends an episode by its deadline too, and has said so already.
            fault = f"the episode ran for more than {self.deadline_s} s"
            session.fail(StopReason.ROLLOUT_TIMEOUT, fault)
            episode = session.episode()
        finally:
            del self._running[session]
        if self.on_episode is not None:
            self.on_episode(episode)
        return episode


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Collect garbage rarely while episodes run."""
    thresholds = gc.get_threshold()
    # Somebody may have set higher ones.
    gc.set_threshold(*map(max, thresholds, _GC_THRESHOLDS))
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
