"""Components by name: spec strings, decorators, and what installed packages offer.

A spec names a component in a configuration, a command line or a registered environment.
All have a JSON form:

    "scripted"    "scripted:wrong=0.2,slow=0.1"    {"type": "scripted", "wrong": 0.2}
    "file:tasks.jsonl"      text without a name is the first argument
    "my_package.agents:Librarian"    anything importable: a factory (options in the dict
                                     form, or after another colon), or the component
"""

import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from operator import attrgetter
from typing import Any, TypeVar

from aipo_env.errors import ConfigError, message_of, shown, suggest

Spec = str | Mapping[str, Any]
T = TypeVar("T")

FIRST = ""
"""The name under which `parse_spec` returns a value that was given without one."""
_OPTION = re.compile(r"([A-Za-z_]\w*)\s*=(.*)", re.DOTALL)


def parse_spec(spec: Spec, what: str) -> tuple[str, dict[str, Any]]:
    """Return a spec's type and options; values of the string form are read as JSON
    where they can be.

    Raises:
        ConfigError: The spec is neither form; the message says what was expected.
    """
    if isinstance(spec, Mapping):
        options = dict(spec)
        kind = options.pop("type", None)
        if not isinstance(kind, str):
            raise ConfigError(
                f"{what}: the spec {shown(dict(spec), 1000)} needs a 'type', such as"
                " {'type': 'toy'}."
            )
        return kind, options
    if not isinstance(spec, str):
        raise ConfigError(
            f"{what}: {spec!r} is no spec; write 'name:option=value' or {{'type':"
            " 'name'}."
        )
    kind, _, rest = spec.partition(":")
    options = {}
    for number, item in enumerate(filter(None, rest.split(","))):
        option = _OPTION.fullmatch(item.strip())
        if option is None and number:
            raise ConfigError(
                f"{what}: {item!r} in {spec!r} is no option; write {kind}:name=value,…."
            )
        name, value = option.groups() if option else (FIRST, item)
        if name in options:
            raise ConfigError(f"{what}: {name!r} is given twice in {spec!r}.")
        options[name] = _value(value) if option else value
    return kind, options


def as_options(value: Any, what: str) -> dict[str, Any]:
    """Return a copy of an object of names and values, empty for None.

    Raises:
        ConfigError: It is something else.
    """
    if not isinstance(value or {}, Mapping):
        raise ConfigError(f"{what}: {value!r} must be an object of names and values.")
    return dict(value or {})


def construct(make: Callable[..., T], options: Mapping[str, Any], what: str) -> T:
    """Call `make` with options from a spec.

    Raises:
        ConfigError: An option is unknown (the message suggests the nearest) or has a
            value of the wrong type.
    """
    parameters = inspect.signature(make).parameters
    takes_any = any(
        parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()
    )
    for name in options:
        if name not in parameters and not takes_any:
            raise ConfigError(
                f"{what}: there is no option {shown(name)}."
                f" {suggest(str(name), parameters)}"
            )
    try:
        return make(**options)
    except (TypeError, AttributeError) as error:
        raise ConfigError(
            f"{what}: {message_of(error)}. Options given: {shown(dict(options), 1000)}."
        ) from error


def choose(table: Mapping[str, T], name: str, what: str) -> T:
    """Return the entry of a table, or raise ConfigError that suggests the nearest."""
    if name not in table:
        raise ConfigError(f"{what}: there is no {name!r}. {suggest(name, table)}")
    return table[name]


def load_attribute(path: str, what: str) -> Any:
    """Import "module:attr".

    Raises:
        ConfigError: The module cannot be imported or lacks the attribute; the message
            says why.
    """
    module, _, attribute = path.partition(":")
    try:
        return attrgetter(attribute)(importlib.import_module(module))
    except (
        Exception,
        SystemExit,
    ) as error:  # the module may be somebody else's program
        raise ConfigError(
            f"{what}: {path!r} cannot be loaded: {type(error).__name__}: {error}."
        ) from error


@dataclass(frozen=True, slots=True)
class Plugin:
    """A named component, where it comes from, and why it cannot be loaded, if it
    cannot.
    """

    kind: str
    name: str
    origin: str
    error: str = ""


class Registry:
    """The components of one kind. Nothing is imported before it is asked for.

    Args:
        kind: What they are, in the singular; other packages offer theirs by the
            entry-point group `aipo_env.<kind>s`.
        own: Ours, as "module:attr".

    A component's factory is called with the options of the spec, and with whatever it
    names among its parameters of what the caller has at hand (an agent may ask for
    `source`, a task source for `seed`).
    """

    def __init__(self, kind: str, own: Mapping[str, str]) -> None:
        self.kind, self._own = kind, dict(own)
        self._added: dict[str, Callable[..., Any]] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that gives a factory a short name.

        The same factory may be registered again, as a notebook's cell does when it runs
        once more.

        Raises:
            ConfigError: The name is taken, or no name.
        """
        if not re.fullmatch(r"[A-Za-z][\w-]*", name):
            raise ConfigError(
                f"{self.kind}: {name!r} is no name; use letters, digits, '-' and '_'."
            )

        def keep(factory: T) -> T:
            known = self._added.get(name)
            if name in self._own or (known and _place(known) != _place(factory)):
                raise ConfigError(
                    f"{self.kind}: the name {name!r} is taken. Choose another."
                )
            self._added[name] = factory  # type: ignore[assignment]
            return factory

        return keep

    def build(self, spec: Any, **at_hand: Any) -> Any:
        """Return the component that a spec names; what is no spec is taken for the
        component itself.

        Raises:
            ConfigError: There is none of that name, it cannot be loaded, or an option
                is wrong.
        """
        if spec is None or isinstance(spec, int | float | list | tuple):
            raise ConfigError(
                f"{self.kind}: {spec!r} is no spec. {suggest(str(spec), self.names())}"
            )
        if not isinstance(spec, str | Mapping):
            return spec
        name, factory, options = self.find(spec)
        if not callable(factory):
            if options:
                raise ConfigError(
                    f"{self.kind} {name!r}: it is no factory, so it takes no options."
                )
            return factory
        parameters = inspect.signature(factory).parameters
        if FIRST in options:
            first = next(
                (parameter for parameter in parameters if parameter not in at_hand),
                None,
            )
            if first is None or first in options:
                raise ConfigError(
                    f"{self.kind}: {name!r} takes no value, got {options[FIRST]!r}."
                )
            options[first] = options.pop(FIRST)
        given = {key: value for key, value in at_hand.items() if key in parameters}
        return construct(factory, {**given, **options}, f"{self.kind} {name!r}")

    def find(self, spec: Spec) -> tuple[str, Any, dict[str, Any]]:
        """Return the name, factory (or component) and options of a spec.

        Raises:
            ConfigError: As `build`.
        """
        name, options = parse_spec(spec, self.kind)
        if name in self._added:
            return name, self._added[name], options
        path = self._own.get(name) or next(
            (e.value for e in self._offered() if e.name == name), ""
        )
        if not path and ":" in name:
            path = name
        elif not path and (rest := options.get(FIRST)):
            attribute, _, rest = rest.partition(":")
            is_module = (
                name in sys.modules
                or "." in name
                or (name and importlib.util.find_spec(name))
            )
            path = (
                f"{name}:{attribute}" if attribute.isidentifier() and is_module else ""
            )
            options.pop(FIRST)
            options |= parse_spec(f"{name}:{rest}", self.kind)[1]
        if name.startswith("<"):
            raise ConfigError(
                f"{self.kind}: {name} was an object of the program that wrote this "
                "configuration, and cannot be made from its name. Give it again."
            )
        if not path:
            raise ConfigError(
                f"{self.kind}: there is no {name!r}. {suggest(name, self.names())}"
            )
        return name, load_attribute(path, self.kind), options

    @property
    def own(self) -> list[str]:
        """The short names that are ours."""
        return sorted(self._own)

    def names(self) -> list[str]:
        """Return every short name there is."""
        return sorted(
            {*self._own, *self._added, *(entry.name for entry in self._offered())}
        )

    def plugins(self) -> list[Plugin]:
        """Load everything and return what was found, from where, and what failed to
        load.
        """
        found = [Plugin(self.kind, name, "aipo_env") for name in self._own]
        found += [
            Plugin(self.kind, name, make.__module__)
            for name, make in self._added.items()
        ]
        for entry in self._offered():
            origin = (
                f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
            )
            taken = next(
                (plugin.origin for plugin in found if plugin.name == entry.name), ""
            )
            error = f"the name {entry.name!r} is taken by {taken}" if taken else ""
            try:
                load_attribute(entry.value, self.kind)
            except ConfigError as fault:
                error = str(fault)
            found.append(Plugin(self.kind, entry.name, origin, error))
        return sorted(found, key=lambda plugin: (plugin.name, plugin.origin))

    def _offered(self) -> list[EntryPoint]:
        """Return what installed packages offer, in the order in which names are
        given.
        """
        found = entry_points(group=f"aipo_env.{self.kind}s")
        return sorted(
            found,
            key=lambda entry: (
                entry.name,
                entry.dist.name.lower() if entry.dist else "",
            ),
        )


def _place(factory: Any) -> tuple[str, str]:
    return factory.__module__, getattr(
        factory, "__qualname__", type(factory).__qualname__
    )


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


_OWN = {
    "agent": {
        "scripted": "aipo_env.agents.scripted:ScriptedAgent",
        "notes": "aipo_env.agents.notes:NotesAgent",
        "openai": "aipo_env.agents.chat:ChatAgent",
        "hands": "aipo_env.agents.hands:HandsAgent",
        "self": "aipo_env.agents.own_policy:OwnPolicyAgent",
        "library": "aipo_env.agents.library:Library",
        "oracle": "aipo_env.agents.mixed:OracleAgent",
        "mix": "aipo_env.agents.mixed:MixedAgent",
        "wrong": "aipo_env.agents.mixed:WrongAgent",
    },
    "tool": {},
    "verifier": {
        "auto": "aipo_env.verifiers.by_kind:ByKind",
        "math": "aipo_env.verifiers.math_equiv:MathVerifier",
        "choice": "aipo_env.verifiers.choice:ChoiceVerifier",
        "reward": "aipo_env.verifiers.rewards:RewardVerifier",
    },
    "task": {
        "toy": "aipo_env.tasks.toy:toy_source",
        "file": "aipo_env.tasks.file:FileSource",
        "shipped": "aipo_env.tasks.file:shipped",
        "hf": "aipo_env.tasks.hub:hub_source",
        "reasoning_gym": "aipo_env.tasks.reasoning_gym:reasoning_gym_source",
    },
    "codec": {
        "tags": "aipo_env.codecs.tags:TagsCodec",
        "hermes": "aipo_env.codecs.hermes:HermesCodec",
        "openai": "aipo_env.codecs.openai_calls:OpenAICodec",
        "macro": "aipo_env.codecs.macro:MacroCodec",
    },
}
"""Our own components, by kind and name."""
REGISTRIES = tuple(Registry(kind, own) for kind, own in _OWN.items())
AGENTS, TOOLS, VERIFIERS, TASKS, CODECS = REGISTRIES
