"""The command `aipo view`."""

from pathlib import Path

from tyro.conf import Positional

from aipo_env.errors import ConfigError, DataError
from aipo_env.files import is_same_place, is_stream, write_anew, write_output
from aipo_env.stored import read_episodes
from aipo_env.viewer.render import episodes_html


def view(file: Positional[Path], out: Path | None = None) -> None:
    """Write a web page that shows recorded episodes.

    Args:
        file: JSON-lines file of episodes.
        out: The page; by default beside the file. /dev/stdout prints it.
    """
    page = out or file.with_suffix(".html")
    if is_same_place(page, file):
        raise ConfigError(
            f"view: the page would overwrite {file}; name another with --out."
        )
    episodes = list(read_episodes(file))
    if not episodes:
        raise DataError(f"{file}: holds no episode.")
    html = episodes_html(episodes, title=file.name)
    # A page beside the file is ours: it goes into no stream that somebody put there.
    write = write_output if out else write_anew
    try:
        write(page, html)
    except (OSError, DataError) as error:
        raise ConfigError(
            f"view: the page cannot be written: {error}. Name another with --out."
        ) from error
    if out is None or not is_stream(out):
        print(f"Page: {page}")
