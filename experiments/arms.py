"""What is compared: a method in a world from a seed is an arm, several are a table."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from aipo_env import ConfigError, DataError
from aipo_learner import TrainConfig, policy_folder
from aipo_learner.settings.train import read_config_file

METHODS = Path(__file__).parent / "methods"
"""A file per method: the settings in which it differs from a world's."""
START = "start"
"""The method that trains nothing: the policy that all others start from."""
_OF_THE_MACHINE = ("out", "num_threads", "loggers")
"""Settings that say where and how a run is made, not what comes out."""
_HASH_CHARS = 16
_HASHED_BYTES = 2**20


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How much is sampled to measure a policy.

    Args:
        tasks: Held-out tasks.
        samples: Of each task without agents: the largest k of pass@k.
        aided_samples: Of each task with agents.
        drift_samples: Of each task without agents, for the distance to the policy that
            the run started from and the entropy.
    """

    tasks: int = 96
    samples: int = 16
    aided_samples: int = 4
    drift_samples: int = 2


@dataclass(frozen=True, kw_only=True)
class World:
    """Where methods are compared.

    Args:
        config: The run of every method, but for what the method says.
        retained: Tasks that the policy solves before it learns anything, as a source
            or an environment's id; "" where there are none.
    """

    config: TrainConfig
    retained: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """A question, and the arms that answer it.

    Args:
        name: Of the module and of the file of rows.
        question: In a sentence.
        worlds: By name.
        methods: Names of files in `experiments/methods`.
        against: The method that the others are compared with.
        seeds: Of the worlds, the order of tasks and every sample. Settings were chosen
            on none of them.
        measure: How much is sampled.
    """

    name: str
    question: str
    worlds: Mapping[str, World]
    methods: Sequence[str]
    against: str
    seeds: Sequence[int]
    measure: Measure = Measure()

    def arms(self, seeds: Sequence[int] | None = None) -> list["Arm"]:
        """Return all arms, those of one seed together.

        Args:
            seeds: Only these.
        """
        chosen = self.seeds if seeds is None else seeds
        return [
            Arm(table=self, world=world, method=method, seed=seed)
            for seed in chosen
            for world in self.worlds
            for method in (START, *self.methods)
        ]

    def arm(self, world: str, method: str, seed: int) -> "Arm":
        """Return one arm.

        Raises:
            ConfigError: The table has no such world or method.
        """
        for name, valid in ((world, self.worlds), (method, (START, *self.methods))):
            if name not in valid:
                raise ConfigError(
                    f"table {self.name!r} has no {name!r}. Valid: {', '.join(valid)}."
                )
        return Arm(table=self, world=world, method=method, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A method in a world from a seed."""

    table: Table
    world: str
    method: str
    seed: int

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells it from the other arms of its table."""
        return self.world, self.method, self.seed

    def __str__(self) -> str:
        return f"{self.table.name}: {self.method} in {self.world}, seed {self.seed}"

    def config(self) -> TrainConfig:
        """Return the whole configuration of its run, `out` being the default.

        Raises:
            ConfigError: The method's file cannot be read or says what no run may be
                told.
        """
        config = self.table.worlds[self.world].config
        if self.method != START:
            config = config.changed(read_method(self.method))
        return replace(config, seed=self.seed)

    def config_hash(self) -> str:
        """Return what changes if anything does that the outcome depends on.

        That is the configuration, what is measured, and the weights of the policy.
        """
        # What is not told is as it is by default: a setting that comes to be later
        # leaves the hashes of rows as they are.
        settings = changed_settings(self.config().to_dict(), TrainConfig().to_dict())
        for name in _OF_THE_MACHINE:
            settings.pop(name, None)
        world = self.table.worlds[self.world]
        text = json.dumps(
            {
                "settings": settings,
                "measure": vars(self.table.measure),
                "retained": world.retained,
                "trains": self.method != START,
                "policy": policy_digest(world.config.policy),
            },
            sort_keys=True,
            default=str,
        )
        return hashlib.sha256(text.encode()).hexdigest()[:_HASH_CHARS]


def changed_settings(
    settings: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the settings, nested ones too, that are not as they are by default."""
    changed: dict[str, Any] = {}
    for name, value in settings.items():
        default = defaults.get(name)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            inner = changed_settings(value, default)
            if inner:
                changed[name] = inner
        elif value != default:
            changed[name] = value
    return changed


def read_method(name: str) -> dict[str, Any]:
    """Return the settings of a method's file.

    Raises:
        ConfigError: There is none, or it cannot be read.
    """
    path = METHODS / f"{name}.toml"
    if not path.is_file():
        valid = sorted(path.stem for path in METHODS.glob("*.toml"))
        raise ConfigError(
            f"there is no method {name!r} in {METHODS}. Valid: {', '.join(valid)}."
        )
    return read_config_file(path)


def policy_digest(policy: str) -> str:
    """Return a digest of a policy's weights.

    Raises:
        DataError: They are not there.
    """
    folder = Path(policy_folder(policy))
    digest = hashlib.sha256()
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise DataError(
            f"{folder}: no weights (*.safetensors) of a policy. experiments/README.md"
            " says how they are made."
        )
    for path in weights:
        with path.open("rb") as file:
            while chunk := file.read(_HASHED_BYTES):
                digest.update(chunk)
    return digest.hexdigest()[:_HASH_CHARS]


def find_table(name: str) -> Table:
    """Return the table of a module of `experiments`.

    Raises:
        ConfigError: There is none.
    """
    names = table_names()
    if name not in names:
        raise ConfigError(f"there is no table {name!r}. Valid: {', '.join(names)}.")
    table: Table = import_module(f"experiments.{name}").TABLE
    return table


def table_names() -> list[str]:
    """Return the names of all tables, in the order of the page."""
    return ["main", "rules", "independence", "rivals"]
