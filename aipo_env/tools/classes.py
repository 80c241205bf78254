"""A class as a tool: which of its methods a policy may call, and how an instance is
made.
"""

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from aipo_env.errors import ConfigError
from aipo_env.records import Task
from aipo_env.tools.forms import Form, read_form

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
    def forms(self) -> Mapping[str, Form]:
        """The tools by name."""
        methods = _public_methods(self.maker)
        return MappingProxyType(
            {name: self._form(name, methods[name]) for name in methods}
        )

    def make(self, task: Task) -> Any:
        """Return an instance for an episode on a task."""
        return self._how_made(task)

    def _form(self, name: str, found: Any) -> Form:
        is_static = isinstance(found, staticmethod)
        is_of_class = isinstance(found, classmethod)
        function = found.__func__ if is_static or is_of_class else found
        return read_form(
            function,
            name,
            _docstring(self.maker, name),
            f"{self.who}: method {name!r}",
            is_bound_later=not is_static,
        )

    @cached_property
    def _how_made(self) -> Callable[[Task], Any]:
        """How the constructor takes the task: by its name, as the only argument that is
        wanted, or not at all.

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
        wanted = [
            each
            for each in parameters.values()
            if each.default is each.empty and each.kind not in starred
        ]
        named = parameters.get("task")
        first = wanted[0] if wanted else named
        if len(wanted) > 1 or (named and first is not named):
            names = ", ".join(each.name for each in wanted)
            raise ConfigError(
                f"{self.who}: its constructor wants {names}; it gets the task alone."
                " Give the others defaults."
            )
        if first is None or first.kind in starred:
            return lambda _: maker()
        if first.kind is first.POSITIONAL_ONLY:
            return lambda task: maker(task)
        name = first.name
        return lambda task: maker(**{name: task})


def _public_methods(maker: type) -> dict[str, Any]:
    """Return a class's public methods as they stand in it, in the order in which they
    are defined, bases first.
    """
    found: dict[str, Any] = {}
    for base in reversed(maker.__mro__):
        if base.__module__.partition(".")[0] in sys.stdlib_module_names:
            continue
        for name, value in vars(base).items():
            # What a class puts in the place of a method that it inherits takes the
            # method away.
            found[name] = value
    return {
        name: value
        for name, value in found.items()
        if not name.startswith("_") and name != CLOSE and _is_method(value)
    }


def _is_method(value: Any) -> bool:
    if isinstance(value, staticmethod | classmethod):
        return True
    return inspect.isroutine(value) and callable(value)


def _docstring(maker: type, name: str) -> str | None:
    """Return a method's docstring, or that of the method it stands in for."""
    found = [vars(base)[name].__doc__ for base in maker.__mro__ if name in vars(base)]
    return next(filter(None, found), None)
