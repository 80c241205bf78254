"""The three roles: what each agent is told, and what it may see of a request.

A role passes requests on to another agent, its `mind`, which answers them.
"""

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from aipo_env.agents.base import Agent, AgentReply, AgentRequest
from aipo_env.agents.forged import marked_if_forged
from aipo_env.errors import ConfigError
from aipo_env.records import CONSULT_KINDS, ConsultKind

_PARTS = {"knowledge": "Question", "reason": "Question", "verify": "Claim"}
"""The heading of the query, by role."""
HASH_DIGITS = 8
"""Hexadecimal digits of a version: enough to tell those of one agent apart."""
_HEADING = re.compile(
    r"^[ \t]*(?:Problem|Work so far|Question|Claim)[ \t]*:[ \t]*$", re.M | re.I
)
"""A line that reads like the heading of a part of the question: `Claim:`."""


def answerer_of(agent: Agent) -> Agent:
    """Return the agent behind a role; one that is no role answers for itself."""
    answerer: Agent = getattr(agent, "mind", agent)
    return answerer


def is_agents(kind: str) -> bool:
    """Return whether agents answer calls of this kind; if not, it names a tool."""
    return kind in CONSULT_KINDS


@dataclass(frozen=True, slots=True)
class _Role:
    """Passes `mind` what the role may see: here, all of the request."""

    mind: Agent
    kind: ClassVar[ConsultKind]

    @property
    def agent_id(self) -> str:
        """Of the role and of who answers."""
        return f"{self.kind}/{self.mind.agent_id}"

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Answer one request."""
        return await self.mind.reply(request)


class KnowledgeAgent(_Role):
    """Gives a fact or a definition.

    It sees the query alone: a fact must not depend on the problem.
    """

    kind = "knowledge"

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Answer the query."""
        return await self.mind.reply(replace(request, problem="", trace=""))


class ReasoningAgent(_Role):
    """Gives the next step of a solution, not the answer.

    It sees the problem, the trace and the question.
    """

    kind = "reason"


class VerifyAgent(_Role):
    """Says whether a claim is right, where it goes wrong and why; never the answer.

    It sees the problem, the trace and the claim. It is an agent, not a verifier: it has
    no gold.
    """

    kind = "verify"


def role_prompts(folder: str) -> dict[str, str]:
    """Return the system prompt of each role.

    Args:
        folder: One with a knowledge.md, a reason.md and a verify.md; ours if empty.

    Raises:
        ConfigError: One of them cannot be read.
    """
    ours = Path(__file__).with_name("prompts")
    home = Path(folder).expanduser() if folder else ours
    # All of them, though not each is used: a wrong folder is found out at once.
    return {kind: _read(home / f"{kind}.md") for kind in CONSULT_KINDS}


def role_question(request: AgentRequest) -> str:
    """Return a request as the user's message."""
    parts = (
        ("Problem", request.problem),
        ("Work so far", _within(request.trace)),
        (_PARTS[request.kind], _within(marked_if_forged(request.query))),
    )
    return "\n\n".join(f"{name}:\n{text}" for name, text in parts if text)


def _within(text: str) -> str:
    """Return words of the policy in which no line reads like a heading of ours.

    With a line `Claim:` it could put another claim before the agent than the one that
    the record has.
    """
    return _HEADING.sub(r"| \g<0>", text)


def version_hash(*parts: Any) -> str:
    """Return eight hexadecimal digits that name a version of an agent.

    Args:
        parts: What makes it this version: its prompts, its sampling, its texts.
    """
    text = json.dumps(parts, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]


def _read(path: Path) -> str:
    """Return the text of a prompt's file."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"agents: the prompt {path} cannot be read: {error}."
        ) from error
