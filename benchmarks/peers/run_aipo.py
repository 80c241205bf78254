"""Our own faces, and gymnasium's vector environments around our text environment.

--system runner | send_recv | vector | env | gymnasium_async   episodes per second
--system lag        how long the runner holds up its event loop
--system bare_lag   the same of bare tasks that work as long
--system tokens     steps per second of the token environment
"""

import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv

from aipo_env import AgentReply, AgentRequest, Message, Task, build_scenario
from aipo_env.gym.vector import VectorEnv
from aipo_env.rollout.runner import EpisodeRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from workload import Load, Slots, clock, parse_load, report


class SlowAgent:
    """Takes as long as the load says."""

    agent_id = "slow"

    def __init__(self, load: Load) -> None:
        self.load = load

    async def reply(self, request: AgentRequest) -> AgentReply:
        await asyncio.sleep(self.load.delay_s(request.query))
        return AgentReply(text="It holds.", tokens=2)


class Tasks:
    """One task per episode; its prompt is the episode's number."""

    def __init__(self, size: int) -> None:
        self.size = size

    def num_tasks(self, split: str) -> int:
        return self.size

    def task(self, split: str, index: int) -> Task:
        return Task(id=f"t{index}", prompt=str(index), answer=str(index + 1))


def build_runner(load: Load) -> EpisodeRunner:
    """Return a runner with as many slots and agents as the load has slots."""

    async def policy(
        messages: Sequence[Message], stop: tuple[str, ...], max_tokens: int
    ) -> str:
        return load.turn(int(messages[1].content), len(messages) // 2 - 1)

    options = {"rules": {"consult_budget": 5}, "pool": {"concurrency": load.slots}}
    scenario = build_scenario(Tasks(load.episodes), SlowAgent(load), **options)
    return EpisodeRunner(scenario, policy, concurrency=load.slots, seed=load.seed)


async def run_free(load: Load) -> None:
    """The runner: a slot that falls free is filled at once."""
    runner = build_runner(load)
    async for _ in runner.episodes(load.slots):
        pass
    num_consults = 0
    with clock() as measured:
        async for episode in runner.episodes(load.episodes):
            assert episode.reward is not None
            num_consults += len(episode.consults)
    report(load, measured, load.episodes, num_consults)


BARE_WORK_S = 0.0004
"""What a bare task computes for each reply: about as long as an episode of ours
does.
"""


async def run_bare(load: Load) -> None:
    """Tasks that do nothing but sleep as long as the agent takes, and compute."""

    async def play(numbers: Iterator[int]) -> None:
        for number in numbers:
            for delay_s in load.delays_s[number]:
                await asyncio.sleep(delay_s)
                end = time.thread_time() + BARE_WORK_S
                while time.thread_time() < end:
                    pass

    numbers = iter(range(load.episodes))
    await asyncio.gather(*(play(numbers) for _ in range(load.slots)))


async def run_lag(load: Load, system: str) -> None:
    """How much later than asked a sleeper on the same event loop wakes while all slots
    are busy.

    Replies take half to one and a half times as long as the load says, as a language
    model's do.
    """
    rng = np.random.default_rng(load.seed)
    load.delays_s = [
        [delay_s * rng.uniform(0.5, 1.5) for delay_s in delays]
        for delays in load.delays_s
    ]
    lags_s: list[float] = []

    async def run_runner() -> None:
        async for _ in build_runner(load).episodes(load.episodes):
            pass

    async def probe() -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0.005)
            lags_s.append(time.perf_counter() - start - 0.005)

    probing = asyncio.create_task(probe())
    with clock() as measured:
        await (run_bare(load) if system == "bare_lag" else run_runner())
    probing.cancel()
    for name, share in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)):
        measured[f"lag_{name}_ms"] = 1000 * float(np.quantile(lags_s, share))
    report(load, measured, load.episodes, len(lags_s))


def run_vector(load: Load, system: str) -> None:
    """Vector environments in lock step, or by send and recv."""
    options = {
        "source": Tasks(load.episodes),
        "agents": SlowAgent(load),
        "rules": {"consult_budget": 5},
        "pool": {"concurrency": load.slots},
        "observation": "delta",
    }
    if system == "gymnasium_async":
        make = [lambda: gym.make("AIPO-Toy-Turn-v0", **options)] * load.slots
        envs = AsyncVectorEnv(make, shared_memory=False, autoreset_mode="SameStep")
    else:
        envs = VectorEnv(load.slots, mode="turn", autoreset_mode="SameStep", **options)
    envs.reset(seed=load.seed)
    slots = Slots(load)
    everyone = list(range(load.slots))
    # The policy's first answers, before the clock starts, warm everything up.
    envs.step(tuple("\\boxed{1}" for _ in everyone))
    with clock() as measured:
        ids = everyone
        while slots.num_finished < load.episodes:
            actions = tuple(slots.act(slot) for slot in ids)
            if system == "send_recv":
                envs.send(actions, ids)
                _, _, terminated, truncated, infos = envs.recv()
                ids = infos["env_id"].tolist()
            else:
                _, _, terminated, truncated, _ = envs.step(actions)
            for slot, is_over in zip(
                ids, np.logical_or(terminated, truncated).tolist(), strict=True
            ):
                slots.observe(slot, is_over)
    report(load, measured, slots.num_finished, slots.num_consults)
    envs.close()


def run_env(load: Load) -> None:
    """One environment, stepped by `step`."""
    env = gym.make(
        "AIPO-Toy-Turn-v0",
        source=Tasks(load.episodes),
        agents=SlowAgent(load),
        rules={"consult_budget": 5},
    )
    env.reset(seed=load.seed)
    env.step("\\boxed{1}")
    num_consults = 0
    with clock() as measured:
        for episode in range(load.episodes):
            env.reset()
            for turn in range(load.num_consults(episode) + 1):
                env.step(load.turn(episode, turn))
            num_consults += turn
    report(load, measured, load.episodes, num_consults)


def run_tokens(load: Load, num_steps: int = 400_000) -> None:
    """The token environment with toy agents, and a policy that draws every token
    uniformly.
    """
    env = gym.make("AIPO-Toy-v0", window=128, disable_env_checker=True)
    actions = np.random.default_rng(load.seed).integers(
        env.action_space.n, size=num_steps
    )
    env.reset(seed=load.seed)
    num_episodes = num_consults = 0
    with clock() as measured:
        for action in actions:
            _, _, terminated, truncated, info = env.step(action)
            if terminated or truncated:
                num_episodes += 1
                num_consults += info["consults_used"]
                env.reset()
    measured["steps_per_s"] = num_steps / measured["wall_s"]
    report(load, measured, num_episodes, num_consults)


if __name__ == "__main__":
    load, options = parse_load(system={"default": "runner"})
    if options.system == "runner":
        asyncio.run(run_free(load))
    elif options.system in ("lag", "bare_lag"):
        asyncio.run(run_lag(load, options.system))
    elif options.system in ("env", "tokens"):
        {"env": run_env, "tokens": run_tokens}[options.system](load)
    else:
        run_vector(load, options.system)
