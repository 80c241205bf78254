"""Whether another trainer is there, in a version that was tested."""

import importlib
import importlib.util
from importlib.metadata import version

import pytest

from aipo_env import ConfigError
from aipo_learner.integrations.engine import check_engine


def test_an_engine_in_a_version_that_was_tested_is_taken():
    installed = version("numpy")
    check_engine("numpy", f">={installed}")
    check_engine("numpy", f"=={installed}")


def test_an_engine_that_is_not_installed_is_refused_by_name():
    message = r'no-such is needed and not installed: pip install "aipo-rl\[no-such\]"'
    with pytest.raises(ConfigError, match=message):
        check_engine("no-such", ">=1")


@pytest.mark.parametrize("versions", ["<1", ">=1000", ">=0.9,<1"])
def test_an_engine_of_another_version_is_refused_by_name(versions: str):
    installed = version("numpy")
    with pytest.raises(ConfigError) as caught:
        check_engine("numpy", versions)
    assert str(caught.value) == (
        f"numpy {installed} is installed, and the integration is written for"
        f' numpy{versions}, whose inside it knows: pip install "aipo-rl[numpy]".'
    )


@pytest.mark.skipif(importlib.util.find_spec("trl") is not None, reason="TRL is here")
def test_without_trl_its_integration_says_what_to_install():
    with pytest.raises(ConfigError, match=r'trl is needed .*"aipo-rl\[trl\]"'):
        importlib.import_module("aipo_learner.integrations.trl")
