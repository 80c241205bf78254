"""The settings of the objective, checked when they are made."""

from dataclasses import dataclass, replace
from typing import Annotated, Any

from aipo_env import ConfigError, Registry, suggest
from aipo_learner.settings.checks import (
    Bounds,
    NameOrSpec,
    NotNegative,
    OneOf,
    OptionalCount,
    Positive,
    check_settings,
)
from aipo_learner.settings.teacher import read_teacher

CLIP_OF_BASE: dict[str, tuple[float, float]] = {
    "grpo": (0.2, 0.2),
    "dr_grpo": (0.2, 0.2),
    "dapo": (0.2, 0.28),
    # It has no clip.
    "rloo": (0.0, 0.0),
    "gspo": (3e-4, 4e-4),
    "cispo": (0.2, 0.28),
    "gppo": (0.2, 0.28),
}
"""The base algorithms, each with its own `clip_low` and `clip_high`."""

BASELINES = ("split", "union", "per_mode")
"""Whom a rollout is compared with: `learn/advantages.py` says what each means."""

AGENT_RULES = ("floored", "masked", "on_policy", "plain_is", "luffy", "mixture")
"""How strongly agents' tokens are pushed: functions in `learn/agent_rules.py`."""

BASES = Registry(
    "base",
    {
        name: f"aipo_learner.learn.base_algorithms:{name.upper()}"
        for name in CLIP_OF_BASE
    },
    check="aipo_learner.learn.checker:check_base",
    package="aipo_learner",
)
"""The base algorithms that a spec may name."""
AGENT_TOKEN_RULES = Registry(
    "agent_rule",
    {name: f"aipo_learner.learn.agent_rules:{name}" for name in AGENT_RULES},
    check="aipo_learner.learn.checker:check_agent_rule",
    package="aipo_learner",
)
"""The rules for agents' tokens that a spec may name."""
LEARNER_REGISTRIES = (AGENT_TOKEN_RULES, BASES)
"""All of the learner's, each with our own components."""

SAMPLER_RATIOS = ("token", "sequence", "geometric")
"""What a weight against another sampler may be of."""

OBSERVATION_AUTHORS = ("tool", "env", "agent")
"""Whose tokens may be learned as observations: `observation_mask` in `learn/rows.py`.
"""

TEACHER_WHEN = ("all", "correct", "failed")
"""In which episodes a teacher scores the policy's tokens: `is_asked` in
`learn/teaching.py`.
"""

MAX_POLICY_TOKENS = 1024
"""Dr. GRPO's constant where neither the settings nor a run's rules say another."""

_OF_TEACHERS: dict[str, Any] = {
    "teacher_weight": 1.0,
    "teacher_when": "all",
    "advantage_weight": 1.0,
}
"""What is said of a teacher, as it is where there is none."""


@dataclass(frozen=True)
class ObjectiveConfig:
    """Which loss to compute.

    Raises ConfigError naming the field, its value and the valid ones.
    """

    base: Annotated[str, NameOrSpec(BASES)] = "grpo"
    """Algorithm for the policy's own tokens: grpo, dr_grpo, dapo, rloo, gspo, cispo or
    gppo (docs/objective.md), or one of your own, "module:algorithm" (docs/plugins.md).
    """
    agent_rule: Annotated[str, NameOrSpec(AGENT_TOKEN_RULES)] = "floored"
    """How strongly agents' tokens are pushed: floored, masked (not at all), on_policy,
    plain_is, luffy or mixture (docs/objective.md), or by a rule of your own,
    "module:rule" (docs/plugins.md).
    """
    floor: NotNegative = 0.1
    """Least weight of an agent's token under floored, which is otherwise the policy's
    probability of it, over the agent's own where that is known.
    """
    ceiling: Positive = 1.0
    """Largest weight of an agent's token under floored."""
    agent_weight: NotNegative = 1.0
    """Multiplies the agents' term of the loss (lambda)."""
    negative_weight: NotNegative = 0.0
    """Multiplies the agents' tokens of episodes with a negative advantage (kappa)."""
    clip_low: Annotated[float | None, Bounds("a number from 0 to 1", 0, 1)] = None
    """How far below 1 a ratio may fall before it is clipped. If not given, the base
    algorithm's own: 0.2, and 0.0003 for gspo; rloo has no clip.
    """
    clip_high: Annotated[float | None, Bounds("a number, 0 or more")] = None
    """How far above 1 a ratio may rise before it is clipped. If not given, the base
    algorithm's own: 0.2 for grpo and dr_grpo, 0.28 for dapo, cispo and gppo, 0.0004 for
    gspo; rloo has no clip.
    """
    kl_coef: NotNegative = 0.0
    """Multiplies the penalty for leaving the policy that the run began with (k3). 0:
    none, and that policy is not kept in memory.
    """
    entropy_coef: NotNegative = 0.0
    """Multiplies the bonus for the entropy of the policy's tokens."""
    luffy_gamma: Positive = 0.1
    """Gamma of luffy, which shapes a probability x to x / (x + gamma) (arXiv
    2504.14945).
    """
    max_policy_tokens: OptionalCount = None
    """What dr_grpo divides a sum of tokens by. If not given, the limit of the same name
    in the rules of the run's episodes; outside of a run 1,024.
    """
    sampler_ratio_cap: Positive = 2.0
    """Largest importance weight of what older weights or another engine sampled."""
    sampler_ratio: Annotated[str | None, OneOf(SAMPLER_RATIOS)] = None
    """What has such a weight: each token; the sequence, by the product over an
    episode's own tokens; or, geometric, by their mean. If not given, geometric for
    gspo, else token.
    """
    observation_weight: NotNegative = 0.0
    """Multiplies the cross-entropy of what the policy was shown: observation tokens
    (arXiv 2605.24517, with 0.05). 0: none of it is computed.
    """
    observation_authors: tuple[str, ...] = ("tool",)
    """Whose tokens these are, any of tool (results of tools), env (notices, and the
    wrappers of results and replies) and agent (replies; only where agent_rule is
    masked).
    """
    observation_episodes: Annotated[str, OneOf(("all", "correct"))] = "all"
    """In which episodes they are learned: all, wrong ones and those of groups without a
    gradient included, or the correct ones of these.
    """
    teacher: str = ""
    """Who scores the policy's own tokens: a Hugging Face model (its folder or hub name,
    with the policy's vocabulary); vllm:http://HOST:8000; or the policy itself, shown in
    its prompt what the task's agents said, the verdict or the solution: self:replies,
    self:verdict, self:answer. A token's advantage is then advantage_weight * A +
    teacher_weight * (log q - log o), q the teacher's probability of it and o the
    policy's own (docs/objective.md). "": nobody.
    """
    teacher_weight: NotNegative = 1.0
    """Multiplies what the teacher says (beta). 0: it is not asked."""
    teacher_when: Annotated[str, OneOf(TEACHER_WHEN)] = "all"
    """Which episodes it scores: all, groups without a gradient included; the correct
    ones of these; or the failed, whose advantage is 0 or less.
    """
    advantage_weight: NotNegative = 1.0
    """Multiplies the advantage where there is a teacher (g). 0: the teacher alone
    teaches.
    """

    def __post_init__(self) -> None:
        check_settings(self, "config: objective.")
        self._check_observations()
        self._check_teacher()
        if self.floor > self.ceiling:
            raise ConfigError(
                f"config: objective.floor={self.floor} must be at most"
                f" ceiling={self.ceiling}."
            )

    def _check_observations(self) -> None:
        """Raise ConfigError for authors that cannot be observed, or are twice learned.

        A list, as JSON has it, becomes a tuple.
        """
        # From a file it may be anything.
        authors: Any = self.observation_authors
        if not isinstance(authors, list | tuple):
            raise ConfigError(
                f"config: objective.observation_authors={authors!r} must be a list of"
                f" names. {suggest(str(authors), OBSERVATION_AUTHORS)}"
            )
        for author in authors:
            if author not in OBSERVATION_AUTHORS:
                raise ConfigError(
                    f"config: objective.observation_authors has {author!r}."
                    f" {suggest(str(author), OBSERVATION_AUTHORS)}"
                )
        # Frozen, so that only this way is left to give a field its own type.
        object.__setattr__(self, "observation_authors", tuple(authors))
        if self.observation_weight and not authors:
            raise ConfigError(
                f"config: objective.observation_weight={self.observation_weight} with"
                " observation_authors=(), which leaves nothing to learn. Name some:"
                f" {', '.join(OBSERVATION_AUTHORS)}."
            )
        if "agent" in authors and self.agent_rule != "masked":
            raise ConfigError(
                "config: objective.observation_authors has 'agent', whose tokens"
                f" agent_rule={self.agent_rule!r} weighs already: a token is learned in"
                " one way. Set agent_rule to 'masked', or leave 'agent' out."
            )

    def _check_teacher(self) -> None:
        """Raise ConfigError for a teacher that is none, or what would do nothing."""
        if self.teacher != "":
            read_teacher(self.teacher)
            if not self.teacher_weight and not self.advantage_weight:
                raise ConfigError(
                    "config: objective.advantage_weight=0 with teacher_weight=0 leaves"
                    " nothing to learn from. Raise one of them."
                )
            return
        for name, unset in _OF_TEACHERS.items():
            value = getattr(self, name)
            if value != unset:
                raise ConfigError(
                    f"config: objective.{name}={value!r} without a teacher. Set"
                    " objective.teacher, or leave it out."
                )

    @property
    def has_teacher(self) -> bool:
        """Whether a teacher scores the policy's own tokens."""
        return self.teacher != "" and self.teacher_weight > 0

    def without_teacher(self) -> "ObjectiveConfig":
        """Return the same loss by the advantage alone."""
        return replace(self, teacher="", **_OF_TEACHERS)

    @property
    def token_places(self) -> int:
        """Dr. GRPO's constant."""
        return self.max_policy_tokens or MAX_POLICY_TOKENS

    def clip_bounds(
        self, own: tuple[float, float] | None = None
    ) -> tuple[float, float]:
        """Return `clip_low` and `clip_high`; the base algorithm's own where None.

        Args:
            own: Those of an algorithm that is none of ours; None: of ours.
        """
        own_low, own_high = CLIP_OF_BASE[self.base] if own is None else own
        low = own_low if self.clip_low is None else self.clip_low
        high = own_high if self.clip_high is None else self.clip_high
        return low, high
