"""The commands of this package by name, but `aipo doctor`, which lists them."""

from collections.abc import Callable

from aipo_env.commands.agents import agents
from aipo_env.commands.lint import lint
from aipo_env.commands.play import play
from aipo_env.commands.plugins import plugins
from aipo_env.commands.sandbox import sandbox
from aipo_env.commands.tasks import tasks
from aipo_env.commands.verify import verify
from aipo_env.commands.view import view
from aipo_env.serving.server import serve

_FUNCTIONS: tuple[Callable[..., None], ...] = (
    play,
    view,
    lint,
    plugins,
    tasks,
    agents,
    verify,
    sandbox,
    serve,
)
COMMANDS = {function.__name__: function for function in _FUNCTIONS}
