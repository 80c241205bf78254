"""The tools of a scenario, and those of one episode.

A class among them is a tool with state: each episode makes an instance of it, whose
methods are the tools.

class Counter:
    def __init__(self, task: Task) -> None:
        self.count = 0

    def add(self, step: int = 1) -> int:
        '''Count on, and tell the count.'''
        self.count += step
        return self.count
"""

import asyncio
import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any, ClassVar

from aipo_env.agents.base import AgentReply, AgentRequest
from aipo_env.codecs.base import ToolSchema
from aipo_env.errors import ConfigError, ToolError
from aipo_env.records import Task
from aipo_env.threads import check_cancelled, in_thread
from aipo_env.tools.base import answer, awaited, build_tool, find_tool
from aipo_env.tools.classes import CLOSE, ToolClass
from aipo_env.tools.forms import ToolForm

LOG = logging.getLogger("aipo_env.tools")
CLOSE_S = 10.0
"""What is not closed by then is given up."""
BUSY_S = 5.0
"""So long a close waits for a call that still runs; then it is closed all the same."""
_MCP = "mcp:"
"""How a spec begins that names a server."""


@dataclass(frozen=True)
class Toolbox:
    """The tools of a scenario; true if there is any.

    Args:
        schemas: Every tool as a policy is told of it, in order.
        functions: Those without a state, by name: the same in every episode.
        kinds: The classes of which each episode makes an instance.
    """

    schemas: tuple[ToolSchema, ...] = ()
    functions: Mapping[str, Any] = field(default_factory=dict)
    kinds: tuple[ToolClass, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.schemas)

    @property
    def names(self) -> tuple[str, ...]:
        """The tools' names, in order."""
        return tuple(schema.name for schema in self.schemas)

    @property
    def classes(self) -> tuple[type, ...]:
        """The classes of which each episode makes an instance."""
        return tuple(kind.maker for kind in self.kinds)

    @property
    def has_state(self) -> bool:
        """Whether an episode has tools of its own."""
        return bool(self.kinds)

    def open(self, task: Task) -> "EpisodeTools":
        """Return the tools of an episode, which `start` makes and `close` ends."""
        return EpisodeTools(self, task)


class EpisodeTools:
    """The tools of one episode: those without a state, and methods of its instances.

    `start` makes the instances, and `close` ends them.

    Args:
        toolbox: The tools of the scenario.
        task: The task of the episode, which the constructors may want.

    Attributes:
        tools: By name; each has `agent_id`, `schema`, `is_stateful` and `async
            reply(request)`.
    """

    def __init__(self, toolbox: Toolbox, task: Task) -> None:
        self._task = task
        self._instances = [Instance(kind) for kind in toolbox.kinds]
        by_name = dict(toolbox.functions)
        for instance in self._instances:
            for name, form in instance.kind.forms.items():
                by_name[name] = MethodTool(instance, form)
        # In the order in which a policy is told of them.
        self.tools: Mapping[str, Any] = {name: by_name[name] for name in toolbox.names}

    @property
    def instances(self) -> Mapping[str, Any]:
        """The instances there are, by the name of their class."""
        return {
            instance.kind.name: instance.value
            for instance in self._instances
            if instance.is_open
        }

    async def start(self, deadline_s: float) -> None:
        """Make the instances; if one cannot be made, close the others.

        Args:
            deadline_s: Seconds for all of them together.

        Raises:
            ToolError: A constructor raises or outlives the deadline; the message names
                class and task.
        """
        end = asyncio.get_running_loop().time() + deadline_s
        try:
            # One after the other, so that their order is that of the classes.
            for instance in self._instances:
                await self._make(instance, end, deadline_s)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close the instances: each once, and for at most `CLOSE_S` seconds in all.

        What goes wrong is logged.
        """
        closing = {
            asyncio.ensure_future(instance.close()): instance
            for instance in self._instances
        }
        if not closing:
            return  # asyncio.wait refuses to wait for nothing
        try:
            _, late = await asyncio.wait(closing, timeout=CLOSE_S)
            for task in late:
                who = closing[task].kind.who
                LOG.warning("%s: not closed within %g s", who, CLOSE_S)
        finally:
            # Also where this one is cancelled: asyncio.wait leaves its tasks running.
            for task in closing:
                task.cancel()

    async def _make(self, instance: "Instance", end: float, deadline_s: float) -> None:
        """Make one instance until `end`, in the time of the event loop."""
        who = instance.kind.who
        try:
            async with asyncio.timeout_at(end) as deadline:
                await instance.make(self._task)
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            # A constructor is somebody else's program, and may raise a CancelledError
            # of its own; one that was meant for this task goes on.
            check_cancelled()
            fault = f"{type(error).__name__}: {error}"
            if deadline.expired():
                fault = f"its constructor took longer than {deadline_s:g} s"
            raise ToolError(
                f"{who}: it could not be made for task {self._task.id!r}: {fault}."
                " Mend its constructor."
            ) from error


class Instance:
    """An instance of a class for one episode.

    Its calls come one at a time, from threads that differ.

    Attributes:
        kind: The class.
        value: The instance; None before it is made.
        is_open: Whether it is there to be called.
    """

    def __init__(self, kind: ToolClass) -> None:
        self.kind = kind
        self.value: Any = None
        self.is_open = False
        self._is_over = False
        """Whether `close` was called, which may be before the instance is there."""
        self._guard = Lock()
        """Guards `value`, `is_open` and `_is_over`, across threads."""
        self._calls = asyncio.Lock()
        """Held by the call that runs."""

    async def make(self, task: Task) -> None:
        """Call the constructor, in a thread.

        An instance that comes after `close` is closed there, at once.
        """
        await in_thread(partial(self._construct, task), "aipo-tool")

    def _construct(self, task: Task) -> None:
        value = self.kind.make(task)
        with self._guard:
            is_late = self._is_over
            self.value = value
            self.is_open = not is_late
        # A thread cannot be cancelled: whoever waited for it is gone, so it is for this
        # thread to close what nobody will see.
        if is_late:
            asyncio.run(self._close_value())

    async def call(self, name: str, arguments: dict[str, Any]) -> Any:
        """Call a method when no other call runs.

        A call that its caller gives up keeps the instance until it has ended: no class
        need be safe for threads.

        Args:
            name: The method's.
            arguments: As the method takes them, by name.

        Raises:
            ToolError: The instance is not there: it was not made, or is closed.
            Exception: Whatever the method raises.
        """
        await self._calls.acquire()
        work: asyncio.Future[Any] | None = None
        try:
            if not self.is_open:
                raise ToolError(f"{self.kind.who}: the episode has no instance of it.")
            method = partial(getattr(self.value, name), **arguments)
            if inspect.iscoroutinefunction(method):
                return await method()
            work = in_thread(method, "aipo-tool")
            # Shielded, so that `work` tells below when the thread has ended, and not
            # when its caller gave it up.
            return await awaited(await asyncio.shield(work))
        finally:
            if work is None or work.done():
                self._calls.release()
            else:
                work.add_done_callback(lambda _: self._calls.release())

    async def close(self) -> None:
        """Close the instance after the call that runs, if that ends soon.

        From then on it takes no call.
        """
        with self._guard:
            was_open = self.is_open
            self._is_over = True
            self.is_open = False
        if not was_open:
            return  # closed before, or never made: then _construct closes it
        try:
            async with asyncio.timeout(BUSY_S):
                await self._calls.acquire()
        except (TimeoutError, RuntimeError):
            # A call that hangs, or one of another event loop: closing may well be what
            # ends it.
            await self._close_value()
            return
        try:
            await self._close_value()
        finally:
            self._calls.release()

    async def _close_value(self) -> None:
        try:
            close = getattr(self.value, CLOSE, None)
            if inspect.iscoroutinefunction(close):
                await close()
            elif callable(close):
                await awaited(await in_thread(close, "aipo-tool"))
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            check_cancelled()
            # The episode is over, and its record holds whatever comes of that.
            LOG.warning("%s: closing it failed: %r", self.kind.who, error)


@dataclass(frozen=True)
class MethodTool:
    """A method of an episode's instance, behind the protocol of agents."""

    instance: Instance
    form: ToolForm
    is_stateful: ClassVar[bool] = True

    @property
    def agent_id(self) -> str:
        """The method's name."""
        return self.form.schema.name

    @property
    def schema(self) -> ToolSchema:
        """The method as a policy is told of it."""
        return self.form.schema

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Call the method with the arguments that the query holds.

        Raises:
            ConfigError, ImportError: The method's own code raised it: no arguments
                could ever do.
        """
        call = partial(self.instance.call, self.agent_id)
        return await answer(self.form, request.query, call)


def build_tools(specs: Sequence[Any]) -> Toolbox:
    """Return a scenario's tools.

    Args:
        specs: Functions, classes, or specs that name them; "mcp:ADDRESS" and
            "mcp:COMMAND" are all tools of a server.

    Raises:
        ConfigError: A spec is unknown or has options, what it names is no tool, two
            have one name, or a server cannot be used.
    """
    if isinstance(specs, str) or not isinstance(specs, Sequence):
        raise ConfigError(
            f"tools: {specs!r} must be a list of functions, of classes, or of their"
            " names."
        )
    parts: list[Any] = []
    for spec in specs:
        parts += _offers(spec)
    schemas: list[ToolSchema] = []
    kinds = []
    functions = {}
    for part in parts:
        schemas += _schemas(part)
        if isinstance(part, ToolClass):
            kinds.append(part)
        else:
            functions[part.agent_id] = part
    _check_doubles(parts)
    return Toolbox(tuple(schemas), functions, tuple(kinds))


def _offers(spec: Any) -> Sequence[Any]:
    """Return the tools and classes that a spec names."""
    if isinstance(spec, str) and spec.startswith(_MCP):
        # Here, because its package is an optional one.
        from aipo_env.tools.mcp_tools import McpServer

        return McpServer(spec.removeprefix(_MCP).strip()).tools
    tool = find_tool(spec)
    if isinstance(tool, type):
        return [ToolClass(tool)]
    return [build_tool(tool)]


def _schemas(part: Any) -> list[ToolSchema]:
    """Return how a policy is told of a tool, or of a class's methods."""
    if isinstance(part, ToolClass):
        return [form.schema for form in part.forms.values()]
    return [part.schema]


def _check_doubles(parts: Sequence[Any]) -> None:
    """Raise ConfigError if two tools, or two classes, have one name."""
    owners: dict[str, str] = {}
    names_of_classes: set[str] = set()
    for part in parts:
        who = part.who if isinstance(part, ToolClass) else "a function"
        for schema in _schemas(part):
            if schema.name in owners:
                both = f"by {owners[schema.name]} and by {who}"
                raise ConfigError(
                    f"tools: two are named {schema.name!r}, {both}. Rename one."
                )
            owners[schema.name] = who
        if not isinstance(part, ToolClass):
            continue
        # An episode's instances are looked up by the name of their class.
        if part.name in names_of_classes:
            raise ConfigError(
                f"tools: two classes are named {part.name!r}. Rename one."
            )
        names_of_classes.add(part.name)
