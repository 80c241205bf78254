"""Data that ships in `envs_data`, checked against its manifest before use."""

import hashlib
import json
from importlib.resources import files
from pathlib import Path

from aipo_env.errors import DataError


def data_folder(name: str) -> Path:
    """Return `envs_data/<name>` after checking each of its files.

    Raises:
        DataError: The manifest or a file is missing, or a file's SHA-256 is not the
            manifest's.
    """
    root = Path(str(files("envs_data")))
    manifest = root / "manifest.json"
    mend = "Install aipo-rl again, or check the files out anew."
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{manifest}: the data manifest cannot be read ({error}). {mend}"
        ) from error
    listed = {
        path: entry["sha256"]
        for path, entry in entries.items()
        if path.startswith(f"{name}/")
    }
    if not listed:
        raise DataError(f"{manifest}: lists nothing under {name!r}. {mend}")
    for path, sha256 in listed.items():
        file = root / path
        if not file.is_file():
            raise DataError(f"{file}: missing, though the manifest lists it. {mend}")
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if found != sha256:
            raise DataError(
                f"{file}: SHA-256 is {found[:12]}…, the manifest says {sha256[:12]}…."
                f" {mend}"
            )
    return root / name
