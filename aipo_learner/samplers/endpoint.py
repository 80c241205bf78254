"""A policy behind an endpoint as a sampler: what evaluation asks of one."""

from typing import Any

from aipo_env import (
    ChatPolicy,
    ConfigError,
    Key,
    TextVoice,
    construct,
    named_options,
)
from aipo_learner.settings.token_filter import TokenFilter

_WHAT = "policy 'openai'"
_FLAGS = ("temperature", "top_p", "top_k", "min_p")
"""What a command says of the draws, and a spec does not."""


def endpoint_sampler(
    options: dict[str, Any], temperature: float, token_filter: TokenFilter
) -> "EndpointSampler":
    """Return the sampler of a policy that a spec names.

    Args:
        options: Of the spec.
        temperature: Of the draws; 0 takes the likeliest token.
        token_filter: Which tokens may be drawn. `top_k` and `min_p` are no fields of
            OpenAI's API; vLLM takes them.

    Raises:
        ConfigError: An option cannot be used.
    """
    fields: dict[str, Any] = {}
    if temperature and token_filter.top_p < 1:
        fields["top_p"] = token_filter.top_p
    if temperature and token_filter.top_k:
        fields["top_k"] = token_filter.top_k
    if temperature and token_filter.min_p:
        fields["min_p"] = token_filter.min_p
    named = named_options(ChatPolicy, options, _WHAT)
    extra = named.get("extra", {})
    # What is no object is refused by the policy.
    if isinstance(extra, dict):
        for name in _FLAGS:
            if name in named or name in extra:
                raise ConfigError(
                    f"{_WHAT}: {name} is said by --{name.replace('_', '-')}, which the"
                    " scores are noted with. Take it out of the policy's spec."
                )
        named["extra"] = fields | extra
    named["temperature"] = temperature
    policy = construct(ChatPolicy, named, _WHAT)
    return EndpointSampler(policy, temperature, token_filter)


class EndpointSampler:
    """A `ChatPolicy` with a sampler's face. It has no weights of its own.

    Args:
        policy: Says the turns.
        temperature: Of the draws.
        token_filter: Which tokens the endpoint was asked to draw from.
    """

    shares_weights = False
    samples_during_update = False

    def __init__(
        self, policy: ChatPolicy, temperature: float, token_filter: TokenFilter
    ) -> None:
        self.policy = policy
        self.temperature = temperature
        self.token_filter = token_filter

    @property
    def num_sampled(self) -> int:
        """Tokens that completions had so far, as the endpoint counts them."""
        return self.policy.num_tokens

    def voice(self, key: Key) -> TextVoice:
        """Return the voice of an episode."""
        return self.policy.voice(key)

    def take_weights(self) -> None:
        """Do nothing: the endpoint has the weights."""

    def beside(self) -> "EndpointSampler":
        """Return itself: none of its voices waits for another."""
        return self

    def memory_advice(self, num_episodes: int) -> str:
        """Say that none of it is this machine's."""
        return "The policy is at an endpoint; ask for fewer --samples at once there."

    def close(self) -> None:
        """Do nothing: its connections end with their event loop."""
