"""Free-running episodes: slots, groups, failures, deadlines, cancellation."""

import asyncio
import gc
from collections.abc import Sequence
from contextlib import aclosing, suppress

import gymnasium as gym
import numpy as np
import pytest

from aipo_env import (
    AgentReply,
    AgentRequest,
    Author,
    CannedAgent,
    Completion,
    ConfigError,
    DataError,
    Episode,
    Message,
    Scenario,
    ScriptedPolicy,
    StopReason,
    Task,
    TextVoice,
    TextVoices,
    Verdict,
    build_scenario,
    rollout_key,
)
from aipo_env.rollout.runner import EpisodeRunner, Group

ASK = "<knowledge>mele</knowledge>"
FIVE = [
    Task(id=f"t{number}", prompt=f"task {number}", answer="1") for number in range(5)
]


class Tasks:
    """A finite source that hands out given tasks."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tasks

    def num_tasks(self, split: str) -> int:
        return len(self.tasks)

    def task(self, split: str, index: int) -> Task:
        return self.tasks[index]


class GatedAgent:
    """Replies once its gate is open; counts the calls that wait."""

    agent_id = "gated"

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.num_waiting = 0

    async def reply(self, request: AgentRequest) -> AgentReply:
        self.num_waiting += 1
        await self.gate.wait()
        self.num_waiting -= 1
        return AgentReply(text="fine")


def scenario(agent: object = None) -> Scenario:
    return build_scenario(Tasks(FIVE), agent or CannedAgent("fine"))


async def ask_once(
    messages: Sequence[Message], stop: tuple[str, ...], max_tokens: int
) -> str:
    return ASK if messages[-1].content.startswith("task") else "\\boxed{1}"


async def answer(
    messages: Sequence[Message], stop: tuple[str, ...], max_tokens: int
) -> str:
    return "\\boxed{1}"


async def collect(runner: EpisodeRunner, num: int, start: int = 0) -> list[Episode]:
    return [episode async for episode in runner.episodes(num, start=start)]


async def collect_groups(runner: EpisodeRunner, num: int) -> list[Group]:
    return [group async for group in runner.groups(num)]


def others() -> set[asyncio.Task]:
    return asyncio.all_tasks() - {asyncio.current_task()}


def test_every_task_of_a_finite_source_comes_once_an_epoch_in_an_order_of_the_seed():
    episodes = asyncio.run(
        collect(EpisodeRunner(scenario(), answer, concurrency=1, seed=3), 10)
    )
    ids = [episode.task.id for episode in episodes]
    assert sorted(ids[:5]) == sorted(ids[5:]) == ["t0", "t1", "t2", "t3", "t4"]
    again = asyncio.run(
        collect(EpisodeRunner(scenario(), answer, concurrency=1, seed=3), 3, start=7)
    )
    assert [episode.task.id for episode in again] == ids[7:]
    assert [episode.group_id for episode in again] == ["3-7", "3-8", "3-9"]


def test_an_episode_is_the_one_a_session_of_the_same_key_gives():
    runner = EpisodeRunner(
        build_scenario(), ask_toy, concurrency=4, group_size=2, seed=9
    )
    groups = asyncio.run(collect_groups(runner, 2))
    for number, group in enumerate(groups):
        for rollout, episode in enumerate(group.episodes):
            session = runner.scenario.session(
                group.task, aided=True, key=(9, number, rollout), group_id=f"9-{number}"
            )
            assert episode == ScriptedPolicy((ASK, "\\boxed{1}")).run(session)
    hashes = {
        episode.consults[0].prompt_hash
        for group in groups
        for episode in group.episodes
    }
    assert len(hashes) == 4, "each rollout draws its agents' seeds for itself"


@pytest.mark.parametrize(
    ("source", "agents"), [("toy", "scripted"), ("shipped:science", "notes")]
)
def test_an_environment_plays_the_episodes_of_a_runner_of_its_seed_one_after_another(
    source: str, agents: str
):
    env = gym.make(
        "AIPO-Math-Turn-v0", source=source, agents=agents, disable_env_checker=True
    )
    played = []
    for number in range(3):
        env.reset(seed=None if number else 5)
        env.step(ASK)
        played.append(env.step("\\boxed{1}")[-1]["episode_record"])
    runner = EpisodeRunner(env.unwrapped.scenario, ask_toy, seed=5)
    episodes = asyncio.run(collect(runner, 3))
    assert sorted(episodes, key=lambda episode: episode.group_id) == played
    assert len({episode.task.id for episode in played}) == 3


async def ask_toy(
    messages: Sequence[Message], stop: tuple[str, ...], max_tokens: int
) -> str:
    return ASK if len(messages) == 2 else "\\boxed{1}"


@pytest.mark.parametrize("concurrency", [1, 2, 64])
def test_concurrency_changes_no_episode(concurrency: int):
    runner = EpisodeRunner(
        build_scenario(), ask_toy, concurrency=concurrency, group_size=3
    )
    groups = asyncio.run(collect_groups(runner, 4))
    one_by_one = asyncio.run(
        collect_groups(EpisodeRunner(build_scenario(), ask_toy, group_size=3), 4)
    )
    assert sorted(groups, key=lambda group: group.task.id) == sorted(
        one_by_one, key=lambda group: group.task.id
    )


def test_the_policy_is_told_the_stop_strings_and_how_much_it_may_say():
    told = []

    async def policy(
        messages: Sequence[Message], stop: tuple[str, ...], max_tokens: int
    ) -> str:
        told.append(([message.role for message in messages], stop, max_tokens))
        return ASK if len(messages) == 2 else "\\boxed{1}"

    built = build_scenario(
        Tasks(FIVE), CannedAgent("fine"), rules={"max_policy_tokens": 40}
    )
    asyncio.run(collect(EpisodeRunner(built, policy), 1))
    closing = ("</knowledge>", "</reason>", "</verify>")
    assert told == [
        (["system", "user"], closing, 40),
        (["system", "user", "assistant", "user"], closing, 13),
    ]


def test_a_completion_keeps_its_ids_and_text_is_cut_at_the_limit():
    async def policy(
        messages: Sequence[Message], stop: tuple[str, ...], max_tokens: int
    ) -> Completion:
        return Completion("\\boxed{1}", (7, 8, 9), (-0.5, -1.0, 0.0))

    async def long(
        messages: Sequence[Message], stop: tuple[str, ...], max_tokens: int
    ) -> str:
        return "x" * 9999

    async def text_only(
        messages: Sequence[Message], stop: tuple[str, ...], max_tokens: int
    ) -> Completion:
        return Completion("ab", finish_reason="length")

    [episode] = asyncio.run(collect(EpisodeRunner(scenario(), policy), 1))
    own = episode.tokens.author == Author.POLICY
    assert episode.reward == 1.0
    assert episode.tokens.token_ids[own].tolist() == [7, 8, 9]
    assert episode.tokens.behaviour_logprobs[own].tolist() == [-0.5, -1.0, 0.0]
    [cut] = asyncio.run(collect(EpisodeRunner(scenario(), long), 1))
    assert (cut.stop_reason, cut.tokens.policy_mask.sum()) == (
        StopReason.MAX_SAMPLED_TOKENS,
        1024,
    )
    [short] = asyncio.run(collect(EpisodeRunner(scenario(), text_only), 1))
    assert short.tokens.token_ids[short.tokens.policy_mask].tolist() == [97, 98]
    assert short.stop_reason == StopReason.MAX_SAMPLED_TOKENS


@pytest.mark.parametrize("token_ids", [(300,), (2**40,), ("a",)])
def test_ids_of_another_tokenizer_fail_their_rollout_alone(token_ids: tuple):
    async def policy(
        messages: Sequence[Message], stop: tuple[str, ...], max_tokens: int
    ) -> Completion:
        return Completion(
            "\\boxed{1}", token_ids if messages[1].content == "task 0" else ()
        )

    episodes = asyncio.run(collect(EpisodeRunner(scenario(), policy), 5))
    assert sorted(str(episode.reward) for episode in episodes) == ["1.0"] * 4 + ["None"]


def test_a_slot_that_falls_free_is_filled_while_the_others_wait():
    async def run() -> None:
        agent = GatedAgent()

        async def policy(
            messages: Sequence[Message], stop: tuple[str, ...], max_tokens: int
        ) -> str:
            asks = messages[1].content in ("task 0", "task 1") and len(messages) == 2
            return ASK if asks else "\\boxed{1}"

        runner = EpisodeRunner(scenario(agent), policy, concurrency=3)
        async with aclosing(runner.episodes(5)) as episodes:
            quick = [(await anext(episodes)).task.id for _ in range(3)]
            assert sorted(quick) == ["t2", "t3", "t4"]
            assert agent.num_waiting == 2
            assert runner.num_consulting == 2
            agent.gate.set()
            slow = [episode.task.id async for episode in episodes]
        assert sorted(slow) == ["t0", "t1"]

    asyncio.run(run())


def test_a_failing_rollout_stops_neither_its_siblings_nor_hides():
    calls = iter(range(4))

    async def policy(
        messages: Sequence[Message], stop: tuple[str, ...], max_tokens: int
    ) -> str:
        if next(calls) == 1:
            raise ValueError("the engine is gone")
        return "\\boxed{1}"

    [group] = asyncio.run(
        collect_groups(EpisodeRunner(scenario(), policy, group_size=4), 1)
    )
    assert not group.is_whole
    assert [episode.reward for episode in group.episodes] == [1.0, None, 1.0, 1.0]
    failed = group.episodes[1]
    assert failed.stop_reason == StopReason.POLICY_ERROR
    assert failed.verdict.reason == "ValueError: the engine is gone"
    [whole] = asyncio.run(
        collect_groups(EpisodeRunner(scenario(), answer, group_size=4), 1)
    )
    assert whole.is_whole


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (asyncio.CancelledError(), "CancelledError: "),
        (TimeoutError("mine"), "TimeoutError: mine"),
        (None, "TypeError: the policy must return text or a Completion, got NoneType"),
    ],
)
def test_whatever_a_policy_does_is_data(fault: BaseException | None, reason: str):
    async def policy(
        messages: Sequence[Message], stop: tuple[str, ...], max_tokens: int
    ) -> None:
        if fault:
            raise fault

    [episode] = asyncio.run(
        collect(EpisodeRunner(scenario(), policy, deadline_s=60), 1)
    )
    assert (episode.stop_reason, episode.reward) == (StopReason.POLICY_ERROR, None)
    assert episode.verdict.reason == reason


@pytest.mark.parametrize("where", ["policy", "swallowing policy", "agent"])
def test_a_straggler_ends_at_the_deadline(where: str):
    async def policy(
        messages: Sequence[Message], stop: tuple[str, ...], max_tokens: int
    ) -> str:
        if where == "agent":
            return ASK
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if where == "policy":
                raise
        return ASK

    async def run() -> list[Episode]:
        return await collect(
            EpisodeRunner(scenario(GatedAgent()), policy, deadline_s=0.01), 2
        )

    for episode in asyncio.run(run()):
        assert (episode.stop_reason, episode.reward) == (
            StopReason.ROLLOUT_TIMEOUT,
            None,
        )
        assert [turn.completion for turn in episode.turns] == (
            [ASK] if where == "agent" else []
        )


def test_cancel_ends_what_runs_and_the_rest_goes_on():
    async def run() -> None:
        agent = GatedAgent()
        runner = EpisodeRunner(scenario(agent), ask_once, concurrency=2)
        async with aclosing(runner.episodes(4)) as episodes:
            first = asyncio.create_task(anext(episodes))
            while agent.num_waiting < 2:
                await asyncio.sleep(0)
            runner.cancel()
            agent.gate.set()
            reasons = [
                (await first).stop_reason,
                *[episode.stop_reason async for episode in episodes],
            ]
        assert (
            sorted(reasons) == [StopReason.CANCELLED] * 2 + [StopReason.COMPLETED] * 2
        )

    asyncio.run(run())


@pytest.mark.parametrize("num", [None, 1000])
def test_closing_early_ends_what_runs_and_leaves_no_task(num: int | None):
    async def run() -> None:
        agent = GatedAgent()

        async def policy(
            messages: Sequence[Message], stop: tuple[str, ...], max_tokens: int
        ) -> str:
            return "\\boxed{1}" if messages[1].content == "task 0" else ASK

        runner = EpisodeRunner(scenario(agent), policy, concurrency=8)
        async with aclosing(runner.episodes(num)) as episodes:
            assert (await anext(episodes)).task.id == "t0"
            assert others()
        assert others() == set()

    asyncio.run(run())


def test_a_policy_that_keeps_cancellation_to_itself_does_not_hold_up_closing():
    async def policy(
        messages: Sequence[Message], stop: tuple[str, ...], max_tokens: int
    ) -> str:
        if messages[1].content == "task 0":
            return "\\boxed{1}"
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return ASK

    async def run() -> None:
        async with aclosing(
            EpisodeRunner(scenario(), policy, concurrency=5).episodes()
        ) as episodes:
            await anext(episodes)
        assert others() == set()

    asyncio.run(run())


def test_cancelling_the_consumer_leaves_no_task():
    async def run() -> None:
        agent = GatedAgent()
        consumer = asyncio.create_task(
            collect(EpisodeRunner(scenario(agent), ask_once), 5)
        )
        while agent.num_waiting < 5:
            await asyncio.sleep(0)
        consumer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await consumer
        assert others() == set()

    asyncio.run(run())


def test_a_slow_consumer_holds_the_runner_up():
    num_said = 0

    async def policy(
        messages: Sequence[Message], stop: tuple[str, ...], max_tokens: int
    ) -> str:
        nonlocal num_said
        num_said += 1
        return "\\boxed{1}"

    async def run() -> None:
        async with aclosing(
            EpisodeRunner(scenario(), policy, concurrency=2).episodes()
        ) as episodes:
            await anext(episodes)
            for _ in range(100):
                await asyncio.sleep(0)
            assert num_said == 1 + 2 + 2  # taken, waiting to be taken, waiting to wait

    asyncio.run(run())


def test_a_source_that_fails_is_the_callers_to_hear_of():
    class Broken(Tasks):
        def task(self, split: str, index: int) -> Task:
            raise DataError("tasks.jsonl: row 3 is gone.")

    runner = EpisodeRunner(build_scenario(Broken(FIVE), "none"), answer)
    with pytest.raises(DataError, match="row 3 is gone"):
        asyncio.run(collect(runner, 5))


def test_without_aid_the_markup_is_plain_text_and_the_version_is_recorded():
    runner = EpisodeRunner(scenario(), ask_once, aided=False, split="test")
    runner.policy_version = 7
    [episode] = asyncio.run(collect(runner, 1))
    assert (episode.aided, episode.stop_reason, episode.policy_version) == (
        False,
        StopReason.NO_ANSWER,
        7,
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"concurrency": 0},
            "runner: concurrency=0 must be a whole number, at least 1.",
        ),
        (
            {"group_size": True},
            "runner: group_size=True must be a whole number, at least 1.",
        ),
        (
            {"seed": np.int64(3)},
            "runner: seed=np.int64(3) must be a whole number, at least 0.",
        ),
        ({"seed": -1}, "runner: seed=-1 must be a whole number, at least 0."),
        ({"deadline_s": 0}, "runner: deadline_s=0 must be positive, or None for none."),
        ({"split": "dev"}, "runner: split='dev'. Valid: test, train."),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict[str, object], message: str):
    with pytest.raises(ConfigError) as error:
        EpisodeRunner(scenario(), answer, **options)
    assert str(error.value) == message


def test_garbage_is_collected_more_rarely_while_episodes_run_and_as_before_after():
    before, during = gc.get_threshold(), []

    async def policy(
        messages: Sequence[Message], stop: tuple[str, ...], max_tokens: int
    ) -> str:
        during.append(gc.get_threshold()[0])
        return "\\boxed{1}"

    asyncio.run(collect(EpisodeRunner(scenario(), policy), 2))
    assert during == [50_000, 50_000]
    assert gc.get_threshold() == before


def test_episodes_leave_no_cycles_behind():
    runner = EpisodeRunner(build_scenario(), ask_toy, seed=1)

    async def play() -> int:
        await collect(runner, 5)  # what is kept from the first time on
        gc.collect()
        gc.disable()
        await collect(runner, 50)
        return gc.collect()

    try:
        assert asyncio.run(play()) < 50
    finally:
        gc.enable()


class Watched(TextVoices):
    """Notes when voices are made, opened, completed and closed."""

    def __init__(self, policy: object) -> None:
        super().__init__(policy)
        self.events: list[tuple[str, tuple[int, ...]]] = []

    def voice(self, key: tuple[int, ...]) -> TextVoice:
        voice = super().voice(key)
        events = self.events

        class Noting:
            def open(self, messages: Sequence[Message]) -> list:
                events.append(("open", key))
                return voice.open(messages)

            def append(self, message: Message) -> list:
                return voice.append(message)

            async def complete(self, stop: Sequence[str], limit: int) -> Completion:
                events.append(("complete", key))
                return await voice.complete(stop, limit)

            def close(self) -> None:
                events.append(("close", key))

        return Noting()


def sessions(num: int, wave: int = 0) -> list:
    made = scenario()
    return [
        made.session(FIVE[0], aided=True, key=rollout_key(0, 0, 0, number, wave))
        for number in range(num)
    ]


def test_a_wave_is_opened_whole_before_the_first_turn():
    voices = Watched(ask_once)
    runner = EpisodeRunner(scenario(), voices, concurrency=1)
    episodes = asyncio.run(runner.wave(sessions(3)))
    assert [event for event, _ in voices.events[:4]] == ["open"] * 3 + ["complete"]
    keys = [key for event, key in voices.events if event == "open"]
    assert keys == [(0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 0, 2)]
    assert [episode.correct for episode in episodes] == [True] * 3
    assert {key for event, key in voices.events if event == "close"} == set(keys)


def test_further_waves_are_whole_waves_with_keys_of_their_own():
    voices, seen = Watched(ask_once), []

    def further(episodes: Sequence[Episode], number: int) -> list:
        seen.append((number, len(episodes)))
        return sessions(2, wave=number) if number < 3 else []

    runner = EpisodeRunner(scenario(), voices)
    episodes = asyncio.run(runner.waves(sessions(3), further))
    assert len(episodes) == 7
    assert seen == [(1, 3), (2, 5), (3, 7)]
    keys = [key for event, key in voices.events if event == "open"]
    assert len(set(keys)) == 7
    firsts = [event for event, _ in voices.events]
    second = [i for i, event in enumerate(firsts) if event == "open"][3]
    assert {event for event, _ in voices.events[second : second + 2]} == {"open"}


def test_a_voice_is_closed_before_its_answer_is_verified():
    voices, closed = Watched(ask_once), []

    class Late:
        async def verify(self, task: Task, text: str) -> Verdict:
            closed.append([event for event, _ in voices.events].count("close"))
            return Verdict(correct=True, reward=1.0, status="correct")

    made = build_scenario(Tasks(FIVE), CannedAgent("fine"), verifier=Late())
    session = made.session(FIVE[0], aided=True)
    asyncio.run(EpisodeRunner(made, voices).wave([session]))
    assert closed == [1]


def test_what_ends_a_run_ends_all_episodes_of_its_wave():
    class Hopeless:
        async def verify(self, task: Task, text: str) -> Verdict:
            raise ConfigError("no key")

    async def slow(messages: Sequence[Message], stop: object, limit: int) -> str:
        if messages[-1].content == "task 1":
            await asyncio.sleep(60)
        return "\\boxed{1}"

    made = build_scenario(Tasks(FIVE), CannedAgent("fine"), verifier=Hopeless())
    two = [made.session(task, aided=True) for task in FIVE[:2]]

    async def play() -> int:
        with pytest.raises(ConfigError, match="no key"):
            await EpisodeRunner(made, slow).wave(two)
        return len(asyncio.all_tasks())

    assert asyncio.run(play()) == 1


def test_each_episode_is_told_of_as_it_ends():
    told: list[Episode] = []
    runner = EpisodeRunner(scenario(), ask_once, on_episode=told.append)
    episodes = asyncio.run(collect(runner, 4))
    assert sorted(e.task.id for e in told) == sorted(e.task.id for e in episodes)
