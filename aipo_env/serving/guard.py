"""Who may reach a server of ours, and for how long: around any ASGI application.

A web page that somebody reads can open connections to servers of the same machine. So
the name that a request calls the server by (`Host`) and the page that it comes from
(`Origin`) are checked, and a server that listens to other machines asks for a token.
"""

import asyncio
import hmac
import ipaddress
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

AsgiMessage = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[AsgiMessage]]
Send = Callable[[AsgiMessage], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
"""The names by which this machine calls itself."""
TOO_LATE = 1001
"""Code with which a WebSocket is closed (RFC 6455): the server goes away."""
REFUSED = 1008
"""The same: a rule of ours was broken."""
CROWDED = 1013
"""The same, registered with IANA: try again later."""
_MAX_BODY_BYTES = 2**24
"""Of a request over HTTP; messages of a WebSocket uvicorn holds to as many."""
_UNAUTHORIZED = 401
"""Status of HTTP (RFC 9110): who asks has not shown who it is."""
_FORBIDDEN = 403
"""Status of HTTP: it may not."""
_LENGTH_REQUIRED = 411
"""Status of HTTP: how long the body is has to be said before it comes."""
_TOO_LARGE = 413
"""Status of HTTP: the body is longer than what is read."""
_MISDIRECTED = 421
"""Status of HTTP: the request was meant for another server."""
_MAX_LENGTH_DIGITS = 20
"""Digits of a length that is read as a number."""
_TOKEN_BYTES = 24


def is_loopback(host: str) -> bool:
    """Return whether an address is this machine's own and nobody else's."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def new_token() -> str:
    """Return a token that nobody guesses."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


@dataclass(eq=False)
class Guard:
    """An ASGI application behind a check of every request.

    Args:
        app: What is served.
        hosts: The names by which the server may be called, without a port; empty: any,
            which is safe only with a token. No pages but the server's own may call it,
            and those of names that are not this machine's.
        token: What requests show as `Authorization: Bearer TOKEN`; empty: nothing is
            asked for.
        idle_s: Seconds without a message, or without reading one, after which a
            WebSocket is closed.
        max_sessions: WebSockets at once. One more takes the place of the one that has
            been idle for longest, which leaves once what it asked for is answered;
            while as many again are still to leave, nobody is let in.
    """

    app: App
    hosts: tuple[str, ...] = LOOPBACK
    token: str = ""
    idle_s: float = 600.0
    max_sessions: int = 64
    _open: "dict[int, _Visit]" = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.hosts = tuple(host.lower() for host in self.hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        # ASGI's "lifespan" comes from our own server, when it starts and ends.
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        status = self.refusal(scope)
        if status:
            await _refuse(scope, status, send)
        elif scope["type"] == "http":
            await self.app(scope, receive, send)
        else:
            await self._visit(scope, receive, send)

    def refusal(self, scope: Scope) -> int:
        """Return the status with which a request is refused; 0: it is not."""
        headers = {}
        for name, value in scope["headers"]:
            # Every byte is a character of Latin-1, so no header fails to be read.
            headers[name.lower()] = value.decode("latin-1")
        host = headers.get(b"host", "")
        origin = headers.get(b"origin")
        if self.hosts:
            # A page may have a name of its own that leads to this machine (DNS
            # rebinding): then the browser takes the server for the page's own.
            if called_name(host) not in self.hosts:
                return _MISDIRECTED
            if origin and not self._is_own(origin, host):
                return _FORBIDDEN
        if self.token:
            token = headers.get(b"authorization", "").removeprefix("Bearer ")
            # Takes the same time wherever the two differ, so that time tells nothing.
            if not hmac.compare_digest(token.encode(), self.token.encode()):
                return _UNAUTHORIZED
        if b"transfer-encoding" in headers:
            return _LENGTH_REQUIRED
        if not _is_short(headers.get(b"content-length", "0")):
            return _TOO_LARGE
        return 0

    def _is_own(self, origin: str, host: str) -> bool:
        """Return whether a request comes from our own page or an allowed one."""
        try:
            address = urlsplit(origin).netloc.lower()
        except ValueError:
            return False
        # Other ports of this machine belong to other servers: for its own names, the
        # port has to be the same too.
        name = called_name(address)
        is_allowed = name in self.hosts and name not in LOOPBACK
        return address == host.lower() or is_allowed

    async def _visit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a WebSocket for as long as something comes over it."""
        # As many as may stay, and as many again that were told to leave: a visit leaves
        # only when what it asked for is answered, which may take long.
        if len(self._open) >= 2 * self.max_sessions:
            await send({"type": "websocket.close", "code": CROWDED})
            return
        staying = [visit for visit in self._open.values() if not visit.leave.is_set()]
        if len(staying) >= self.max_sessions:
            longest_idle = min(staying, key=lambda visit: visit.last)
            longest_idle.leave.set()
        visit = _Visit(receive, send, self.idle_s)
        self._open[id(visit)] = visit
        try:
            await self.app(scope, visit.receive, visit.send)
        finally:
            del self._open[id(visit)]


@dataclass(eq=False)
class _Visit:
    """A WebSocket that is ended by silence, or to make room.

    Args:
        inner: Receives, from the server.
        inner_send: Sends, by the server.
        idle_s: Seconds of silence after which it is ended.
        last: When a message came last, on the monotonic clock.
        leave: Set when it is to end, to make room.
    """

    inner: Receive
    inner_send: Send
    idle_s: float
    last: float = field(default_factory=time.monotonic)
    leave: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self) -> AsgiMessage:
        """Return the next message, or that the other side has gone."""
        # The application ends a visit by itself when it reads that the client is gone,
        # so it is told so, whatever the reason.
        coming = asyncio.ensure_future(self.inner())
        leaving = asyncio.ensure_future(self.leave.wait())
        try:
            done, _ = await asyncio.wait(
                (coming, leaving),
                timeout=self.idle_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            leaving.cancel()
            if not coming.done():
                coming.cancel()
        if coming in done:
            self.last = time.monotonic()
            return coming.result()
        code = CROWDED if self.leave.is_set() else TOO_LATE
        return {"type": "websocket.disconnect", "code": code}

    async def send(self, message: AsgiMessage) -> None:
        """Send a message.

        Raises:
            OSError: The other side does not read; so servers say that it has gone.
        """
        try:
            async with asyncio.timeout(self.idle_s):
                await self.inner_send(message)
        except TimeoutError:
            raise OSError(f"nothing was read for {self.idle_s:g} s") from None


def _is_short(length: str) -> bool:
    """Return whether a header says that a body may be read."""
    # Python reads no number of thousands of digits.
    is_number = length.isdecimal() and len(length) <= _MAX_LENGTH_DIGITS
    return is_number and int(length) <= _MAX_BODY_BYTES


def called_name(address: str) -> str:
    """Return the name in `name:port`, in small letters."""
    # An IPv6 address stands in brackets, since it has colons itself.
    if address.startswith("["):
        return address.partition("]")[0].lower() + "]"
    return address.partition(":")[0].lower()


async def _refuse(scope: Scope, status: int, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": REFUSED})
        return
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b""})
