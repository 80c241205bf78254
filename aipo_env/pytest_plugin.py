"""One test for every component that an installed package offers.

It is the component's check in `aipo_env.checker`, or the learner's.

    pytest -p aipo_env.pytest_plugin --aipo-plugins PACKAGE

What a check is to be called with, say the query that an agent answers, is the attribute
`check_with` of what the package offers: a mapping of the check's keyword arguments.
"""

from typing import Any

import pytest
from packaging.utils import canonicalize_name

from aipo_env.errors import AipoError
from aipo_env.registry import Plugin, Registry, all_registries, load_attribute


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option `--aipo-plugins`."""
    description = (
        "check every agent, tool, task source, verifier, codec, agent rule and base"
        " algorithm that this installed package offers"
    )
    group = parser.getgroup("aipo")
    group.addoption(
        "--aipo-plugins",
        action="append",
        default=[],
        metavar="PACKAGE",
        help=description,
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Add the checks, before others choose among the tests."""
    for package in config.getoption("aipo_plugins"):
        checks = _checks(session, package)
        # Else a name with a mistake in it would pass.
        if not checks:
            raise pytest.UsageError(
                f"{package} offers no component. `aipo plugins` lists what is"
                " installed."
            )
        items += checks


def _checks(session: pytest.Session, package: str) -> "list[PluginItem]":
    """Return the checks of what a package offers."""
    checks = []
    for registry in all_registries():
        for plugin in registry.plugins():
            # The origin is the package's name, a blank, and its version.
            origin = plugin.origin.split()[0]
            if canonicalize_name(origin) != canonicalize_name(package):
                continue
            name = f"{plugin.kind} {plugin.name}"
            offer = (registry, plugin)
            checks.append(PluginItem.from_parent(session, name=name, offer=offer))
    return checks


class PluginItem(pytest.Item):
    """The check of one component."""

    def __init__(self, *, offer: tuple[Registry, Plugin], **place: Any) -> None:
        super().__init__(**place)
        self.registry, self.plugin = offer

    def runtest(self) -> None:
        """Check it."""
        if self.plugin.error:
            raise AssertionError(f"{self.name} cannot be used: {self.plugin.error}")
        _, component, _ = self.registry.find(self.plugin.name)
        check = load_attribute(self.registry.check, self.plugin.kind)
        options = getattr(component, "check_with", {})
        check(self.plugin.name, **options)

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None
    ) -> Any:
        """Return the broken rule alone; anything else with its traceback."""
        if isinstance(excinfo.value, AssertionError | AipoError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, None, str]:
        """Return where it comes from, for reports."""
        return self.path, None, f"{self.plugin.origin}: {self.name}"
