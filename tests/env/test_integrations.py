"""Libraries of others that are not there, or in a version that nobody tested; who wrote
tokens of theirs; and what their rollouts are called.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from aipo_env import AipoError, Author, Span
from aipo_env.integrations.authors import agents_tokens
from aipo_env.keys import rollout_number

ROOT = Path(__file__).resolve().parents[2]
ALONE = (
    "in an environment without the extras mcp and openenv. The extras mcp, openenv and"
    " verifiers exclude each other: the first needs mcp 2.3 or later, openenv one below"
    " 2, and verifiers 2.0.0 alone."
)
without_verifiers = pytest.mark.skipif(
    find_spec("verifiers") is not None, reason="verifiers is installed"
)


def imported(*folders: Path) -> str:
    """Return the last line that importing `aipo_verifiers` says."""
    paths = [str(folder) for folder in (ROOT, *folders)]
    done = subprocess.run(
        [sys.executable, "-c", "import aipo_verifiers"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr.splitlines()[-1]


@without_verifiers
def test_a_missing_library_is_told_by_name_and_with_its_extra():
    assert imported() == (
        "aipo_env.errors.ConfigError: verifiers is needed and not installed: pip"
        f' install "aipo-rl[verifiers]", {ALONE}'
    )


@without_verifiers
def test_another_version_than_those_that_were_tested_is_refused(tmp_path: Path):
    folder = tmp_path / "verifiers-0.3.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: verifiers\nVersion: 0.3.1\n"
    )
    assert imported(tmp_path) == (
        "aipo_env.errors.ConfigError: verifiers 0.3.1 is installed, and aipo_verifiers"
        f' is written for 0.4.x: pip install "aipo-rl[verifiers]", {ALONE}'
    )


def reply(body: str, wrapper: tuple[str, str] = ("<r>", "</r>")) -> tuple[Span, ...]:
    first, last = (Span(text, Author.ENV) for text in wrapper)
    return first, Span(body, Author.AGENT, "a", 0, is_content=True), last


def told(spans: Sequence[Span]) -> list[dict[str, Any]]:
    return [span.told() for span in spans]


def agents_texts(pieces: list[str], *spans: Span) -> list[str]:
    """Return the tokens that an agent wrote, of a message cut into these."""

    def decode(token_ids: list[int]) -> str:
        return "".join(pieces[number] for number in token_ids)

    written = told(spans)
    mask = agents_tokens(list(range(len(pieces))), written, decode)
    return [piece for piece, is_in in zip(pieces, mask, strict=True) if is_in]


def test_bodies_are_agents_and_what_stands_around_them_is_nobodys():
    pieces = ["<|user|>", "<r>", "to", "ld", "</r>", "<|end|>"]
    assert agents_texts(pieces, *reply("told")) == ["to", "ld"]
    assert agents_texts(["<r>", "told", "</r>"], Span("<r>told</r>", Author.ENV)) == []


def test_a_token_of_a_wrapper_too_is_not_an_agents():
    assert agents_texts(["<r", ">t", "ol", "d</", "r>"], *reply("told")) == ["ol"]


def test_each_of_several_replies_has_its_body_and_a_tool_none():
    tool = Span("42", Author.TOOL, "t", 1, is_content=True)
    pieces = ["<r>", "a", "</r>", "42", "<r>", "b", "</r>"]
    assert agents_texts(pieces, *reply("a"), tool, *reply("b")) == ["a", "b"]


def test_a_template_may_strip_the_text_of_a_message():
    spans = (Span("\n ", Author.ENV), *reply("told"), Span("\n", Author.ENV))
    assert agents_texts(["[U]", "<r>", "told", "</r>"], *spans) == ["told"]


def test_a_character_may_have_several_tokens():
    written = told(reply("n€"))
    mask = agents_tokens(
        list("<r>n€</r>".encode()),
        written,
        lambda ids: bytes(ids).decode("utf-8", "replace"),
    )
    assert mask == [False] * 3 + [True] * 4 + [False] * 4


def test_tokens_of_another_text_are_refused():
    with pytest.raises(AipoError, match="not its text: '<r>told</r>'"):
        agents_texts(["something", "else"], *reply("told"))


def test_a_character_cut_apart_beside_a_wrapper_belongs_to_whom_its_tokens_do():
    written = told(reply("€"))
    pieces = [b"<r>\xe2", b"\x82", b"\xac", b"</r>"]

    def decode(token_ids: list[int]) -> str:
        return b"".join(pieces[one] for one in token_ids).decode("utf-8", "replace")

    assert agents_tokens([0, 1, 2, 3], written, decode) == [False, True, True, False]
    pieces = [b"<r>", b"\xe2", b"\x82", b"\xac</", b"r>"]
    assert agents_tokens([0, 1, 2, 3, 4], written, decode) == [
        *(False, True, True, False, False)
    ]


def test_each_byte_of_a_character_may_be_read_as_one_of_its_own():
    text = "<r>n€</r>".encode()

    def decode(token_ids: list[int]) -> str:
        try:
            return bytes(token_ids).decode()
        except UnicodeDecodeError as error:
            whole = bytes(token_ids[: error.start]).decode()
            return whole + "\N{REPLACEMENT CHARACTER}" * (len(token_ids) - error.start)

    mask = agents_tokens(list(text), told(reply("n€")), decode)
    assert mask == [False] * 3 + [True] * 4 + [False] * 4


def test_what_a_template_stripped_of_a_reply_has_no_tokens():
    body = Span(" told\n", Author.AGENT, "a", 0, is_content=True)
    pieces = ["<|user|>", "\n", "to", "ld", "\n", "<|end|>"]
    assert agents_texts(pieces, body) == ["to", "ld"]


def test_a_long_reply_is_read_a_few_times_and_not_once_for_each_token():
    num_tokens, num_read = 20_000, 0

    def decode(token_ids: list[int]) -> str:
        nonlocal num_read
        num_read += len(token_ids)
        return "".join("<r>" if one == 1 else "ab " for one in token_ids)

    token_ids = [1, *[2] * (num_tokens - 2), 1]
    spans = reply("ab " * (num_tokens - 2), ("<r>", "<r>"))
    mask = agents_tokens(token_ids, told(spans), decode)
    assert mask == [False, *[True] * (num_tokens - 2), False]
    # Once in whole, and at most 15 beginnings for each of the two edges.
    assert num_read < 31 * num_tokens


def test_a_rollout_with_a_name_has_a_number_that_is_the_same_in_every_process():
    assert [rollout_number(name) for name in ("", "4f1c", "4f1d")] == [
        *(775_481_211, 4_119_685_160, 1_528_632_265)
    ]
