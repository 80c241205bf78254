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
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from operator import attrgetter
from types import FunctionType, MethodType
from typing import Any, TypeVar

from aipo_env.errors import ConfigError, message_of, shown, suggest

Spec = str | Mapping[str, Any]
"""Names a component, with its options: `"toy:difficulty=2"`, or as an object."""
T = TypeVar("T")

FIRST = ""
"""Under this name `parse_spec` returns a value that was given without one."""
_OPTION = re.compile(r"([A-Za-z_]\w*)\s*=(.*)", re.DOTALL)
"""`wrong=0.2`."""
_NAME = re.compile(r"[A-Za-z][\w-]*")
"""What a component may be called."""
_MAX_SPEC_CHARS = 1000
"""So much of a spec in its JSON form stands in a message."""


def parse_spec(spec: Spec, what: str) -> tuple[str, dict[str, Any]]:
    """Return a spec's type and options.

    Values of the string form are read as JSON where they can be; a value without a name
    stands under "". Whoever knows the factory gives it its name: `named_options`.

    Args:
        spec: The spec, in one of its two forms.
        what: Names in messages what it is a spec of.

    Raises:
        ConfigError: The spec is neither form; the message says what was expected.
    """
    if isinstance(spec, Mapping):
        options = dict(spec)
        spec_type = options.pop("type", None)
        if not isinstance(spec_type, str):
            raise ConfigError(
                f"{what}: the spec {shown(dict(spec), _MAX_SPEC_CHARS)} needs a 'type',"
                " such as {'type': 'toy'}."
            )
        return spec_type, options
    if not isinstance(spec, str):
        raise ConfigError(
            f"{what}: {spec!r} is no spec; write 'name:option=value' or {{'type':"
            " 'name'}."
        )
    spec_type, _, rest = spec.partition(":")
    options = {}
    items = [item for item in rest.split(",") if item]
    for number, item in enumerate(items):
        option = _OPTION.fullmatch(item.strip())
        # Only the first value goes without a name.
        if option is None and number:
            raise ConfigError(
                f"{what}: {item!r} in {spec!r} is no option; write"
                f" {spec_type}:name=value,…."
            )
        if option is None:
            options[FIRST] = item
            continue
        name, value = option.groups()
        if name in options:
            raise ConfigError(f"{what}: {name!r} is given twice in {spec!r}.")
        options[name] = _value(value)
    return spec_type, options


def construct(factory: Callable[..., T], options: Mapping[str, Any], what: str) -> T:
    """Call `factory` with options from a spec.

    Raises:
        ConfigError: An option is unknown (the message suggests the nearest) or has a
            value of the wrong type.
    """
    parameters = inspect.signature(factory).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    takes_any = inspect.Parameter.VAR_KEYWORD in kinds
    for name in options:
        if name not in parameters and not takes_any:
            raise ConfigError(
                f"{what}: there is no option {shown(name)}."
                f" {suggest(str(name), parameters)}"
            )
    try:
        return factory(**options)
    except (TypeError, AttributeError) as error:
        raise ConfigError(
            f"{what}: {message_of(error)}. Options given: "
            f"{shown(dict(options), _MAX_SPEC_CHARS)}."
        ) from error


def named_options(
    factory: Callable[..., Any],
    options: Mapping[str, Any],
    what: str,
    at_hand: Collection[str] = (),
) -> dict[str, Any]:
    """Return options in which a value without a name has one.

    It is of the first parameter that the spec is to fill.

    Args:
        factory: What the options are for.
        options: As `parse_spec` returns them.
        what: Names the component in messages.
        at_hand: Parameters that are not for the spec to fill.

    Raises:
        ConfigError: There is no such parameter, or it is given by its name too.
    """
    named = dict(options)
    if FIRST not in named:
        return named
    value = named.pop(FIRST)
    free = []
    for name, parameter in inspect.signature(factory).parameters.items():
        if name not in at_hand and parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            free.append(name)
    if not free or free[0] in named:
        raise ConfigError(f"{what} takes no value, got {shown(value)}.")
    return {free[0]: value, **named}


def choose(table: Mapping[str, T], name: str, what: str) -> T:
    """Return the entry of a table.

    Raises:
        ConfigError: There is none of that name; the message suggests the nearest.
    """
    if name not in table:
        raise ConfigError(f"{what}: there is no {name!r}. {suggest(name, table)}")
    return table[name]


def load_attribute(path: str, what: str) -> Any:
    """Import "module:attr", and return the attribute; `what` names it in messages.

    Raises:
        ConfigError: The module cannot be imported or lacks the attribute; the message
            says why.
    """
    module, _, attribute = path.partition(":")
    try:
        return attrgetter(attribute)(importlib.import_module(module))
    except (Exception, SystemExit) as error:
        # The module may be anybody's program: a script ends when it is imported.
        raise ConfigError(
            f"{what}: {path!r} cannot be loaded: {type(error).__name__}: {error}."
        ) from error


@dataclass(frozen=True, slots=True)
class Plugin:
    """A named component.

    Args:
        kind: What it is: "agent", "verifier".
        name: What a spec calls it.
        origin: The package or module that it comes from.
        error: Why it cannot be loaded; empty where it can.
    """

    kind: str
    name: str
    origin: str
    error: str = ""


class Registry:
    """The components of one kind. Nothing is imported before it is asked for.

    Args:
        kind: What they are, in the singular.
        own: Ours, as "module:attr".
        check: The function that tells whether one keeps to its protocol, likewise.
        package: Whose they are; other packages offer theirs by the entry-point group
            `<package>.<kind>s`.

    A component's factory is called with the options of the spec, and with whatever it
    names among its parameters of what the caller has at hand (an agent may ask for
    `source`, a task source for `seed`).
    """

    def __init__(
        self,
        kind: str,
        own: Mapping[str, str],
        *,
        check: str = "",
        package: str = "aipo_env",
    ) -> None:
        self.kind = kind
        self.check = check
        self.package = package
        self._own = dict(own)
        self._added: dict[str, Callable[..., Any]] = {}
        self._origins: dict[str, str] = {}
        # To ask packages takes milliseconds, and a loss looks for its parts per row.
        self._paths: dict[str, str] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that gives a factory a short name.

        The same factory may be registered again, as a notebook's cell does when it runs
        once more: one that is written in the same place. What is neither function nor
        class is the same where it is equal.

        Raises:
            ConfigError: The name is taken, or no name.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"{self.kind}: {name!r} is no name; use letters, digits, '-' and '_'."
            )

        caller = inspect.stack(context=0)[1].frame
        # What is no function or class does not say itself where it is from.
        origin = str(caller.f_globals["__name__"])

        def keep(factory: T) -> T:
            is_another = False
            if name in self._added:
                is_another = _identity(self._added[name]) != _identity(factory)
            if name in self._own or is_another:
                raise ConfigError(
                    f"{self.kind}: the name {name!r} is taken. Choose another."
                )
            self._added[name] = factory  # type: ignore[assignment]
            self._origins[name] = origin
            return factory

        return keep

    def build(self, spec: Any, **at_hand: Any) -> Any:
        """Return the component that a spec names.

        Args:
            spec: The spec. What is none is taken for the component itself.
            at_hand: What a factory is given if it names it among its parameters, unless
                the spec's options do.

        Raises:
            ConfigError: There is none of that name, it cannot be loaded, or an option
                is wrong.
        """
        # No component is one of these: it is a spec that somebody wrote wrongly.
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
        options = named_options(factory, options, f"{self.kind}: {name!r}", at_hand)
        parameters = inspect.signature(factory).parameters
        usable = {key: value for key, value in at_hand.items() if key in parameters}
        return construct(factory, {**usable, **options}, f"{self.kind} {name!r}")

    def component(self, spec: Spec) -> Any:
        """Return what a spec names as it is, where it is no factory but the component.

        Raises:
            ConfigError: As `build`; or the spec has options.
        """
        name, component, options = self.find(spec)
        if options:
            raise ConfigError(f"{self.kind} {name!r}: it takes no options.")
        return component

    def is_named(self, spec: Spec) -> bool:
        """Return whether a spec names one, or what may be imported; nothing is.

        Raises:
            ConfigError: It is no spec.
        """
        name, _ = parse_spec(spec, self.kind)
        path, _ = self._path(spec)
        return name in self._added or path != ""

    def find(self, spec: Spec) -> tuple[str, Any, dict[str, Any]]:
        """Return the name, factory (or component) and options of a spec.

        Raises:
            ConfigError: As `build`.
        """
        name, options = parse_spec(spec, self.kind)
        if name in self._added:
            return name, self._added[name], options
        path, options = self._path(spec)
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

    def _path(self, spec: Spec) -> tuple[str, dict[str, Any]]:
        """Return the "module:attr" of a spec, and its own options.

        The path is empty where it names nothing that could be imported.
        """
        if isinstance(spec, str) and spec in self._paths:
            return self._paths[spec], {}
        path, options = self._searched_path(spec)
        # What is not there may be installed yet, and is searched again.
        if isinstance(spec, str) and path and not options:
            self._paths[spec] = path
        return path, options

    def _searched_path(self, spec: Spec) -> tuple[str, dict[str, Any]]:
        """Return the same, from our own names, those of packages, and modules."""
        name, options = parse_spec(spec, self.kind)
        path = self._own.get(name) or self._offered_path(name)
        if path:
            return path, options
        if ":" in name:
            return name, options
        if options.get(FIRST):
            return self._importable(name, options)
        return "", options

    def _offered_path(self, name: str) -> str:
        """Return the "module:attr" that an installed package gives a name; else ""."""
        for entry in self._offered():
            if entry.name == name:
                return entry.value
        return ""

    def _importable(
        self, module: str, options: dict[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        """Return the "module:attr" of "module:attr:option=value", and its options.

        The path is empty where it names nothing that could be imported.
        """
        attribute, _, rest = options[FIRST].partition(":")
        others = {name: value for name, value in options.items() if name != FIRST}
        _, more = parse_spec(f"{module}:{rest}", self.kind)
        is_path = attribute.isidentifier() and _is_module(module)
        path = f"{module}:{attribute}" if is_path else ""
        return path, {**others, **more}

    @property
    def own(self) -> list[str]:
        """The short names that are ours."""
        return sorted(self._own)

    def names(self) -> list[str]:
        """Return every short name there is."""
        offered = [entry.name for entry in self._offered()]
        return sorted({*self._own, *self._added, *offered})

    def plugins(self) -> list[Plugin]:
        """Load everything; return what there is, from where, and what failed."""
        plugins = [Plugin(self.kind, name, self.package) for name in self._own]
        for name in self._added:
            plugins.append(Plugin(self.kind, name, self._origins[name]))
        for entry in self._offered():
            error = self._fault(entry, plugins)
            plugins.append(Plugin(self.kind, entry.name, _origin(entry), error))
        return sorted(plugins, key=lambda plugin: (plugin.name, plugin.origin))

    def _fault(self, entry: EntryPoint, earlier: list[Plugin]) -> str:
        """Return why a name that a package offers is of no use; empty where it is."""
        try:
            load_attribute(entry.value, self.kind)
        except ConfigError as fault:
            return str(fault)
        for plugin in earlier:
            if plugin.name == entry.name:
                return f"the name {entry.name!r} is taken by {plugin.origin}"
        return ""

    def _offered(self) -> list[EntryPoint]:
        """Return what packages offer, in the order in which names are given."""
        offered = entry_points(group=f"{self.package}.{self.kind}s")
        # What is installed comes in any order; the same package is to win in each run.
        return sorted(offered, key=_rank)


def _rank(entry: EntryPoint) -> tuple[str, str]:
    package = entry.dist.name.lower() if entry.dist else ""
    return entry.name, package


def _origin(entry: EntryPoint) -> str:
    if entry.dist is None:
        return entry.value
    return f"{entry.dist.name} {entry.dist.version}"


def _is_module(name: str) -> bool:
    """Return whether a name may be a module's, without importing a parent of it."""
    if name in sys.modules or "." in name:
        return True
    return name != "" and importlib.util.find_spec(name) is not None


def _identity(component: Any) -> Any:
    """Return what two components have in common only if they are the same.

    Of functions and classes it is where they are written, for a notebook makes them
    anew in the same place; also of those that others are made of.
    """
    if isinstance(component, partial):
        parts = (component.func, *component.args, *component.keywords.items())
        return partial, _identity(parts)
    if isinstance(component, MethodType):
        return _identity(component.__self__), component.__qualname__
    if isinstance(component, tuple):
        return _identity(type(component)), [_identity(part) for part in component]
    if isinstance(component, FunctionType):
        return _place(component), _code(component), _closed_over(component)
    if hasattr(component, "__qualname__"):
        return _place(component)
    return component


def _place(factory: Any) -> tuple[str, str]:
    """Return where a function or class is written."""
    return factory.__module__, factory.__qualname__


def _code(function: FunctionType) -> tuple[Any, ...]:
    """Return what tells a lambda from others of its place; nothing of what has a name.

    Whoever edits the cell of a notebook gives what has a name another code.
    """
    if function.__name__ != "<lambda>":
        return ()
    code = function.__code__
    return code.co_code, code.co_consts, code.co_names


def _closed_over(function: FunctionType) -> list[Any]:
    """Return the numbers, texts and functions that tell closures of a place apart."""
    values: list[Any] = []
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:  # A function that calls itself, and has no name as yet.
            continue
        if isinstance(value, int | float | str):
            values.append(value)
        elif isinstance(value, FunctionType | type):
            values.append(_place(value))
    return values


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


AGENTS = Registry(
    "agent",
    {
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
    check="aipo_env.checker:check_agent",
)
"""The agents that a spec may name."""
TOOLS = Registry("tool", {}, check="aipo_env.checker:check_tool")
"""The tools that a spec may name."""
VERIFIERS = Registry(
    "verifier",
    {
        "auto": "aipo_env.verifiers.by_kind:ByKind",
        "math": "aipo_env.verifiers.math.verifier:MathVerifier",
        "choice": "aipo_env.verifiers.choice:ChoiceVerifier",
        "reward": "aipo_env.verifiers.rewards:RewardVerifier",
    },
    check="aipo_env.checker:check_verifier",
)
"""The verifiers that a spec may name."""
TASKS = Registry(
    "task",
    {
        "toy": "aipo_env.tasks.toy:toy_source",
        "file": "aipo_env.tasks.file:FileSource",
        "shipped": "aipo_env.tasks.file:shipped",
        "hf": "aipo_env.tasks.hub:hub_source",
        "mix": "aipo_env.tasks.mixture:mix",
        "reasoning_gym": "aipo_env.tasks.reasoning_gym:reasoning_gym_source",
    },
    check="aipo_env.checker:check_task_source",
)
"""The sources of tasks that a spec may name."""
CODECS = Registry(
    "codec",
    {
        "tags": "aipo_env.codecs.tags:TagsCodec",
        "hermes": "aipo_env.codecs.hermes:HermesCodec",
        "openai": "aipo_env.codecs.openai_calls:OpenAICodec",
        "macro": "aipo_env.codecs.macro:MacroCodec",
    },
    check="aipo_env.checker:check_codec",
)
"""The codecs that a spec may name."""
REGISTRIES = (AGENTS, TOOLS, VERIFIERS, TASKS, CODECS)
"""Those of this package, each with our own components."""
_LEARNERS = "aipo_learner.settings.objective:LEARNER_REGISTRIES"
"""Those of the learner, which comes in the same distribution and may be left out."""


def all_registries() -> tuple[Registry, ...]:
    """Return all there are, the learner's too where it is."""
    if not _is_module(_LEARNERS.partition(".")[0]):
        return REGISTRIES
    return (*REGISTRIES, *load_attribute(_LEARNERS, "registries"))
