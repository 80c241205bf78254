"""Any typed function with a docstring is a tool.

def distance(a: float, b: float) -> float:
    '''Distance of two numbers on the line.'''
    return abs(a - b)

gym.make("AIPO-Math-Turn-v0", tools=["my_package:distance"])
"""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

from aipo_env.agents.base import AgentReply, AgentRequest
from aipo_env.codecs.base import ToolSchema
from aipo_env.errors import ConfigError, is_hopeless
from aipo_env.registry import TOOLS
from aipo_env.threads import in_thread
from aipo_env.tools.forms import Form, read_form

MIN_WORD_CHARS = 3
"""A shorter text of a model's stands in too many messages to be what one is about."""


@dataclass(frozen=True)
class Tool:
    """A function behind the protocol of agents: it gets the pool's deadline, and its
    answer is text.

    Args:
        function: Sync or async. Sync ones run in a thread, so they must be safe there.

    What the function raises is told to the policy: a tool's error is an answer. What it
    returns is shown as it is if text, else as JSON.

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
        _ = self.form

    @property
    def agent_id(self) -> str:
        """The function's name."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    @cached_property
    def form(self) -> Form:
        """How the function is told to a policy and called."""
        docstring = inspect.getdoc(self.function)
        who = f"tool {self.agent_id!r}"
        return read_form(self.function, self.agent_id, docstring, who)

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
    form: Form, query: str, call: Callable[[dict[str, Any]], Any]
) -> AgentReply:
    """Return what a tool answers to a query; `call` takes its arguments.

    Raises:
        ConfigError, ImportError: The tool's own code raised it.
    """
    arguments: dict[str, Any] = {}
    try:
        arguments = form.arguments(query)
        text = as_text(await call(arguments))
    except Exception as error:
        # Somebody else's program, called with arguments that a model wrote.
        if is_hopeless(error) and not _is_about(error, arguments):
            raise
        text = _told(error)
    return AgentReply(text=text or "(nothing)")


def as_text(result: Any) -> str:
    """Return what a tool returned as text: as it is if it is text, else as JSON."""
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False)


def _is_about(error: BaseException, arguments: Mapping[str, Any]) -> bool:
    """Return whether an error is about what a model wrote: it names a module, or a
    text, of the arguments.
    """
    texts = [text for text in _texts(arguments) if len(text) >= MIN_WORD_CHARS]
    if isinstance(error, ImportError):
        name = error.name or str(error)
        return any(text in name or name in text for text in texts)
    return any(text in str(error) for text in texts)


def _texts(value: Any) -> list[str]:
    """Return all texts within the arguments of a call."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for part in value.values() for text in _texts(part)]
    if isinstance(value, list):
        return [text for part in value for text in _texts(part)]
    return []


def _told(error: Exception) -> str:
    return f"error: {type(error).__name__}: {error}"


async def awaited(result: Any) -> Any:
    """Return what a call came to, which an async function behind a wrapper still has to
    be awaited for.
    """
    return await result if inspect.isawaitable(result) else result


def find_tool(spec: Any) -> Any:
    """Return the function or class that a spec names, or what is no spec itself.

    Raises:
        ConfigError: The spec is unknown or has options.
    """
    if isinstance(spec, Tool) or callable(spec):
        return spec
    name, found, options = TOOLS.find(spec)
    if options:
        kind = "class" if isinstance(found, type) else "function"
        raise ConfigError(
            f"tool {name!r}: a {kind} takes no options in its spec, got {options!r}."
        )
    return found


def build_tool(spec: Any) -> Tool:
    """Return a tool, from a function or a spec that names one.

    Raises:
        ConfigError: The spec is unknown or has options, or the function is no tool.
    """
    found = find_tool(spec)
    return found if isinstance(found, Tool) else Tool(found)
