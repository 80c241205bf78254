"""What a model is told in an agent's role: the role's prompt, and what the role may see of a request."""

from pathlib import Path

from aipo_env.agents.base import AgentRequest
from aipo_env.errors import ConfigError
from aipo_env.records import CONSULT_KINDS

_PARTS = {"knowledge": "Question", "reason": "Question", "verify": "Claim"}


def role_prompts(folder: str) -> dict[str, str]:
    """Return the system prompt of each role, from a folder with a knowledge.md, a reason.md and a verify.md.

    Raises:
        ConfigError: One of them cannot be read. Without a folder they are ours.
    """
    home = Path(folder).expanduser() if folder else Path(__file__).with_name("prompts")
    return {kind: _read(home / f"{kind}.md") for kind in CONSULT_KINDS}


def role_question(request: AgentRequest) -> str:
    """Return a request as the user's message."""
    asked = _PARTS[request.kind], request.query
    parts = (("Problem", request.problem), ("Work so far", request.trace), asked)
    return "\n\n".join(f"{name}:\n{text}" for name, text in parts if text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigError(f"agents: the prompt {path} cannot be read: {error}.") from error
