"""Knobs on the help of any world: how much of it is chatter, is wrong, is long.

`KnobsAgent` asks the agent of a world and changes what it says. With every knob at its
harmless end the reply is the agent's own, to the bit.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from aipo_env import (
    AGENTS,
    AgentReply,
    AgentRequest,
    ConfigError,
    TaskSource,
    parse_spec,
)
from experiments.worlds.skill import Draw, check_share, drawing

PHRASES = (
    "Of course.",
    "I am glad to help.",
    "Thank you for asking.",
    "Let us look together.",
    "As you can see,",
    "What a fine question.",
    "Please go on slowly.",
    "It may help to recall,",
    "In other words,",
    "We go on from here.",
    "I hope this helps.",
    "That is to say,",
    "Here is what I think:",
    "No need to hurry.",
    "You are doing well.",
    "Many people ask this.",
)
"""Politeness, restatement and style. No digit and no word of a world is in it, so that
none of it can be, or hold, an answer.
"""
TAKEN_BACK = 0.5
"""Share of the misleading replies that take it back: these episodes may end right."""
MAX_CHATTER = 0.95
"""A larger share would leave hardly any room for what is to be learnt."""
MAX_LENGTH = 8
"""Most times that a reply says what it says."""

_PIECE = re.compile(r"[A-Za-z]+|\d|\s|[^\sA-Za-z\d]")
"""What length is counted in: a word, a digit, a blank or a sign, as the tokenizers of
small policies cut text.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """How help is spoiled, from harmless to harsh.

    Args:
        chatter: Share of a reply that says nothing, 0 to 0.95, in words, digits, blanks
            and signs, on the average.
        wrong: Probability that a reply misleads. Half of these take it back at once:
            `zura=#11#22;no zura=#58#13;`
        length: How many times a reply says what it says.

    Raises:
        ConfigError: A value is out of range; the message names it.
    """

    chatter: float = 0.0
    wrong: float = 0.0
    length: int = 1

    def __post_init__(self) -> None:
        check_share("knobs: chatter", self.chatter)
        check_share("knobs: wrong", self.wrong)
        if self.chatter > MAX_CHATTER:
            raise ConfigError(
                f"knobs: chatter={self.chatter!r} must be at most {MAX_CHATTER}."
            )
        is_whole = isinstance(self.length, int) and not isinstance(self.length, bool)
        if not is_whole or not 1 <= self.length <= MAX_LENGTH:
            raise ConfigError(
                f"knobs: length={self.length!r} must be a whole number, 1 to"
                f" {MAX_LENGTH}."
            )

    @property
    def are_harmless(self) -> bool:
        """Whether every reply stays as it is."""
        return self == Knobs()


HARMLESS = Knobs()


def dressed(truth: str, lie: str, knobs: Knobs, rng: np.random.Generator) -> str:
    """Return what is said in place of a reply.

    Args:
        truth: The reply.
        lie: One that misleads; the same as `truth` where nothing could.
        knobs: How it is spoiled.
        rng: Draws whether it is, and the chatter.
    """
    # All draws, whatever they are for: one knob must not move another's.
    misleads, takes_back = rng.random(2) < (knobs.wrong, TAKEN_BACK)
    text = truth
    if misleads and lie != truth:
        text = f"{lie}no {truth}" if takes_back else lie
    text *= knobs.length
    if not knobs.chatter:
        return text
    num_pieces = len(_PIECE.findall(text))
    num_chatter = round(num_pieces * knobs.chatter / (1 - knobs.chatter))
    phrases = _phrases(num_chatter, rng)
    cut = int(rng.integers(len(phrases) + 1))
    return " ".join([*phrases[:cut], text, *phrases[cut:]])


def _phrases(num_pieces: int, rng: np.random.Generator) -> Sequence[str]:
    """Draw phrases that come to so many pieces on the average."""
    phrases: list[str] = []
    left = num_pieces
    while left > 0:
        phrase = PHRASES[int(rng.integers(len(PHRASES)))]
        # The blank that sets it off counts as well.
        cost = len(_PIECE.findall(phrase)) + 1
        # Phrases stay whole: the last one comes as often as a part of it is due.
        if rng.random() < left / cost:
            phrases.append(phrase)
        left -= cost
    return phrases


@dataclass(eq=False)
class KnobsAgent:
    """Passes requests on to the agent of a world, and spoils the replies.

    Which ones and how is drawn from the request's seed. The agent is asked for a truth
    and for a lie: its spec must take the option `wrong`, as those of both worlds do.

    Args:
        agent: Its spec; that of the source's own agent if not given.
        chatter, wrong, length: See `Knobs`.

    Raises:
        ConfigError: There is no such agent, it cannot mislead, or a value is out of
            range.
    """

    source: TaskSource
    agent: Any = None
    chatter: float = 0.0
    wrong: float = 0.0
    length: int = 1
    knobs: Knobs = field(init=False)

    def __post_init__(self) -> None:
        self.knobs = Knobs(chatter=self.chatter, wrong=self.wrong, length=self.length)
        spec = self.agent
        if spec is None:
            spec = getattr(self.source, "default_agents", "none")
        if not isinstance(spec, str | Mapping):
            raise ConfigError(
                f"knobs: agent={spec!r} must be a spec, from which a second agent that"
                " misleads can be made."
            )
        name, options = parse_spec(spec, "knobs: agent")
        lying = {**options, "type": name, "wrong": 1.0}
        self._teller = AGENTS.build(spec, source=self.source)
        self._liar = AGENTS.build(lying, source=self.source)
        self.minds = [self._teller]
        inner = self._teller.agent_id
        self.agent_id = inner if self.knobs.are_harmless else f"knobs/{inner}"

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Ask, and spoil the reply or not."""
        truth: AgentReply = await self._teller.reply(request)
        if self.knobs.are_harmless:
            return truth
        lie: AgentReply = await self._liar.reply(request)
        rng = drawing(Draw.KNOBS, request.seed)
        text = dressed(truth.text, lie.text, self.knobs, rng)
        # Its tokens are no longer those that were sampled.
        return replace(
            truth, text=text, tokens=len(text.split()), token_ids=(), logprobs=()
        )
