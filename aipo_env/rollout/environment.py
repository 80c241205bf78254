"""An environment in one value: what is played, by which rules, with whose help.

`gymnasium.make`, `EpisodeRunner`, training, evaluation, serving and every command take
the same thing, in Python, in JSON and as flags:

    Environment(source="file:tasks.jsonl", agents={"verify": "openai:MODEL@URL"})
    {"id": "my_package:Mine/Chemistry-Turn-v0", "rules": {"max_turns": 3}}
    --environment.source file:tasks.jsonl --environment.rules.max-turns 3

What is not given follows the environment that `id` registers, and else the source.
"""

import importlib.util
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Union

import gymnasium

from aipo_env.agents.base import Agent
from aipo_env.agents.pool.limits import PoolLimits
from aipo_env.codecs.base import Codec
from aipo_env.errors import ConfigError, suggest
from aipo_env.records import ConsultKind
from aipo_env.registry import TASKS, Spec, construct
from aipo_env.rollout.rules import DialogueRules
from aipo_env.tasks.base import TaskSource
from aipo_env.tasks.spellings import source_spec
from aipo_env.verifiers.base import Verifier

SourceSpec = Union[Spec, TaskSource]  # noqa: UP007
AgentsSpec = Union[Spec, Mapping[str, Any], Agent]  # noqa: UP007
"""Who answers: one for all roles, or a mapping from roles to agents."""
VerifierSpec = Union[Spec, Verifier, Callable[..., Any]]  # noqa: UP007
"""What judges an answer: a verifier, or a reward function."""
CodecSpec = Union[Spec, Codec]  # noqa: UP007
ToolSpecs = Sequence[Any]
"""Tools: functions, classes, or specs of them."""

_ID = re.compile(
    r"""
    (?: [\w.]+ : )?      # the package that registers it: "my_package:"
    (?: [\w:-]+ / )?     # a namespace: "Mine/"
    [\w:.-]+ -v \d+      # the name and its version: "AIPO-Math-Turn-v0"
    """,
    re.VERBOSE,
)
"""A Gymnasium id."""
POLICY_TOKENS = 32_768
"""Tokens that a policy of somebody else's may write in an episode: it may think at
length.
"""
CONTEXT_TOKENS = 65_536
"""Tokens of a whole episode, likewise."""
BYTES_PER_TOKEN = 4
"""Bytes of UTF-8 that a token of a language model is taken for."""
FACES = {
    "aipo_env:TokenEnv",
    "aipo_env:TurnEnv",
    "aipo_env.gym:make_env",
}
"""Entry points whose registered arguments are an environment's fields."""


# The arguments are those of `DialogueRules`, each with None beside it, and so is what
# is said of them: it is taken from there, so that both cannot come apart.
@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSettings:
    __doc__ = f"""Rules that differ from the environment's; None leaves it its own.

    As in `DialogueRules`. {(DialogueRules.__doc__ or "").partition("Args:")[0]}
    Args:{(DialogueRules.__doc__ or "").partition("Args:")[2]}
    """

    plain_prompt: str | None = None
    consult_prompt: str | None = None
    kinds: tuple[ConsultKind, ...] | None = None
    consult_budget: int | None = None
    tool_budget: int | None = None
    tools_when: Literal["always", "aided"] | None = None
    budget_per_kind: Mapping[str, int] | None = None
    reply_budget: Mapping[str, float] | None = None
    max_turns: int | None = None
    max_policy_tokens: int | None = None
    max_context_tokens: int | None = None
    max_invalid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    __doc__ = f"""Limits of the pool that differ from its defaults; None leaves them.

    As in `PoolLimits`.

    Args:{(PoolLimits.__doc__ or "").partition("Args:")[2]}
    """

    concurrency: int | None = None
    rate: float | None = None
    deadline_s: float | None = None
    retries: int | None = None
    backoff_s: float | None = None
    break_after: int | None = None
    hedge_s: float | None = None
    hedge_quantile: float | None = None
    batch_s: float | None = None
    cache: str | None = None
    max_calls: int | None = None
    max_tokens: int | None = None
    max_usd: float | None = None
    max_per_kind: Mapping[str, float] | None = None
    when_spent: Literal["unaided", "stop"] | None = None
    when_lost: Literal["stop", "unaided"] | None = None


Rules = RuleSettings | Mapping[str, Any]
Pool = PoolSettings | Mapping[str, Any]


def given(settings: RuleSettings | PoolSettings) -> dict[str, Any]:
    """Return the settings that are not None, by name."""
    values = {item.name: getattr(settings, item.name) for item in fields(settings)}
    return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What is played, by which rules, with whose help. Every field has a JSON form.

    Args:
        id: A registered Gymnasium id, behind "package:" if another package registers
            it; its registered arguments hold for what is not given here.
        source: Where tasks come from: "toy:difficulty=2", "shipped:code",
            "file:tasks.jsonl", "hf:dapo_math_17k".
        agents: Who is consulted: one agent for every role, as "scripted" or
            "openai:MODEL@URL", a mapping from roles to agents, or "none". If not given,
            the source's own.
        tools: Functions and classes that the policy may call, or specs that name them.
        verifier: Ground truth, or a reward function: "module:function". If not given,
            the one for the kind of each task.
        codec: How calls look in text: "tags", "hermes", "openai", "macro".
        rules: Limits and prompts that differ from what the environment has.
        pool: Limits of the agents' pool that differ from its defaults.

    Raises:
        ConfigError: A setting is unknown, or a field is of the wrong type.
    """

    id: str = ""
    source: SourceSpec | None = None
    agents: AgentsSpec | None = None
    tools: ToolSpecs | None = None
    verifier: VerifierSpec | None = None
    codec: CodecSpec | None = None
    rules: RuleSettings = field(default_factory=RuleSettings)
    pool: PoolSettings = field(default_factory=PoolSettings)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str):
            raise ConfigError(f"environment: id={self.id!r} must be a Gymnasium id.")
        # From JSON and from keyword arguments they come as mappings.
        rules = _settings(RuleSettings, self.rules, "dialogue rules")
        pool = _settings(PoolSettings, self.pool, "agent pool")
        object.__setattr__(self, "rules", rules)
        object.__setattr__(self, "pool", pool)
        tools: Any = self.tools
        if tools is None:
            return
        if isinstance(tools, str | Mapping) or not isinstance(tools, Sequence):
            raise ConfigError(
                f"environment: tools={tools!r} must be a list of functions, classes or "
                "their names."
            )
        object.__setattr__(self, "tools", tuple(tools))

    @classmethod
    def of(cls, value: "EnvironmentSpec") -> "Environment":
        """Return the environment that a short form names.

        Args:
            value: An environment; the id of a registered one; the spec of a task
                source; an object with fields of an environment; or a task source
                itself.

        Raises:
            ConfigError: It is none of these.
        """
        if isinstance(value, Environment):
            return value
        if isinstance(value, str):
            return cls(id=value) if is_id(value) else cls(source=value)
        # An object with a "type" is the spec of a source.
        if not isinstance(value, Mapping) or "type" in value:
            return cls(source=value)
        _check_no_settings(value, "rules", RuleSettings)
        _check_no_settings(value, "pool", PoolSettings)
        return construct(cls, value, "environment")

    def changed(self, other: "Environment") -> "Environment":
        """Return this environment with what the other gives; rules and pool merged."""
        changes: dict[str, Any] = {}
        if other.id:
            changes["id"] = other.id
        for item in fields(self):
            if item.name in ("id", "rules", "pool"):
                continue
            value = getattr(other, item.name)
            # None leaves what is there; an empty list of tools takes them away.
            if value is not None:
                changes[item.name] = value
        return replace(
            self,
            **changes,
            rules=replace(self.rules, **given(other.rules)),
            pool=replace(self.pool, **given(other.pool)),
        )

    def resolved(self) -> "Environment":
        """Return the environment with its id replaced by what that registers.

        Raises:
            ConfigError: No environment of ours is registered under the id.
        """
        if not self.id:
            return self
        registered = _registered(self.id)
        environment = registered.changed(replace(self, id=""))
        if environment.source is None:
            raise ConfigError(
                f"environment: {self.id!r} is registered without a source, so there are"
                " no tasks. Register one, or name it: source=, --environment.source."
            )
        return environment

    @property
    def name(self) -> str:
        """What messages call it."""
        if self.id:
            return self.id
        if self.source is None:
            return "toy"
        source = _written(self.source)
        return source if isinstance(source, str) else json.dumps(source)

    def to_dict(self) -> dict[str, Any]:
        """Return what is given in a JSON-able form, which `of` turns back.

        A function or class is written as "module:name". An object that no name leads to
        is written as "<…>", which can be compared and not turned back.
        """
        row: dict[str, Any] = {}
        for name in ("id", "source", "agents", "verifier", "codec"):
            value = getattr(self, name)
            if value:
                row[name] = _written(value)
        if self.tools is not None:
            row["tools"] = [_written(tool) for tool in self.tools]
        for name in ("rules", "pool"):
            settings = given(getattr(self, name))
            if settings:
                # Through JSON and back: a tuple of roles becomes a list.
                row[name] = json.loads(json.dumps(settings))
        return row


EnvironmentSpec = Union[Environment, str, Mapping[str, Any], TaskSource]  # noqa: UP007
"""What `Environment.of` takes for an environment."""


def is_id(text: str) -> bool:
    """Return whether a text is a Gymnasium id, and no spec of a task source."""
    if _ID.fullmatch(text) is None or source_spec(text) != text:
        return False
    kind, colon, _ = text.partition(":")
    # A package may give its tasks a short name that is its own, and register ids too.
    package = kind.partition(".")[0]
    is_package = colon == ":" and _is_there(package)
    return kind not in TASKS.names() or (is_package and kind not in TASKS.own)


def _is_there(package: str) -> bool:
    """Return whether a package is imported or can be."""
    return package in sys.modules or importlib.util.find_spec(package) is not None


def pointed_at(environment: Environment, spec: Any) -> Environment:
    """Return an environment with another id or source; all else that it gives stays."""
    other = Environment.of(spec)
    if other.id or other.source is not None:
        environment = replace(environment, id="", source=None)
    return environment.changed(other)


def with_limits(environment: EnvironmentSpec, tokenizer: str = "byte") -> Environment:
    """Return an environment in which a policy may think at length.

    It may write 32,768 tokens in an episode of 65,536. Limits that the environment has
    of its own stay; those of the toy world are made for the tiny policy.

    Args:
        environment: What `Environment.of` takes for one.
        tokenizer: What limits of tokens count. Where it is "byte", four are a token.
    """
    scale = BYTES_PER_TOKEN if tokenizer == "byte" else 1
    limits = RuleSettings(
        max_policy_tokens=POLICY_TOKENS * scale,
        max_context_tokens=CONTEXT_TOKENS * scale,
    )
    own = Environment.of(environment).resolved()
    return Environment(rules=limits).changed(own)


def as_environment(base: Environment, value: Any) -> Environment:
    """Return what a configuration file says of an environment, over a base.

    Args:
        value: An id or the spec of a source; or an object with fields of an
            environment.

    Raises:
        ConfigError: It is neither.
    """
    if not isinstance(value, str | Mapping | Environment):
        raise ConfigError(
            f"config: environment={value!r} must be an id, the spec of a task source,"
            " or an object with fields of an environment."
        )
    return pointed_at(base, value)


def _check_no_settings(
    value: Mapping[str, Any], part: str, kind: type[RuleSettings] | type[PoolSettings]
) -> None:
    """Raise ConfigError where a setting of rules or pool stands beside them."""
    for name in kind.__dataclass_fields__:
        if name in value:
            raise ConfigError(
                f"environment: {name!r} belongs to its {part}: write "
                f'{{"{part}": {{"{name}": …}}}}.'
            )


def _settings(kind: type[Any], value: Any, what: str) -> Any:
    """Return rules or limits, from an object of names and values if need be."""
    if isinstance(value, kind):
        return value
    if value is None:
        return kind()
    if not isinstance(value, Mapping):
        raise ConfigError(f"{what}: {value!r} must be an object of names and values.")
    settings = construct(kind, value, what)
    kinds = getattr(settings, "kinds", None)
    if kinds is None:
        return settings
    if not isinstance(kinds, list | tuple):
        raise ConfigError(f"{what}: kinds={kinds!r} must be a list of roles.")
    # JSON has no tuples, and the settings are frozen.
    object.__setattr__(settings, "kinds", tuple(kinds))
    return settings


def _registered(env_id: str) -> Environment:
    """Return what a Gymnasium id registers."""
    module, _, name = env_id.rpartition(":")
    what = f"environment: {env_id!r} cannot be found"
    try:
        if module:
            importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{what}: {error}. Install the package that registers it."
        ) from error
    try:
        spec = gymnasium.spec(name)
    except gymnasium.error.Error as error:
        ours = [other_id for other_id in gymnasium.registry if "AIPO" in other_id]
        raise ConfigError(
            f"{what}. {suggest(name, ours)} What another package registers needs its"
            " name in front: package:Namespace/Name-v0."
        ) from error
    if spec.entry_point in FACES:
        return from_arguments(spec.kwargs, f"environment {env_id!r}")
    # A class or function of somebody else's that makes one of ours: what it plays can
    # be told only when it is made.
    try:
        made = gymnasium.make(spec, disable_env_checker=True).unwrapped
    except TypeError as error:
        raise ConfigError(f"environment: {env_id!r} cannot be made: {error}") from error
    environment = getattr(made, "environment", None)
    if not isinstance(environment, Environment):
        raise ConfigError(
            f"environment: {env_id!r} is a {type(made).__name__}, whose tasks and rules"
            " are not known. Register aipo_env:TurnEnv or aipo_env:TokenEnv, or what"
            " derives from them."
        )
    return environment


def from_arguments(arguments: Mapping[str, Any], what: str) -> Environment:
    """Return the environment that the arguments of `TokenEnv` or `TurnEnv` say.

    Args:
        arguments: Those of either; what is of these classes alone is left out.
        what: What messages call it.
    """
    names = {item.name for item in fields(Environment)}
    ours = {name: value for name, value in arguments.items() if name in names}
    base = arguments.get("environment")
    environment = Environment() if base is None else Environment.of(base).resolved()
    return environment.changed(construct(Environment, ours, what))


def _written(value: Any) -> Any:
    """Return the JSON form of a component."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): _written(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_written(part) for part in value]
    module = getattr(value, "__module__", "")
    name = getattr(value, "__qualname__", "")
    # "<lambda>" or "f.<locals>.g" leads nowhere, and neither does a name of a script.
    if module and name and "<" not in name and module != "__main__":
        return f"{module}:{name}"
    kind = type(value)
    return f"<{kind.__module__}.{name or kind.__qualname__}>"
