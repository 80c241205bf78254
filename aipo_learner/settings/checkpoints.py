"""From which checkpoint a run starts, and in what form it writes its own."""

from dataclasses import dataclass
from typing import Annotated, Any

from aipo_env import ConfigError
from aipo_learner.settings.checks import OneOf, check_settings

SAVE_DTYPES = ("float32", "bfloat16")
"""What the weights of an exported policy may be."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """From which checkpoint a run starts, and in what form it writes its own."""

    resume_from: str = ""
    """Checkpoint of another run (runs/x/checkpoints/step-000050) to start a new run in
    --out from: its weights take the place of --policy, or of its adapters. The other
    run stays as it is.
    """
    resume_optimizer: bool = True
    """Whether the optimiser's state is that of `resume_from`, or begins anew."""
    save_dtype: Annotated[str, OneOf(SAVE_DTYPES)] = "float32"
    """Of the weights of exported policies: float32 or bfloat16. Training goes on in
    float32, and a checkpoint keeps what it takes to be resumed exactly.
    """

    def __post_init__(self) -> None:
        check_settings(self, "config: checkpoints.")
        # From a file it may be anything.
        resume_from: Any = self.resume_from
        if not isinstance(resume_from, str):
            raise ConfigError(
                f"config: checkpoints.resume_from={resume_from!r} must be the path of a"
                " checkpoint."
            )
