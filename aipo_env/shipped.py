"""Data that ships in `envs_data`, checked against its manifest before use."""

import hashlib
import importlib.util
import json
from pathlib import Path

from aipo_env.errors import DataError


def data_folder(name: str, root: Path | None = None) -> Path:
    """Return `envs_data/<name>` after checking each of its files.

    Raises:
        DataError: The manifest or a file is missing, or a file's SHA-256 is not the manifest's.
    """
    root = root or _root()
    manifest = root / "manifest.json"
    mend = "Install aipo-rl again, or check the files out anew."
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{manifest}: the data manifest cannot be read ({error}). {mend}") from error
    listed = {path: entry for path, entry in entries.items() if path.startswith(f"{name}/")}
    if not listed:
        raise DataError(f"{manifest}: lists nothing under {name!r}. {mend}")
    for path, entry in listed.items():
        file = root / path
        if not file.is_file():
            raise DataError(f"{file}: missing, though the manifest lists it. {mend}")
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if found != entry["sha256"]:
            raise DataError(
                f"{file}: SHA-256 is {found[:12]}…, the manifest says {entry['sha256'][:12]}…. {mend}"
            )
    return root / name


def _root() -> Path:
    spec = importlib.util.find_spec("envs_data")
    if spec is None or spec.origin is None:
        raise DataError("the package envs_data is not installed. Install aipo-rl again.")
    return Path(spec.origin).parent
