"""The public test doubles: an endpoint that does as it is told."""

import json
from typing import Any
from urllib.request import Request, urlopen

from aipo_env import FaultServer


def ask(server: FaultServer, content: str) -> dict[str, Any]:
    """Return the chat completion that an endpoint makes of one message."""
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    request = Request(f"{server.url}/chat/completions", json.dumps(body).encode())
    with urlopen(request) as response:
        return json.load(response)


def test_a_reply_is_a_whole_chat_completion():
    with FaultServer(text="two words") as server:
        assert ask(server, "?") == {
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "created": 0,
            "model": "fault-server",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "two words"},
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": 10,
                "completion_tokens": 2,
                "total_tokens": 12,
            },
        }


def test_a_function_says_each_reply_by_its_request():
    with FaultServer(text=lambda body: body["messages"][-1]["content"][::-1]) as server:
        said = [ask(server, text)["choices"][0] for text in ("abc", "de")]
    assert [choice["message"]["content"] for choice in said] == ["cba", "ed"]
