"""Does a rule or a base algorithm of your own hold what ours hold?

    def test_my_rule():
        pushes = check_agent_rule("my_package.losses:my_rule")

Each function takes one, or a spec that names one, and raises AssertionError that says
what is broken and how to mend it. What cannot be found at all raises ConfigError. A run
that names one of your own makes the same checks before it loads anything.
"""

import math
from collections.abc import Callable
from operator import itemgetter
from typing import Any, NamedTuple, NoReturn, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad as _pad

from aipo_env import ConfigError
from aipo_learner.learn.agent_rules import (
    AGENT_RULES,
    AgentRule,
    AgentTokens,
    find_agent_rule,
)
from aipo_learner.learn.base_algorithms import (
    BASE_ALGORITHMS,
    BaseAlgorithm,
    PolicyTokens,
    Surrogate,
    bounded_exp,
    find_base,
)
from aipo_learner.settings.objective import SAMPLER_RATIOS, ObjectiveConfig

PROBABILITIES = (1e-4, 1e-3, 1e-2, 0.05, 0.1, 0.3, 0.6, 0.9, 0.99)
"""Of the tokens in the table of pushes."""
EXTREME_LOG_RATIO = 80.0
"""Nats, of either sign, at which everything must be finite."""
LOGPROBS = (-200.0, -EXTREME_LOG_RATIO, -10.0, -1.0, -1e-3, 0.0, 2e-7)
"""From a probability that underflows to one that rounding has put above 1."""
LOG_RATIOS = (-EXTREME_LOG_RATIO, -1.0, 0.0, 0.1, EXTREME_LOG_RATIO)
"""Of the policy now to itself before, or to the agent."""
DTYPES = (torch.float32, torch.float64)
"""What losses are computed in."""
NUM_PADS = 3
"""Columns of padding that must change nothing."""
MAX_TOKENS_PER_EPISODE = 50
"""What is given for Dr. GRPO's constant."""
TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-9}
"""Relative and absolute: the same sum in another order differs by rounding."""
_SEED = 0
Tokens = TypeVar("Tokens", AgentTokens, PolicyTokens)
"""What is given to a rule, or to a base."""


def check_agent_rule(rule: str | AgentRule) -> dict[float, float]:
    """Check a rule for agents' tokens.

    It returns a coefficient of the shape and dtype of the tokens, finite at log-ratios
    of +-80 and where a mask hides a token, without a gradient, of each token by itself
    (so that padding and microbatches change nothing), equal for equal tokens, and
    leaves what it is given as it is.

    Args:
        rule: The rule, or the spec that names it.

    Returns:
        The push on a token with A = 1, by the policy's probability of it, where the
        policy is as it was and the agent's own probability is unknown.

    Raises:
        AssertionError: It breaks one of these.
        ConfigError: There is no such rule.
    """
    who = f"agent_rule {rule if isinstance(rule, str) else _name(rule)!r}"
    function = find_agent_rule(rule) if isinstance(rule, str) else rule
    if not callable(function):
        raise ConfigError(f"{who}: it must be a function that takes AgentTokens.")
    for dtype in DTYPES:
        tokens = _agent_tokens_of_all_kinds(dtype)
        coefficient = _coefficient(who, function, tokens)
        again = _coefficient(who, function, tokens)
        _require(
            _is_same(coefficient, again),
            f"{who}: equal tokens get unequal coefficients",
            "Compute it from the tokens alone: no draw, and nothing that is kept.",
        )
        hidden = _agent_tokens(*_row(dtype, [0.0], [0.0], [0.0], [0.0]))
        of_hidden = _coefficient(who, function, hidden)
        _require(
            of_hidden.isfinite().all(),
            f"{who}: of a token that a mask hides, given as p = ratio = agent_ratio ="
            f" 1, the coefficient is {of_hidden.item()}, and 0 times that is no number",
            "Return a finite number for p = 1.",
        )
        _require_finite(who, "coefficient", coefficient, tokens)
        _check_rule_is_of_each_token(who, function, tokens, coefficient)
    table = _row(torch.float64, *_table_columns())
    pushes = _coefficient(who, function, _agent_tokens(*table))
    return dict(zip(PROBABILITIES, pushes[0].tolist(), strict=True))


def check_base(base: str | BaseAlgorithm) -> dict[float, float]:
    """Check a base algorithm for the policy's own tokens.

    Its surrogate is a tensor of the shape and dtype of the tokens, 0 with its gradient
    where a mask hides a token or the advantage is 0, finite at log-ratios of +-80; its
    push is the gradient and carries none itself; padding, and other rows beside an
    episode's, change nothing; equal tokens get equal values and stay as they are. The
    normalizer of a batch is the sum of its rows', whatever their padding.

    Args:
        base: The algorithm, or the spec that names it.

    Returns:
        The push on a token with A = 1, by the policy's probability of it, where the
        policy is as it was.

    Raises:
        AssertionError: It breaks one of these.
        ConfigError: There is no such algorithm.
    """
    who = f"base {base if isinstance(base, str) else 'given'!r}"
    given: Any = find_base(base) if isinstance(base, str) else base
    if not isinstance(given, BaseAlgorithm):
        kind = type(given).__name__
        raise ConfigError(f"{who} is {kind}: it must be a BaseAlgorithm.")
    algorithm: BaseAlgorithm = given
    _check_fields(who, algorithm)
    _check_normalizer(who, algorithm)
    for dtype in DTYPES:
        ordinary = _policy_tokens(dtype, algorithm)
        made = _measured(who, algorithm, ordinary)
        again = _measured(who, algorithm, ordinary)
        _require(
            all(map(_is_same, made, again)),
            f"{who}: equal tokens get unequal values",
            "Compute them from the tokens alone: no draw, and nothing that is kept.",
        )
        _check_surrogate(who, ordinary, made, TOLERANCES[dtype])
        _check_base_is_of_each_episode(who, algorithm, ordinary, made)
        for sign in (1.0, -1.0):
            extreme = _extreme_policy_tokens(dtype, algorithm, sign)
            for name, value in _measured(who, algorithm, extreme)._asdict().items():
                _require_finite(who, name, value, extreme)
    logprobs = torch.tensor([PROBABILITIES], dtype=torch.float64).log()
    everything = torch.ones_like(logprobs, dtype=torch.bool)
    low, high = algorithm.clip
    tokens = PolicyTokens(
        logprobs, logprobs, torch.ones_like(logprobs), everything, low, high
    )
    pushes = _measured(who, algorithm, tokens).push
    return dict(zip(PROBABILITIES, pushes[0].tolist(), strict=True))


def check_objective(objective: ObjectiveConfig) -> None:
    """Check what of a loss is none of ours, before anything is loaded for it.

    Args:
        objective: Of the run.

    Raises:
        ConfigError: A rule or a base cannot be found, or breaks what ours hold.
    """
    try:
        if objective.agent_rule not in AGENT_RULES:
            check_agent_rule(objective.agent_rule)
        if objective.base not in BASE_ALGORITHMS:
            check_base(objective.base)
    except AssertionError as error:
        raise ConfigError(f"config: objective: {error}") from error


class _Measured(NamedTuple):
    """What a base gives for tokens, and the gradient of its sum; all are detached."""

    objective: Tensor
    push: Tensor
    clipped: Tensor
    gradient: Tensor


def _require(holds: object, fault: str, advice: str) -> None:
    """Raise AssertionError with the fault and the advice, unless something holds."""
    if not holds:
        raise AssertionError(f"{fault}. {advice}")


def _name(rule: Any) -> str:
    return str(getattr(rule, "__qualname__", rule))


def _raised(who: str, error: BaseException, tokens: Any) -> NoReturn:
    """Raise AssertionError for what a function raised."""
    shape = list(tokens[0].shape)
    raise AssertionError(
        f"{who}: given tokens of shape {shape}, it raises {type(error).__name__}:"
        f" {error}. It takes one {type(tokens).__name__}, whatever its shape."
    ) from error


def _like(what: str, value: Any, like: Tensor, dtype: torch.dtype) -> None:
    """Raise AssertionError unless a value is a tensor of a shape and dtype."""
    _require(
        isinstance(value, Tensor),
        f"{what} is {type(value).__name__}",
        "Return a tensor.",
    )
    _require(
        value.shape == like.shape,
        f"{what} has shape {list(value.shape)}",
        f"Return one number for each token: {list(like.shape)}.",
    )
    _require(
        value.dtype == dtype, f"{what} is {value.dtype}", f"Return {dtype} for {dtype}."
    )


def _require_finite(who: str, name: str, value: Tensor, tokens: Any) -> None:
    """Raise AssertionError where a number is not finite, with the token it is of."""
    bad = ~value.isfinite()
    if not bad.any():
        return
    place = tuple(bad.nonzero()[0].tolist())
    token = {
        key: column[place].item()
        for key, column in tokens._asdict().items()
        if isinstance(column, Tensor)
    }
    raise AssertionError(
        f"{who}: {name} is {value[place].item()} at {token}. Bound it: log-ratios of"
        f" +-{EXTREME_LOG_RATIO:.0f}, and probabilities of 0 and 1, must give finite"
        " numbers."
    )


def _require_kept(who: str, tokens: Any, before: list[Tensor]) -> None:
    """Raise AssertionError where a function wrote into what it was given."""
    now = [value for value in tokens if isinstance(value, Tensor)]
    _require(
        all(torch.equal(new, old) for new, old in zip(now, before, strict=True)),
        f"{who}: it changes the tokens that it is given",
        "Leave them as they are: use no function that ends in _.",
    )


def _each(tokens: Tokens, change: Callable[[Tensor], Tensor]) -> Tokens:
    """Return tokens of which every tensor is changed."""
    columns = tokens._asdict().items()
    changed: dict[str, Any] = {
        name: change(old) for name, old in columns if isinstance(old, Tensor)
    }
    return tokens._replace(**changed)


def _copies(tokens: Any) -> list[Tensor]:
    return [value.clone() for value in tokens if isinstance(value, Tensor)]


def _row(dtype: torch.dtype, *columns: Any) -> list[Tensor]:
    """Return tensors of one row each."""
    return [torch.tensor([column], dtype=dtype) for column in columns]


def _table_columns() -> list[list[float]]:
    """Return log p, log p / p_old, log p / p_agent and A of the table's tokens."""
    logprobs = [math.log(p) for p in PROBABILITIES]
    nothing = [0.0] * len(logprobs)
    ones = [1.0] * len(logprobs)
    # An agent's unknown probability is taken for 1.
    return [logprobs, nothing, logprobs, ones]


def _agent_tokens(
    logprobs: Tensor, log_ratio: Tensor, agent_log_ratio: Tensor, advantages: Tensor
) -> AgentTokens:
    """Return tokens as the loss gives them to a rule, with the default settings."""
    defaults = ObjectiveConfig()
    full_floor = torch.full_like(logprobs, defaults.floor)
    return AgentTokens(
        p=logprobs.exp(),
        ratio=bounded_exp(log_ratio),
        agent_ratio=bounded_exp(agent_log_ratio),
        floor=torch.where(advantages < 0, 0.0, full_floor),
        ceiling=defaults.ceiling,
        gamma=defaults.luffy_gamma,
    )


def _agent_tokens_of_all_kinds(dtype: torch.dtype) -> AgentTokens:
    """Return two rows, of either sign of A: probabilities by ratios by agents' ratios.

    Each row has them all, in an order of its own, so that neighbours differ.
    """
    grid = torch.cartesian_prod(
        torch.tensor(LOGPROBS, dtype=dtype),
        torch.tensor(LOG_RATIOS, dtype=dtype),
        torch.tensor(LOG_RATIOS, dtype=dtype),
    )
    rng = torch.Generator().manual_seed(_SEED)
    orders = [torch.randperm(len(grid), generator=rng) for _ in range(2)]
    logprobs, log_ratio, agent_log_ratio = torch.stack(
        [grid[order] for order in orders], 1
    ).permute(2, 1, 0)
    signs = torch.tensor([[1.0], [-1.0]], dtype=dtype)
    return _agent_tokens(
        logprobs, log_ratio, agent_log_ratio, signs.expand(logprobs.shape)
    )


def _coefficient(who: str, rule: AgentRule, tokens: AgentTokens) -> Tensor:
    """Return a rule's coefficient, once it is known to be one."""
    before = _copies(tokens)
    try:
        coefficient: Any = rule(tokens)
    except (Exception, SystemExit) as error:
        _raised(who, error, tokens)
    _require_kept(who, tokens, before)
    _like(f"{who}: its coefficient", coefficient, tokens.p, tokens.p.dtype)
    _require(
        not coefficient.requires_grad,
        f"{who}: its coefficient carries a gradient",
        "Return it detached: the gradient of a token is that of log p alone.",
    )
    returned: Tensor = coefficient
    return returned


def _check_rule_is_of_each_token(
    who: str, rule: AgentRule, tokens: AgentTokens, coefficient: Tensor
) -> None:
    """Raise AssertionError where a coefficient depends on the tokens beside it."""
    # As the loss shows a token that a mask hides.
    padded = _each(tokens, lambda value: _pad(value, (0, NUM_PADS), value=1.0))
    padded = padded._replace(
        floor=_pad(tokens.floor, (0, NUM_PADS), value=ObjectiveConfig().floor)
    )
    width = coefficient.shape[1]
    of_padded = _coefficient(who, rule, padded)[:, :width]
    _require(
        _is_close(of_padded, coefficient),
        f"{who}: padding changes the coefficients of the tokens before it",
        "Compute each token's from that token: no sum, mean or maximum over others.",
    )
    for row, column in torch.ones_like(coefficient).nonzero().tolist():
        place = (slice(row, row + 1), slice(column, column + 1))
        alone = _each(tokens, itemgetter(place))
        _require(
            _is_close(_coefficient(who, rule, alone), coefficient[place]),
            f"{who}: a token's coefficient depends on the tokens beside it, so that"
            " microbatches would change the loss",
            "Compute each token's from that token alone.",
        )


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Return whether tensors are equal, NaN being equal to NaN."""
    return torch.equal(one.nan_to_num(), other.nan_to_num())


def _is_close(one: Tensor, other: Tensor) -> bool:
    tolerance = TOLERANCES[one.dtype]
    return torch.allclose(one, other, rtol=tolerance, atol=tolerance)


def _check_fields(who: str, algorithm: BaseAlgorithm) -> None:
    """Raise AssertionError for a field that is not of its type."""
    for name in ("averages_episode", "divides_by_std", "leaves_out_itself"):
        value = getattr(algorithm, name)
        _require(
            isinstance(value, bool), f"{who}: {name} is {value!r}", "Use True or False."
        )
    _require(
        algorithm.sampler_ratio in SAMPLER_RATIOS,
        f"{who}: sampler_ratio is {algorithm.sampler_ratio!r}",
        f"Use one of {', '.join(SAMPLER_RATIOS)}.",
    )
    clip: Any = algorithm.clip
    is_pair = isinstance(clip, tuple) and len(clip) == 2
    _require(
        is_pair
        and all(isinstance(bound, int | float) for bound in clip)
        and 0 <= clip[0] <= 1
        and 0 <= clip[1] < math.inf,
        f"{who}: clip is {clip!r}",
        "Use two numbers: how far below 1, from 0 to 1, and how far above.",
    )


def _policy_tokens(dtype: torch.dtype, algorithm: BaseAlgorithm) -> PolicyTokens:
    """Return episodes of different lengths; the third has no advantage, the last no
    token.

    They are made as the loss makes them: 0 wherever the mask is False.
    """
    rng = torch.Generator().manual_seed(_SEED)
    mask = torch.tensor(
        [
            [False, True, True, False, True, True],
            [True, True, False, False, False, False],
            [True, False, True, True, True, True],
            [False, True, True, True, False, False],
            [False, False, False, False, False, False],
        ]
    )
    draws = torch.randn(2, *mask.shape, generator=rng, dtype=dtype)
    logprobs = -draws[0].abs() - 0.1
    old_logprobs = logprobs + 0.4 * draws[1]
    rewards = torch.tensor([1.0, -0.7, 0.0, 0.5, 1.0], dtype=dtype)
    advantages = rewards[:, None].expand(mask.shape)
    return PolicyTokens(
        torch.where(mask, logprobs, 0.0),
        torch.where(mask, old_logprobs, 0.0),
        torch.where(mask, advantages, 0.0),
        mask,
        *algorithm.clip,
    )


def _extreme_policy_tokens(
    dtype: torch.dtype, algorithm: BaseAlgorithm, sign: float
) -> PolicyTokens:
    """Return two episodes, of one and of two tokens, at extreme log-ratios.

    In the last their mean, too, is extreme.
    """
    extreme = EXTREME_LOG_RATIO
    logprobs = torch.tensor([[-1e-3, 0.0], [-extreme - 1, -extreme - 1]], dtype=dtype)
    mask = torch.tensor([[True, False], [True, True]])
    old = torch.where(logprobs > -1, logprobs - extreme, logprobs + extreme)
    return PolicyTokens(
        torch.where(mask, logprobs, 0.0),
        torch.where(mask, old, 0.0),
        torch.where(mask, sign * torch.ones_like(old), 0.0),
        mask,
        *algorithm.clip,
    )


def _measured(who: str, algorithm: BaseAlgorithm, tokens: PolicyTokens) -> _Measured:
    """Return a base's surrogate and its gradient, once it is known to be one."""
    logprobs = tokens.logprobs.clone().requires_grad_()
    given = tokens._replace(logprobs=logprobs)
    before = _copies(given)
    try:
        surrogate: Any = algorithm.surrogate(given)
    except (Exception, SystemExit) as error:
        _raised(who, error, tokens)
    _require_kept(who, given, before)
    _require(
        isinstance(surrogate, Surrogate),
        f"{who}: its surrogate returns {type(surrogate).__name__}",
        "Return a Surrogate: objective, push and clipped.",
    )
    _like(f"{who}: objective", surrogate.objective, logprobs, logprobs.dtype)
    _like(f"{who}: push", surrogate.push, logprobs, logprobs.dtype)
    _like(f"{who}: clipped", surrogate.clipped, logprobs, torch.bool)
    _require(
        not surrogate.push.requires_grad,
        f"{who}: push carries a gradient",
        "Return it detached: it is only reported.",
    )
    no_gradient = f"{who}: objective has no gradient, so that nothing would be learned"
    from_logprobs = "Compute it from tokens.logprobs."
    _require(surrogate.objective.requires_grad, no_gradient, from_logprobs)
    total = surrogate.objective.sum()
    [gradient] = torch.autograd.grad(total, logprobs, allow_unused=True)
    _require(gradient is not None, no_gradient, from_logprobs)
    return _Measured(
        surrogate.objective.detach(), surrogate.push, surrogate.clipped, gradient
    )


def _check_surrogate(
    who: str, tokens: PolicyTokens, made: _Measured, tolerance: float
) -> None:
    """Raise AssertionError where ordinary tokens get what the loss cannot use."""
    values = {name: getattr(made, name) for name in ("objective", "push", "gradient")}
    for name, value in values.items():
        _require_finite(who, name, value, tokens)
        _require(
            not value[~tokens.mask].any(),
            f"{who}: {name} is not 0 where a mask hides a token",
            "Multiply by the advantage, which is 0 there, or select by tokens.mask.",
        )
    for name, value in values.items():
        _require(
            not value[tokens.advantages == 0].any(),
            f"{who}: {name} is not 0 where the advantage is",
            "Multiply by the advantage: rows without one are left out of the passes.",
        )
    _require(
        torch.allclose(made.push, made.gradient, rtol=tolerance, atol=tolerance),
        f"{who}: push is not the gradient of objective",
        "Return dJ / dlog p of each token.",
    )


def _check_base_is_of_each_episode(
    who: str, algorithm: BaseAlgorithm, tokens: PolicyTokens, made: _Measured
) -> None:
    """Raise AssertionError where values depend on padding or on other episodes."""
    padded = _each(tokens, lambda value: _pad(value, (0, NUM_PADS)))
    width = tokens.mask.shape[1]
    of_padded = _measured(who, algorithm, padded)
    _require(
        _is_close(of_padded.objective[:, :width], made.objective)
        and _is_close(of_padded.gradient[:, :width], made.gradient),
        f"{who}: padding changes the values of the tokens before it",
        "Count tokens by tokens.mask, not by the tensor's width.",
    )
    for row in range(len(tokens.mask)):
        alone = _each(tokens, itemgetter(slice(row, row + 1)))
        of_row = _measured(who, algorithm, alone)
        _require(
            _is_close(of_row.objective, made.objective[row : row + 1])
            and _is_close(of_row.gradient, made.gradient[row : row + 1]),
            f"{who}: an episode's values depend on the episodes beside it, so that"
            " microbatches would change the loss",
            "Compute each row's from that row alone.",
        )


def _check_normalizer(who: str, algorithm: BaseAlgorithm) -> None:
    """Raise AssertionError where normalizers of rows do not add up to the batch's."""
    mask = _policy_tokens(torch.float64, algorithm).mask

    def z(of: Tensor) -> float:
        value: Any = algorithm.normalizer(of, MAX_TOKENS_PER_EPISODE)
        _require(
            isinstance(value, int | float) and 0 <= value < math.inf,
            f"{who}: its normalizer returns {value!r}",
            "Return a float: a finite number, 0 or more.",
        )
        return float(value)

    try:
        whole = z(mask)
        of_rows = sum(z(mask[row : row + 1]) for row in range(len(mask)))
        of_padded = z(_pad(mask, (0, NUM_PADS)))
    except (TypeError, RuntimeError, IndexError) as error:
        raise AssertionError(
            f"{who}: its normalizer raises {type(error).__name__}: {error}. It takes"
            " bool[batch, tokens] and max_policy_tokens."
        ) from error
    _require(
        math.isclose(whole, of_rows),
        f"{who}: its normalizer is {whole} of a batch, and {of_rows} when those of its"
        " rows are added up, as over microbatches and ranks",
        "Return a sum over rows.",
    )
    _require(
        math.isclose(whole, of_padded),
        f"{who}: its normalizer is {whole} of a batch, and {of_padded} with padding",
        "Count tokens by the mask, not by the tensor's width.",
    )
    _require(
        whole > 0,
        f"{who}: its normalizer is 0 of a batch with tokens, so that nothing would be"
        " learned",
        "Return a number above 0.",
    )
