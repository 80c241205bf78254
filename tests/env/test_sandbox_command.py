"""`aipo sandbox` and what `aipo doctor` says of sandboxes."""

import json
import sys
from pathlib import Path

import pytest

from aipo_env import cli

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the process sandbox needs Linux"
)


def test_a_program_is_run_and_its_result_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    program, given = tmp_path / "program.py", tmp_path / "input"
    program.write_text(
        "import sys\nprint(input()[::-1],"
        " flush=True)\nsys.stdout.buffer.write(b'\\xff')\nsys.exit(3)"
    )
    given.write_bytes(b"abc\n")
    assert (
        cli.main(["sandbox", "--time-s", "30", "--stdin", str(given), str(program)])
        == 0
    )
    result = json.loads(capsys.readouterr().out)
    assert 0 < result.pop("seconds") < 30
    assert result.pop("layer") in ("namespaces", "landlock", "seccomp")
    assert result == {
        "status": "runtime_error",
        "exit_code": 3,
        "stdout": "cba\n\ufffd",
        "stderr": "",
        "reason": "exit status 3",
    }


@pytest.mark.parametrize(
    ("options", "source", "status"),
    [
        (["--time-s", "0.2"], "while True: pass", "timeout"),
        (["--output-bytes", "10"], "print('x' * 100)", "output_limit"),
        (["--memory-mb", "20"], "x = bytearray(10 ** 8)", "memory"),
        (["--backend", "process:minimum=landlock"], "import this", "ok"),
        ([], "x = '\udcff'", "compile_error"),
    ],
)
def test_limits(
    options: list[str],
    source: str,
    status: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
):
    program = tmp_path / "program.py"
    program.write_text(source, errors="surrogateescape")
    assert cli.main(["sandbox", *(options or ["--time-s", "30"]), str(program)]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == status


def test_unusable_arguments(tmp_path: Path, capsys: pytest.CaptureFixture):
    program = tmp_path / "program.py"
    assert cli.main(["sandbox", str(program)]) == 2
    assert "No such file" in capsys.readouterr().err
    program.write_text("print(1)")
    assert cli.main(["sandbox", "--backend", "dcker", str(program)]) == 2
    assert "Did you mean 'docker'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as exit_:
        cli.main(["sandbox", "--time-s", "0", str(program)])
    assert exit_.value.code == 2
    assert "time_s=0.0 must be positive" in capsys.readouterr().err


def test_doctor_says_which_sandboxes_hold(capsys: pytest.CaptureFixture):
    assert cli.main(["doctor"]) == 0
    lines = dict(
        line.split(maxsplit=1)
        for line in capsys.readouterr().out.splitlines()
        if line.strip()
    )
    for layer in ("namespaces", "landlock", "seccomp"):
        assert (
            lines[layer] == f"a sandbox that holds: {layer}"
            or "set up here" in lines[layer]
        )
    assert {"bubblewrap", "docker"} <= lines.keys()
