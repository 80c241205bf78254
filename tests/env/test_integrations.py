"""Libraries of others that are not there, or in a version that nobody tested."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(
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


def test_a_missing_library_is_told_by_name_and_with_its_extra():
    assert imported() == (
        "aipo_env.errors.ConfigError: verifiers is needed and not installed: pip"
        ' install "aipo-rl[verifiers]".'
    )


def test_another_version_than_those_that_were_tested_is_refused(tmp_path: Path):
    folder = tmp_path / "verifiers-0.3.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: verifiers\nVersion: 0.3.1\n"
    )
    assert imported(tmp_path) == (
        "aipo_env.errors.ConfigError: verifiers 0.3.1 is installed, and aipo_verifiers"
        ' is written for 0.4.x: pip install "aipo-rl[verifiers]".'
    )
