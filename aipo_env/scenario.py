"""A scenario: tasks, rules, agents and verifier, put together from specs. Every face starts here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aipo_env.agents.base import Agent
from aipo_env.agents.pool import AgentPool, Cassette, Journal, PoolLimits
from aipo_env.agents.roles import KnowledgeAgent, ReasoningAgent, VerifyAgent
from aipo_env.codecs.base import Codec
from aipo_env.dialogue import DialogueRules
from aipo_env.errors import ConfigError, check_choice
from aipo_env.records import CONSULT_KINDS, Split, Task
from aipo_env.registry import AGENTS, CODECS, VERIFIERS, Spec, as_options, construct
from aipo_env.session import Session
from aipo_env.tasks.base import TaskSource, build_source, task_index
from aipo_env.tasks.toy import ToySource
from aipo_env.tools.toolbox import build_tools
from aipo_env.verifiers.base import Verifier
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


@dataclass(frozen=True)
class Scenario:
    """Everything an episode needs but a policy."""

    source: TaskSource
    rules: DialogueRules
    codec: Codec
    verifier: Verifier
    pool: AgentPool

    def session(self, task: Task, **options: Any) -> Session:
        """Start an episode on a task; options as in `Session`."""
        return Session(
            task, self.rules, self.codec, self.pool, self.verifier, **options
        )

    def rollout(
        self,
        split: Split,
        seed: int,
        group: int,
        number: int = 0,
        *,
        index: int | None = None,
        **options: Any,
    ) -> Session:
        """Start rollout `number` of the task at position `group` of the reading that `seed` draws.

        `index` chooses another task. Options as in `Session`.
        """
        index = task_index(self.source, split, group, seed) if index is None else index
        key, group_id = (seed, group, number), f"{seed}-{group}"
        return self.session(
            self.source.task(split, index), key=key, group_id=group_id, **options
        )


_ROLES = {"knowledge": KnowledgeAgent, "reason": ReasoningAgent, "verify": VerifyAgent}


def build_scenario(
    source: Spec | TaskSource = "toy",
    agents: Spec | Agent = "scripted",
    *,
    tools: Sequence[Any] = (),
    verifier: Spec | Verifier = "auto",
    codec: Spec = "tags",
    rules: Mapping[str, Any] | None = None,
    pool: Mapping[str, Any] | None = None,
    seed: int = 0,
    journal: Journal | None = None,
    cassette: str | None = None,
) -> Scenario:
    """Put a scenario together.

    Args:
        source: Task source, for example "toy:difficulty=2" or "file:tasks.jsonl".
        agents: One agent for every role ("scripted", with faults if wanted: "scripted:wrong=0.2"), a mapping
            from roles to agents, or "none".
        tools: Functions to offer beside the agents, or specs that name them.
        verifier: Ground truth; "auto" takes the verifier of each task's kind.
        codec: How consultations look in text: "tags", "hermes", "openai", "macro".
        rules: Fields of `DialogueRules` that differ from the source's defaults.
        pool: Fields of `PoolLimits` that differ from its defaults.
        seed: The toy world's, unless its spec gives one.
        journal: Where replies already paid for are kept.
        cassette: Instead, the file from which a run is repeated, and to which it is recorded; see `Cassette`.

    Raises:
        ConfigError: A spec or option is unknown or out of range. DataError: a task file cannot be read.
    """
    if not isinstance(cassette, str | None):
        raise ConfigError(f"cassette={cassette!r} must be the path of a file, as text.")
    tasks = build_source(source, seed)
    if verifier in ("auto", "math"):
        tasks = without_bad_golds(tasks)
    toolbox = build_tools(tools)
    # The toy's brief prompt explains neither tools nor how a call looks; the tiny policy knows tags by heart.
    is_brief = isinstance(tasks, ToySource) and not toolbox and codec == "tags"
    defaults = TOY_RULES if is_brief else DialogueRules()
    fields = {
        name: getattr(defaults, name) for name in DialogueRules.__dataclass_fields__
    }
    chosen = construct(
        DialogueRules,
        {**fields, **as_options(rules, "dialogue rules")},
        "dialogue rules",
    )
    limits = construct(PoolLimits, as_options(pool, "agent pool"), "agent pool")
    named = [
        name.rpartition("/")[0] for name in (*chosen.reply_budget, *limits.max_per_kind)
    ]
    for name in (*chosen.budget_per_kind, *filter(None, named)):
        check_choice(
            "rules and pool: a budget's kind", name, (*CONSULT_KINDS, *toolbox.names)
        )
    helpers = {**build_agents(agents, tasks), **toolbox.functions}
    return Scenario(
        tasks,
        chosen,
        CODECS.build(codec, tools=toolbox.schemas),
        VERIFIERS.build(verifier),
        AgentPool(helpers, limits, Cassette(cassette) if cassette else journal),
    )


def build_agents(spec: Any, source: TaskSource) -> dict[str, Agent]:
    """Build the agents behind the three roles.

    Raises:
        ConfigError: A spec is unknown, or the agent cannot do with this source.
    """
    by_role = (
        dict(spec)
        if isinstance(spec, Mapping) and "type" not in spec
        else dict.fromkeys(_ROLES, spec)
    )
    for role in by_role:
        check_choice("agents: role", role, _ROLES)
    minds: list[tuple[Any, Agent]] = []  # one agent for all roles that name the same
    roles: dict[str, Agent] = {}
    for role in CONSULT_KINDS:
        wanted = by_role.get(role, "none")
        if wanted == "none":
            continue
        known = [mind for name, mind in minds if name == wanted]
        mind = known[0] if known else AGENTS.build(wanted, source=source)
        minds.append((wanted, mind))
        roles[role] = _ROLES[role](mind)
    return roles
