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

from aipo_env.drive import begin, finish
from aipo_env.environment import Environment, EnvironmentSpec
from aipo_env.envs.episode_env import byte_scenario
from aipo_env.episode import Episode
from aipo_env.errors import ConfigError, check_choice, check_whole
from aipo_env.records import Split, StopReason, Task
from aipo_env.scenario import Scenario, build_scenario
from aipo_env.session import Session
from aipo_env.threads import all_of, check_cancelled
from aipo_env.tokenizers.base import Tokenizer
from aipo_env.tokenizers.bytes import ByteTokenizer
from aipo_env.voice import TextPolicy, TextVoices, Voice, Voices

_GC_THRESHOLDS = (50_000, 20, 100)
"""While episodes run. They leave no cycles behind, and a collection among a thousand of
them, with all their messages, holds the event loop up for a tenth of a second.
"""
_Finished = asyncio.Queue[tuple[int, Episode] | Exception]


@dataclass(frozen=True, slots=True)
class Group:
    """All rollouts of one task, in the order of their numbers, failed ones included."""

    task: Task
    episodes: tuple[Episode, ...]

    @property
    def is_whole(self) -> bool:
        """Whether every rollout has a reward. A group that is not whole is never
        trained on unseen.
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
        for name, low in (("concurrency", 1), ("group_size", 1), ("seed", 0)):
            check_whole(f"runner: {name}", getattr(self, name), low)
        check_choice("runner: split", self.split, get_args(Split))
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
        """Yield `num` episodes from number `start` on, as they finish; without end when
        `num` is None.

        Raises:
            DataError: The source has no task to give.
        """
        async with aclosing(self._run(num, start)) as finished:
            async for _, episode in finished:
                yield episode

    async def groups(
        self, num: int | None = None, *, start: int = 0
    ) -> AsyncGenerator[Group, None]:
        """Yield `num` groups from number `start` on, each when its last rollout has
        finished.

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

    async def wave(self, sessions: Sequence[Session]) -> list[Episode]:
        """Play sessions side by side, whatever `concurrency` is; return their episodes
        in order.

        All voices are there, and all prompts shown, before the first turn is written.
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

    def cancel(self) -> None:
        """End the episodes that run now; they come as `cancelled`, and the next ones
        start.
        """
        for session, deadline in self._running.items():
            if session.stop_reason is None and not deadline.expired():
                session.abort(StopReason.CANCELLED)
                deadline.reschedule(0)

    async def _run(
        self, num: int | None, start: int
    ) -> AsyncGenerator[tuple[int, Episode], None]:
        """Yield episodes with their numbers as they finish."""
        num = sys.maxsize if num is None else num
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
                check_cancelled()
                await finished.put((position, episode))
        except (
            Exception
        ) as error:  # what can only end the run; a policy's is an episode
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
        try:
            await session.prepare()
            begin(session, voice)
            return await self._finish(session, voice)
        finally:
            voice.close()
            await session.close()

    async def _finish(self, session: Session, voice: Voice) -> Episode:
        """Play an episode that has begun to its end, whatever end that is."""
        try:
            async with asyncio.timeout(self.deadline_s) as deadline:
                self._running[session] = deadline
                episode = await finish(session, voice)
        except TimeoutError:
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
    gc.set_threshold(*map(max, thresholds, _GC_THRESHOLDS))
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
