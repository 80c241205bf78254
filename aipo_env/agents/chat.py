"""An LLM behind an OpenAI-compatible endpoint: vLLM, a hosted API, anything that offers
chat completions.

    "openai:Qwen/Qwen3-32B@http://localhost:8000/v1"
    {"type": "openai", "model": "gpt-5-mini", "max_tokens": 400,
     "price_in": 0.25, "price_out": 2.0}

What an endpoint sends is hostile: it is read up to a limit, nothing of it is believed,
and the key is taken out of whatever is said about it. Nothing is retried here: that is
the pool's business.
"""

import asyncio
import json
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from aipo_env.agents.base import (
    AgentReply,
    AgentRequest,
    PermanentFailure,
    RequestRefused,
    RetryLater,
    Unreachable,
)
from aipo_env.agents.roles import role_prompts, role_question, version_hash
from aipo_env.errors import AgentError, ConfigError, check_number, check_whole
from aipo_env.tasks.rows import need
from aipo_env.verifiers.math_extract import without_thinking

MAX_BODY_BYTES = 2**21
"""A longer response is not read to its end."""
MAX_CONNECTIONS = 2**16
"""More than any pool has calls in flight; by default calls would wait for one
unseen.
"""
MAX_SHOWN_CHARS = 300
"""How much of an unusable response an error shows."""
MIN_KEY_CHARS = 8
"""What is shorter is no secret but a word such as "none", and may stand in a reply."""
CHARS_PER_TOKEN = 8
"""A reply of more characters for each token it may have is cut as well: its server does
not count.
"""
CONNECT_S = 30.0
"""A connection that is not made by then cannot be made."""
PASSING_STATUSES = (408, 409, 425, 429)
"""Refusals that another try may mend. After any other of 400 to 499 the same request is
not made again.
"""
STATUSES_OF_A_REQUEST = (400, 413, 422)
"""Refusals that may be due to one over-long or odd request, which a policy wrote."""
_ADDRESS = re.compile(r"(.+?)@(https?://[^\s@?#]+)")
_CLIENTS: dict[
    tuple[asyncio.AbstractEventLoop, str, str], tuple[Any, AsyncGenerator[Any, None]]
] = {}
_HAVE_ANSWERED: set[tuple[str, str]] = set()
"""Agents that gave a reply in this process, by their id and URL: their settings are
right.
"""
_SENTENCE_END = re.compile(r"[.!?;](?=\s|$)|[。\uff01\uff1f\n]")


@dataclass(eq=False)
class ChatAgent:
    """Answers any role's requests by one chat completion each; the role's prompt is its
    system message.

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
    key_env: str = "OPENAI_API_KEY"
    max_tokens: int = 512
    temperature: float | None = None
    price_in: float = 0.0
    price_out: float = 0.0
    prompts: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.url or "@http" in self.model:
            address = _ADDRESS.fullmatch(
                f"{self.model}@{self.url}" if self.url else self.model
            )
            if not address:  # which is not shown: it may hold a password
                raise ConfigError(
                    "agent 'openai': write openai:MODEL@URL, as http://host:8000/v1,"
                    " with no password or query."
                )
            self.model, self.url = address.groups()
        check_whole("agent 'openai': max_tokens", self.max_tokens, 1)
        for name in ("temperature", "price_in", "price_out"):
            if (value := getattr(self, name)) is not None:
                check_number(f"agent 'openai': {name}", value)
        if not re.fullmatch(r"[A-Za-z_]\w*", self.key_env):
            raise ConfigError(
                "agent 'openai': key_env must name an environment variable, not be the"
                " key."
            )
        if not _key(self.key_env) and (
            not self.url or self.key_env != "OPENAI_API_KEY"
        ):
            raise ConfigError(
                f"agent 'openai': the environment variable {self.key_env} is not set."
                f" Let it hold the key of {self.url or 'the endpoint'}, or name a"
                " server that needs none: openai:MODEL@URL."
            )
        # Otherwise it would be loaded within the first call.
        need("openai.resources.chat.completions", '"aipo-rl[openai]"')
        self._prompts = role_prompts(self.prompts)
        version = version_hash(
            self._prompts, self.max_tokens, self.temperature, dict(self.extra)
        )
        self.agent_id = f"openai:{self.model}#{version}"
        """The model, and a hash of the prompts and the sampling."""

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Ask for one completion.

        Raises:
            AgentError: There was none that can be used. RetryLater: the endpoint said
                when to ask again. Unreachable: there was no connection. RequestRefused:
                this request was refused, and would be again. PermanentFailure: any
                would be.
        """
        fields = {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": request.seed,
        }
        wanted = {
            name: value
            for name, value in {**fields, **self.extra}.items()
            if value is not None
        }
        client = await _client(self.url, self.key_env)
        ask = client.chat.completions.with_streaming_response.create
        system = {"role": "system", "content": self._prompts[request.kind]}
        messages = [system, {"role": "user", "content": role_question(request)}]
        try:
            async with ask(
                model=self.model, messages=messages, extra_body=wanted
            ) as response:
                body = await _read(response.iter_bytes())
        except Exception as error:
            url = _without_key(_without_secrets(str(client.base_url)), self.key_env)
            # A traceback could show the key.
            raise self._told(error, url, request.is_private) from None
        if len(body) > MAX_BODY_BYTES:
            raise AgentError(f"the response has more than {MAX_BODY_BYTES} bytes")
        reply = self._take(body)
        _HAVE_ANSWERED.add((self.agent_id, self.url))
        return reply

    def _told(self, error: Exception, url: str, is_private: bool) -> AgentError:
        """Return what to tell of an error: the one behind it if the client wrapped it,
        without the key.
        """
        is_wrapped = isinstance(error, need("openai").APIConnectionError)
        fault = (error.__cause__ if is_wrapped else None) or error
        if isinstance(fault, _BadStatus):
            return self._refused(fault, url, is_private)
        if isinstance(fault, AgentError):
            return fault
        told = _without_key(f"{type(fault).__name__}: {fault}", self.key_env)
        if _is_without_connection(fault):
            return Unreachable(f"{self.agent_id} at {url}: {told}")
        return AgentError(told)

    def _refused(self, fault: "_BadStatus", url: str, is_private: bool) -> AgentError:
        """Return what a response means that is an error."""
        # Some endpoints repeat the request, which may hold a task that forbids
        # republication.
        told = f"HTTP {fault.status}" if is_private else str(fault)
        is_refusal = 400 <= fault.status < 500 and fault.status not in PASSING_STATUSES
        if not is_refusal:
            wait_s = fault.retry_after_s
            return RetryLater(told, wait_s) if wait_s else AgentError(told)
        has_answered = (self.agent_id, self.url) in _HAVE_ANSWERED
        if has_answered and fault.status in STATUSES_OF_A_REQUEST:
            return RequestRefused(told)
        return PermanentFailure(f"{self.agent_id} at {url}: {told}")

    def _take(self, body: bytes) -> AgentReply:
        """Make a reply of a response."""
        try:
            data = json.loads(body)
            choice = data["choices"][0]
            text = choice["message"]["content"] or ""
            is_cut = choice.get("finish_reason") == "length"
            usage = data.get("usage") or {}
            num_in, num_out = (
                _count(usage.get("prompt_tokens")),
                _count(usage.get("completion_tokens")),
            )
            text = _without_key(without_thinking(text).strip(), self.key_env)
            token_ids = choice.get("token_ids") or ()
            tokens = (choice.get("logprobs") or {}).get("content") or ()
            are_told = len(tokens) == len(token_ids)
            logprobs = tuple(token["logprob"] for token in tokens if are_told)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise AgentError(
                f"the response is no chat completion: {_excerpt(body, self.key_env)}"
            ) from None
        most = CHARS_PER_TOKEN * self.max_tokens
        text = whole_sentences(text[:most]) if is_cut or len(text) > most else text
        cost = (num_in * self.price_in + num_out * self.price_out) / 1e6
        return AgentReply(
            text=text,
            tokens=num_out,
            cost_usd=cost,
            token_ids=token_ids,
            logprobs=logprobs,
        )


async def _client(url: str, key_env: str) -> Any:
    """Return the running event loop's client of an endpoint; connections cannot be
    shared between loops.
    """
    name = asyncio.get_running_loop(), url, _key(key_env)
    if name not in _CLIENTS:
        for ended in [known for known in list(_CLIENTS) if known[0].is_closed()]:
            del _CLIENTS[ended]
        opened = _open(url, key_env)
        _CLIENTS[name] = await anext(opened), opened
    return _CLIENTS[name][0]


async def _open(url: str, key_env: str) -> AsyncGenerator[Any, None]:
    """Open a client. A loop that ends closes its generators, and with this one the
    connections.
    """
    openai = need("openai")
    hooks = {"response": [partial(_screen, key_env=key_env)]}
    # The pool has a deadline for the rest, and says how many calls there may be.
    timeout = openai.Timeout(None, connect=CONNECT_S)
    options: Any = {"event_hooks": hooks, "follow_redirects": False, "timeout": timeout}
    options["verify"] = not url.startswith("http://")  # certificates take long to load
    limits = type(openai.DEFAULT_CONNECTION_LIMITS)
    try:
        http: Any = openai.DefaultAioHttpClient(
            **options, limits=limits(max_connections=MAX_CONNECTIONS)
        )
    except RuntimeError:  # aiohttp is not installed
        http = openai.DefaultAsyncHttpxClient(**options)
    options = {
        "http_client": http,
        "max_retries": 0,
        "default_headers": {"Accept-Encoding": "identity"},
    }
    async with openai.AsyncOpenAI(
        api_key=_key(key_env) or "none", base_url=url or None, **options
    ) as client:
        yield client


class _BadStatus(Exception):
    """A response that is an error; as text, its status and the beginning of its body,
    without the key.
    """

    def __init__(self, status: int, shown: str, retry_after_s: float) -> None:
        super().__init__(f"HTTP {status}: {shown}")
        self.status, self.retry_after_s = status, retry_after_s


async def _screen(response: Any, key_env: str) -> None:
    """Refuse a response that is an error, or packed: what it unpacks to has no
    limit.
    """
    status, headers = response.status_code, response.headers
    packing = headers.get("content-encoding", "identity")
    if status == 200 and packing != "identity":
        raise AgentError(f"the response is packed: {packing[:40]!r}")
    if status != 200:
        body = b"" if packing != "identity" else await _read(response.aiter_bytes())
        wait_s = _seconds(headers.get("retry-after", ""))
        raise _BadStatus(status, _excerpt(body, key_env), wait_s)


def _is_without_connection(fault: BaseException) -> bool:
    """Return whether a fault of the HTTP library is that no connection was made."""
    below = fault.__cause__
    if type(below).__module__.startswith("aiohttp."):
        # The layer above takes a connection that was lost for one that was not made.
        aiohttp = import_module("aiohttp")
        return isinstance(
            below, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
        )
    # Which library it is depends on the version of the client.
    library = import_module(type(fault).__module__.partition(".")[0])
    names = ("ConnectError", "ConnectTimeout")
    return isinstance(fault, tuple(getattr(library, name, ()) for name in names))


def _without_secrets(url: str) -> str:
    """Return a URL without what may be a name, a password or a key."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}"


def _key(key_env: str) -> str:
    return "".join(os.environ.get(key_env, "").split()[:1])


def _without_key(text: str, key_env: str) -> str:
    key = _key(key_env)
    return text.replace(key, "[key]") if len(key) >= MIN_KEY_CHARS else text


def _excerpt(body: bytes, key_env: str) -> str:
    """Return the beginning of a response without the key, which some endpoints
    repeat.
    """
    return repr(
        _without_key(body.decode("utf-8", "replace"), key_env)[:MAX_SHOWN_CHARS]
    )


def whole_sentences(text: str) -> str:
    """Return a text that was cut up to its last whole sentence; all of it if it has
    none.
    """
    ends = [found.end() for found in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]].rstrip() if ends else text


async def _read(chunks: AsyncIterator[bytes]) -> bytes:
    """Read to the end, or until there are more than `MAX_BODY_BYTES`."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            break
    return bytes(body)


def _count(value: object) -> int:
    return value if type(value) is int and 0 <= value < 2**31 else 0


def _seconds(retry_after: str) -> float:
    """Read the header Retry-After; 0 for a date, which few endpoints send, and for
    anything else.
    """
    return (
        float(retry_after)
        if re.fullmatch(r"\d{1,9}(?:\.\d{1,9})?", retry_after)
        else 0.0
    )
