"""The native vector environment: gymnasium's contract, equal trajectories, send and
recv.
"""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import (
    AlreadyPendingCallError,
    InvalidAction,
    NoAsyncCallError,
    ResetNeeded,
)
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from aipo_env import (
    AgentReply,
    AgentRequest,
    ConfigError,
    Episode,
    Message,
    SandboxUnavailable,
    Task,
    Verdict,
    build_scenario,
    run_sync,
)
from aipo_env.event_loop import _loop
from aipo_env.gym.vector import VectorEnv
from aipo_env.rollout.runner import EpisodeRunner

TURN, TOKEN = "AIPO-Toy-Turn-v0", "AIPO-Toy-v0"
ASK = "<knowledge>mele</knowledge>"
AGENTS = "scripted:wrong=0.5"


def script(env_id: int, step: int) -> str:
    """Two, three or four turns to an episode, by environment."""
    return ASK if step % (env_id % 3 + 2) else "\\boxed{1}"


def turns(num_envs: int, step: int) -> tuple[str, ...]:
    return tuple(script(env_id, step) for env_id in range(num_envs))


def tokens(num_envs: int, step: int) -> np.ndarray:
    """A macro token, a name and an end of turn, then another turn, shifted by
    environment.
    """
    ids = [257, *b"mele", 256, *b"\\boxed{1}", 256]
    return np.array([ids[(step + env_id) % len(ids)] for env_id in range(num_envs)])


def same(left: Any, right: Any) -> bool:
    """Whether two observations or infos are equal, arrays of objects and dtypes
    included.
    """
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(
            same(left[key], right[key]) for key in left
        )
    if isinstance(left, np.ndarray):
        if left.dtype != right.dtype or left.shape != right.shape:
            return False
        return (
            np.array_equal(left, right)
            if left.dtype != object
            else all(map(same, left, right))
        )
    return type(left) is type(right) and left == right


def trajectory(
    envs: gym.vector.VectorEnv, actions: Callable[[int, int], Any], num_steps: int
) -> list[Any]:
    history: list[Any] = [envs.reset(seed=11)]
    history += [
        envs.step(actions(envs.num_envs, step)) for step in range(1, num_steps + 1)
    ]
    envs.close()
    return history


def assert_same(left: list[Any], right: list[Any]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        for part, counterpart in zip(one, other, strict=True):
            assert same(part, counterpart)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
@pytest.mark.parametrize(
    ("face", "options", "actions", "num_steps"),
    [
        (TURN, {}, turns, 12),
        (TURN, {"observation": "messages"}, turns, 6),
        (TURN, {"observation": "delta"}, turns, 6),
        (TOKEN, {"window": 64}, tokens, 40),
    ],
)
def test_equal_seeds_give_what_gymnasiums_own_vector_gives(
    face: str,
    options: dict[str, Any],
    actions: Callable[[int, int], Any],
    num_steps: int,
    mode: str,
):
    options = {"agents": AGENTS, **options}
    native = gym.make_vec(face, num_envs=4, autoreset_mode=mode, **options)
    assert type(native) is VectorEnv
    sync = SyncVectorEnv([lambda: gym.make(face, **options)] * 4, autoreset_mode=mode)
    history = trajectory(native, actions, num_steps)
    assert_same(history, trajectory(sync, actions, num_steps))
    ended = [step for step in history[1:] if step[2].any()]
    assert ended, "the script must reach an episode's end"
    infos = ended[0][-1]["final_info"] if mode == "SameStep" else ended[0][-1]
    assert isinstance(infos["episode_record"][ended[0][2]][0], Episode)


def test_equal_seeds_give_what_processes_give():
    options = {"agents": AGENTS}
    spawned = AsyncVectorEnv(
        [lambda: gym.make(TURN, **options)] * 2, shared_memory=False
    )
    assert_same(
        trajectory(VectorEnv(2, mode="turn", **options), turns, 6),
        trajectory(spawned, turns, 6),
    )


def test_sent_and_received_episodes_are_those_of_step():
    stepped = trajectory(VectorEnv(3, mode="turn", agents=AGENTS), turns, 8)
    envs = VectorEnv(3, mode="turn", agents=AGENTS)
    envs.reset(seed=11)
    step = dict.fromkeys(range(3), 1)
    envs.send(turns(3, 1), range(3))
    while min(step.values()) <= 8:
        observations, rewards, terminations, truncations, infos = envs.recv()
        for row, env_id in enumerate(infos["env_id"].tolist()):
            expected = stepped[step[env_id]]
            assert observations[row] == expected[0][env_id]
            assert (rewards[row], terminations[row], truncations[row]) == tuple(
                column[env_id] for column in expected[1:4]
            )
            assert infos["task_id"][row] == expected[4]["task_id"][env_id]
            if terminations[row]:
                assert (
                    infos["episode_record"][row]
                    == expected[4]["episode_record"][env_id]
                )
            step[env_id] += 1
        again = [env_id for env_id in infos["env_id"].tolist() if step[env_id] <= 8]
        if again:
            envs.send([script(env_id, step[env_id]) for env_id in again], again)
    assert step == {0: 9, 1: 9, 2: 9}


DIGEST = """
import sys
sys.path.insert(0, sys.argv[1])
import test_vector
print(test_vector.digest())
"""


async def answer_second(
    messages: Sequence[Message], stop: tuple[str, ...], max_tokens: int
) -> str:
    return ASK if len(messages) == 2 else "\\boxed{1}"


async def collect(runner: EpisodeRunner) -> list[Episode]:
    return [episode async for episode in runner.episodes(6)]


def digest() -> str:
    """A hash of everything but wall-clock times that a vector environment and a runner
    give.
    """
    history = trajectory(VectorEnv(3, mode="turn", agents=AGENTS), turns, 8)
    episodes = [
        episode
        for *_, infos in history[1:]
        for episode in infos.get("episode_record", ())
    ]
    runner = EpisodeRunner(build_scenario(agents=AGENTS), answer_second, group_size=2)
    episodes += asyncio.run(collect(runner))
    rows = [episode.to_dict() for episode in episodes if episode]
    for row in rows:
        for consult in row["consults"]:
            del consult["seconds"]
    shown = json.dumps([[step[0] for step in history], sorted(map(json.dumps, rows))])
    return hashlib.sha256(shown.encode()).hexdigest()


def test_equal_seeds_give_equal_episodes_in_other_processes():
    digests = {digest()}
    for hash_seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", DIGEST, os.path.dirname(__file__)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        digests.add(run.stdout.strip())
    assert len(digests) == 1


def test_environments_wait_together_and_recv_takes_the_first():
    agent = OrderedAgent()
    envs = VectorEnv(3, mode="turn", agents=agent)
    envs.reset(seed=0)
    envs.send([f"<knowledge>{rank}</knowledge>" for rank in (2, 0, 1)], [0, 1, 2])
    assert envs.recv(min_ready=1)[-1]["env_id"].tolist() == [1]
    run_sync(agent.let_go())
    assert envs.recv(min_ready=2)[-1]["env_id"].tolist() == [2, 0]
    envs.close()


class OrderedAgent:
    """Replies to query 0 at once; to 1 and then 2 when let go, once both wait."""

    agent_id = "ordered"

    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Event] = {}

    async def reply(self, request: AgentRequest) -> AgentReply:
        rank = int(request.query)
        if rank:
            self.waiting[rank] = asyncio.Event()
            await self.waiting[rank].wait()
        return AgentReply(text="fine")

    async def let_go(self) -> None:
        while len(self.waiting) < 2:
            await asyncio.sleep(0)
        for rank in (1, 2):
            self.waiting[rank].set()
            for _ in range(20):
                await asyncio.sleep(0)


class Refusing:
    """A verifier whose sandbox does not hold."""

    async def verify(self, task: Task, text: str) -> Verdict:
        raise SandboxUnavailable("no sandbox")


def test_what_failed_is_received_once():
    envs = VectorEnv(2, mode="turn", verifier=Refusing())
    envs.reset(seed=0)
    envs.send(["\\boxed{1}", "\\boxed{1}"], [0, 1])
    with pytest.raises(SandboxUnavailable, match="no sandbox"):
        envs.recv(min_ready=2)
    envs.reset(seed=0)
    assert envs.step((ASK, ASK))[-1]["turn"].tolist() == [1, 1]


def test_a_list_of_seeds_and_a_chosen_task():
    envs = VectorEnv(2, mode="turn")
    _, infos = envs.reset(seed=[5, 5])
    assert infos["task_id"][0] == infos["task_id"][1]
    assert envs.reset(seed=4)[1]["task_id"][1] == infos["task_id"][0]
    assert (
        envs.reset(options={"index": 3})[1]["task_id"].tolist() == ["toy-0-train-3"] * 2
    )
    assert envs.reset(seed=np.array([5, 4]))[1]["task_id"][0] == infos["task_id"][0]


def test_next_step_resets_and_takes_no_action():
    envs = VectorEnv(2, mode="turn")
    envs.reset(seed=0)
    _, _, terminations, _, infos = envs.step(("\\boxed{1}", ASK))
    assert terminations.tolist() == [True, False]
    assert infos["stop_reason"].tolist() == ["completed", None]
    observations, _, terminations, _, infos = envs.step(("ignored", "\\boxed{1}"))
    assert terminations.tolist() == [False, True]
    assert "assistant" not in observations[0]
    assert infos["turn"].tolist() == [0, 2]


def test_disabled_autoreset_is_left_to_the_caller():
    envs = VectorEnv(2, mode="turn", autoreset_mode=AutoresetMode.DISABLED)
    envs.reset(seed=0)
    observations, *_ = envs.step(("\\boxed{1}", ASK))
    with pytest.raises(ResetNeeded, match="environment 0 has no running episode"):
        envs.step(("\\boxed{1}", ASK))
    masked, infos = envs.reset(options={"reset_mask": np.array([True, False])})
    assert masked[1] == observations[1]
    assert masked[0] != observations[0]
    assert infos["_task_id"].tolist() == [True, False]
    assert envs.step((ASK, "\\boxed{1}"))[2].tolist() == [False, True]


def test_max_episode_steps_truncates():
    envs = gym.make_vec(TOKEN, num_envs=2, max_episode_steps=2)
    envs.reset(seed=0)
    assert envs.step(np.array([97, 97]))[3].tolist() == [False, False]
    assert envs.step(np.array([97, 97]))[3].tolist() == [True, True]
    observations, _, _, truncations, infos = envs.step(np.array([97, 97]))
    assert truncations.tolist() == [False, False]
    assert infos["num_policy_tokens"].tolist() == [0, 0]
    assert observations.shape == (2, 512)
    assert observations.dtype == np.int64


def test_gymnasiums_wrappers_and_render_take_it():
    envs = gym.wrappers.vector.RecordEpisodeStatistics(
        gym.make_vec(TURN, num_envs=2, render_mode="ansi")
    )
    envs.reset(seed=0)
    *_, infos = envs.step(("\\boxed{1}", ASK))
    assert infos["episode"]["l"].tolist() == [1, 0]
    assert [ASK in text for text in envs.render()] == [False, True]
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    envs.close()
    envs.close()


def test_environments_share_their_tasks_and_the_limits_of_their_pool():
    envs = VectorEnv(3)
    assert len({id(env.scenario) for env in envs.envs}) == 1
    assert len({id(env) for env in envs.envs}) == 3


def test_stepping_and_sending_are_not_mixed():
    envs = VectorEnv(2, mode="turn")
    with pytest.raises(ResetNeeded, match="environment 0 has no running episode"):
        envs.send([ASK], [0])
    envs.reset(seed=0)
    with pytest.raises(NoAsyncCallError, match="min_ready=1 must be from 1 to 0"):
        envs.recv()
    with pytest.raises(
        AlreadyPendingCallError, match="environment 1 is sent two actions"
    ):
        envs.send([ASK, ASK], [1, 1])
    envs.send([ASK], [1])
    for call in (lambda: envs.step((ASK, ASK)), lambda: envs.reset(seed=0)):
        with pytest.raises(
            AlreadyPendingCallError, match="1 results of send.. are still to come"
        ):
            call()
    with pytest.raises(
        AlreadyPendingCallError, match="environment 1 is sent two actions"
    ):
        envs.send([ASK], [1])
    with pytest.raises(NoAsyncCallError, match="min_ready=2 must be from 1 to 1"):
        envs.recv(min_ready=2)
    assert envs.recv()[-1]["env_id"].tolist() == [1]
    assert envs.step((ASK, ASK))[-1]["turn"].tolist() == [1, 2]


def test_actions_that_cannot_be_taken_leave_no_work_behind():
    envs = VectorEnv(2, mode="turn")
    envs.reset(seed=0)
    with pytest.raises(InvalidAction, match="the action must be text, got int"):
        envs.step((ASK, 5))
    with pytest.raises(InvalidAction, match="1 actions for environments .* of 2"):
        envs.step((ASK,))
    with pytest.raises(InvalidAction, match=r"1 actions for environments \[2\] of 2"):
        envs.send([ASK], [2])
    assert envs.step((ASK, ASK))[-1]["turn"].tolist() == [1, 1]


def test_closing_cancels_what_was_sent():
    agent = OrderedAgent()
    envs = VectorEnv(1, mode="turn", agents=agent)
    envs.reset(seed=0)
    envs.send(["<knowledge>1</knowledge>"], [0])
    [task] = envs._sent.values()
    envs.close()

    async def ended() -> None:
        await asyncio.wait([task])

    run_sync(ended())
    assert task.cancelled()
    assert task.get_loop() is _loop(os.getpid())


@pytest.mark.parametrize(
    ("reset", "message"),
    [
        ({"seed": [1]}, "reset: 1 seeds for 2 environments; give one for each."),
        ({"seed": True}, "reset: seed=True must be a whole number"),
        ({"seed": 1.5}, "reset: seed=1.5 must be a whole number"),
        (
            {"options": {"reset_mask": [True, False]}},
            "reset_mask=\\[True, False\\] must be bool\\[2\\]",
        ),
        ({"options": {"reset_mask": np.zeros(2, bool)}}, "true somewhere"),
        (
            {"options": {"nonsense": 1}},
            "reset: option='nonsense'. Valid: aided, index, split",
        ),
    ],
)
def test_resets_that_cannot_be_honoured_are_refused(
    reset: dict[str, Any], message: str
):
    with pytest.raises(ConfigError, match=message):
        VectorEnv(2).reset(**reset)


def test_the_number_of_environments_must_be_one():
    with pytest.raises(
        ConfigError, match="num_envs=0 must be a whole number, at least 1"
    ):
        VectorEnv(0)
