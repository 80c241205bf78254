"""An OpenAI-compatible endpoint that offers chat completions.

What it sends is hostile: it is read up to a limit, nothing of it is believed, and the
key is taken out of whatever is said about it. Nothing is retried here.
"""

import asyncio
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from aipo_env.agents.base import (
    PermanentFailure,
    RequestRefused,
    RetryLater,
    Unreachable,
)
from aipo_env.errors import AgentError, ConfigError
from aipo_env.tasks.rows import need

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
MAX_COUNT = 2**31
"""An endpoint that says of a reply that it has so many tokens is not believed."""
CHARS_PER_TOKEN = 8
"""What has more characters for each token it may have is cut: its server does not
count.
"""
DEFAULT_KEY = "OPENAI_API_KEY"
"""The variable that holds the key unless another is named."""
# MODEL@URL: "Qwen/Qwen3-32B@http://localhost:8000/v1". A model's name may hold "@", a
# URL no password, no query and no fragment.
_ADDRESS = re.compile(r"(.+?)@(https?://[^\s@?#]+)")
_ClientName = tuple[asyncio.AbstractEventLoop, str, str]
"""The event loop that a client belongs to, its URL and its key."""
_CLIENTS: dict[_ClientName, tuple[Any, AsyncGenerator[Any, None]]] = {}
"""Clients, each with the generator that closes it when its loop ends."""
_HAVE_ANSWERED: set[tuple[str, str]] = set()
"""Who gave a reply in this process, by name and URL: their settings are right."""


def split_address(model: str, url: str, what: str) -> tuple[str, str]:
    """Return the model and the URL of "MODEL@URL", or of both apart.

    Args:
        what: Names in messages who is asked.

    Raises:
        ConfigError: The URL holds more than it may.
    """
    if not url and "@http" not in model:
        return model, url
    address = _ADDRESS.fullmatch(f"{model}@{url}" if url else model)
    if address is None:
        # The text is not shown: it may hold a password.
        raise ConfigError(
            f"{what}: write openai:MODEL@URL, as http://host:8000/v1, with no password"
            " or query."
        )
    name, place = address.groups()
    return name, place


@dataclass(frozen=True)
class Endpoint:
    """A model at an endpoint.

    Args:
        model: The model's name there.
        url: The endpoint, up to "/v1"; by default the one of the `openai` client.
        key_env: The environment variable that holds the key. An endpoint with a URL may
            do without one.
        name: Who is asked there, for messages.
        what: The same, for messages about settings.

    Raises:
        ConfigError: The key is missing, or `openai` is not installed.
    """

    model: str
    url: str
    key_env: str
    name: str
    what: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z_]\w*", self.key_env):
            # It is not shown: somebody may have put the key itself there.
            raise ConfigError(
                f"{self.what}: key_env must name an environment variable, not be the"
                " key."
            )
        # A server of one's own needs none, unless a variable was named for it.
        may_lack_key = self.url and self.key_env == DEFAULT_KEY
        if not may_lack_key and not _key(self.key_env):
            raise ConfigError(
                f"{self.what}: the environment variable {self.key_env} is not set."
                f" Let it hold the key of {self.url or 'the endpoint'}, or name a"
                " server that needs none: openai:MODEL@URL."
            )
        # Otherwise it would be loaded within the first call, and seem to be its time.
        need("openai.resources.chat.completions", '"aipo-rl[openai]"')

    async def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        fields: Mapping[str, Any],
        *,
        is_private: bool = False,
    ) -> bytes:
        """Ask for one completion; return the body of the response.

        Args:
            messages: Of the conversation.
            fields: Of the API's request beside the model and the messages; None takes
                one away.
            is_private: An error shows nothing of the response, which may repeat the
                request.

        Raises:
            AgentError: There was no response that can be used. RetryLater: the endpoint
                said when to ask again. Unreachable: there was no connection.
                RequestRefused: this request was refused, and would be again.
                PermanentFailure: any would be.
        """
        client = await _client(self.url, self.key_env)
        # Streamed, so that the reading can stop: the body may have no end.
        ask = client.chat.completions.with_streaming_response.create
        given = {name: value for name, value in fields.items() if value is not None}
        try:
            async with ask(
                model=self.model, messages=list(messages), extra_body=given
            ) as response:
                body = await _read(response.iter_bytes())
        except Exception as error:
            url = _without_key(_without_secrets(str(client.base_url)), self.key_env)
            # A traceback could show the key.
            raise self._as_agent_error(error, url, is_private) from None
        if len(body) > MAX_BODY_BYTES:
            raise AgentError(f"the response has more than {MAX_BODY_BYTES} bytes")
        return body

    def note_answer(self) -> None:
        """Note that a response could be used, and so that the settings are right."""
        _HAVE_ANSWERED.add((self.name, self.url))

    def without_key(self, text: str) -> str:
        """Return a text in which the key does not stand."""
        return _without_key(text, self.key_env)

    def excerpt(self, body: bytes) -> str:
        """Return the beginning of a response without the key, which some repeat."""
        return _excerpt(body, self.key_env)

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
            return Unreachable(f"{self.name} at {url}: {text}")
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
        has_answered = (self.name, self.url) in _HAVE_ANSWERED
        if has_answered and fault.status in STATUSES_OF_A_REQUEST:
            return RequestRefused(text)
        return PermanentFailure(f"{self.name} at {url}: {text}")


def count_of(value: object) -> int:
    """Return a count of tokens; 0 for what is none. True is no count, though an int."""
    if type(value) is int and 0 <= value < MAX_COUNT:
        return value
    return 0


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


async def _read(chunks: AsyncIterator[bytes]) -> bytes:
    """Read to the end, or until there are more than `MAX_BODY_BYTES`."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            break
    return bytes(body)


def _seconds(retry_after: str) -> float:
    """Read the header Retry-After; 0 for a date, which is rare, and anything else."""
    # Bounded: "9" four hundred times would be infinite.
    if re.fullmatch(r"\d{1,9}(?:\.\d{1,9})?", retry_after):
        return float(retry_after)
    return 0.0
