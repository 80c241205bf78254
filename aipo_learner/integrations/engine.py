"""Whether another trainer is installed, in a version that was tested."""

from importlib.metadata import PackageNotFoundError, version

from packaging.specifiers import SpecifierSet

from aipo_env import ConfigError


def check_engine(name: str, versions: str) -> None:
    """Raise ConfigError unless a package is installed in one of some versions.

    What an integration reaches into may change with any other.

    Args:
        name: Of the package, and of our extra that asks for it.
        versions: As pip writes them: ">=1.16,<1.17".
    """
    install = f'pip install "aipo-rl[{name}]"'
    try:
        installed = version(name)
    except PackageNotFoundError as error:
        raise ConfigError(f"{name} is needed and not installed: {install}.") from error
    if not SpecifierSet(versions).contains(installed, prereleases=True):
        raise ConfigError(
            f"{name} {installed} is installed, and the integration is written for"
            f" {name}{versions}, whose inside it knows: {install}."
        )
