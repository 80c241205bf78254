"""What `aipo eval` can be asked."""

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tyro.conf import OmitArgPrefixes

from aipo_env import ConfigError, Environment, Spec, read_spec
from aipo_learner.settings.arguments import SpecField
from aipo_learner.settings.chat import ChatSettings
from aipo_learner.settings.checks import (
    Count,
    Natural,
    NotNegative,
    OptionalCount,
    Share,
    check_settings,
)
from aipo_learner.settings.token_filter import LIKELIEST_TOKEN, TokenFilter

_OPTION = re.compile(r"\s*[A-Za-z_]\w*\s*=")
"""How an option of a task source begins, as in `limit=9`."""
_NOT_IN_NAMES = re.compile(r"[^\w.=-]+")
"""What a folder's name is not to hold, a slash above all."""
MAX_NAME_CHARS = 80
"""A file system takes 255 bytes, and hardly any letter has more than three."""


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Measure a policy on held-out tasks, alone, and with its agents where asked."""

    policy: str = "tiny"
    """Model folder, hub name, the --out folder of a training run, whose seed,
    temperature and environment are then taken, or openai:MODEL@URL, a model behind an
    endpoint.
    """
    trust_remote_code: bool = False
    """Run code that comes with the model. Off unless you have read it."""
    chat: OmitArgPrefixes[ChatSettings] = field(default_factory=ChatSettings)
    """By which template its conversations are written. A policy that was trained here
    has the one that it was trained with.
    """
    trust_run: bool = False
    """Run code that the run's folder names: its environment, agents, tools, verifier.
    Off unless it is your own.
    """
    tasks: str = ""
    """Task sets, with commas between: known names
    (aime_2025,math_500,gpqa_diamond,livecodebench) or task sources
    (file:tasks.jsonl,hf:OWNER/NAME,limit=100). If not given, the environment's own
    tasks.
    """
    environment: Environment = field(default_factory=Environment)
    """What is played, by which rules, with whose help. Of --tasks each set takes the
    place of its source.
    """
    aided: bool = False
    """Measure with agents too."""
    num_tasks: Natural = 0
    """Tasks of each set; 0 for all, which is 96 of an endless set."""
    samples: Count = 64
    """Samples per task without agents; pass@k is given up to this k."""
    aided_samples: Count = 8
    """Samples per task with agents."""
    sampler: SpecField = "auto"
    """What samples the policy's turns."""
    seed: Natural = 0
    """Draws the toy world, the order of tasks and every sample."""
    temperature: NotNegative = 1.0
    """Sampling temperature; at 0 the likeliest token is taken."""
    top_k: Natural = 0
    """Draw from so many of the likeliest tokens; 0 for all. As the next two for
    evaluation alone: training needs the whole distribution.
    """
    top_p: Share = 1.0
    """Draw from the likeliest tokens that make up this share of the probability."""
    min_p: Share = 0.0
    """Draw from tokens that have this share of the likeliest one's probability."""
    num_threads: OptionalCount = None
    """CPU threads of torch. If not given, as for `aipo train`."""
    out: Path | None = None
    """Folder for scores.json and episodes.jsonl; of several sets, each has a folder of
    its own in it.
    """

    def __post_init__(self) -> None:
        check_settings(self, "eval: ")
        if not self.top_p:
            raise ConfigError("eval: top_p=0.0 must be above 0; 1 is for all tokens.")

    @property
    def token_filter(self) -> TokenFilter:
        """Which tokens may be drawn."""
        if not self.temperature:
            return LIKELIEST_TOKEN
        return TokenFilter(top_k=self.top_k, top_p=self.top_p, min_p=self.min_p)


def environments(options: EvalOptions) -> dict[str, Environment]:
    """Return what is measured, by name.

    It is the environment, or one of its kind for each task set.

    Raises:
        ConfigError: `tasks` names no task set.
    """
    if not options.tasks:
        # Of an id the package and the namespace say nothing new.
        _, _, short = options.environment.name.rpartition("/")
        return {_name(short): options.environment}
    own = options.environment
    by_name: dict[str, Environment] = {}
    for name, spec in task_sets(options.tasks).items():
        other = of_other_tasks(own, spec)
        # What an id registers is of its own tasks; what was named beside it is not.
        by_name[name] = replace(other, verifier=own.verifier, tools=own.tools)
    return by_name


def of_other_tasks(environment: Environment, spec: Spec) -> Environment:
    """Return an environment with other tasks: its rules, its codec and its agents.

    These tasks are judged by what fits them, and its tools are of its own tasks.
    """
    return replace(environment.resolved(), source=spec, verifier=None, tools=None)


def task_sets(text: str) -> dict[str, Spec]:
    """Split a list of task sources at its commas, and name each.

    A part `name=value` is an option of the source before it. The name is short, without
    options, unless another source has that name already.

    >>> task_sets("math500,limit=9,file:a.jsonl")
    {'math500': 'math500,limit=9', 'file-a.jsonl': 'file:a.jsonl'}

    Raises:
        ConfigError: There is none.
    """
    # A source as an object, whose commas divide its own parts, or a list of sources.
    if text.lstrip().startswith(("{", "[")):
        spec = _read_json(text)
        if not isinstance(spec, list):
            return {_name(text): spec}
        return {
            _name(each if isinstance(each, str) else json.dumps(each)): each
            for each in spec
        }
    specs: list[str] = []
    for part in text.split(","):
        part = part.strip()
        if not part:
            continue
        if specs and _OPTION.match(part):
            specs[-1] += f",{part}"
        else:
            specs.append(part)
    if not specs:
        raise ConfigError(
            "eval: --tasks names no task set. Name some, as in --tasks"
            " aime_2025,math_500."
        )
    by_name: dict[str, Spec] = {}
    for spec in specs:
        source, _, _ = spec.partition(",")
        name = _name(source)
        if name in by_name:
            name = _name(spec)
        by_name[name] = spec
    return by_name


def _read_json(text: str) -> Any:
    """Read what `--tasks` has in JSON."""
    try:
        return read_spec(text)
    except ValueError as error:
        raise ConfigError(f"eval: --tasks {text!r} is no JSON: {error}") from error


def _name(spec: str) -> str:
    """Return a name for a task set that can be a folder's."""
    # Without a dot at its beginning, which would hide the folder, or lead out of it.
    return _NOT_IN_NAMES.sub("-", spec).strip("-.")[:MAX_NAME_CHARS]
