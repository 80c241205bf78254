"""What an agent pool allows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from aipo_env.budgets import SPENT, check_budget
from aipo_env.errors import ConfigError, check_choice, check_number, check_whole

MIN_DEADLINE_S = 0.001
"""A deadline of zero would end every attempt before it began."""
MAX_QUANTILE = 0.999
"""1 would be the slowest of the last replies, which a call hardly ever outlasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLimits:
    """Limits of an agent pool.

    Args:
        concurrency: Calls in flight at once to one agent.
        rate: Calls a second to one agent; 0: any number.
        deadline_s: Seconds a single attempt may take, and the longest pause that an
            agent may ask for: a call that is to wait longer fails.
        retries: Further attempts after a failed one.
        backoff_s: Mean seconds before the first retry; doubled for each further one.
            How much of it, from half to one and a half, is drawn from the request's
            seed.
        break_after: Failed attempts in a row after which an agent is left alone for 30
            s; 0: never.
        hedge_s: Seconds after which an attempt is made a second time beside the first,
            if a place is free; the first reply counts, and what the other would have
            cost is not known. 0: never.
        hedge_quantile: The same after as long as this share of the agent's last 256
            replies took, once there are 20 of them: 0.95. 0: never.
        batch_s: Seconds for which calls to an agent that offers `reply_many(requests)`
            are gathered.
        cache: Equal questions get one reply: "memory", or a file in which replies are
            kept from run to run. They get one seed too, drawn from what is asked, so
            this changes what is sampled. Empty: off.
        max_calls: Attempts to ask agents in the whole run; None: any number. Replies
            from a journal are free.
        max_tokens: The same for tokens of replies. Calls in flight together may
            overdraw it.
        max_usd: The same for what the agents say they cost, in US dollars.
        max_per_kind: The same for single roles and tools: {"verify/calls": 1000,
            "reason/usd": 2.5}.
        when_spent: "unaided": further calls fail and the run goes on; "stop": the run
            ends with an error.
        when_lost: What follows when an agent can never answer. "stop": the run ends
            with an `AgentLost`; "unaided": it is never asked again, calls to it fail
            and the run goes on. A run that is resumed keeps to that.

    Raises:
        ConfigError: A value is out of range; the message names it.
    """

    concurrency: int = 64
    rate: float = 0.0
    deadline_s: float = 60.0
    retries: int = 2
    backoff_s: float = 0.5
    break_after: int = 20
    hedge_s: float = 0.0
    hedge_quantile: float = 0.0
    batch_s: float = 0.005
    cache: str = ""
    max_calls: int | None = None
    max_tokens: int | None = None
    max_usd: float | None = None
    max_per_kind: Mapping[str, float] = field(default_factory=dict)
    when_spent: Literal["unaided", "stop"] = "unaided"
    when_lost: Literal["stop", "unaided"] = "stop"

    def __post_init__(self) -> None:
        check_whole("agent pool: concurrency", self.concurrency, 1)
        check_whole("agent pool: retries", self.retries, 0)
        check_whole("agent pool: break_after", self.break_after, 0)
        for name in ("rate", "backoff_s", "hedge_s", "batch_s"):
            check_number(f"agent pool: {name}", getattr(self, name))
        check_number("agent pool: deadline_s", self.deadline_s, low=MIN_DEADLINE_S)
        quantile = self.hedge_quantile
        check_number("agent pool: hedge_quantile", quantile, high=MAX_QUANTILE)
        for metric in SPENT:
            limit = getattr(self, f"max_{metric}")
            if limit is not None:
                check_number(f"agent pool: max_{metric}", limit)
        check_budget("agent pool: max_per_kind", self.max_per_kind)
        # A budget may be of all kinds together; here there are fields for that.
        totals = [name for name in self.max_per_kind if "/" not in name]
        if totals:
            raise ConfigError(
                f"agent pool: max_per_kind has {totals[0]!r}; write 'verify/calls', or"
                " use max_calls."
            )
        answers = ("unaided", "stop")
        check_choice("agent pool: when_spent", self.when_spent, answers)
        check_choice("agent pool: when_lost", self.when_lost, answers)
