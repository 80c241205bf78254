"""One test for every component that an installed package offers: its check in
`aipo_env.checker`.

    pytest -p aipo_env.pytest_plugin --aipo-plugins PACKAGE

What a check is to be called with, say the query that an agent answers, is the attribute
`check_with` of what the package offers: a mapping of the check's keyword arguments.
"""

from typing import Any

import pytest
from packaging.utils import canonicalize_name

from aipo_env.checker import CHECKS
from aipo_env.errors import AipoError
from aipo_env.registry import REGISTRIES, Plugin, Registry


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option `--aipo-plugins`."""
    told = (
        "check every agent, tool, task source, verifier and codec that this installed"
        " package offers"
    )
    group = parser.getgroup("aipo")
    group.addoption(
        "--aipo-plugins", action="append", default=[], metavar="PACKAGE", help=told
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add the checks, before others choose among the tests."""
    for package in config.getoption("aipo_plugins"):
        offered = [
            PluginItem.from_parent(
                session, name=f"{plugin.kind} {plugin.name}", offer=(registry, plugin)
            )
            for registry in REGISTRIES
            for plugin in registry.plugins()
            if canonicalize_name(plugin.origin.split()[0]) == canonicalize_name(package)
        ]
        if not offered:
            raise pytest.UsageError(
                f"{package} offers no component. `aipo plugins` lists what is"
                " installed."
            )
        items += offered


class PluginItem(pytest.Item):
    """The check of one component."""

    def __init__(self, *, offer: tuple[Registry, Plugin], **place: Any) -> None:
        super().__init__(**place)
        self.registry, self.plugin = offer

    def runtest(self) -> None:
        """Check it."""
        if self.plugin.error:
            raise AssertionError(f"{self.name} cannot be used: {self.plugin.error}")
        _, made_by, _ = self.registry.find(self.plugin.name)
        CHECKS[self.plugin.kind](self.plugin.name, **getattr(made_by, "check_with", {}))

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None
    ) -> Any:
        """Return the broken rule alone; anything else with its traceback."""
        told = isinstance(excinfo.value, AssertionError | AipoError)
        return str(excinfo.value) if told else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, None, str]:
        """Return where it comes from, for reports."""
        return self.path, None, f"{self.plugin.origin}: {self.name}"
