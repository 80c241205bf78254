"""The limits and prompts of an episode."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from aipo_env.budgets import SPENT, check_budget
from aipo_env.errors import ConfigError, check_choice, check_whole, shown, suggest
from aipo_env.records import CONSULT_KINDS, ConsultKind, holds_half_pair

PLACES = ("{instructions}", "{tools}")
"""What a prompt may hold: how agents are consulted, and what tools there are."""
_LIKE_PLACES = re.compile(r"\{(?:instruction|tool|agent)\w*\}", re.IGNORECASE)
"""What is meant for a place: `{tool}`, `{Instructions}`."""
REPLY_METRICS = SPENT[1:]
"""What replies are charged for; calls, the first, `consult_budget` counts."""
PLAIN_PROMPT = (
    "Solve the problem step by step. Give the final answer in the form that the problem"
    " asks for, or in \\boxed{} if it asks for none."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DialogueRules:
    """The limits and prompts of an episode; JSON-able.

    In a prompt, `{instructions}` stands for how agents are consulted and `{tools}` for
    the tools and how they are called; both come from the codec.

    Args:
        plain_prompt: System prompt of deployment: no agents. How agents are consulted
            is put behind it in aided episodes, and what tools there are, unless it has
            the places for them.
        consult_prompt: System prompt of an aided episode in place of that; it explains
            how agents are consulted only where it has `{instructions}`. Empty:
            `plain_prompt`.
        kinds: Agent roles that may be consulted, as far as an agent answers for them.
        consult_budget: Consultations per episode, those included that fail or are
            withheld; a call beyond it is denied, not executed, free.
        tool_budget: Calls of tools per episode; likewise.
        tools_when: "always": tools are part of the world, in deployment too; "aided":
            they are there only where agents may be consulted.
        budget_per_kind: The same for single roles and tools.
        reply_budget: What replies may come to before further calls are denied, in
            tokens and US dollars by the agents' own account, in all and for single
            roles: {"tokens": 2000, "verify/usd": 0.01}.
        max_turns: Completions per episode.
        max_policy_tokens: Tokens the policy may sample, over all turns.
        max_context_tokens: Tokens of the whole episode, prompts and replies included.
        max_invalid: Malformed turns that are answered with an explanation; the next one
            ends the episode.

    Raises:
        ConfigError: A value is out of range; the message names it.
    """

    plain_prompt: str = PLAIN_PROMPT
    consult_prompt: str = ""
    kinds: tuple[ConsultKind, ...] = CONSULT_KINDS
    consult_budget: int = 3
    tool_budget: int = 32
    tools_when: Literal["always", "aided"] = "always"
    budget_per_kind: Mapping[str, int] = field(default_factory=dict)
    reply_budget: Mapping[str, float] = field(default_factory=dict)
    max_turns: int = 8
    max_policy_tokens: int = 1024
    max_context_tokens: int = 4096
    max_invalid: int = 2

    def __post_init__(self) -> None:
        kinds: Any = self.kinds
        if not isinstance(kinds, list | tuple):
            raise ConfigError(
                f"dialogue rules: kinds={kinds!r} must be a list of roles."
            )
        object.__setattr__(self, "kinds", tuple(kinds))
        for name in ("plain_prompt", "consult_prompt"):
            _check_prompt(name, getattr(self, name))
        for role in self.kinds:
            check_choice("dialogue rules: kind", role, CONSULT_KINDS)
        for kind, budget in self.budget_per_kind.items():
            check_whole(f"dialogue rules: budget_per_kind[{kind!r}]", budget)
        check_budget("dialogue rules: reply_budget", self.reply_budget, REPLY_METRICS)
        for name in ("max_turns", "max_policy_tokens", "max_context_tokens"):
            check_whole(f"dialogue rules: {name}", getattr(self, name), 1)
        check_choice("dialogue rules: tools_when", self.tools_when, ("always", "aided"))
        for name in ("consult_budget", "tool_budget", "max_invalid"):
            check_whole(f"dialogue rules: {name}", getattr(self, name))


def _check_prompt(name: str, prompt: Any) -> None:
    """Raise ConfigError unless a prompt is text whose places are spelled right."""
    if not isinstance(prompt, str):
        raise ConfigError(f"dialogue rules: {name}={shown(prompt)} must be text.")
    if holds_half_pair(prompt):
        raise ConfigError(
            f"dialogue rules: {name} holds half a surrogate pair, which no tokenizer"
            " reads. Delete it."
        )
    for place in _LIKE_PLACES.findall(prompt):
        if place not in PLACES:
            raise ConfigError(
                f"dialogue rules: {name} has {shown(place)}, which stands for nothing. "
                f"{suggest(place, PLACES)}"
            )
