"""Classes as tools: one instance for each episode, made for its task and closed at its
end.
"""

import asyncio
import inspect
import logging
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from functools import cached_property, lru_cache
from typing import Any, ClassVar

import pytest

from aipo_env import (
    TOOLS,
    AgentRequest,
    ConfigError,
    EpisodeTools,
    Task,
    Tool,
    Toolbox,
    ToolError,
    build_tools,
)
from aipo_env.tools import toolbox

TASK = Task(id="t1", prompt="Count to 3.", answer="3")
OTHER = Task(id="t2", prompt="Count to 4.", answer="4")


class Shop:
    """What shops have."""

    is_open: ClassVar[bool] = True

    def prices(self) -> dict[str, int]:
        """What things cost."""
        return {"tea": 2}

    def _secret(self) -> int:
        return 1


class World(Shop):
    """A shop with a till."""

    closed: ClassVar[list[str]] = []

    def __init__(self, task: Task) -> None:
        self.task, self.coins = task, 0

    def pay(self, coins: int = 1) -> str:
        """Pay coins.

        Args:
            coins: How many.
        """
        self.coins += coins
        return f"{self.task.id}: {self.coins}"

    async def wait(self) -> str:
        """Wait a while."""
        await asyncio.sleep(0)
        return "waited"

    @staticmethod
    def greet(name: str) -> str:
        """Greet."""
        return f"hello {name}"

    @classmethod
    def kind(cls) -> str:
        """What it is."""
        return cls.__name__

    def prices(self) -> dict[str, int]:
        return {"tea": 3}

    @property
    def till(self) -> int:
        """No method."""
        return self.coins

    @cached_property
    def ledger(self) -> list[int]:
        """No method."""
        return []

    @lru_cache  # noqa: B019
    def rate(self, day: int) -> int:
        """The day's rate."""
        return day

    class Nested:
        """No method."""

    def close(self) -> None:
        self.closed.append(self.task.id)


class Clock:
    """Takes no task, and closes in its own time."""

    num_closed = 0

    def tick(self) -> int:
        """Tick."""
        return 1

    async def close(self) -> None:
        await asyncio.sleep(0)
        type(self).num_closed += 1


def look(text: str) -> str:
    """Look."""
    return text


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "closed", [])
    monkeypatch.setattr(Clock, "num_closed", 0)


async def ask(tools: EpisodeTools, name: str, query: str = "{}") -> str:
    request = AgentRequest(kind=name, query=query)
    return (await tools.tools[name].reply(request)).text


def test_what_a_toolbox_holds():
    box = build_tools([look, World, f"{__name__}:Clock"])
    assert isinstance(box, Toolbox)
    assert box.names == (
        "look",
        "prices",
        "pay",
        "wait",
        "greet",
        "kind",
        "rate",
        "tick",
    )
    assert [schema.name for schema in box.schemas] == list(box.names)
    assert list(box.functions) == ["look"]
    assert [made.__name__ for made in box.classes] == ["World", "Clock"]
    assert box.has_state
    prices = box.schemas[1]
    assert prices.description == "What things cost."  # said by the class it is from
    assert box.schemas[2].parameters == {
        "coins": {"type": "integer", "default": 1, "description": "How many."}
    }
    assert not build_tools([])
    assert build_tools([look])
    assert not build_tools([look]).has_state


def test_each_episode_has_an_instance_of_its_own():
    async def main() -> None:
        box = build_tools([look, World, Clock])
        one, two = box.open(TASK), box.open(OTHER)
        await one.start(5.0)
        await two.start(5.0)
        assert await ask(one, "pay", '{"coins": 2}') == "t1: 2"
        assert await ask(two, "pay") == "t2: 1"
        assert await ask(one, "pay") == "t1: 3"
        assert await ask(one, "prices") == '{"tea": 3}'
        assert await ask(one, "wait") == "waited"
        assert await ask(one, "greet", "you") == "hello you"
        assert await ask(one, "kind") == "World"
        assert await ask(one, "rate", '{"day": 4}') == "4"
        assert await ask(one, "look", "there") == "there"
        assert (
            await ask(one, "pay", '{"coins": "x"}')
            == 'error: ValueError: coins must be of type integer, got "x"'
        )
        assert one.instances["World"].coins == 3
        assert sorted(one.instances) == ["Clock", "World"]
        told = [(name, tool.is_stateful) for name, tool in one.tools.items()]
        assert told[:2] == [("look", False), ("prices", True)]
        assert one.tools["pay"].agent_id == "pay"
        assert one.tools["pay"].schema == box.schemas[2]
        await one.close()
        assert (World.closed, Clock.num_closed) == (["t1"], 1)
        assert one.instances == {}
        assert await ask(two, "pay") == "t2: 2"
        assert (await ask(one, "pay")).startswith(
            "error: ToolError: tool class 'World'"
        )
        await asyncio.gather(one.close(), two.close(), two.close())
        assert (World.closed, Clock.num_closed) == (["t1", "t2"], 2)

    asyncio.run(main())


class Failing:
    """Cannot be made."""

    def __init__(self, task: Task) -> None:
        if task.id == "t2":
            time.sleep(0.2)
            return
        raise RuntimeError("no licence")

    def nothing(self) -> None:
        """Nothing."""

    def close(self) -> None:
        World.closed.append("late")


def test_a_constructor_that_raises_is_named_and_the_others_are_closed():
    async def main() -> None:
        tools = build_tools([World, Failing]).open(TASK)
        message = (
            "tool class 'Failing': it could not be made for task 't1': RuntimeError: no"
            " licence"
        )
        with pytest.raises(ToolError, match=message):
            await tools.start(5.0)
        assert World.closed == ["t1"]
        await tools.close()
        assert World.closed == ["t1"]

    asyncio.run(main())


def test_a_constructor_that_outlives_its_deadline_is_named_and_closed_when_it_ends():
    async def main() -> None:
        tools = build_tools([World, Failing]).open(OTHER)
        message = "'Failing'.* for task 't2': its constructor took longer than 0.05 s"
        with pytest.raises(ToolError, match=message):
            await tools.start(0.05)
        assert World.closed == ["t2"]
        assert tools.instances == {}
        for _ in range(100):
            await asyncio.sleep(0.02)
            if len(World.closed) == 2:
                break
        assert World.closed == ["t2", "late"]

    asyncio.run(main())


def test_a_start_that_is_cancelled_closes_what_it_made():
    async def main() -> None:
        tools = build_tools([World, Failing]).open(OTHER)
        start = asyncio.create_task(tools.start(5.0))
        await asyncio.sleep(0.1)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert World.closed == ["t2"]

    asyncio.run(main())


class Slow:
    """Notes whether two calls ran at once."""

    def __init__(self) -> None:
        self.num_running, self.most, self.go_on = 0, 0, threading.Event()

    def work(self) -> int:
        """Work."""
        self.num_running += 1
        self.most = max(self.most, self.num_running)
        time.sleep(0.02)
        self.num_running -= 1
        return self.most

    async def rest(self) -> int:
        """Rest."""
        self.num_running += 1
        self.most = max(self.most, self.num_running)
        await asyncio.sleep(0.02)
        self.num_running -= 1
        return self.most

    def hang(self) -> None:
        """Hang."""
        self.num_running += 1
        self.go_on.wait()
        self.num_running -= 1

    def close(self) -> None:
        self.go_on.set()


def test_calls_to_one_instance_come_one_at_a_time():
    async def main() -> list[str]:
        tools = build_tools([Slow]).open(TASK)
        await tools.start(5.0)
        calls = [ask(tools, name) for name in ("work", "rest", "work", "rest")]
        said = await asyncio.gather(*calls)
        await tools.close()
        return said

    assert asyncio.run(main()) == ["1", "1", "1", "1"]


def test_a_call_that_is_given_up_keeps_the_instance_until_it_ends():
    async def main() -> None:
        tools = build_tools([Slow]).open(TASK)
        await tools.start(5.0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(tools, "hang"), 0.05)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ask(tools, "work"), 0.05)
        tools.instances["Slow"].go_on.set()
        assert await ask(tools, "work") == "1"
        await tools.close()

    asyncio.run(main())


def test_closing_ends_a_call_that_hangs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(toolbox, "BUSY_S", 0.05)

    async def main() -> str:
        tools = build_tools([Slow]).open(TASK)
        await tools.start(5.0)
        call = asyncio.create_task(ask(tools, "hang"))
        await asyncio.sleep(0.02)
        await tools.close()
        return await call

    assert asyncio.run(main()) == "null"


class BadEnd:
    """Does not close."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def nothing(self) -> None:
        """Nothing."""

    async def close(self) -> None:
        if self.task.id == "t1":
            raise SystemExit("stuck")
        await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("task", "told"),
    [
        (TASK, "tool class 'BadEnd': closing it failed: SystemExit('stuck')"),
        (OTHER, "tool class 'BadEnd': not closed within 0.05 s"),
    ],
)
def test_a_close_that_fails_or_hangs_is_logged(
    task: Task,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    monkeypatch.setattr(toolbox, "CLOSE_S", 0.05)

    async def main() -> None:
        tools = build_tools([BadEnd, World]).open(task)
        await tools.start(5.0)
        await tools.close()

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert caplog.messages == [told]
    assert World.closed == [task.id]


class Raises:
    """Its method wants a setting."""

    def look_up(self, word: str) -> str:
        """Look a word up."""
        raise ConfigError("no dictionary is set")


def test_what_no_arguments_can_mend_is_raised_by_a_method_too():
    async def main() -> None:
        tools = build_tools([Raises]).open(TASK)
        await tools.start(5.0)
        with pytest.raises(ConfigError, match="no dictionary is set"):
            await ask(tools, "look_up", "tea")

    asyncio.run(main())


class Empty:
    """Holds data alone."""

    def __init__(self) -> None:
        self.close = 1


class Untyped:
    def go(self, way) -> str:
        """Go."""
        return way


class Silent:
    def go(self) -> str:
        return ""


class Role:
    def verify(self, text: str) -> str:
        """Verify."""
        return text


class Selfless:
    def go() -> str:  # type: ignore[misc]
        """Go."""
        return ""


class Wants:
    def __init__(self, task: Task, size: int) -> None: ...

    def go(self) -> str:
        """Go."""
        return ""


class Abstract(ABC):
    @abstractmethod
    def go(self) -> str:
        """Go."""


class Look:
    def look(self) -> str:
        """Look."""
        return ""


def twin() -> type:
    """Another class of a name that is taken."""
    return type("Look", (), {"gaze": Look.look})


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([Empty], "tool class 'Empty': it has no public method"),
        ([int], "tool class 'int': it has no public method"),
        ([Untyped], "tool class 'Untyped': method 'go': parameter 'way' must be typed"),
        ([Silent], "tool class 'Silent': method 'go': it has no docstring"),
        ([Role], "tool class 'Role': method 'verify': use a plain name that is no"),
        ([Selfless], "tool class 'Selfless': method 'go': it takes no 'self'"),
        ([Wants], "tool class 'Wants': its constructor wants task, size; it gets"),
        ([Abstract], "tool class 'Abstract': it is abstract"),
        ([look, Look], "two are named 'look', by a function and by tool class 'Look'"),
        ([Look, twin()], "two classes are named 'Look'"),
        (
            [{"type": f"{__name__}:World", "coins": 3}],
            "a class takes no options in its spec, got {'coins': 3}",
        ),
    ],
)
def test_what_is_no_class_of_tools_is_named(tools: list, message: str):
    with pytest.raises(ConfigError, match=message):
        build_tools(tools)


class ByName:
    def __init__(self, size: int = 3, *, task: Task | None = None) -> None:
        self.size, self.task = size, task

    def go(self) -> str:
        """Go."""
        return f"{self.size} {self.task and self.task.id}"


class Other:
    def __init__(self, problem: Task, /, *more: int) -> None:
        self.problem = problem

    def go(self) -> str:
        """Go."""
        return self.problem.id


class Free:
    def __init__(self, size: int = 3) -> None:
        self.size = size

    def go(self) -> str:
        """Go."""
        return str(self.size)


@pytest.mark.parametrize(
    ("made", "said"), [(ByName, "3 t1"), (Other, "t1"), (Free, "3")]
)
def test_how_a_constructor_gets_the_task(made: type, said: str):
    async def main() -> str:
        tools = build_tools([made]).open(TASK)
        await tools.start(5.0)
        return await ask(tools, "go")

    assert asyncio.run(main()) == said


def test_a_class_has_a_short_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(TOOLS, "_added", {})
    TOOLS.register("clock")(Clock)
    assert build_tools(["clock"]).classes == (Clock,)
    assert build_tools([Tool(look)]).names == ("look",)


HANGS = """
import asyncio, time
from aipo_env import Task, ToolError, build_tools

class Never:
    def __init__(self) -> None:
        time.sleep(1000)
    def go(self) -> str:
        'Go.'
        return ""

async def main() -> None:
    tools = build_tools([Never]).open(Task(id="t", prompt="p", answer="a"))
    try:
        await tools.start(0.05)
    except ToolError as error:
        print(error)

asyncio.run(main())
"""


def test_a_constructor_that_never_returns_holds_up_no_exit():
    done = subprocess.run(
        [sys.executable, "-c", HANGS],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert "its constructor took longer than 0.05 s. Mend its constructor." in (
        done.stdout
    )


def test_the_protocol_of_agents_is_kept():
    tools: Any = build_tools([World]).open(TASK).tools
    assert all(inspect.iscoroutinefunction(tool.reply) for tool in tools.values())
