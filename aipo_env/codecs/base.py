"""What a codec is: how calls and replies look in text. Every codec scans in time linear in the text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aipo_env.records import Call, ConsultKind, Span

AGENT_USES: Mapping[ConsultKind, str] = {
    "knowledge": "asks for a fact or definition; write a self-contained question",
    "reason": "asks for the next step",
    "verify": "asks whether a claim of yours is right",
}
"""What each agent role is for, in the words of a prompt."""


@dataclass(frozen=True, slots=True)
class ToolSchema:
    """A tool as a policy is told of it; `parameters` is a JSON schema's "properties"."""

    name: str
    description: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a completion asks for: calls in order, or what is malformed about it; neither is an answer.

    `num_forged` counts marks of a reply that the policy wrote itself: its own words, never a reply.
    """

    calls: tuple[Call, ...] = ()
    malformed: str = ""
    num_forged: int = 0


class Codec(Protocol):
    """How calls and replies look in text. A codec is made with the tools there are: `TagsCodec(tools)`."""

    unavailable: str
    denied: str

    def instructions(self, kinds: Sequence[ConsultKind], budget: int) -> str:
        """Return the part of the prompt that explains how to consult these agents and the tools."""

    def stop_strings(self, kinds: Sequence[ConsultKind]) -> tuple[str, ...]:
        """Return the strings after which a sampler must stop."""

    def macros(self, kinds: Sequence[ConsultKind]) -> Mapping[str, tuple[str, str]]:
        """Return what opens and closes a call of each kind or tool, for tokenizers that keep it whole.

        Empty where a query has to be quoted.
        """

    def parse(self, text: str) -> Parsed:
        """Read one completion."""

    def call_spans(self, text: str) -> list[tuple[int, int]]:
        """Return where calls begin and end in a completion, markup included; none if it is malformed."""

    def render_reply(self, kind: str, body: Span) -> tuple[Span, ...]:
        """Wrap a reply; the wrapper's author is the environment. No body can end its own wrapper."""
