"""Any typed function with a docstring is a tool.

def distance(a: float, b: float) -> float:
    '''Distance of two numbers on the line.'''
    return abs(a - b)

gym.make("AIPO-Math-Turn-v0", tools=["my_package:distance"])
"""

import inspect
import json
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from typing import Any

from aipo_env.agents.base import AgentReply, AgentRequest
from aipo_env.codecs.base import ToolSchema
from aipo_env.errors import ConfigError
from aipo_env.registry import TOOLS
from aipo_env.threads import in_thread
from aipo_env.tools.arguments import JSON_TYPES, check_name, read_arguments


@dataclass(frozen=True)
class Tool:
    """A function behind the protocol of agents: it gets the pool's deadline, and its answer is text.

    Args:
        function: Sync or async. Sync ones run in a thread, so they must be safe there.

    What the function raises is told to the policy: a tool's error is an answer. What it returns is shown as
    it is if text, else as JSON.

    Raises:
        ConfigError: The function has no docstring, a name that is no identifier or an agent's role, or a
            parameter that has no type that JSON has or cannot be given by name.
    """

    function: Callable[..., Any]

    def __post_init__(self) -> None:
        check_name(self.agent_id)
        _ = self.schema

    @property
    def agent_id(self) -> str:
        """The function's name."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))

    @cached_property
    def schema(self) -> ToolSchema:
        """The tool as a policy is told of it."""
        description = inspect.getdoc(self.function)
        if not description:
            raise ConfigError(
                f"tool {self.agent_id!r}: it has no docstring, which tells what it is for."
            )
        try:
            signature = inspect.signature(self.function, eval_str=True)
        except Exception as error:  # an annotation may be any expression
            raise ConfigError(
                f"tool {self.agent_id!r}: its types cannot be read: {error!r}."
            ) from error
        parameters = {}
        for name, parameter in signature.parameters.items():
            hint = parameter.annotation
            kind = JSON_TYPES.get(typing.get_origin(hint) or hint)
            is_named = parameter.kind in (
                parameter.POSITIONAL_OR_KEYWORD,
                parameter.KEYWORD_ONLY,
            )
            if kind is None or not is_named:
                wanted = ", ".join(known.__name__ for known in JSON_TYPES)
                raise ConfigError(
                    f"tool {self.agent_id!r}: parameter {name!r} must be typed as one of {wanted}, and "
                    "be given by name: no '*' and no '/'."
                )
            parameters[name] = {"type": kind}
        return ToolSchema(self.agent_id, description.splitlines()[0], parameters)

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Call the function with the arguments that the query holds."""
        try:
            arguments = read_arguments(request.query, self.schema.parameters)
            inspect.signature(self.function).bind(**arguments)  # says which is missing
            call = partial(self.function, **arguments)
            result = await (
                call()
                if inspect.iscoroutinefunction(self.function)
                else in_thread(call, "aipo-tool")
            )
            text = (
                result
                if isinstance(result, str)
                else json.dumps(result, ensure_ascii=False)
            )
        except (
            Exception
        ) as error:  # somebody else's program, called with arguments that a model wrote
            text = f"error: {type(error).__name__}: {error}"
        return AgentReply(text=text or "(nothing)")


def build_tool(spec: Any) -> Tool:
    """Return a tool, from a function or a spec that names one.

    Raises:
        ConfigError: The spec is unknown or has options, or the function is no tool.
    """
    if not isinstance(spec, Tool) and not callable(spec):
        name, spec, options = TOOLS.find(spec)
        if options:
            raise ConfigError(
                f"tool {name!r}: a function takes no options in its spec, got {options!r}."
            )
    return spec if isinstance(spec, Tool) else Tool(spec)


def build_tools(specs: Sequence[Any]) -> dict[str, Any]:
    """Return tools by name; "mcp:ADDRESS" and "mcp:COMMAND" are all tools of a server.

    Raises:
        ConfigError: As `build_tool`, two have one name, or a server cannot be used.
    """
    if isinstance(specs, str) or not isinstance(specs, Sequence):
        raise ConfigError(
            f"tools: {specs!r} must be a list of functions or of their names."
        )
    tools: dict[str, Any] = {}
    for tool in chain.from_iterable(map(_offered, specs)):
        if tool.agent_id in tools:
            raise ConfigError(f"tools: two are named {tool.agent_id!r}. Rename one.")
        tools[tool.agent_id] = tool
    return tools


def _offered(spec: Any) -> Sequence[Any]:
    if isinstance(spec, str) and spec.startswith("mcp:"):
        from aipo_env.tools.mcp_tools import McpServer

        return McpServer(spec.removeprefix("mcp:").strip()).tools
    return [build_tool(spec)]
