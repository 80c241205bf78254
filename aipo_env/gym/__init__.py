"""Gymnasium environments, registered when `aipo_env` is imported.

`AIPO-Math-v0` is stepped token by token, `AIPO-Math-Turn-v0` turn by turn in text; so
are Code, Science and Toy. Arguments: those of `EpisodeEnv` and of the face, `TokenEnv`
or `TurnEnv`; `mode="token"|"turn"` chooses the face.
"""

from typing import Any, Unpack

import gymnasium

from aipo_env.errors import check_choice
from aipo_env.gym.episode_env import EnvOptions, EpisodeEnv
from aipo_env.gym.token_env import ObservationForm, TokenEnv
from aipo_env.gym.turn_env import Observation, TurnEnv

# Both names of a subject's environments stand for the same tasks.
_SUBJECTS = {
    "Math": "shipped:math",
    "Code": "shipped:code",
    "Science": "shipped:science",
    "Toy": "toy",
}


class FaceOptions(EnvOptions, total=False):
    """The arguments of both faces, beside those of `EpisodeEnv`.

    `tokenizer` is of both, `observation` the turn environment's, the others the token
    environment's.
    """

    tokenizer: str
    window: int
    obs: ObservationForm
    observation: Observation


def make_env(
    *, mode: str = "token", **options: Unpack[FaceOptions]
) -> EpisodeEnv[Any, Any]:
    """Return a token or turn environment.

    Raises:
        TypeError: The environment has no such argument.
        ConfigError: An argument is out of range.
    """
    check_choice("environment: mode", mode, ("token", "turn"))
    # Each takes arguments that the other refuses, and says so itself.
    face: Any = TokenEnv if mode == "token" else TurnEnv
    made: EpisodeEnv[Any, Any] = face(**options)
    return made


# What `gymnasium.make` looks for on a class, to add its own render wrappers.
make_env.metadata = EpisodeEnv.metadata  # type: ignore[attr-defined]

for _subject, _source in _SUBJECTS.items():
    for _infix, _mode in (("", "token"), ("-Turn", "turn")):
        gymnasium.register(
            f"AIPO-{_subject}{_infix}-v0",
            entry_point="aipo_env.gym:make_env",
            vector_entry_point="aipo_env.gym.vector:VectorEnv",
            kwargs={"source": _source, "mode": _mode},
        )
