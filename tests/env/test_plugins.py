"""A package of somebody else's: installed by pip, used by name in a fresh process,
listed and checked.
"""

import os
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHEM = ROOT / "examples" / "aipo_chem"

BROKEN = """[aipo_env.agents]
chemist = broken_chem:Chemist
alchemist = broken_chem:Alchemist
[aipo_env.tools]
untyped = json:dumps
[aipo_env.verifiers]
yes = lenient:Yes
"""
LENIENT = '''
from aipo_env import Verdict

class Yes:
    """Accepts everything."""

    async def verify(self, task, text):
        return Verdict(correct=True, reward=1.0, status="correct")
'''


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the example with pip, and beside it a package whose components cannot be
    used.
    """
    # Looking for pip in this process would have setuptools leave distutils alone in it,
    # for torch.compile's harm.
    if not {"pip", "setuptools"} <= packages_distributions().keys():
        pytest.skip("nothing here can install a package: pip and setuptools are needed")
    folder = tmp_path_factory.mktemp("plugins")
    shutil.copytree(CHEM, folder / "source")
    site = folder / "site"
    options = [
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--disable-pip-version-check",
    ]
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        *options,
        "--target",
        str(site),
        str(folder / "source"),
    ]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    info = site / "broken_chem-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: Broken_Chem\nVersion: 2.5\n"
    )
    (info / "entry_points.txt").write_text(BROKEN)
    (site / "broken_chem.py").write_text('raise RuntimeError("no\\nlicence \\x1b[2J")')
    (site / "lenient.py").write_text(LENIENT)
    return site


def run(site: Path, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    paths = (str(site), str(ROOT), os.environ.get("PYTHONPATH", ""))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.run(
        [sys.executable, "-W", "error", *argv],
        cwd=site,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


USE = """
import gymnasium as gym
env = gym.make("aipo_chem:Chem/AIPO-Masses-Turn-v0", observation="delta")
print(env.reset(seed=0, options={"index": 3})[0].splitlines()[-1])
print(env.step("<knowledge>C</knowledge>")[0])
print(env.step('<atomic_mass>{"symbol": "O"}</atomic_mass>')[0])
print(env.step("<verify>S = 32</verify>")[0])
print(env.step("So \\\\boxed{3499}")[1:4])
print(gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json())).reset(seed=0)[1]["task_id"][:5])
tokens = gym.make("aipo_chem:Chem/AIPO-Masses-v0")
print(tokens.reset(seed=0)[0].dtype)
"""


def test_an_environment_an_agent_and_a_tool_are_used_by_name(site: Path):
    done = run(site, "-c", USE)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "Molar mass of H29C41N23O6S80, in g/mol?",
        '<reply from="knowledge">C has 12 g/mol</reply>',
        '<reply from="atomic_mass">16</reply>',
        '<reply from="verify">right</reply>',
        "(1.0, True, False)",
        "chem-",
        "int64",
    ]


def test_it_can_be_played(site: Path):
    play = [
        "-m",
        "aipo_env.cli",
        "play",
        "aipo_chem:Chem/AIPO-Masses-Turn-v0",
        "--index",
        "3",
    ]
    done = run(site, *play, stdin="<knowledge>C</knowledge>\n\\boxed{1}\n\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert "   agent │ C has 12 g/mol\n" in done.stdout
    assert done.stdout.endswith("Verdict: wrong. Your answer: 1. Consultations: 1.\n")


def test_what_is_installed_is_listed_with_where_it_is_from_and_what_is_wrong(
    site: Path,
):
    done = run(site, "-m", "aipo_env.cli", "plugins")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    fault = (
        "agent: 'broken_chem:{}' cannot be loaded: RuntimeError: no licence \\u001b[2J."
    )
    for line in (
        "agent     scripted         aipo_env",
        "agent     chemist          aipo-chem 0.1.0",
        (
            "agent     chemist          Broken_Chem 2.5: cannot be used:"
            f" {fault.format('Chemist')}"
        ),
        (
            "agent     alchemist        Broken_Chem 2.5: cannot be used:"
            f" {fault.format('Alchemist')}"
        ),
        "tool      atomic_mass      aipo-chem 0.1.0",
        "task      chem             aipo-chem 0.1.0",
        "codec     tags             aipo_env",
    ):
        assert line in lines


def check(site: Path, *options: str) -> subprocess.CompletedProcess[str]:
    plugin = ["-p", "aipo_env.pytest_plugin", "-p", "no:cacheprovider", *options]
    return run(site, "-m", "pytest", "--rootdir", str(site), "-v", *plugin)


def test_pytest_checks_what_a_package_offers(site: Path):
    done = check(site, "--aipo-plugins", "Aipo.Chem")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("agent chemist", "tool atomic_mass", "task chem"):
        assert f"{name} PASSED" in done.stdout
    assert "3 passed" in done.stdout


def test_pytest_names_the_rules_that_are_broken(site: Path):
    done = check(site, "--aipo-plugins", "broken-chem")
    assert done.returncode == 1
    assert "4 failed" in done.stdout
    assert (
        "agent alchemist cannot be used: agent: 'broken_chem:Alchemist' cannot be"
        " loaded" in done.stdout
    )
    assert "tool 'dumps': parameter 'obj' must be typed as one of str" in done.stdout
    assert "given '\\\\boxed{43}', it says Verdict(correct=True" in done.stdout
    assert "Refuse what is not the gold answer." in done.stdout
    assert "Traceback" not in done.stdout


def test_checks_are_chosen_as_tests_are(site: Path):
    done = check(
        site,
        "--aipo-plugins",
        "aipo-chem",
        "--aipo-plugins",
        "broken-chem",
        "-k",
        "chem and task",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed, 6 deselected" in done.stdout


def test_a_package_without_components_is_named(site: Path):
    done = check(site, "--aipo-plugins", "pluggy")
    assert done.returncode == 4
    assert (
        "pluggy offers no component. `aipo plugins` lists what is installed."
        in done.stderr
    )
