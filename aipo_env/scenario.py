"""A scenario: tasks, rules, agents and verifier, put together from specs. Every face starts here."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aipo_env.agents.base import Agent
from aipo_env.agents.knowledge import KnowledgeAgent
from aipo_env.agents.pool import AgentPool, Journal, PoolLimits
from aipo_env.agents.reasoning import ReasoningAgent
from aipo_env.agents.scripted import ScriptedAgent
from aipo_env.agents.verify import VerifyAgent
from aipo_env.dialogue import DialogueRules
from aipo_env.errors import ConfigError
from aipo_env.parsing import Codec, TagsCodec
from aipo_env.records import CONSULT_KINDS, ConsultKind, Task
from aipo_env.registry import Spec, choose, construct, parse_spec
from aipo_env.session import Session
from aipo_env.tasks import TaskSource, ToySource, build_source
from aipo_env.verifiers.base import Verifier
from aipo_env.verifiers.math_equiv import MathVerifier

TOY_RULES = DialogueRules(
    plain_prompt="Solve.",
    consult_prompt="Solve. You may consult.",
    consult_budget=6,
    max_turns=10,
    max_policy_tokens=160,
    max_context_tokens=400,
)
"""Brief prompts and small limits, as the tiny policy was taught."""


@dataclass(frozen=True)
class Scenario:
    """Everything an episode needs but a policy."""

    source: TaskSource
    rules: DialogueRules
    codec: Codec
    verifier: Verifier
    pool: AgentPool

    def session(
        self,
        task: Task,
        *,
        aided: bool,
        key: tuple[int, ...],
        group_id: str = "",
        policy_version: int = 0,
    ) -> Session:
        """Start an episode on a task."""
        return Session(
            task,
            self.rules,
            self.codec,
            self.pool,
            self.verifier,
            aided=aided,
            key=key,
            group_id=group_id,
            policy_version=policy_version,
        )


def build_scenario(
    source: Spec = "toy",
    agents: Spec = "scripted",
    *,
    rules: Mapping[str, Any] | None = None,
    pool: Mapping[str, Any] | None = None,
    seed: int = 0,
    journal: Journal | None = None,
) -> Scenario:
    """Put a scenario together.

    Args:
        source: Task source, for example "toy:difficulty=2" or "file:tasks.jsonl".
        agents: "scripted", with faults if wanted ("scripted:wrong=0.2"), or "none".
        rules: Fields of `DialogueRules` that differ from the source's defaults.
        pool: Fields of `PoolLimits` that differ from its defaults.
        seed: The toy world's, unless its spec gives one.
        journal: Where replies already paid for are kept.

    Raises:
        ConfigError: A spec or option is unknown or out of range. DataError: a task file cannot be read.
    """
    tasks = build_source(source, seed)
    defaults = TOY_RULES if isinstance(tasks, ToySource) else DialogueRules()
    fields = {name: getattr(defaults, name) for name in DialogueRules.__dataclass_fields__}
    chosen = construct(DialogueRules, {**fields, **(rules or {})}, "dialogue rules")
    limits = construct(PoolLimits, dict(pool or {}), "agent pool")
    helpers = build_agents(agents, tasks)
    return Scenario(tasks, chosen, TagsCodec(), MathVerifier(), AgentPool(helpers, limits, journal))


def build_agents(spec: Spec, source: TaskSource) -> dict[ConsultKind, Agent]:
    """Build the agents behind the three roles.

    Raises:
        ConfigError: The spec is unknown, or scripted agents are asked for where there is no world to know.
    """
    kind, options = parse_spec(spec, "agents")
    choose({"scripted": True, "none": True}, kind, "agents")
    if kind == "none":
        return {}
    if not isinstance(source, ToySource):
        raise ConfigError(
            "agents: 'scripted' agents know toy worlds only; use agents='none' with this source."
        )
    mind = construct(ScriptedAgent, {"world": source.world, **options}, "agents: scripted")
    roles: dict[ConsultKind, Agent] = {
        "knowledge": KnowledgeAgent(mind),
        "reason": ReasoningAgent(mind),
        "verify": VerifyAgent(mind),
    }
    return {role: roles[role] for role in CONSULT_KINDS}
