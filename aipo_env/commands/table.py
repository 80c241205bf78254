"""The commands of this package by name; `aipo doctor`, which lists them, comes
beside.
"""

from collections.abc import Callable

from aipo_env.commands.agents import agents
from aipo_env.commands.lint import lint
from aipo_env.commands.play import play
from aipo_env.commands.plugins import plugins
from aipo_env.commands.sandbox import sandbox
from aipo_env.commands.tasks import tasks
from aipo_env.commands.verify import verify
from aipo_env.commands.view import view
from aipo_env.serving import serve

COMMANDS: dict[str, Callable[..., None]] = {
    command.__name__: command
    for command in (play, view, lint, plugins, tasks, agents, verify, sandbox, serve)
}
