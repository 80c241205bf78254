"""The Knowledge Agent with a library: passages of a folder, with file and line."""

import asyncio
from pathlib import Path

import pytest

from aipo_env import AgentRequest, ConfigError, DataError, check_agent, run_sync
from aipo_env.agents.library import MAX_WORDS, Library


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "physics").mkdir()
    (tmp_path / "physics" / "waves.md").write_text(
        "# Waves\n\nThe speed of a wave is its frequency\ntimes its"
        " wavelength.\n\n\nSound needs a medium.\n"
    )
    (tmp_path / "algebra.txt").write_text(
        "A torsor is a set on which a group\nacts freely and transitively.\n\nGroups"
        " have an identity."
    )
    (tmp_path / "notes.pdf").write_bytes(b"%PDF torsor \xff")
    (tmp_path / "empty.txt").write_text("\n \n")
    return tmp_path


def ask(library: Library, query: str) -> str:
    return run_sync(library.reply(AgentRequest(kind="knowledge", query=query))).text


def test_passages_are_cited_by_file_and_line(folder: Path):
    library = Library(str(folder), num=1)
    assert library.agent_id.startswith(f"library:{folder.name}#")
    assert (
        ask(library, "What is a torsor?")
        == "[algebra.txt:1] A torsor is a set on which a group\nacts freely and"
        " transitively."
    )
    assert (
        ask(library, "wavelengths and frequencies")
        == "[physics/waves.md:3] The speed of a wave is its frequency\ntimes its"
        " wavelength."
    )
    assert ask(library, "sound") == "[physics/waves.md:7] Sound needs a medium."


def test_the_best_come_first_and_no_more_than_wanted(folder: Path):
    found = ask(Library(str(folder)), "identity of a group").split("\n\n")
    assert (
        found
        == [
            "[algebra.txt:4] Groups have an identity.",
            (
                "[algebra.txt:1] A torsor is a set on which a group\nacts freely and"
                " transitively."
            ),
        ]
        or found[0] == "[algebra.txt:4] Groups have an identity."
    )
    assert (
        len(
            ask(
                Library(str(folder), num=2), "a group of waves and sound is a set"
            ).split("\n\n")
        )
        == 2
    )


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?!",
        "zebra",
        '"',
        '" OR "',
        "text:*",
        "NEAR(",
        "a" * 100_000,
        "half \ud83d pair",
        "'; DROP TABLE passages",
    ],
)
def test_a_query_is_words_and_nothing_else(query: str, folder: Path):
    library = Library(str(folder))
    assert ask(library, query) in ("unknown", ask(library, "a"))
    assert "torsor" in ask(library, "torsor")


def test_another_text_is_another_version(folder: Path):
    before = Library(str(folder)).agent_id
    assert Library(str(folder)).agent_id == before
    (folder / "empty.txt").write_text("A new page.")
    assert Library(str(folder)).agent_id != before


def test_long_paragraphs_are_split(tmp_path: Path):
    lines = [f"line {number} {'x' * 90}" for number in range(30)]
    (tmp_path / "long.txt").write_text("\n".join(lines) + "\n" + "zebra " * 1_000)
    library = Library(str(tmp_path), num=1)
    place, text = ask(library, "29").split("] ", 1)
    assert place == "[long.txt:21"
    assert text.splitlines()[0].startswith("line 20 ")
    assert len(ask(library, "zebra")) <= 1_000 + len("[long.txt:31] ")


def test_many_questions_at_once(folder: Path):
    library = Library(str(folder), num=1)

    async def ask_all() -> set[str]:
        request = AgentRequest(kind="knowledge", query="torsor")
        return {
            reply.text
            for reply in await asyncio.gather(
                *(library.reply(request) for _ in range(50))
            )
        }

    assert len(asyncio.run(ask_all())) == 1


def test_the_conformance_kit(folder: Path):
    check_agent(Library(str(folder)), query="torsor")


def test_what_cannot_be_used_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"gone is no folder with .txt or .md files"):
        Library(str(tmp_path / "gone"))
    with pytest.raises(
        DataError,
        match=rf"{tmp_path.name} is no folder with .txt or .md files that hold text",
    ):
        Library(str(tmp_path))
    with pytest.raises(ConfigError, match="num=0 must be a whole number, at least 1"):
        Library(str(tmp_path), num=0)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"latin\.txt cannot be read as UTF-8 text"):
        Library(str(tmp_path))


def test_only_so_many_words_of_a_query_are_looked_up(folder: Path):
    library = Library(str(folder))
    before = " ".join(f"word{number}" for number in range(MAX_WORDS - 1))
    assert "torsor" in ask(library, f"{before} torsor")
    assert ask(library, f"{before} another torsor") == "unknown"
