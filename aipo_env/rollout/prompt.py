"""The system prompt of an episode."""

import re
from collections.abc import Sequence

from aipo_env.codecs.base import Codec
from aipo_env.records import ConsultKind
from aipo_env.rollout.rules import PLACES, DialogueRules

_PLACES = re.compile("|".join(map(re.escape, PLACES)))


def system_prompt(
    rules: DialogueRules,
    codec: Codec,
    *,
    offered: Sequence[ConsultKind],
    has_tools: bool,
) -> str:
    """Return the system prompt: it offers those who answer, and nobody else.

    Args:
        rules: The prompts, and the budgets that they name.
        codec: How calls look in text.
        offered: The roles that may be consulted; none in deployment.
        has_tools: Whether there are tools to call.
    """
    agents = ""
    tools = ""
    if offered:
        agents = codec.instructions(offered, rules.consult_budget)
    if has_tools:
        tools = codec.tool_instructions(rules.tool_budget)
    is_own = bool(offered and rules.consult_prompt)
    prompt = rules.consult_prompt if is_own else rules.plain_prompt
    texts = {"{instructions}": agents, "{tools}": tools}
    # In one go: what is put in may hold the other's place as plain text.
    parts = [_PLACES.sub(lambda place: texts[place[0]], prompt)]
    if "{instructions}" not in prompt and not is_own:
        parts.append(agents)
    if "{tools}" not in prompt:
        parts.append(tools)
    return "\n\n".join(filter(None, parts))
