"""A class as a tool: the methods that a policy may call, and how instances are made."""

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from aipo_env.errors import ConfigError
from aipo_env.records import Task
from aipo_env.tools.forms import ToolForm, read_tool_form

CLOSE = "close"
"""The method that ends an instance; no policy calls it."""


@dataclass(frozen=True)
class ToolClass:
    """A class of which each episode makes an instance, whose public methods are tools.

    Methods are those that the class and its bases define, static and class methods
    among them; not what begins with "_", properties, nested classes, `close`, and what
    Python's own classes define.

    Raises:
        ConfigError: There is no such method, one is no tool, or the constructor wants
            something else than the task.
    """

    maker: type

    def __post_init__(self) -> None:
        if inspect.isabstract(self.maker):
            raise ConfigError(f"{self.who}: it is abstract. Give a class that is not.")
        if not self.forms:
            raise ConfigError(
                f"{self.who}: it has no public method, so it offers no tool. Add a"
                " typed one with a docstring."
            )
        # Computed now, so that a constructor that wants more is refused at once.
        _ = self._how_made

    @property
    def name(self) -> str:
        """The class's name."""
        return self.maker.__name__

    @property
    def who(self) -> str:
        """The class in messages."""
        return f"tool class {self.name!r}"

    @cached_property
    def forms(self) -> Mapping[str, ToolForm]:
        """The tools by name."""
        methods = _public_methods(self.maker)
        forms = {name: self._form(name, method) for name, method in methods.items()}
        return MappingProxyType(forms)

    def make(self, task: Task) -> Any:
        """Return an instance for an episode on a task."""
        return self._how_made(task)

    def _form(self, name: str, method: Any) -> ToolForm:
        """Return how a policy is told of a method, as it stands in its class."""
        is_static = isinstance(method, staticmethod)
        function = method
        if isinstance(method, staticmethod | classmethod):
            function = method.__func__
        return read_tool_form(
            function,
            name,
            _docstring(self.maker, name),
            f"{self.who}: method {name!r}",
            is_bound_later=not is_static,
        )

    @cached_property
    def _how_made(self) -> Callable[[Task], Any]:
        """How the constructor takes the task, if at all.

        It takes it by the name "task", or as the only argument that has no default.

        Raises:
            ConfigError: It wants more.
        """
        maker = self.maker
        try:
            parameters = inspect.signature(maker).parameters
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"{self.who}: its constructor cannot be read: {error}."
            ) from error
        starred = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        required = []
        for parameter in parameters.values():
            if parameter.default is parameter.empty and parameter.kind not in starred:
                required.append(parameter)
        named = parameters.get("task")
        taker = required[0] if required else named
        # With a parameter "task" that has a default beside a required one of another
        # name, nobody can say which of them is meant.
        is_unclear = named is not None and taker is not named
        if len(required) > 1 or is_unclear:
            names = ", ".join(parameter.name for parameter in required)
            raise ConfigError(
                f"{self.who}: its constructor wants {names}; it gets the task alone."
                " Give the others defaults."
            )
        # "*task" and "**task" are named so too, and take nothing that is wanted.
        if taker is None or taker.kind in starred:
            return lambda _: maker()
        if taker.kind is taker.POSITIONAL_ONLY:
            return lambda task: maker(task)
        name = taker.name
        return lambda task: maker(**{name: task})


def _public_methods(maker: type) -> dict[str, Any]:
    """Return a class's public methods, as they stand in it.

    Their order is that in which they are defined, bases first.
    """
    members: dict[str, Any] = {}
    for base in reversed(maker.__mro__):
        # A class may inherit from dict or Enum: their methods were not meant as tools.
        top_module = base.__module__.partition(".")[0]
        if top_module in sys.stdlib_module_names:
            continue
        # What a class puts in the place of a method that it inherits takes the method
        # away: whether it is one is asked only at the end.
        members.update(vars(base))
    methods = {}
    for name, value in members.items():
        is_public = not name.startswith("_") and name != CLOSE
        if is_public and _is_method(value):
            methods[name] = value
    return methods


def _is_method(value: Any) -> bool:
    if isinstance(value, staticmethod | classmethod):
        return True
    return inspect.isroutine(value) and callable(value)


def _docstring(maker: type, name: str) -> str | None:
    """Return a method's docstring, or that of the method it stands in for."""
    for base in maker.__mro__:
        method = vars(base).get(name)
        if method is not None and method.__doc__:
            docstring: str = method.__doc__
            return docstring
    return None
