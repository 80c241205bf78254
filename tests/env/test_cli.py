"""The command `aipo`: dispatch, errors, exit codes."""

import importlib.util
import io
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint, version
from pathlib import Path

import gymnasium
import pytest

from aipo_env import ScriptedPolicy, build_scenario, cli, write_episodes
from aipo_env.commands.extras import EXTRAS
from aipo_env.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[2]
CALLS: list[list[str]] = []


def record_call(argv: list[str]) -> None:
    CALLS.append(argv)


def interrupt(argv: list[str]) -> None:
    raise KeyboardInterrupt


def fail(argv: list[str]) -> None:
    raise CheckpointError("checkpoint 3: cut short.\x1b[2J Delete it.")


def lack(argv: list[str]) -> None:
    raise ModuleNotFoundError("No module named 'jinja2'", name="jinja2.ext")


def lack_of_ours(argv: list[str]) -> None:
    raise ModuleNotFoundError(
        "No module named 'aipo_learner.gone'", name="aipo_learner.gone"
    )


@pytest.fixture(autouse=True)
def plugged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put other packages' commands in place of those that happen to be installed."""
    here = "stand_in_commands"
    monkeypatch.setitem(sys.modules, here, sys.modules[__name__])
    targets = {
        "record": f"{here}:record_call",
        "interrupt": f"{here}:interrupt",
        "fail": f"{here}:fail",
        "lack": f"{here}:lack",
        "ours": f"{here}:lack_of_ours",
        "train": "package_that_is_not_there.cli:train",
    }
    entries = [
        EntryPoint(name, value, "aipo.commands") for name, value in targets.items()
    ]
    monkeypatch.setattr(cli, "entry_points", lambda group: entries)


def run(*argv: str) -> int:
    return cli.main(argv)


def test_the_version_is_told(capsys: pytest.CaptureFixture):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"aipo-rl {version('aipo-rl')}\n"


def test_usage_says_what_each_command_of_ours_does(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    entries = [EntryPoint("train", "aipo_learner.cli:train", "aipo.commands")]
    monkeypatch.setattr(cli, "entry_points", lambda group: entries)
    assert run() == 0
    line = "  train      Train a policy; a run found in --out is resumed.\n"
    assert line in capsys.readouterr().out + "\n"


def test_an_unknown_flag_of_a_command_gets_the_nearest(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        run("verify", "answers.jsonl", "--kindd", "math")
    assert "aipo: --kindd: did you mean --kind?" in capsys.readouterr().err


def test_a_plugged_in_command_gets_its_arguments():
    CALLS.clear()
    assert run("record", "--lr", "1") == 0
    assert CALLS == [["--lr", "1"]]


def test_usage_lists_every_command_and_imports_none(capsys: pytest.CaptureFixture):
    for argv in ((), ("--help",)):
        assert run(*argv) == 0
        out = capsys.readouterr().out
        assert "  play       Be the policy: solve a task in the terminal" in out
        assert (
            "  plugins    List the components that a spec can name, and what cannot be"
            " loaded.\n" in out
        )
        assert "  train      from package_that_is_not_there\n" in out


def test_an_unknown_command_is_named_with_the_nearest(capsys: pytest.CaptureFixture):
    assert run("dctor") == 2
    assert (
        capsys.readouterr().err
        == "aipo: there is no command 'dctor'. Valid: agents, doctor, fail, interrupt,"
        " lack, lint, ours, play, plugins, record, sandbox, serve, tasks, train,"
        " verify, view. Did you mean 'doctor'?\n"
    )


def test_an_error_of_ours_is_one_harmless_paragraph(capsys: pytest.CaptureFixture):
    assert run("fail") == 2
    assert capsys.readouterr() == (
        "",
        "aipo: checkpoint 3: cut short.\\u001b[2J Delete it.\n",
    )


def test_ctrl_c(capsys: pytest.CaptureFixture):
    assert run("interrupt") == 2
    assert capsys.readouterr() == (
        "",
        "aipo: interrupted. What was saved before is whole.\n",
    )


def test_a_missing_package_names_its_extra(capsys: pytest.CaptureFixture):
    assert run("lack") == 2
    assert (
        capsys.readouterr().err
        == "aipo: `aipo lack` needs jinja2, which is not installed: pip install"
        ' "aipo-rl[report]".\n'
    )
    assert run("train", "--help") == 2
    assert (
        capsys.readouterr().err
        == "aipo: `aipo train` runs code that cannot be imported: No module named "
        "'package_that_is_not_there'. Install what it needs, or mend its import.\n"
    )


def test_a_missing_module_of_ours_is_not_the_users_fault():
    with pytest.raises(ModuleNotFoundError, match=r"aipo_learner.gone"):
        run("ours")


def test_arguments_come_from_the_command_line(monkeypatch: pytest.MonkeyPatch):
    CALLS.clear()
    monkeypatch.setattr(sys, "argv", ["aipo", "record", "x"])
    assert cli.main() == 0
    assert CALLS == [["x"]]


@pytest.mark.parametrize(
    "argv",
    [
        ("play", "--sorce", "toy"),
        ("play", "--index", "x"),
        ("view",),
        ("plugins", "x"),
        ("doctor", "x"),
    ],
)
def test_bad_arguments_exit_with_2(
    argv: tuple[str, ...], capsys: pytest.CaptureFixture
):
    with pytest.raises(SystemExit) as stopped:
        run(*argv)
    assert stopped.value.code == 2
    assert f"aipo {argv[0]} --help" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("play", "--source", "toys"), "aipo: task: there is no 'toys'. Valid: file, "),
        (
            ("play", "AIPO-Maths-Turn-v0"),
            (
                "aipo: environment: 'AIPO-Maths-Turn-v0' cannot be found. Valid:"
                " AIPO-Code-Turn-v0"
            ),
        ),
        (
            ("play", "gone:A-v0"),
            (
                "aipo: environment: 'gone:A-v0' cannot be found: No module named"
                " 'gone'. Install"
            ),
        ),
        (
            ("play", "CartPole-v1"),
            (
                "aipo: environment: 'CartPole-v1' is a CartPoleEnv, whose tasks and"
                " rules are"
            ),
        ),
        (
            ("play", "wordless-v0"),
            (
                "aipo: environment: 'wordless-v0' is a Env, whose tasks and rules are"
                " not known"
            ),
        ),
        (("play", "--source", "file:gone.jsonl"), "aipo: gone.jsonl: no such file."),
        (("play", "--index", "-1"), "aipo: play: index=-1 must not be negative."),
        (("view", "gone.jsonl"), "aipo: gone.jsonl: no such file."),
    ],
)
def test_what_cannot_be_used_is_named(
    argv: tuple[str, ...], message: str, capsys: pytest.CaptureFixture
):
    assert run(*argv) == 2
    assert capsys.readouterr().err.startswith(message)


@pytest.fixture(autouse=True, scope="module")
def wordless() -> Iterator[None]:
    """An environment that takes our arguments and is none of ours."""
    gymnasium.register("wordless-v0", entry_point=lambda **options: gymnasium.Env())
    yield
    del gymnasium.registry["wordless-v0"]


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        ((), "Apply mele to 0808."),
        (("--index", "1"), "Apply ramo to 9468."),
        (("--source", "toy:kinds=verify", "--agents", "none"), "Apply veva to 0808."),
        (("AIPO-Toy-v0",), "Apply mele to 0808."),
        (("aipo_env:AIPO-Toy-Turn-v0", "--source", "toy:seed=1"), "Apply"),
    ],
)
def test_play_takes_tasks_and_agents_from_an_environment(
    argv: tuple[str, ...],
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    monkeypatch.setattr("sys.stdin", io.StringIO("\\boxed{1}\n\n"))
    assert run("play", *argv) == 0
    out = capsys.readouterr().out
    assert f"  prompt │ {shown}" in out
    assert out.endswith("Verdict: wrong. Your answer: 1.\n")


def test_plugins_lists_our_own(capsys: pytest.CaptureFixture):
    assert run("plugins") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "agent     scripted         aipo_env" in lines
    assert "task      file             aipo_env" in lines
    assert "agent_rule floored          aipo_learner" in lines
    assert "base      dr_grpo          aipo_learner" in lines


def test_view_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture):
    pytest.importorskip("jinja2")
    scenario = build_scenario()
    session = scenario.session(scenario.source.task("train", 0), aided=True, key=(0,))
    file = tmp_path / "episodes.jsonl"
    write_episodes(
        file, [ScriptedPolicy(["<script>alert(1)</script>\\boxed{7623}"]).run(session)]
    )
    assert run("view", str(file)) == 0
    assert capsys.readouterr().out == f"Page: {tmp_path}/episodes.html\n"
    page = (tmp_path / "episodes.html").read_text(encoding="utf-8")
    assert "Apply mele to 0808." in page
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert run("view", str(file), "--out", str(tmp_path / "other.html")) == 0
    assert (tmp_path / "other.html").read_text(encoding="utf-8") == page


def test_view_says_where_it_cannot_write_and_what_is_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    file = tmp_path / "episodes.jsonl"
    file.write_text("")
    assert run("view", str(file)) == 2
    assert "episodes.jsonl: holds no episode" in capsys.readouterr().err
    assert run("view", str(file), "--out", str(file)) == 2
    assert "would overwrite" in capsys.readouterr().err
    pytest.importorskip("jinja2")
    scenario = build_scenario()
    session = scenario.session(scenario.source.task("train", 0), aided=True, key=(0,))
    write_episodes(file, [ScriptedPolicy(["\\boxed{1}"]).run(session)])
    assert run("view", str(file), "--out", str(tmp_path / "no" / "page.html")) == 2
    assert "the page cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("package", "extra"),
    [
        ("markupsafe", "report"),
        ("torch", "learner"),
        ("peft", "lora"),
        ("docker", "docker"),
        ("aiohttp", "openai"),
        ("huggingface_hub", "data"),
        ("ray", "ray"),
    ],
)
def test_every_package_of_an_extra_names_that_extra(
    package: str,
    extra: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
):
    def lacks_it(argv: list[str]) -> None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr(sys.modules[__name__], "lack", lacks_it)
    assert run("lack") == 2
    assert capsys.readouterr().err == (
        f"aipo: `aipo lack` needs {package}, which is not installed: pip install"
        f' "aipo-rl[{extra}]".\n'
    )


def test_the_extras_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    declared = project["project"]["optional-dependencies"]
    assert {*EXTRAS} == {*declared} - {"dev"}
    # What comes with one that is named.
    brought = {"openai": {"aiohttp"}, "report": {"markupsafe"}}
    for name, extra in EXTRAS.items():
        named = {re.match(r"\w+", requirement)[0] for requirement in declared[name]}
        assert {*extra.packages} == named | brought.get(name, set())


def test_doctor_says_which_extra_brings_what_a_command_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    absent = {"jinja2", "mcp", "openenv", "peft"}
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, package=None: None if name in absent else find(name, package),
    )
    assert run("doctor") == 0
    lines = capsys.readouterr().out.splitlines()
    assert 'aipo view       needs jinja2: pip install "aipo-rl[report]"' in lines
    assert (
        'aipo serve      needs mcp or openenv: pip install "aipo-rl[mcp]" or pip'
        ' install "aipo-rl[openenv]"'
    ) in lines
    assert (
        '[lora]          without peft: pip install "aipo-rl[lora]"  (adapters:'
        " --compute.lora-rank)"
    ) in lines


def test_doctor_says_that_another_mcp_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, package=None: find("json" if name == "mcp" else name, package),
    )
    monkeypatch.setattr("aipo_env.tools.mcp_tools.version", lambda name: "1.30.0")
    assert run("doctor") == 0
    [line] = [x for x in capsys.readouterr().out.splitlines() if x[:5] == "[mcp]"]
    assert "needs mcp 2.3 or a later 2.x, and 1.30.0 is installed" in line


def test_doctor_says_what_runs_and_keeps_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert run("doctor") == 0
    out = capsys.readouterr().out
    assert "OPENAI_API_KEY  set\n" in out
    assert "sk-secret" not in out
    rows = dict(
        line.split(maxsplit=1)
        for line in out.splitlines()
        if not line.startswith("aipo ")
    )
    assert rows["python"].startswith("3.")
    assert rows["gymnasium"][0] == "1"
    assert "aipo play       ready\n" in out
    listed = {line.split()[1] for line in out.splitlines() if line.startswith("aipo ")}
    assert listed - {"aipo-rl"} >= {*cli.OWN, "train", "eval", "report", "demo"}
