"""The command `aipo plugins`."""

from aipo_env.registry import all_registries
from aipo_env.viewer.render import escape_terminal


def plugins() -> None:
    """List the components that a spec can name, and what cannot be loaded."""
    for registry in all_registries():
        for plugin in registry.plugins():
            fault = f": cannot be used: {plugin.error}" if plugin.error else ""
            line = f"{plugin.kind:9} {plugin.name:16} {plugin.origin}{fault}"
            print(escape_terminal(" ".join(line.splitlines())))
