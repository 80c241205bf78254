"""Any typed function with a docstring is a tool.

def distance(a: float, b: float) -> float:
    '''Distance of two numbers on the line.'''
    return abs(a - b)

gym.make("AIPO-Math-Turn-v0", tools=["my_package:distance"])
"""

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

from aipo_env.agents.base import AgentReply, AgentRequest
from aipo_env.codecs.base import ToolSchema
from aipo_env.errors import ConfigError, is_hopeless
from aipo_env.registry import TOOLS
from aipo_env.threads import in_thread
from aipo_env.tools.forms import ToolForm, read_tool_form

MIN_WORD_CHARS = 3
"""A shorter text of a model's stands in too many messages to be what one is about."""


@dataclass(frozen=True)
class Tool:
    """A function behind the protocol of agents.

    It gets the pool's deadline, and its answer is text. What the function raises is
    told to the policy: a tool's error is an answer. What it returns is shown as it is
    if text, else as JSON.

    Args:
        function: Sync or async. Sync ones run in a thread, so they must be safe there.

    Raises:
        ConfigError: The function has no docstring, a name that is no identifier or an
            agent's role, or a parameter that has no type that JSON has or cannot be
            given by name.
    """

    function: Callable[..., Any]
    is_stateful: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if isinstance(self.function, type):
            raise ConfigError(
                f"tool {self.agent_id!r}: it is a class, of which each episode makes an"
                f" instance. Give the class itself: tools=[{self.agent_id}]."
            )
        _ = self.form  # computed now, so that what is no tool is refused at once

    @property
    def agent_id(self) -> str:
        """The function's name."""
        # An object that can be called has none of its own: its class's is taken.
        name_of_class = type(self.function).__name__
        return str(getattr(self.function, "__name__", name_of_class))

    @cached_property
    def form(self) -> ToolForm:
        """How the function is told to a policy and called."""
        docstring = inspect.getdoc(self.function)
        who = f"tool {self.agent_id!r}"
        return read_tool_form(self.function, self.agent_id, docstring, who)

    @property
    def schema(self) -> ToolSchema:
        """The tool as a policy is told of it."""
        return self.form.schema

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Call the function with the arguments that the query holds.

        Raises:
            ConfigError, ImportError: The tool's own code raised it: no arguments could
                ever do.
        """
        return await answer(self.form, request.query, self._call)

    async def _call(self, arguments: dict[str, Any]) -> Any:
        call = partial(self.function, **arguments)
        if inspect.iscoroutinefunction(self.function):
            return await call()
        return await awaited(await in_thread(call, "aipo-tool"))


async def answer(
    form: ToolForm, query: str, call: Callable[[dict[str, Any]], Any]
) -> AgentReply:
    """Return what a tool answers to a query.

    Args:
        form: How the arguments are read.
        query: The arguments, as a model wrote them.
        call: Takes the arguments; its result is awaited.

    Raises:
        ConfigError, ImportError: The tool's own code raised it.
    """
    arguments: dict[str, Any] = {}
    try:
        arguments = form.arguments(query)
        result = await call(arguments)
        text = as_text(result)
    except Exception as error:
        # Somebody else's program, called with arguments that a model wrote. A missing
        # package ends the run, for no call could ever work; a package that is missing
        # because a model made it up is that model's mistake.
        if is_hopeless(error) and not _is_about(error, arguments):
            raise
        text = f"error: {type(error).__name__}: {error}"
    return AgentReply(text=text or "(nothing)")


def as_text(result: Any) -> str:
    """Return what a tool returned as text: as it is if it is text, else as JSON."""
    if isinstance(result, str):
        return result
    return json.dumps(result, ensure_ascii=False)


def _is_about(error: BaseException, arguments: Mapping[str, Any]) -> bool:
    """Return whether an error names a module, or a text, that a model wrote."""
    texts = [text for text in _texts(arguments) if len(text) >= MIN_WORD_CHARS]
    if isinstance(error, ImportError):
        # Either way round: the text may be a module within the missing package, or a
        # program that imports it.
        name = error.name or str(error)
        return any(text in name or name in text for text in texts)
    return any(text in str(error) for text in texts)


def _texts(value: Any) -> list[str]:
    """Return all texts within the arguments of a call."""
    if isinstance(value, str):
        return [value]
    parts: Iterable[Any] = ()
    if isinstance(value, Mapping):
        parts = value.values()
    elif isinstance(value, list):
        parts = value
    texts = []
    for part in parts:
        texts += _texts(part)
    return texts


async def awaited(result: Any) -> Any:
    """Return the result of a call, awaited where it has to be."""
    # A wrapper, such as a decorator's, is no async function but may return its result.
    if inspect.isawaitable(result):
        return await result
    return result


def find_tool(spec: Any) -> Any:
    """Return the function or class that a spec names, or what is no spec itself.

    Raises:
        ConfigError: The spec is unknown or has options.
    """
    if isinstance(spec, Tool) or callable(spec):
        return spec
    name, tool, options = TOOLS.find(spec)
    if options:
        kind = "class" if isinstance(tool, type) else "function"
        raise ConfigError(
            f"tool {name!r}: a {kind} takes no options in its spec, got {options!r}."
        )
    return tool


def build_tool(spec: Any) -> Tool:
    """Return a tool, from a function or a spec that names one.

    Raises:
        ConfigError: The spec is unknown or has options, or the function is no tool.
    """
    tool = find_tool(spec)
    if isinstance(tool, Tool):
        return tool
    return Tool(tool)
