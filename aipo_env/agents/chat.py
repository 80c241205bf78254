"""An LLM behind an OpenAI-compatible endpoint that offers chat completions.

vLLM offers them, and so do hosted APIs:

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
from aipo_env.verifiers.extract import without_thinking

MAX_BODY_BYTES = 2**21
"""A longer response is not read to its end."""
MAX_CONNECTIONS = 2**16
"""More than any pool has calls in flight: waiting for one would look like thinking."""
MAX_FAULT_CHARS = 300
"""How much of an unusable response an error shows."""
MAX_PACKING_CHARS = 40
"""The same of the name of a packing that was not asked for."""
MIN_KEY_CHARS = 8
"""What is shorter is no secret but a word such as "none", and may stand in a reply."""
CHARS_PER_TOKEN = 8
"""A reply of more characters for each token it may have is cut: its server does not
count.
"""
CONNECT_S = 30.0
"""A connection that is not made by then cannot be made."""
OK_STATUS = 200
"""The one status of a response that is read; a redirection is not followed."""
REFUSING_STATUSES = range(400, 500)
"""Statuses by which HTTP blames the request, not the server."""
PASSING_STATUSES = (408, 409, 425, 429)
"""Refusals after which another try may succeed: timeouts, conflicts, too many requests.
After any other the same request is not made again.
"""
STATUSES_OF_A_REQUEST = (400, 413, 422)
"""Refusals that may be due to one over-long or odd request, which a policy wrote."""
TOKENS_PER_PRICE = 1e6
"""Prices are for so many tokens."""
MAX_COUNT = 2**31
"""An endpoint that says of a reply that it has so many tokens is not believed."""
# MODEL@URL: "Qwen/Qwen3-32B@http://localhost:8000/v1". A model's name may hold "@", a
# URL no password, no query and no fragment.
_ADDRESS = re.compile(r"(.+?)@(https?://[^\s@?#]+)")
_ClientName = tuple[asyncio.AbstractEventLoop, str, str]
"""The event loop that a client belongs to, its URL and its key."""
_CLIENTS: dict[_ClientName, tuple[Any, AsyncGenerator[Any, None]]] = {}
"""Clients, each with the generator that closes it when its loop ends."""
_HAVE_ANSWERED: set[tuple[str, str]] = set()
"""Agents that gave a reply in this process, by their id and URL: their settings are
right.
"""
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
    key_env: str = "OPENAI_API_KEY"
    max_tokens: int = 512
    temperature: float | None = None
    price_in: float = 0.0
    price_out: float = 0.0
    prompts: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._split_address()
        check_whole("agent 'openai': max_tokens", self.max_tokens, 1)
        for name in ("temperature", "price_in", "price_out"):
            value = getattr(self, name)
            if value is not None:
                check_number(f"agent 'openai': {name}", value)
        self._check_key()
        # Otherwise it would be loaded within the first call, and seem to be its time.
        need("openai.resources.chat.completions", '"aipo-rl[openai]"')
        self._prompts = role_prompts(self.prompts)
        version = version_hash(
            self._prompts, self.max_tokens, self.temperature, dict(self.extra)
        )
        self.agent_id = f"openai:{self.model}#{version}"
        """The model, and a hash of the prompts and the sampling."""

    def _split_address(self) -> None:
        """Take "MODEL@URL" apart, and refuse a URL that holds more than it may."""
        if not self.url and "@http" not in self.model:
            return
        text = f"{self.model}@{self.url}" if self.url else self.model
        address = _ADDRESS.fullmatch(text)
        if address is None:
            # The text is not shown: it may hold a password.
            raise ConfigError(
                "agent 'openai': write openai:MODEL@URL, as http://host:8000/v1,"
                " with no password or query."
            )
        self.model, self.url = address.groups()

    def _check_key(self) -> None:
        """Refuse a variable that is none, or one without a key where one is needed."""
        if not re.fullmatch(r"[A-Za-z_]\w*", self.key_env):
            # Nor is this shown: somebody may have put the key itself there.
            raise ConfigError(
                "agent 'openai': key_env must name an environment variable, not be the"
                " key."
            )
        # A server of one's own needs none, unless a variable was named for it.
        may_lack_key = self.url and self.key_env == "OPENAI_API_KEY"
        if not may_lack_key and not _key(self.key_env):
            raise ConfigError(
                f"agent 'openai': the environment variable {self.key_env} is not set."
                f" Let it hold the key of {self.url or 'the endpoint'}, or name a"
                " server that needs none: openai:MODEL@URL."
            )

    async def reply(self, request: AgentRequest) -> AgentReply:
        """Ask for one completion.

        Raises:
            AgentError: There was none that can be used. RetryLater: the endpoint said
                when to ask again. Unreachable: there was no connection. RequestRefused:
                this request was refused, and would be again. PermanentFailure: any
                would be.
        """
        client = await _client(self.url, self.key_env)
        # Streamed, so that the reading can stop: the body may have no end.
        ask = client.chat.completions.with_streaming_response.create
        system = {"role": "system", "content": self._prompts[request.kind]}
        user = {"role": "user", "content": role_question(request)}
        fields = self._fields(request)
        try:
            async with ask(
                model=self.model, messages=[system, user], extra_body=fields
            ) as response:
                body = await _read(response.iter_bytes())
        except Exception as error:
            url = _without_key(_without_secrets(str(client.base_url)), self.key_env)
            # A traceback could show the key.
            raise self._as_agent_error(error, url, request.is_private) from None
        if len(body) > MAX_BODY_BYTES:
            raise AgentError(f"the response has more than {MAX_BODY_BYTES} bytes")
        reply = self._as_reply(body)
        _HAVE_ANSWERED.add((self.agent_id, self.url))
        return reply

    def _fields(self, request: AgentRequest) -> dict[str, Any]:
        """Return the fields of the API's request beside the model and the messages."""
        own = {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": request.seed,
        }
        fields = {**own, **self.extra}
        return {name: value for name, value in fields.items() if value is not None}

    def _as_agent_error(
        self, error: Exception, url: str, is_private: bool
    ) -> AgentError:
        """Return what the pool is told of an error, without the key."""
        # The client wraps what comes out of our own hook, and out of its HTTP library.
        is_wrapped = isinstance(error, need("openai").APIConnectionError)
        fault = (error.__cause__ if is_wrapped else None) or error
        if isinstance(fault, _BadStatus):
            return self._as_refusal(fault, url, is_private)
        if isinstance(fault, AgentError):
            return fault
        text = _without_key(f"{type(fault).__name__}: {fault}", self.key_env)
        if _is_without_connection(fault):
            return Unreachable(f"{self.agent_id} at {url}: {text}")
        return AgentError(text)

    def _as_refusal(
        self, fault: "_BadStatus", url: str, is_private: bool
    ) -> AgentError:
        """Return what a response means that is an error."""
        # Some endpoints repeat the request, which may hold a task that forbids
        # republication.
        text = f"HTTP {fault.status}" if is_private else str(fault)
        is_passing = fault.status in PASSING_STATUSES
        if fault.status not in REFUSING_STATUSES or is_passing:
            wait_s = fault.retry_after_s
            return RetryLater(text, wait_s) if wait_s else AgentError(text)
        # An agent that has answered is set rightly: then it is this request. One that
        # never did refuses all of them, and a run must not go on without it unseen.
        has_answered = (self.agent_id, self.url) in _HAVE_ANSWERED
        if has_answered and fault.status in STATUSES_OF_A_REQUEST:
            return RequestRefused(text)
        return PermanentFailure(f"{self.agent_id} at {url}: {text}")

    def _as_reply(self, body: bytes) -> AgentReply:
        """Make a reply of a response."""
        # Any part may be missing or of another type: one handler for all of it.
        try:
            data = json.loads(body)
            choice = data["choices"][0]
            text = choice["message"]["content"] or ""
            is_cut = choice.get("finish_reason") == "length"
            usage = data.get("usage") or {}
            num_in = _count(usage.get("prompt_tokens"))
            num_out = _count(usage.get("completion_tokens"))
            text = _without_key(without_thinking(text).strip(), self.key_env)
            token_ids = choice.get("token_ids") or ()
            tokens = (choice.get("logprobs") or {}).get("content") or ()
            # Log-probabilities without ids, or of others, are of no use.
            are_paired = len(tokens) == len(token_ids)
            logprobs = tuple(token["logprob"] for token in tokens if are_paired)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise AgentError(
                f"the response is no chat completion: {_excerpt(body, self.key_env)}"
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


async def _client(url: str, key_env: str) -> Any:
    """Return the running loop's client; loops cannot share connections."""
    name = (asyncio.get_running_loop(), url, _key(key_env))
    if name not in _CLIENTS:
        closed = [other for other in _CLIENTS if other[0].is_closed()]
        for other in closed:
            del _CLIENTS[other]
        opening = _open(url, key_env)
        _CLIENTS[name] = (await anext(opening), opening)
    client, _ = _CLIENTS[name]
    return client


async def _open(url: str, key_env: str) -> AsyncGenerator[Any, None]:
    """Open a client and yield it.

    A generator, because an event loop that ends closes its generators, and with this
    one the connections.
    """
    openai = need("openai")
    transport: Any = {
        "event_hooks": {"response": [partial(_screen, key_env=key_env)]},
        # Another address might be handed the key.
        "follow_redirects": False,
        # The pool has a deadline for the rest, and says how many calls there may be.
        "timeout": openai.Timeout(None, connect=CONNECT_S),
        # Certificates take long to load, and plain HTTP has none.
        "verify": not url.startswith("http://"),
    }
    limits = type(openai.DEFAULT_CONNECTION_LIMITS)
    try:
        http: Any = openai.DefaultAioHttpClient(
            **transport, limits=limits(max_connections=MAX_CONNECTIONS)
        )
    except RuntimeError:  # aiohttp is not installed
        http = openai.DefaultAsyncHttpxClient(**transport)
    async with openai.AsyncOpenAI(
        # The client insists on a key, and a server of one's own takes any.
        api_key=_key(key_env) or "none",
        base_url=url or None,
        http_client=http,
        max_retries=0,
        default_headers={"Accept-Encoding": "identity"},
    ) as client:
        yield client


class _BadStatus(Exception):
    """A response that is an error.

    Args:
        status: Its HTTP status.
        excerpt: The beginning of its body, without the key.
        retry_after_s: For how many seconds it asks not to be asked; 0: it does not say.
    """

    def __init__(self, status: int, excerpt: str, retry_after_s: float) -> None:
        super().__init__(f"HTTP {status}: {excerpt}")
        self.status = status
        self.retry_after_s = retry_after_s


async def _screen(response: Any, key_env: str) -> None:
    """Refuse a response that is an error, or packed.

    A hook of the client: it sees the response before anything of the body is read.

    Raises:
        AgentError: It is packed. A small body may unpack to one without a limit.
        _BadStatus: It is an error.
    """
    status = response.status_code
    packing = response.headers.get("content-encoding", "identity")
    is_packed = packing != "identity"
    if status == OK_STATUS:
        if is_packed:
            raise AgentError(f"the response is packed: {packing[:MAX_PACKING_CHARS]!r}")
        return
    body = b"" if is_packed else await _read(response.aiter_bytes())
    wait_s = _seconds(response.headers.get("retry-after", ""))
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
    # An empty tuple is no class of anything.
    kinds = tuple(getattr(library, name, ()) for name in names)
    return isinstance(fault, kinds)


def _without_secrets(url: str) -> str:
    """Return a URL without what may be a name, a password or a key."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}"


def _key(key_env: str) -> str:
    """Return the key that a variable holds; empty if none.

    A file that was read into the variable leaves a newline, which no header may hold.
    """
    words = os.environ.get(key_env, "").split()
    return words[0] if words else ""


def _without_key(text: str, key_env: str) -> str:
    """Return a text in which the key does not stand."""
    key = _key(key_env)
    if len(key) < MIN_KEY_CHARS:
        return text
    return text.replace(key, "[key]")


def _excerpt(body: bytes, key_env: str) -> str:
    """Return the beginning of a response without the key, which some repeat."""
    text = body.decode("utf-8", "replace")
    # The key first: cut through, it would no longer be recognised.
    return repr(_without_key(text, key_env)[:MAX_FAULT_CHARS])


def whole_sentences(text: str) -> str:
    """Return a cut text up to its last whole sentence; all of it if it has none."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
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
    """Return a count of tokens; 0 for what is none. True is no count, though an int."""
    if type(value) is int and 0 <= value < MAX_COUNT:
        return value
    return 0


def _seconds(retry_after: str) -> float:
    """Read the header Retry-After; 0 for a date, which is rare, and anything else."""
    # Bounded: "9" four hundred times would be infinite.
    if re.fullmatch(r"\d{1,9}(?:\.\d{1,9})?", retry_after):
        return float(retry_after)
    return 0.0
