"""Typed functions as tools."""

import asyncio
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from aipo_env import (
    TOOLS,
    AgentPool,
    AgentRequest,
    ConfigError,
    Tool,
    build_scenario,
    run_sync,
)


def shout(text: str) -> str:
    """Upper case."""
    return text.upper()


def vowel(text: str) -> str:
    """First vowel, if there is one."""
    return next(char for char in text if char in "aeiou")


async def later(flag: bool) -> bool:
    """The flag, after a while."""
    await asyncio.sleep(0)
    return flag


def ask(function: Callable[..., Any], query: str) -> str:
    tool = Tool(function)
    reply = run_sync(
        AgentPool({"t": tool}).consult(AgentRequest(kind="t", query=query))
    ).reply
    return reply.text if reply else ""


def untyped(a) -> int:
    """A."""
    return a


def starred(*numbers: int) -> int:
    """B."""
    return sum(numbers)


def positional(a: int, /) -> int:
    """C."""
    return a


def unknown_type(a: "NoSuchType") -> int:  # noqa: F821
    """D."""
    return a


def odd_type(a: bytes) -> int:
    """E."""
    return len(a)


def silent(a: int) -> int:
    return a


def verify(claim: str) -> str:
    """F."""
    return claim


class Counter:
    """Counts on."""

    def __call__(self, step: int) -> int:
        return step + 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            untyped,
            (
                "tool 'untyped': parameter 'a' must be typed as one of str, int, float,"
                " bool, list, dict"
            ),
        ),
        (odd_type, "tool 'odd_type': parameter 'a' must be typed"),
        (Counter, "tool 'Counter': it is a class, .* tools=.Counter."),
        (starred, r"parameter 'numbers' must be typed .* by name: no '\*' and no '/'"),
        (positional, r"parameter 'a' must be typed .* by name"),
        (
            unknown_type,
            "tool 'unknown_type': its types cannot be read: NameError.*NoSuchType",
        ),
        (silent, "tool 'silent': it has no docstring"),
        (lambda a: a, "tool '<lambda>': use a plain name"),
        (verify, "tool 'verify': use a plain name that is no agent's role"),
    ],
)
def test_what_is_no_tool_is_named_at_once(function: Callable[..., Any], message: str):
    with pytest.raises(ConfigError, match=message):
        Tool(function)


def test_how_a_policy_is_told_of_a_tool():
    schema = Tool(later).schema
    assert (schema.name, schema.description) == ("later", "The flag, after a while.")
    assert schema.parameters == {"flag": {"type": "boolean"}}
    assert schema.required == ("flag",)
    assert Tool(Counter()).schema.parameters == {"step": {"type": "integer"}}


HANGS = """
import time
from aipo_env import AgentPool, AgentRequest, PoolLimits, Tool, run_sync

def sleep(seconds: int) -> int:
    'Sleep.'
    time.sleep(seconds)
    return seconds

def ask(seconds: int, deadline_s: float) -> None:
    limits = PoolLimits(deadline_s=deadline_s, retries=0)
    pool = AgentPool({"sleep": Tool(sleep)}, limits)
    request = AgentRequest(kind="sleep", query=f'{{"seconds": {seconds}}}')
    outcome = run_sync(pool.consult(request))
    print(outcome.reply.text if outcome.reply else "none", end=" ")

for _ in range(40):
    ask(1000, 0.01)
ask(0, 60)
"""


def test_calls_that_never_return_hold_up_no_other_call_and_no_exit():
    done = subprocess.run(
        [sys.executable, "-c", HANGS],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "none " * 40 + "0 ", done.stderr


def test_the_prompt_of_a_toy_problem_tells_of_the_tools():
    built = build_scenario("toy", tools=[shout])
    prompt = (
        built.session(built.source.task("train", 0), aided=True, key=(0,))
        .open()[0]
        .content
    )
    assert "<shout>…</shout> Upper case." in prompt


@pytest.mark.parametrize(
    ("function", "query", "reply"),
    [
        (shout, "loud", "LOUD"),
        (shout, '{"text": "loud"}', "LOUD"),
        (shout, '["loud"]', '["LOUD"]'),
        (vowel, "aha", "a"),
        (vowel, "xyz", "error: RuntimeError: StopIteration()"),
        (
            shout,
            "",
            (
                "error: ValueError: the argument 'text' is missing; the arguments must"
                " be a JSON object with text"
            ),
        ),
        (shout, '{"text": 3}', "error: ValueError: text must be of type string, got 3"),
        (later, '{"flag": true}', "true"),
        (
            later,
            '{"flag": 1}',
            "error: ValueError: flag must be of type boolean, got 1",
        ),
        (
            later,
            '{"flga": true}',
            (
                "error: ValueError: there is no argument 'flga'. Valid: flag. Did you"
                " mean 'flag'?"
            ),
        ),
        (
            later,
            "[" * 100_000,
            "error: ValueError: the arguments must be a JSON object with flag",
        ),
        (
            later,
            "x" * 100_001,
            "error: ValueError: arguments of 100001 characters; at most 100000",
        ),
        (Counter(), '{"step": 1}', "2"),
        (
            Counter(),
            '{"step": true}',
            "error: ValueError: step must be of type integer, got true",
        ),
    ],
)
def test_arguments_and_answers(function: Callable[..., Any], query: str, reply: str):
    assert ask(function, query) == reply


def test_a_tool_is_named_by_a_spec_or_given_itself():
    tools = ["math:floor"]
    with pytest.raises(ConfigError, match="tool 'floor'"):
        build_scenario(tools=tools)  # written in C: it has no types
    here = [
        f"{__name__}:shout",
        {"type": f"{__name__}:later"},
        Counter(),
        Tool(positional_free),
    ]
    scenario = build_scenario(agents="none", tools=here)
    assert list(scenario.toolbox.names) == [
        "shout",
        "later",
        "Counter",
        "positional_free",
    ]
    assert "<shout>…</shout> Upper case." in scenario.codec.tool_instructions(None)


def positional_free(a: int) -> int:
    """G."""
    return a


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([shout, shout], "two are named 'shout'"),
        (["no_such_module:tool"], "there is no 'no_such_module'"),
        (
            ["json.no_such:tool"],
            "'json.no_such:tool' cannot be loaded: ModuleNotFoundError",
        ),
        (
            [{"type": "json:dumps", "indent": 2}],
            r"tool 'json:dumps': a function takes no options .*'indent': 2",
        ),
        ([3], "3 is no spec"),
    ],
)
def test_tools_that_cannot_be_built_are_named(tools: list, message: str):
    with pytest.raises(ConfigError, match=message):
        build_scenario(tools=tools)


def test_a_tool_of_ones_own_has_a_short_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(TOOLS, "_added", {})
    TOOLS.register("louder")(shout)
    assert list(build_scenario(agents="none", tools=["louder"]).toolbox.names) == [
        "shout"
    ]


def test_what_has_no_json_form_is_an_error_in_words():
    def things(n: int) -> Any:
        """Things."""
        return {1, 2} if n else json

    assert (
        ask(things, '{"n": 1}')
        == "error: TypeError: Object of type set is not JSON serializable"
    )


class Wrapped:
    """Answers by an async call behind an ordinary one."""

    async def __call__(self, step: int) -> int:
        return step + 1


def test_an_async_call_of_an_object_is_awaited():
    assert ask(Wrapped(), '{"step": 1}') == "2"


def wrong_setting(text: str) -> str:
    """Says that nothing can do."""
    raise ConfigError(f"no key for {text}")


def missing_package(text: str) -> str:
    """Needs a package."""
    import no_such_package_of_anybody

    return str(no_such_package_of_anybody)


def missing_plugin(text: str) -> str:
    """Needs a package by name."""
    return str(importlib.import_module("no_such_package_of_anybody"))


def run_code(text: str) -> str:
    """Run Python."""
    exec(text, {"fail": wrong_setting})
    return "ran"


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (wrong_setting, ConfigError, "no key for x"),
        (missing_package, ImportError, "No module named 'no_such_package_of_anybody'"),
        (missing_plugin, ImportError, "No module named 'no_such_package_of_anybody'"),
    ],
)
def test_what_no_arguments_can_mend_is_raised(
    function: Callable[..., Any], error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        asyncio.run(Tool(function).reply(AgentRequest(kind="t", query="x")))


@pytest.mark.parametrize(
    ("code", "reply"),
    [
        (
            "import no_such_package_of_anybody",
            "error: ModuleNotFoundError: No module named 'no_such_package_of_anybody'",
        ),
        ("raise ImportError('mine')", "error: ImportError: mine"),
        ("fail('x')", "error: ConfigError: no key for x"),
        ("1 +", "error: SyntaxError: invalid syntax (<string>, line 1)"),
        ("pass", "ran"),
    ],
)
def test_what_a_models_code_raises_ends_no_run(code: str, reply: str):
    query = json.dumps({"text": code})
    answer = asyncio.run(Tool(run_code).reply(AgentRequest(kind="t", query=query)))
    assert answer.text == reply


def load(module: str) -> str:
    """Load a module by its name."""
    return importlib.import_module(module).__name__


def test_a_module_that_a_model_names_ends_no_run():
    request = AgentRequest(kind="load", query="package_that_is_not_there")
    reply = asyncio.run(Tool(load).reply(request))
    assert reply.text.startswith("error: ModuleNotFoundError: No module named")
