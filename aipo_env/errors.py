"""Every error the project raises on purpose.

AipoError
├── ConfigError            a setting, spec or command-line value that cannot be used   (also ValueError)
├── DataError              a data file, row or field that cannot be used               (also ValueError)
├── PolicyError            a model, tokenizer or chat template that cannot be used
├── CheckpointError        a checkpoint that cannot be read or written
├── Interrupted            Ctrl-C, after the work in hand was finished and saved
│   └── Terminated         SIGTERM; the run is saved and wants to be started again (exit code 75)
├── AgentError             an agent gave no usable reply
│   └── AgentTimeout       ... within its deadline
├── VerifierError          a verifier could not decide
└── SandboxUnavailable     the sandbox cannot give its guarantee, so it refuses

Each message is one paragraph: the offending value, what is allowed, and what to do next. The command
line prints it without a traceback and exits with code 2 where nothing else is said.
"""

import difflib
from collections.abc import Iterable


class AipoError(Exception):
    """Root of the tree."""

    exit_code = 2


class ConfigError(AipoError, ValueError):
    """A setting, spec or command-line value that cannot be used."""


class DataError(AipoError, ValueError):
    """A data file, row or field that cannot be used."""


class PolicyError(AipoError):
    """A model, tokenizer or chat template that cannot be used."""


class CheckpointError(AipoError):
    """A checkpoint that cannot be read or written."""


class Interrupted(AipoError):
    """Ctrl-C, after the work in hand was finished and saved."""


class Terminated(Interrupted):
    """SIGTERM: everything is saved, and the same command goes on from there."""

    exit_code = 75  # EX_TEMPFAIL, at which a batch system can queue the job again


class AgentError(AipoError):
    """An agent gave no usable reply."""


class AgentTimeout(AgentError):
    """An agent gave no reply within its deadline."""


class VerifierError(AipoError):
    """A verifier could not decide."""


class SandboxUnavailable(AipoError):
    """The sandbox cannot give its guarantee, so it refuses to run anything."""


def suggest(value: str, valid: Iterable[str]) -> str:
    """Return a sentence that lists the valid values and names the nearest to `value`."""
    options = sorted(valid)
    near = difflib.get_close_matches(value, options, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Valid: {', '.join(options)}.{hint}"
