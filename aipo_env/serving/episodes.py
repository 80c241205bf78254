"""What a client plays: its episodes, what it is told of them, what it may ask for.

What comes from a client is hostile. What goes to it is what a policy may see: never the
gold answer, and of what fails here no more than that it failed.
"""

import asyncio
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_args

from gymnasium.error import Error as GymnasiumError

from aipo_env.errors import AipoError, ConfigError, check_choice, error_text
from aipo_env.event_loop import run_sync
from aipo_env.gym.episode_env import MAX_TASKS
from aipo_env.gym.turn_env import TurnEnv
from aipo_env.records import Split
from aipo_env.rollout.dialogue import MAX_CALLS
from aipo_env.threads import in_thread

LOG = logging.getLogger(__name__)
LONGEST_TURN = 1_000_000
"""Characters of a turn; a longer one is refused unread."""
MAX_TASKS_TOLD = 100
"""Tasks that a client is told of in one answer."""
FAILED_HERE = "failed on the server, whose log says why."
"""All that a client is told of an error of ours."""
_LEAVING: set[asyncio.Task[None]] = set()
"""What closes the tools of episodes that were left: a loop itself keeps no task."""
_RESULT = ("observation", "reward", "terminated", "truncated", "info")
"""The names of what `step` of an environment returns, in order."""


class ServerFault(AipoError):
    """Something failed here at a client's request; the reason is in our log alone."""


@dataclass(frozen=True, eq=False)
class Offer:
    """What is served.

    Args:
        env: Each client plays copies of it. If it is unaided, no client is offered
            agents, whatever it asks for.
        name: What clients call it; part of an address.
        description: What they are told of it.
        max_consults: Consultations of agents that a client may have in all.
    """

    env: TurnEnv
    name: str = "aipo"
    description: str = ""
    max_consults: int = 1_000


@dataclass
class Allowance:
    """How many consultations a client may still have.

    Turns are answered side by side as long as all of them together keep within it, and
    one after another where they might not: else each would spend the same rest.

    Args:
        num_left: So many.
        num_reserved: Of these, what the turns that are being answered may have.
        is_freed: Set when one of them has ended.
    """

    num_left: int
    num_reserved: int = 0
    is_freed: asyncio.Event = field(default_factory=asyncio.Event)

    def check(self, env: TurnEnv, aided: Any) -> None:
        """Raise ConfigError when an episode with agents is to start and none is left.

        Args:
            env: The client's own copy.
            aided: What the client chose for the episode, if anything.
        """
        may_consult = env.aided and aided is not False
        if may_consult and self.num_left <= 0:
            raise ConfigError(
                "this client's budget of consultations is spent (--max-consults);"
                " reset with aided=false plays without agents."
            )

    async def charged_turn(self, env: TurnEnv, text: str) -> dict[str, Any]:
        """Take a turn, and book what it consulted, however it ends.

        What the client's budget does not hold is denied, as is what the episode's own
        does not; the episode goes on.

        Raises:
            ServerFault, GymnasiumError: As in `turn_told`.
        """
        num_wanted = min(MAX_CALLS, env.num_consults_left)
        while self.num_reserved and self._num_free() < num_wanted:
            self.is_freed.clear()
            await self.is_freed.wait()
        num_granted = min(num_wanted, self._num_free())
        env.limit_consults(num_granted)
        self.num_reserved += num_granted
        num_before = env.num_consults
        try:
            return await turn_told(env, text)
        finally:
            self.num_left -= env.num_consults - num_before
            self.num_reserved -= num_granted
            self.is_freed.set()

    def _num_free(self) -> int:
        """Return how many are left that no turn has reserved."""
        return self.num_left - self.num_reserved


def check_split(env: TurnEnv, split: Any) -> Split:
    """Return the split that is asked for, the environment's own if it is None.

    Raises:
        ConfigError: There is no such split, or it has no tasks. ServerFault: the source
            cannot say.
    """
    chosen: Split = env.split if split is None else split
    check_choice("split", chosen, get_args(Split))
    if num_tasks_told(env, chosen) == 0:
        raise ConfigError(f"split={chosen!r} has no tasks.")
    return chosen


async def start_told(
    env: TurnEnv, seed: int | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Start an episode; return what a client is told of it.

    Args:
        env: The client's own copy.
        seed: Begins a series of episodes; None goes on with one.
        options: "index", "split" and "aided" of this episode; None chooses nothing.

    Raises:
        ConfigError: One of them cannot be used. ServerFault: the task cannot be had.
    """
    check_split(env, options.get("split"))
    if options.get("aided") and not env.aided:
        raise ConfigError("reset: aided=True, and this server offers no agents.")
    # What a client has chosen wrongly it is told; what a source says of its files is
    # a ConfigError, too.
    env.check_reset(seed, options)
    reset = partial(env.reset, seed=seed, options=dict(options))
    with _kept_here("reset"):
        # Tools with a state are made, and waited for.
        begun = in_thread(reset, "aipo-reset")
        try:
            observation, info = await asyncio.shield(begun)
        except BaseException:
            # Where the client has gone, the thread goes on: it makes tools that nobody
            # will use.
            begun.add_done_callback(lambda _: leave_behind(env))
            raise
    return {"observation": observation, **_by_author(env), "info": info}


async def turn_told(env: TurnEnv, text: str) -> dict[str, Any]:
    """Take a turn; return what a client is told: what `step` returns, by name.

    The reward of a turn in which something of ours failed is None.

    Raises:
        GymnasiumError: No episode is running. ServerFault: something of ours failed.
    """
    try:
        values = await env.step_async(text)
    except GymnasiumError:
        raise
    except Exception as error:
        raise _fault("step", error) from None
    result: dict[str, Any] = dict(zip(_RESULT, values, strict=True))
    info = result["info"]
    # It has the gold answer, and whoever plays may not see that.
    info.pop("episode_record", None)
    if "error" in info:
        # What a verifier says that failed may have it too.
        LOG.warning("%s: %s: %r", info["task_id"], info["stop_reason"], info["error"])
        info["error"] = FAILED_HERE
        # There is no verdict, and a number here would be learned from.
        result["reward"] = None
    return result | _by_author(env)


def leave_behind(env: TurnEnv) -> asyncio.Task[None]:
    """Leave an environment's episode in a task of its own, and return the task.

    If whoever waits for it is cancelled, as where a client has gone, the episode's
    tools are closed all the same.
    """
    task = asyncio.get_running_loop().create_task(env.leave())
    _LEAVING.add(task)
    task.add_done_callback(_LEAVING.discard)
    return task


async def leave_all(envs: Iterable[TurnEnv]) -> None:
    """Leave the episodes of environments, side by side, even if this is cancelled."""
    for task in [leave_behind(env) for env in envs]:
        await asyncio.shield(task)


def leave_in_time(env: TurnEnv) -> None:
    """Leave an environment's episode, and wait for that where nobody else has to.

    In an event loop, which serves others, it only begins.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        run_sync(env.leave())
        return
    leave_behind(env)


def check_length(text: str) -> None:
    """Raise ConfigError where a turn has too many characters to be read."""
    if len(text) > LONGEST_TURN:
        raise ConfigError(
            f"step: text has {len(text):,} characters; at most {LONGEST_TURN:,} are"
            " read."
        )


def num_tasks_told(env: TurnEnv, split: Split) -> int:
    """Return how many tasks of a split can be chosen by number.

    Raises:
        ServerFault: The source cannot say.
    """
    with _kept_here("to count tasks"):
        num_tasks = env.scenario.source.num_tasks(split)
    return MAX_TASKS if num_tasks is None else num_tasks


def task_told(env: TurnEnv, split: Split, index: int) -> dict[str, Any]:
    """Return the number, the id and the problem of a task, and nothing else of it.

    Raises:
        IndexError: There is no such number. ServerFault: the task cannot be had.
    """
    if not 0 <= index < num_tasks_told(env, split):
        raise IndexError(index)
    with _kept_here("to read a task"):
        task = env.scenario.source.task(split, index)
    return {"index": index, "id": task.id, "prompt": task.prompt}


def tasks_told(
    env: TurnEnv, split: Split, start: int | None = None, stop: int | None = None
) -> list[dict[str, Any]]:
    """Return what `task_told` does of the tasks from one number to before another.

    Raises:
        ConfigError: They are too many. ServerFault: as in `task_told`.
    """
    numbers = range(num_tasks_told(env, split))[start:stop]
    if len(numbers) > MAX_TASKS_TOLD:
        raise ConfigError(
            f"task_range: {len(numbers):,} tasks; at most {MAX_TASKS_TOLD} are told at"
            " once, from start to before stop."
        )
    return [task_told(env, split, index) for index in numbers]


def _by_author(env: TurnEnv) -> dict[str, Any]:
    """Return what the last call has brought, by message and by author."""
    messages = env.new_messages
    spans = [span for message in messages for span in message.spans if span.text]
    return {
        "messages": [
            {"role": message.role, "content": message.content} for message in messages
        ],
        "spans": [span.told() for span in spans],
        "stop": list(env.stop_strings),
    }


@contextmanager
def _kept_here(what: str) -> Iterator[None]:
    """Have whatever fails meanwhile told to our log, and only that it did to clients.

    Raises:
        ServerFault: Something failed.
    """
    try:
        yield
    except Exception as error:
        raise _fault(what, error) from None


def _fault(what: str, error: Exception) -> ServerFault:
    """Log an error of ours; return what a client is told instead."""
    LOG.error("%s failed: %r", what, error_text(error))
    return ServerFault(f"{what} {FAILED_HERE}")
