"""An LLM behind an OpenAI-compatible endpoint that offers chat completions.

vLLM offers them, and so do hosted APIs:

    "openai:Qwen/Qwen3-32B@http://localhost:8000/v1"
    {"type": "openai", "model": "gpt-5-mini", "max_tokens": 400,
     "price_in": 0.25, "price_out": 2.0}

Nothing is retried here: that is the pool's business.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aipo_env.agents.base import AgentReply, AgentRequest
from aipo_env.agents.endpoint import (
    CHARS_PER_TOKEN,
    DEFAULT_KEY,
    Endpoint,
    count_of,
    split_address,
)
from aipo_env.agents.roles import role_prompts, role_question, version_hash
from aipo_env.errors import AgentError, check_number, check_whole
from aipo_env.verifiers.extract import without_thinking

TOKENS_PER_PRICE = 1e6
"""Prices are for so many tokens."""
# "Yes. It is", "Yes!", but not the full stop of "2.5"; Chinese marks, which no space
# follows; a new line.
_SENTENCE_END = re.compile(r"[.!?;](?=\s|$)|[。\uff01\uff1f\n]")


@dataclass(eq=False)
class ChatAgent:
    """Answers any role's requests by one chat completion each.

    The role's prompt is its system message.

    Args:
        model: The model's name at the endpoint, or "MODEL@URL".
        url: The endpoint, up to "/v1"; by default the one of the `openai` client.
        key_env: The environment variable that holds the key. An endpoint with a URL may
            do without one.
        max_tokens: Of a reply; one that is cut there ends with its last whole sentence.
        temperature: By default the endpoint's own. The seed is the request's.
        price_in: US dollars for a million tokens of prompts.
        price_out: The same of replies.
        prompts: A folder with a knowledge.md, a reason.md and a verify.md of your own.
        extra: Further fields of the API's request; None takes one of ours away:
            {"max_tokens": None, "max_completion_tokens": 400}. With {"logprobs": True,
            "return_token_ids": True}, a vLLM server of a model with the policy's
            tokenizer tells what it sampled; see `AgentReply`.

    Raises:
        ConfigError: An option cannot be used, the key is missing, or `openai` is not
            installed.
    """

    model: str
    url: str = ""
    key_env: str = DEFAULT_KEY
    max_tokens: int = 512
    temperature: float | None = None
    price_in: float = 0.0
    price_out: float = 0.0
    prompts: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        what = "agent 'openai'"
        self.model, self.url = split_address(self.model, self.url, what)
        check_whole(f"{what}: max_tokens", self.max_tokens, 1)
        for name in ("temperature", "price_in", "price_out"):
            value = getattr(self, name)
            if value is not None:
                check_number(f"{what}: {name}", value)
        self._prompts = role_prompts(self.prompts)
        version = version_hash(
            self._prompts, self.max_tokens, self.temperature, dict(self.extra)
        )
        self.agent_id = f"openai:{self.model}#{version}"
        """The model, and a hash of the prompts and the sampling."""
        self._endpoint = Endpoint(
            self.model, self.url, self.key_env, self.agent_id, what
        )

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Ask for one completion.

        Raises:
            AgentError: As `Endpoint.complete`.
        """
        system = {"role": "system", "content": self._prompts[request.kind]}
        user = {"role": "user", "content": role_question(request)}
        own = {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": request.seed,
        }
        body = await self._endpoint.complete(
            [system, user], {**own, **self.extra}, is_private=request.is_private
        )
        reply = self._as_reply(body)
        self._endpoint.note_answer()
        return reply

    def _as_reply(self, body: bytes) -> AgentReply:
        """Make a reply of a response."""
        # Any part may be missing or of another type: one handler for all of it.
        try:
            data = json.loads(body)
            choice = data["choices"][0]
            text = choice["message"]["content"] or ""
            is_cut = choice.get("finish_reason") == "length"
            usage = data.get("usage") or {}
            num_in = count_of(usage.get("prompt_tokens"))
            num_out = count_of(usage.get("completion_tokens"))
            text = self._endpoint.without_key(without_thinking(text).strip())
            token_ids = choice.get("token_ids") or ()
            tokens = (choice.get("logprobs") or {}).get("content") or ()
            # Log-probabilities without ids, or of others, are of no use.
            are_paired = len(tokens) == len(token_ids)
            logprobs = tuple(token["logprob"] for token in tokens if are_paired)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise AgentError(
                f"the response is no chat completion: {self._endpoint.excerpt(body)}"
            ) from None
        max_chars = CHARS_PER_TOKEN * self.max_tokens
        if is_cut or len(text) > max_chars:
            text = whole_sentences(text[:max_chars])
        price = num_in * self.price_in + num_out * self.price_out
        return AgentReply(
            text=text,
            tokens=num_out,
            cost_usd=price / TOKENS_PER_PRICE,
            token_ids=token_ids,
            logprobs=logprobs,
        )


def whole_sentences(text: str) -> str:
    """Return a cut text up to its last whole sentence; all of it if it has none."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]].rstrip() if ends else text
