"""A scenario: an environment built, everything an episode needs but a policy."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from aipo_env.agents.base import Agent
from aipo_env.agents.pool.agent_pool import AgentPool
from aipo_env.agents.pool.journal import Cassette, Journal
from aipo_env.agents.pool.limits import PoolLimits
from aipo_env.agents.roles import KnowledgeAgent, ReasoningAgent, VerifyAgent
from aipo_env.codecs.base import Codec
from aipo_env.errors import ConfigError, check_choice
from aipo_env.keys import Key, free_key
from aipo_env.records import CONSULT_KINDS, ConsultKind, Split, Task
from aipo_env.registry import AGENTS, CODECS, construct
from aipo_env.rollout.environment import (
    AgentsSpec,
    CodecSpec,
    Environment,
    EnvironmentSpec,
    Pool,
    Rules,
    ToolSpecs,
    VerifierSpec,
    given,
)
from aipo_env.rollout.rules import DialogueRules
from aipo_env.rollout.session import Session
from aipo_env.tasks.base import TaskSource, build_source, task_index
from aipo_env.tasks.toy import ToySource
from aipo_env.tools.toolbox import Toolbox, build_tools
from aipo_env.verifiers.base import Verifier
from aipo_env.verifiers.build import build_verifier
from aipo_env.verifiers.golds import without_bad_golds

TOY_RULES = DialogueRules(
    plain_prompt="Solve.",
    consult_prompt="Solve. You may consult.",
    consult_budget=6,
    max_turns=10,
    max_policy_tokens=160,
    max_context_tokens=400,
)
"""Brief prompts and small limits, as the tiny policy was taught."""


BYTE_LIMITS = {"max_policy_tokens": 4096, "max_context_tokens": 16384}
"""Limits unless `rules` gives others: tokens are bytes here, and about four of them are
one of a language model's.
"""


@dataclass(frozen=True)
class Scenario:
    """Everything an episode needs but a policy.

    Args:
        source: Where tasks come from.
        rules: Limits and prompts.
        codec: How calls and replies look in text.
        verifier: What says whether an answer is right.
        pool: The agents, by role; one pool for all episodes.
        tool_codec: Reads calls of tools alone, where no agent is offered; without one,
            the codec does.
        toolbox: The tools that the policy may call.
    """

    source: TaskSource
    rules: DialogueRules
    codec: Codec
    verifier: Verifier
    pool: AgentPool
    tool_codec: Codec | None = None
    toolbox: Toolbox = field(default_factory=Toolbox)

    def session(
        self,
        task: Task,
        *,
        aided: bool,
        key: Key = (0,),
        group_id: str = "",
        policy_version: int = 0,
    ) -> Session:
        """Start an episode on a task; the arguments are those of `Session`."""
        return Session(
            task,
            self.rules,
            self.codec_of(aided=aided),
            self.pool,
            self.verifier,
            aided=aided,
            toolbox=self.toolbox,
            key=key,
            group_id=group_id,
            policy_version=policy_version,
        )

    def rollout(
        self,
        split: Split,
        seed: int,
        group: int,
        number: int = 0,
        *,
        aided: bool,
        index: int | None = None,
        policy_version: int = 0,
    ) -> Session:
        """Start a rollout of the task that stands at a position of a reading.

        Args:
            split: "train" or "test".
            seed: Draws the reading: the order in which a finite source's tasks come.
            group: The position in it.
            number: Which of the task's rollouts this is.
            aided: Whether the policy is told of the agents and may consult.
            index: Chooses another task, by its number in the source.
            policy_version: The number of the policy's weights, for the record.
        """
        if index is None:
            index = task_index(self.source, split, group, seed)
        return self.session(
            self.source.task(split, index),
            aided=aided,
            key=free_key(seed, group, number),
            group_id=f"{seed}-{group}",
            policy_version=policy_version,
        )

    def codec_of(self, *, aided: bool) -> Codec:
        """Return the codec that reads an episode's calls."""
        if self.tool_codec is None or (aided and self.offered):
            return self.codec
        return self.tool_codec

    @property
    def offered(self) -> tuple[ConsultKind, ...]:
        """The roles that a policy is offered: those that somebody answers for."""
        return tuple(role for role in self.rules.kinds if role in self.pool.agents)


_ROLES = {
    "knowledge": KnowledgeAgent,
    "reason": ReasoningAgent,
    "verify": VerifyAgent,
}
"""What stands before the agent behind each role, and passes on what it may see."""


def build_scenario(
    environment: EnvironmentSpec = "toy",
    agents: AgentsSpec | None = None,
    *,
    tools: ToolSpecs | None = None,
    verifier: VerifierSpec | None = None,
    codec: CodecSpec | None = None,
    rules: Rules | None = None,
    pool: Pool | None = None,
    seed: int = 0,
    journal: Journal | None = None,
    cassette: str | None = None,
) -> Scenario:
    """Put a scenario together.

    Args:
        environment: An `Environment`, a registered id, or a task source or its spec.
        agents, tools, verifier, codec: In place of the environment's own.
        rules, pool: Put over the environment's own, setting by setting.
        seed: The toy world's, unless its spec gives one.
        journal: Where replies already paid for are kept.
        cassette: Instead, the file from which a run is repeated, and to which it is
            recorded; see `Cassette`.

    Raises:
        ConfigError: A spec or option is unknown or out of range. DataError: a task file
            cannot be read.
    """
    if not isinstance(cassette, str | None):
        raise ConfigError(f"cassette={cassette!r} must be the path of a file, as text.")
    changes = Environment(
        agents=agents,
        tools=tools,
        verifier=verifier,
        codec=codec,
        rules=rules,  # type: ignore[arg-type]
        pool=pool,  # type: ignore[arg-type]
    )
    chosen = Environment.of(environment).resolved().changed(changes)
    source = build_source("toy" if chosen.source is None else chosen.source, seed)
    # A verifier of somebody's own may know what to do with an answer that ours cannot
    # read.
    is_ours = chosen.verifier in (None, "auto", "math")
    if is_ours and not getattr(source, "is_checked", False):
        source = without_bad_golds(source)
    toolbox = build_tools(chosen.tools or ())
    helpers = build_agents(_default(chosen.agents, source), source)
    chosen_rules = _rules(chosen, source, has_tools=bool(toolbox))
    limits = construct(PoolLimits, given(chosen.pool), "agent pool")
    _check_budgets(chosen_rules, limits, toolbox.names)
    spec = chosen.codec or "tags"
    return Scenario(
        source=source,
        rules=chosen_rules,
        codec=CODECS.build(spec, tools=toolbox.schemas, kinds=CONSULT_KINDS),
        verifier=build_verifier(chosen.verifier or "auto"),
        pool=AgentPool(helpers, limits, Cassette(cassette) if cassette else journal),
        tool_codec=CODECS.build(spec, tools=toolbox.schemas, kinds=()),
        toolbox=toolbox,
    )


def byte_scenario(
    environment: Environment, cassette: str | None = None, seed: int = 0
) -> Scenario:
    """Build a scenario whose tokens are bytes; limits not given are `BYTE_LIMITS`."""
    resolved = environment.resolved()
    limits = {**BYTE_LIMITS, **given(resolved.rules)}
    return build_scenario(resolved, rules=limits, cassette=cassette, seed=seed)


def _default(agents: AgentsSpec | None, source: TaskSource) -> AgentsSpec:
    """Return who is consulted: the source's own agents unless others were named."""
    if agents is not None:
        return agents
    own: AgentsSpec = getattr(source, "default_agents", "none")
    return own


def _rules(
    environment: Environment, source: TaskSource, *, has_tools: bool
) -> DialogueRules:
    """Return the rules: those that were given over the source's own."""
    # The toy's brief prompt explains neither tools nor how a call looks; the tiny
    # policy knows the codec "tags" by heart.
    knows_codec = environment.codec in (None, "tags")
    is_brief = isinstance(source, ToySource) and not has_tools and knows_codec
    defaults = TOY_RULES if is_brief else DialogueRules()
    own = {item.name: getattr(defaults, item.name) for item in fields(DialogueRules)}
    chosen = given(environment.rules)
    # A prompt of one's own is not to be hidden behind the source's brief one.
    if "plain_prompt" in chosen:
        own["consult_prompt"] = ""
    settings = {**own, **chosen}
    return construct(DialogueRules, settings, "dialogue rules")


def _check_budgets(
    rules: DialogueRules, limits: PoolLimits, tools: Collection[str]
) -> None:
    """Raise ConfigError where a budget is of a role or tool that there is not."""
    choices = (*CONSULT_KINDS, *tools)
    # "verify/tokens" is of a kind; "tokens" is of all of them.
    limit_names = (*rules.reply_budget, *limits.max_per_kind)
    limited_kinds = [name.rpartition("/")[0] for name in limit_names if "/" in name]
    for kind in (*rules.budget_per_kind, *limited_kinds):
        check_choice("rules and pool: a budget's kind", kind, choices)
        if kind in CONSULT_KINDS and kind not in rules.kinds:
            raise ConfigError(
                f"rules and pool: a budget for {kind!r}, which kinds={rules.kinds!r}"
                " leave out. Add it to the kinds, or drop the budget."
            )


def build_agents(spec: Any, source: TaskSource) -> dict[str, Agent]:
    """Build the agents behind the three roles.

    Args:
        spec: That of one agent for every role, or a mapping from roles to specs; "none"
            is nobody.
        source: Where tasks come from; some agents know things about them.

    Raises:
        ConfigError: A spec is unknown, or the agent cannot do with this source.
    """
    # An object with a "type" is the spec of one agent.
    is_by_role = isinstance(spec, Mapping) and "type" not in spec
    by_role = dict(spec) if is_by_role else dict.fromkeys(_ROLES, spec)
    for role in by_role:
        check_choice("agents: role", role, _ROLES)
    # Equal specs are one agent, with one limit and one set of connections. A list of
    # pairs, for a spec may be a mapping, which cannot be looked up in a dictionary.
    built: list[tuple[Any, Agent]] = []
    roles: dict[str, Agent] = {}
    for role in CONSULT_KINDS:
        agent_spec = by_role.get(role, "none")
        if agent_spec == "none":
            continue
        equals = [agent for other, agent in built if other == agent_spec]
        if equals:
            agent = equals[0]
        else:
            agent = AGENTS.build(agent_spec, source=source)
            built.append((agent_spec, agent))
        roles[role] = _ROLES[role](agent)
    return roles
