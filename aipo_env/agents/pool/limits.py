"""What an agent pool allows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from aipo_env.errors import (
    ConfigError,
    check_choice,
    check_number,
    check_whole,
    suggest,
)
from aipo_env.records import CONSULT_KINDS

SPENT = ("calls", "tokens", "usd")
"""What a budget counts: attempts to ask, tokens of replies, and what agents say they
cost, in US dollars.
"""
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


def check_budget(
    what: str, budget: Mapping[str, float], metrics: tuple[str, ...] = SPENT
) -> None:
    """Raise ConfigError unless a budget maps metrics to limits.

    Args:
        what: What messages call the budget.
        budget: From a metric, "tokens", or that of one kind, "verify/tokens", to a
            number from 0 up.
        metrics: Those that there are.
    """
    if not isinstance(budget, Mapping):
        raise ConfigError(
            f'{what}={budget!r} must be an object like {{"verify/tokens": 1000}}.'
        )
    for name, limit in budget.items():
        kind, slash, metric = str(name).rpartition("/")
        # "/tokens" is of no kind.
        lacks_kind = bool(slash) and not kind
        if metric not in metrics or lacks_kind:
            raise ConfigError(f"{what} has {name!r}. {suggest(metric, metrics)}")
        check_number(f"{what}[{name!r}]", limit)


def counted(kind: str, metric: str) -> tuple[str, ...]:
    """Return the names under which something is counted: "verify/usd" and "usd".

    What tools take is not counted with the agents': tools are part of the task.
    """
    of_kind = f"{kind}/{metric}"
    if kind in CONSULT_KINDS:
        return (of_kind, metric)
    return (of_kind,)


def spent_limit(
    budget: Mapping[str, float | None], spent: Mapping[str, float], kind: str
) -> str:
    """Return the limit that forbids another call of a role or tool; empty: none does.

    Args:
        budget: Limits by the names of `counted`; None is no limit.
        spent: What was taken, by the same names.
        kind: The role, or the tool's name.
    """
    for metric in SPENT:
        for name in counted(kind, metric):
            limit = budget.get(name)
            if limit is not None and spent.get(name, 0) >= limit:
                return name
    return ""
