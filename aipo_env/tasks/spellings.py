"""How sources of tasks may be spelled on a command line, and what is meant."""

from difflib import get_close_matches
from typing import Any

from aipo_env.errors import MAX_SHOWN, ConfigError, shown
from aipo_env.tasks.datasets import find_dataset, known_datasets
from aipo_env.tasks.mixture_spec import mixture_spec
from aipo_env.tasks.rows import DATA_SUFFIXES, read_json

_NEAR = 0.75
"""How alike two names are of which one is meant by the other."""


def source_spec(spec: Any) -> Any:
    """Return the spec that is meant by a short one; any other as it is.

    A known data set needs no "hf:", a file with the ending of a data file no "file:",
    and several sources stand with " + " between them. What begins like an object or a
    list is JSON; a list is of sources that are mixed.

    >>> source_spec("GSM8K,limit=9")
    'hf:GSM8K,limit=9'
    >>> source_spec("mine.jsonl")
    'file:mine.jsonl'

    Raises:
        ConfigError: It is no JSON, or a weight of a mixture cannot be read.
    """
    if not isinstance(spec, str):
        return spec
    if spec.lstrip().startswith(("{", "[")):
        return _from_json(spec)
    mixture = mixture_spec(spec)
    if mixture is not None:
        return mixture
    name, _, _ = spec.partition(",")
    if find_dataset(name) is not None:
        return f"hf:{spec}"
    is_file = ":" not in name and name.endswith(DATA_SUFFIXES)
    return f"file:{spec}" if is_file else spec


def near_dataset(spec: Any) -> str:
    """Return the known data set whose name is nearest to a spec's; empty if none is."""
    if not isinstance(spec, str) or ":" in spec:
        return ""
    name, _, _ = spec.partition(",")
    short_names = [known for known in known_datasets() if "/" not in known]
    near = get_close_matches(name.lower()[:MAX_SHOWN], short_names, n=1, cutoff=_NEAR)
    return near[0] if near else ""


def _from_json(text: str) -> Any:
    """Return the spec that a text in JSON holds."""
    try:
        spec = read_json(text)
    except ValueError as error:
        raise ConfigError(f"task: {shown(text)} is no JSON: {error}") from error
    return {"type": "mix", "sources": spec} if isinstance(spec, list) else spec
