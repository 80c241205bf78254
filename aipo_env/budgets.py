"""What calls and replies are counted as, and when a budget of them is spent."""

from collections.abc import Mapping

from aipo_env.errors import ConfigError, check_number, suggest
from aipo_env.records import CONSULT_KINDS

SPENT = ("calls", "tokens", "usd")
"""What a budget counts: attempts to ask, tokens of replies, and what agents say they
cost, in US dollars.
"""


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
