"""The command `aipo view`: which files it shows, and what it says of them."""

import os
import re
import sys
from pathlib import Path

import pytest

from aipo_env import ScriptedPolicy, build_scenario, cli, write_episodes
from aipo_env.commands import view as view_module


def view(*words: str) -> int:
    return cli.main(["view", *words])


def played(path: Path, text: str = "\\boxed{1}", number: int = 1) -> Path:
    """Write episodes of one turn to a file, and return its path."""
    scenario = build_scenario()
    path.parent.mkdir(parents=True, exist_ok=True)
    session = scenario.session(scenario.source.task("train", 0), aided=True, key=(0,))
    write_episodes(path, [ScriptedPolicy([text]).run(session)] * number)
    return path


def sources(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(r'<li data-source="([^"]*)"', text)


def test_view_shows_the_episodes_of_a_runs_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    pytest.importorskip("jinja2")
    run_folder = tmp_path / "mine"
    for name in ("step-000001", "step-000012"):
        played(run_folder / "episodes" / f"{name}.jsonl")
    played(run_folder / "failed" / "step-000013.jsonl")
    played(run_folder / "eval" / "episodes.jsonl")
    played(run_folder / "sets" / "math500" / "episodes.jsonl")
    (run_folder / "metrics.jsonl").write_text("no episode\n")
    (run_folder / "journal.jsonl").write_text("no episode\n")
    assert view(str(run_folder)) == 0
    assert capsys.readouterr().out == f"Page: {run_folder}/episodes.html\n"
    of_run = ["step 1", "step 12", "failed, step 13", "eval/episodes"]
    assert sources(run_folder / "episodes.html") == [*of_run, "sets/math500/episodes"]
    assert view(str(run_folder / "episodes")) == 0
    assert sources(run_folder / "episodes" / "episodes.html") == ["step 1", "step 12"]
    # A folder of runs, such as that of a comparison.
    assert view(str(tmp_path)) == 0
    assert "mine, step 12" in sources(tmp_path / "episodes.html")


def test_view_shows_several_files_and_folders_on_one_page(
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    pytest.importorskip("jinja2")
    monkeypatch.chdir(tmp_path)
    played(Path("a/episodes/step-000003.jsonl"))
    played(Path("b.jsonl"), "\\boxed{中}")
    assert view("a", "b.jsonl") == 0
    assert capsys.readouterr().out == "Page: episodes.html\n"
    assert sources(Path("episodes.html")) == ["a: step 3", "b.jsonl"]
    assert "<title>a, b.jsonl</title>" in Path("episodes.html").read_text()
    assert view("a", "gone.jsonl") == 2
    assert "gone.jsonl: no such file" in capsys.readouterr().err


def test_view_says_what_a_folder_lacks(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert view(str(tmp_path)) == 2
    assert "holds no file of episodes" in capsys.readouterr().err


def test_view_bounds_a_page_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("jinja2")
    monkeypatch.setattr(view_module, "MAX_EPISODES_SHOWN", 2)
    file = played(tmp_path / "many.jsonl", number=3)
    assert view(str(file)) == 0
    assert capsys.readouterr().out.startswith(
        "The page shows the first 2 episodes. Name single files to see others.\n"
    )
    assert len(sources(tmp_path / "many.html")) == 2


def test_view_follows_no_link_in_a_folder_and_hangs_at_no_pipe(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    pytest.importorskip("jinja2")
    secret = played(tmp_path / "secret" / "episodes" / "step-000001.jsonl", "private")
    shared = tmp_path / "shared"
    played(shared / "episodes" / "step-000002.jsonl")
    (shared / "episodes" / "step-000001.jsonl").symlink_to(secret)
    (shared / "linked").symlink_to(secret.parents[1])
    os.mkfifo(shared / "episodes" / "step-000003.jsonl")
    assert view(str(shared)) == 0
    page = shared / "episodes.html"
    assert sources(page) == ["step 2"]
    assert "private" not in page.read_text()


def test_view_names_the_extra_that_pages_need(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    file = played(tmp_path / "made.jsonl")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.setitem(sys.modules, "markupsafe", None)
    assert view(str(file)) == 2
    assert 'pip install "aipo-rl[report]"' in capsys.readouterr().err
