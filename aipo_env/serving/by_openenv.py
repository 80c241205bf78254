"""An environment for others as a server of OpenEnv."""

import copy
import secrets
from typing import Any, get_args

from gymnasium.error import Error as GymnasiumError

from aipo_env.errors import ConfigError, shown
from aipo_env.event_loop import run_sync
from aipo_env.records import Split
from aipo_env.serving.episodes import (
    Allowance,
    Offer,
    ServerFault,
    check_length,
    check_split,
    leave_in_time,
    num_tasks_told,
    start_told,
    task_told,
    tasks_told,
)
from aipo_env.tools.mcp_tools import MCP_EXTRAS

_BAD_REQUEST = 400
"""Status of HTTP (RFC 9110): what is asked for cannot be done."""
_SERVER_ERROR = 500
"""The same: it could have been done, and failed here."""
_MAX_NAME_CHARS = 255
"""Of an episode's name that its client gives: OpenEnv's own limit over HTTP."""
_NAME_BYTES = 8
"""Of an episode's name, where its client gives none."""


def openenv_app(offer: Offer, *, version: str = "", max_sessions: int = 64) -> Any:
    """Return an OpenEnv server whose every session plays a copy of an environment.

    Args:
        offer: What is served.
        version: Told to clients.
        max_sessions: Clients at once.

    Raises:
        ConfigError: `openenv` is not installed.
    """
    _need_openenv()
    from openenv.core.env_server.http_server import create_fastapi_app
    from openenv.core.env_server.interfaces import Environment
    from openenv.core.env_server.types import (
        Action,
        EnvironmentMetadata,
        Observation,
        State,
    )

    class Turn(Action):  # type: ignore[misc]
        text: str

    class Seen(Observation):  # type: ignore[misc]
        text: str
        messages: list[dict[str, str]] = []  # noqa: RUF012
        spans: list[dict[str, Any]] = []  # noqa: RUF012
        stop: list[str] = []  # noqa: RUF012
        terminated: bool = False
        truncated: bool = False
        info: dict[str, Any] = {}  # noqa: RUF012

    class Served(Environment):  # type: ignore[misc]
        SUPPORTS_CONCURRENT_SESSIONS = True

        def __init__(self) -> None:
            super().__init__()
            self._env = copy.copy(offer.env)
            self._state = State()
            self._allowance = Allowance(offer.max_consults)

        # By position alone: a client may send an option of any name.

        def reset(
            self,
            /,
            seed: int | None = None,
            episode_id: str | None = None,
            **options: Any,
        ) -> Seen:
            return run_sync(self.reset_async(seed, episode_id, **options))

        async def reset_async(
            self,
            /,
            seed: int | None = None,
            episode_id: str | None = None,
            **options: Any,
        ) -> Seen:
            self._allowance.check(self._env, options.get("aided"))
            _check_name(episode_id)
            told = await start_told(self._env, seed, options)
            name = episode_id or secrets.token_hex(_NAME_BYTES)
            self._state = State(episode_id=name, step_count=0)
            return Seen(text=told.pop("observation"), **told)

        def step(
            self, action: Turn, timeout_s: float | None = None, **options: Any
        ) -> Seen:
            return run_sync(self.step_async(action))

        async def step_async(
            self, action: Turn, timeout_s: float | None = None, **options: Any
        ) -> Seen:
            check_length(action.text)
            told = await self._allowance.charged_turn(self._env, action.text)
            self._state.step_count += 1
            is_over = told["terminated"] or told["truncated"]
            return Seen(text=told.pop("observation"), done=is_over, **told)

        def close(self) -> None:
            leave_in_time(self._env)

        @property
        def state(self) -> State:
            return self._state

        def get_metadata(self) -> EnvironmentMetadata:
            return EnvironmentMetadata(
                name=offer.name, description=offer.description, version=version
            )

        # The tasks, by the names of OpenEnv's `TaskProvider`.

        def list_splits(self) -> list[str]:
            splits: tuple[Split, ...] = get_args(Split)
            return [split for split in splits if num_tasks_told(self._env, split)]

        def num_tasks(self, split: str) -> int:
            return num_tasks_told(self._env, check_split(self._env, split))

        def get_task(self, split: str, index: int) -> dict[str, Any]:
            return task_told(self._env, check_split(self._env, split), index)

        def list_tasks(self, split: str) -> list[dict[str, Any]]:
            # Whoever lists tasks takes what comes for all there are.
            return self.get_task_range(split)

        def get_task_range(
            self, split: str, start: int | None = None, stop: int | None = None
        ) -> list[dict[str, Any]]:
            return tasks_told(self._env, check_split(self._env, split), start, stop)

    # One more than the guard lets in: at its limit it is for the guard to say so.
    app = create_fastapi_app(
        Served,
        Turn,
        Seen,
        max_concurrent_envs=max_sessions + 1,
        env_name=offer.name,
    )
    _refuse_mcp(app)
    # Any other error is answered without a word of it.
    for refusal in (ConfigError, GymnasiumError, ServerFault):
        app.add_exception_handler(refusal, _refused)
    return app


def _check_name(episode_id: Any) -> None:
    """Raise ConfigError unless a client's name for an episode is a short text."""
    if episode_id is None:
        return
    is_text = isinstance(episode_id, str)
    if not is_text or len(episode_id) > _MAX_NAME_CHARS:
        raise ConfigError(
            f"reset: episode_id={shown(episode_id)} must be text of at most"
            f" {_MAX_NAME_CHARS} characters."
        )


def _need_openenv() -> None:
    """Raise ConfigError unless OpenEnv is installed."""
    try:
        import openenv.core.env_server.http_server  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "aipo serve --openenv needs openenv, which is not installed: pip install"
            ' "aipo-rl[openenv]", in an environment without the extras mcp and'
            f" verifiers. {MCP_EXTRAS}"
        ) from error


def _refuse_mcp(app: Any) -> None:
    """Take away the routes by which a session could be opened beside the guard.

    They are for environments with tools of MCP, which ours has not, and a session that
    is opened there is ended by nobody.
    """
    app.router.routes[:] = [
        route for route in app.router.routes if getattr(route, "path", "") != "/mcp"
    ]


async def _refused(request: Any, error: Exception) -> Any:
    """Answer a request over HTTP that cannot be done."""
    from starlette.responses import JSONResponse

    status = _SERVER_ERROR if isinstance(error, ServerFault) else _BAD_REQUEST
    return JSONResponse({"detail": str(error)}, status)
