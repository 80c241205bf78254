"""Data that ships in `envs_data`, checked against its manifest before use."""

import hashlib
import json
from importlib.resources import files
from pathlib import Path

from aipo_env.errors import DataError

_SHOWN_DIGITS = 12
"""Digits of a hash that a message shows: enough to tell two apart."""


def data_folder(name: str) -> Path:
    """Return `envs_data/<name>` after checking each of its files.

    Raises:
        DataError: The manifest or a file is missing, or a file's SHA-256 is not the
            manifest's.
    """
    root = Path(str(files("envs_data")))
    manifest = root / "manifest.json"
    advice = "Install aipo-rl again, or check the files out anew."
    try:
        entries = json.loads(manifest.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{manifest}: the data manifest cannot be read ({error}). {advice}"
        ) from error
    # Only those of this folder: to hash all data that ships would take too long.
    sums = {}
    for path, entry in entries.items():
        if path.startswith(f"{name}/"):
            sums[path] = entry["sha256"]
    if not sums:
        raise DataError(f"{manifest}: lists nothing under {name!r}. {advice}")
    for path, expected in sums.items():
        file = root / path
        if not file.is_file():
            raise DataError(f"{file}: missing, though the manifest lists it. {advice}")
        actual = hashlib.sha256(file.read_bytes()).hexdigest()
        if actual != expected:
            raise DataError(
                f"{file}: SHA-256 is {actual[:_SHOWN_DIGITS]}…, the manifest says"
                f" {expected[:_SHOWN_DIGITS]}…. {advice}"
            )
    return root / name
