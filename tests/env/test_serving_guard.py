"""Who reaches a server: by which name, from which page, with which token, and for how
long.
"""

import asyncio
from typing import Any

import pytest

from aipo_env import cli
from aipo_env.serving.episodes import Allowance
from aipo_env.serving.guard import CROWDED, REFUSED, TOO_LATE, Guard, is_loopback
from aipo_env.serving.server import TOKEN_VARIABLE, _token


def scope(kind: str = "http", **headers: str) -> dict[str, Any]:
    given = {"host": "127.0.0.1:8000", **headers}
    raw = [(name.encode(), value.encode()) for name, value in given.items() if value]
    return {"type": kind, "headers": raw}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-length": "0"}, 0),
        ({"content-length": "16777216"}, 0),
        ({"content-length": "16777217"}, 413),
        ({"content-length": "9" * 5000}, 413),
        ({"content-length": "-1"}, 413),
        ({"content-length": "1e3"}, 413),
        ({"content-length": "²"}, 413),
        ({"transfer-encoding": "chunked"}, 411),
        ({"transfer-encoding": "chunked", "content-length": "3"}, 411),
    ],
)
def test_how_much_is_sent_has_to_be_said(headers: dict[str, str], status: int):
    asked = scope("http")
    asked["headers"] += [(k.encode(), v.encode("latin-1")) for k, v in headers.items()]
    assert Guard(nothing).refusal(asked) == status


async def nothing(*_: Any) -> None:
    """Serve nobody."""


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 0),
        ({"host": "localhost"}, 0),
        ({"host": "LOCALHOST:8000"}, 0),
        ({"host": "[::1]:8000"}, 0),
        ({"host": "proxy.example:443"}, 0),
        ({"origin": "http://127.0.0.1:8000"}, 0),
        ({"origin": "https://proxy.example"}, 0),
        ({"origin": "http://localhost:3000"}, 403),
        ({"origin": "http://127.0.0.1:3000"}, 403),
        ({"origin": "http://[::1"}, 403),
        ({"origin": "http://[x]"}, 403),
        ({"host": "evil.example"}, 421),
        ({"host": "localhost.evil.example"}, 421),
        ({"host": ""}, 421),
        ({"host": "127.0.0.1.evil.example:8000"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost.evil.example"}, 403),
        ({"origin": "http://localhost@evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "file://"}, 403),
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_names_and_pages(kind: str, headers: dict[str, str], status: int):
    hosts = ("127.0.0.1", "localhost", "[::1]", "proxy.example")
    assert Guard(nothing, hosts).refusal(scope(kind, **headers)) == status


@pytest.mark.parametrize(
    ("shown", "status"),
    [("Bearer sesame", 0), ("Bearer sesam", 401), ("", 401), ("Bearer é", 401)],
)
def test_tokens(shown: str, status: int):
    guard = Guard(nothing, (), token="sesame")
    asked = scope(host="any.example", authorization=shown)
    assert guard.refusal(asked) == status


def test_a_refused_request_never_reaches_the_application():
    reached: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["type"])

    async def ask(kind: str) -> list[dict[str, Any]]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        await Guard(app)(scope(kind, origin="http://evil.example"), nothing, send)
        return sent

    first, _ = asyncio.run(ask("http"))
    assert (first["type"], first["status"]) == ("http.response.start", 403)
    [closed] = asyncio.run(ask("websocket"))
    assert closed == {"type": "websocket.close", "code": REFUSED}
    assert reached == []


async def visit(guard: Guard, codes: list[int], messages: int = 0) -> None:
    """Stay for as long as the guard lets us, after so many messages."""
    left = messages

    async def receive() -> dict[str, Any]:
        nonlocal left
        left -= 1
        if left < 0:
            await asyncio.Event().wait()
        return {"type": "websocket.receive", "text": "x"}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] != "websocket.disconnect":
            pass
        codes.append(message["code"])

    guard.app = app
    await guard(scope("websocket"), receive, nothing)


def test_silence_ends_a_visit():
    codes: list[int] = []
    asyncio.run(visit(Guard(nothing, idle_s=0.05), codes, messages=3))
    assert codes == [TOO_LATE]


def test_a_newcomer_takes_the_place_of_the_one_that_was_silent_for_longest():
    async def crowd() -> list[int]:
        guard, codes = Guard(nothing, idle_s=60.0, max_sessions=3), list[int]()
        visits = []
        for _ in range(5):
            visits.append(asyncio.ensure_future(visit(guard, codes)))
            await asyncio.sleep(0.02)
        gone = [one.done() for one in visits]
        for one in visits:
            one.cancel()
        await asyncio.gather(*visits, return_exceptions=True)
        assert gone == [True, True, False, False, False]
        return codes

    assert asyncio.run(crowd()) == [CROWDED, CROWDED]


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("example.org", False),
    ],
)
def test_others_need_a_token(monkeypatch: pytest.MonkeyPatch, host: str, own: bool):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert is_loopback(host) is own
    assert (_token(host) == "") is own
    assert own or len(_token(host)) >= 24
    monkeypatch.setenv(TOKEN_VARIABLE, "sesame")
    assert _token(host) == "sesame"


def test_a_clients_consultations_run_out_however_a_turn_ends():
    class Asks:
        """Consults once in each turn, while it may."""

        num_consults = 0
        num_consults_left = 9
        num_granted = 0
        new_messages = ()
        stop_strings = ()

        def limit_consults(self, num_more: int) -> None:
            self.num_granted = num_more

        async def step_async(self, text: str) -> tuple[Any, ...]:
            self.num_consults += min(1, self.num_granted)
            if text == "hang":
                await asyncio.Event().wait()
            return "seen", 0.0, False, False, {}

    async def play() -> None:
        allowance, env = Allowance(3), Asks()
        one: Any = env
        result = await allowance.charged_turn(one, "x")
        assert result["observation"] == "seen"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await allowance.charged_turn(one, "hang")
        turns = (allowance.charged_turn(one, "x") for _ in range(5))
        results = await asyncio.gather(*turns)
        assert [result["observation"] for result in results] == ["seen"] * 5
        assert (env.num_consults, allowance.num_left) == (3, 0)

    asyncio.run(play())


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--max-sessions", "0"), "serve: max_sessions=0 must be a whole number"),
        (("--idle-s", "0"), "serve: idle_s=0.0 must be a number"),
        (("--max-consults", "-1"), "serve: max_consults=-1"),
    ],
)
def test_bad_limits(capsys: pytest.CaptureFixture, flags: tuple[str, str], told: str):
    assert cli.main(["serve", "--mcp", *flags]) == 2
    assert told in capsys.readouterr().err


def test_nobody_is_let_in_while_too_many_are_still_to_leave():
    async def crowd() -> list[Any]:
        guard = Guard(nothing, max_sessions=2)
        sent: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.Event().wait()  # it works, and looks at no message

        async def send(message: Any) -> None:
            sent.append(message)

        guard.app = app
        visits = [
            asyncio.ensure_future(guard(scope("websocket"), nothing, send))
            for _ in range(6)
        ]
        await asyncio.sleep(0.05)
        assert [one.done() for one in visits] == [False] * 4 + [True] * 2
        for one in visits:
            one.cancel()
        await asyncio.gather(*visits, return_exceptions=True)
        return sent

    closed = {"type": "websocket.close", "code": CROWDED}
    assert asyncio.run(crowd()) == [closed, closed]


def test_who_does_not_read_is_gone():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.send", "text": "x"})

    async def send(message: Any) -> None:
        await asyncio.Event().wait()

    with pytest.raises(OSError, match=r"nothing was read for 0\.05 s"):
        asyncio.run(Guard(app, idle_s=0.05)(scope("websocket"), nothing, send))


@pytest.mark.parametrize("name", ["https://a.example", "a.example:443", "a.example/x"])
def test_an_allowed_name_stands_alone(capsys: pytest.CaptureFixture[str], name: str):
    assert cli.main(["serve", "--mcp", "--allow-host", name]) == 2
    assert "must be a name alone" in capsys.readouterr().err


def test_an_allowed_name_may_have_capitals():
    guard = Guard(nothing, ("Proxy.Example",))
    assert guard.refusal(scope(host="proxy.example:443")) == 0
