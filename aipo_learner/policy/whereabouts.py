"""Where a policy that is named can be had from, if at all; without torch."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aipo_env import PolicyError, is_hub_reachable, need, no_network


def whereabouts(policy: str) -> str:
    """Return the folder of a policy, or its name on the Hub.

    Where the Hub cannot be reached, it is the folder of what was downloaded before.

    Args:
        policy: "tiny", a folder, or a name on the Hub.

    Raises:
        PolicyError: There is no such folder, or it cannot be downloaded now.
    """
    # An empty name would stand for the working directory.
    is_folder = policy != "" and Path(policy).is_dir()
    if policy == "tiny" or is_folder:
        return policy
    # A path would be asked for in vain.
    is_path = Path(policy).is_absolute() or policy.startswith(".")
    if is_path or policy.count("/") != 1:
        raise PolicyError(
            f"policy {policy!r}: no such folder. Give a Hugging Face model folder, or a"
            " name on the Hub: OWNER/NAME, as openai-community/gpt2."
        )
    # What loads the policy says which packages are missing.
    if find_spec("huggingface_hub") is None or is_hub_reachable():
        return policy
    hub = need("huggingface_hub")
    try:
        return str(hub.snapshot_download(policy, local_files_only=True))
    # Names that are none on the Hub are told by another error than absent ones.
    except (OSError, ValueError) as error:
        raise PolicyError(
            f"policy {policy!r}: {no_network()} Or give the folder of a model that is"
            " here."
        ) from error


def known_architectures() -> dict[str, Any]:
    """Return the arguments of architectures that need no download, by their names."""
    path = Path(__file__).parents[1] / "architectures.json"
    table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return table


def check_architecture(policy: str) -> None:
    """Raise PolicyError where a policy's architecture is neither here nor to be had."""
    known = known_architectures()
    if policy in known:
        return
    try:
        whereabouts(policy)
    except PolicyError as error:
        raise PolicyError(
            f"{error} Or a name whose architecture is known: {', '.join(known)}."
        ) from error
