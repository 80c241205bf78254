"""One training run, in one dataclass."""

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes

from aipo_env import (
    ConfigError,
    Environment,
    as_environment,
    construct,
    need,
    parse_rewards,
    read_whole,
)
from aipo_learner.settings.aid import canonical_aid, read_aid, with_aid
from aipo_learner.settings.arguments import JsonField, SpecField, read_object
from aipo_learner.settings.chat import ChatSettings
from aipo_learner.settings.checkpoints import CheckpointConfig
from aipo_learner.settings.checks import (
    Bounds,
    Count,
    Limit,
    Natural,
    NotNegative,
    OneOf,
    Positive,
    Share,
    check_settings,
)
from aipo_learner.settings.compute import ComputeConfig
from aipo_learner.settings.episode_source import EpisodeSource
from aipo_learner.settings.evaluation import EvaluationSchedule
from aipo_learner.settings.objective import BASELINES, ObjectiveConfig
from aipo_learner.settings.optimizer import OptimizerConfig
from aipo_learner.settings.stages import (
    OptimizerSettings,
    RewardSettings,
    RolloutSettings,
    UpdateSettings,
)

MAX_SAMPLER_GAP = 0.5
"""Nats by which a sampler's log-probabilities may differ from the learner's, unless a
run sets another bound.
"""


def read_config_file(path: Path) -> dict[str, Any]:
    """Read the settings in a .json, .toml or .yaml file.

    Raises:
        ConfigError: It cannot be read, or holds no object of names and values.
    """
    try:
        text = read_whole(path).decode("utf-8")
        if path.suffix == ".toml":
            return tomllib.loads(text)
        if path.suffix in (".yaml", ".yml"):
            yaml = need("yaml", "pyyaml")
            value = yaml.safe_load(text)
            if not isinstance(value, dict):
                raise ValueError("it must hold names and values")
            return value
        return read_object(text)
    except ConfigError:
        raise
    # YAML has errors of its own, of a library that may not be there to name them.
    except Exception as error:
        raise ConfigError(
            f"config file {path}: {error}. Write one with: aipo train --print-config >"
            f" {path}"
        ) from error


INDEPENDENCE_MODES = ("mixed", "prompt_switch", "accept_anneal", "internalised")
"""How a policy may learn to do without agents."""

_OF_REFERENCE = ("kl_ref",)
"""Metrics of an update that compares the policy with the one it began as."""
_OF_OBSERVATIONS = (
    "observation_loss",
    "observation_tokens",
    "observation_p_mean",
    "observation_gradient_share",
)
"""Metrics of an update that learns observation tokens."""
_OF_SAMPLER = ("kl_sampler", "effective_sample_size")
"""Metrics of an update on what a sampler reported."""
_OF_AGENT_FREE = ("kl_sampler/agent_free", "effective_sample_size/agent_free")
"""The same of agent-free forms."""
_OF_AGENTS = ("agent_p_mean", "agent_below_floor_share", "agent_coefficient_mean")
"""Means over the tokens that a rule for agents' tokens weighs."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training run.

    Components are named by specs, each checked by the part that owns it.
    """

    policy: str = "tiny"
    """Hugging Face model folder or hub name; "tiny" is the policy that ships with the
    project.
    """
    trust_remote_code: bool = False
    """Run code that comes with the model, or with a teacher. Off unless you have read
    it.
    """
    chat: OmitArgPrefixes[ChatSettings] = field(default_factory=ChatSettings)
    """By which template its conversations are written."""
    out: Path = Path("runs/train")
    """Folder for checkpoints, metrics and episodes; a run found there is resumed."""
    seed: Natural = 0
    """Every draw of the run derives from it."""
    environment: Environment = field(default_factory=Environment)
    """What is played; "toy" unless it says. `--environment SPEC` is the id or the
    source, `--agents SPEC` the agents, `--reward module:function` the verifier.
    """
    held_out: tuple[str, ...] = ()
    """Task sources, or hash lists that `aipo tasks --hashes` wrote: training tasks that
    share text with their test tasks are left out.
    """
    sampler: SpecField = "auto"
    """What samples the policy's turns: "transformers", "vllm", "vllm-serve",
    "vllm:http://HOST:8000" (docs/samplers.md); "auto" is vllm where it is installed and
    has a GPU.
    """
    max_sampler_gap: Limit = MAX_SAMPLER_GAP
    """Largest difference (nats) of a token's log-probability between learner and
    sampler, before the first step and, with vLLM, after each weight sync; beyond it the
    run stops.
    """
    independence: Annotated[str, OneOf(INDEPENDENCE_MODES)] = "internalised"
    """How the policy learns to do without agents: internalised (best in
    docs/sweeps.md), mixed, prompt_switch or accept_anneal.
    """
    aid: SpecField = "share"
    """Which rollouts may consult (mixed, internalised). "share:0.5": that share of each
    group; share alone is a half, and 0 where the environment has no agents; share:0
    trains without. "all_wrong": only where all unaided ones of the group failed;
    "competence:0.25": where the running success of the task, or with ",family=KEY" of
    those of equal meta, is below; "module:function": as it says (docs/objective.md).
    `--aided-share X` is short for share:X.
    """
    anneal_from: Share = 0.7
    """Part of the run after which the share, or the acceptance of replies, falls: to 0,
    linearly, unless --anneal-shape says otherwise.
    """
    num_steps: Count = 100
    """Optimiser steps of the run (batches of rollouts)."""
    groups_per_step: Count = 24
    """Tasks per step."""
    group_size: Annotated[int, Bounds("a whole number, 2 or more", 2)] = 8
    """Rollouts per task."""
    source: OmitArgPrefixes[EpisodeSource] = field(default_factory=EpisodeSource)
    """Where episodes come from."""
    updates_per_step: Count = 1
    """Times that each batch of rollouts is gone through, a minibatch after another."""
    num_minibatches: Count = 1
    """Parts into which the groups of a batch are split, each with an optimiser update
    of its own (arXiv 1707.06347).
    """
    baseline: Annotated[str, OneOf(BASELINES)] = "split"
    """Whom a rollout is compared with: split, aided ones with the whole group and
    others with others; union, all with the whole group; per_mode, each with its own
    kind.
    """
    consult_bonus: NotNegative = 0.0
    """Added to the reward of a correct episode that consulted; annealed with the
    share.
    """
    consult_cost: NotNegative = 0.0
    """Taken from the reward for every answered consultation."""
    overlong_buffer: Natural = 0
    """Tokens before the limit over which the length penalty of arXiv 2503.14476 grows;
    0 is off.
    """
    temperature: Positive = 1.0
    """Sampling temperature; log-probabilities are taken at it too."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """The loss."""
    lr: Positive = 1e-6
    """Peak learning rate of AdamW."""
    warmup_steps: Natural = 10
    """Steps over which the rate rises linearly."""
    lr_end: Share = 1.0
    """Part of the rate that is left at the end of the run; it falls after warm-up."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """How a step is made of a gradient."""
    max_grad_norm: Limit = 1.0
    """Gradients are scaled down to this norm."""
    microbatch_tokens: Count = 8192
    """Tokens per forward and backward pass, padding included; changes nothing but
    memory and speed.
    """
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    """How the update is computed."""
    num_threads: Annotated[int | None, Bounds("a whole number, 1 or more", 1)] = None
    """CPU threads of torch; part of what makes a run repeatable. If not given, 1 for
    small models, else one per core; never more than OMP_NUM_THREADS.
    """
    checkpoint_every: Count = 25
    """Steps between checkpoints, each a complete Hugging Face export."""
    checkpoints: OmitArgPrefixes[CheckpointConfig] = field(
        default_factory=CheckpointConfig
    )
    """Where it starts, and in what form it is saved."""
    keep_checkpoints: Count = 2
    """Checkpoints kept: the newest; the best by the scheduled evaluation is kept beside
    them.
    """
    episodes_every: Count = 10
    """Steps from one whose first group of episodes is kept for the viewer to the next,
    beginning with step 1.
    """
    loggers: str = "tensorboard"
    """Where metrics go beside metrics.jsonl: any of tensorboard, wandb, trackio,
    mlflow, with commas between.
    """
    evaluation: EvaluationSchedule = field(default_factory=EvaluationSchedule)
    """Evaluation on held-out tasks during the run, and early stop."""
    stop_after_idle_steps: Natural = 5
    """Steps in a row without a gradient after which the run stops and says why; one of
    observation tokens alone counts as none. 0: never.
    """
    bounds: JsonField = field(default_factory=dict)
    """Metrics of the update that stop the run: {"entropy": [0.05, null], "kl_ref":
    [null, 1]}.
    """

    def __post_init__(self) -> None:
        # From a file they may be anything.
        out: Any = self.out
        held_out: Any = self.held_out
        environment: Any = self.environment
        bounds: Any = self.bounds
        objective: Any = self.objective
        if not isinstance(out, str | Path):
            raise ConfigError(f"config: out={out!r} must be the path of a folder.")
        if str(self.policy).startswith("openai:"):
            raise ConfigError(
                f"config: policy={self.policy!r} is behind an endpoint, so that its"
                " weights cannot be trained. Give a model folder or a hub name; `aipo"
                " eval --policy` measures an endpoint."
            )
        if not isinstance(held_out, list | tuple):
            raise ConfigError(f"config: held_out={held_out!r} must be a list of names.")
        if not isinstance(bounds, Mapping):
            raise ConfigError(
                f"config: bounds={bounds!r} must be an object of names and values."
            )
        # Frozen, so that only this way is left to give a field its own type: JSON has
        # lists for tuples, and texts for paths.
        object.__setattr__(self, "out", Path(out))
        object.__setattr__(self, "held_out", tuple(held_out))
        object.__setattr__(self, "environment", Environment.of(environment))
        object.__setattr__(self, "aid", canonical_aid(self.aid))
        if isinstance(objective, Mapping):
            made = construct(ObjectiveConfig, objective, "objective")
            object.__setattr__(self, "objective", made)
        for name, pair in bounds.items():
            _check_bound(name, pair)
        check_settings(self, "config: ")
        self._check_aid()
        self._check_minibatches()
        self._check_decay()
        self._check_imitation()
        self._check_bounds()

    def _check_imitation(self) -> None:
        """Raise ConfigError for a term of the loss that imitation has not."""
        weight = self.objective.observation_weight
        if weight and self.source.sft_episodes:
            raise ConfigError(
                f"config: objective.observation_weight={weight} with sft_episodes,"
                " which are imitated by cross-entropy alone. Set it to 0; imitation of"
                " agents' tokens is source.sft_agent_tokens."
            )

    def _check_bounds(self) -> None:
        """Raise ConfigError for a bound of a metric that no update can report."""
        causes: dict[str, str] = {}
        if not self.objective.kl_coef:
            causes |= dict.fromkeys(_OF_REFERENCE, "objective.kl_coef=0.0")
        if not self.objective.observation_weight:
            off = "objective.observation_weight=0.0"
            causes |= dict.fromkeys(_OF_OBSERVATIONS, off)
        if self.independence != "internalised":
            other = f"independence={self.independence!r}"
            causes |= dict.fromkeys(_OF_AGENT_FREE, other)
        if self.source.sft_episodes:
            none_of = (*_OF_REFERENCE, *_OF_AGENT_FREE, *_OF_SAMPLER, *_OF_AGENTS)
            causes |= dict.fromkeys(none_of, "sft_episodes, which are imitated")
        for name in self.bounds:
            if name in causes:
                raise ConfigError(
                    f"config: bounds has {name!r}, which no update reports with"
                    f" {causes[name]}: the bound would never act. Leave it out, or"
                    " change that."
                )

    def _check_aid(self) -> None:
        """Raise ConfigError where nobody could decide who is aided."""
        aid = read_aid(self.aid)
        if aid.is_decided and self.independence not in ("mixed", "internalised"):
            raise ConfigError(
                f"config: aid={self.aid!r} with independence={self.independence!r}, in"
                " which every rollout may consult, so that none decides before others."
                " Use mixed or internalised."
            )
        if aid.share and aid.is_decided and not round(self.group_size * aid.share):
            raise ConfigError(
                f"config: aid={self.aid!r}: share={aid.share:g} of"
                f" group_size={self.group_size} is no rollout, so that none would be"
                " aided. Use a larger share."
            )

    def _check_decay(self) -> None:
        """Raise ConfigError where the rate is told to fall and to stay."""
        decay = self.optimizer.decay
        if decay == "constant" and self.lr_end != 1:
            raise ConfigError(
                f"config: optimizer.decay='constant' with lr_end={self.lr_end}: leave"
                " lr_end out, or use 'linear' or 'cosine'."
            )
        if decay == "cosine" and self.lr_end == 1:
            raise ConfigError(
                "config: optimizer.decay='cosine' with lr_end=1.0, which the rate never"
                " leaves: set lr_end, as in --lr-end 0.1."
            )

    def _check_minibatches(self) -> None:
        """Raise ConfigError where a step cannot be split as it is told to be."""
        if self.num_minibatches > self.groups_per_step:
            raise ConfigError(
                f"config: num_minibatches={self.num_minibatches} is more than"
                f" groups_per_step={self.groups_per_step}: a group stays whole. Use at"
                " most that many."
            )
        if self.num_minibatches > 1 and self.source.sft_episodes:
            raise ConfigError(
                f"config: num_minibatches={self.num_minibatches} with sft_episodes,"
                " which makes one update of each batch. Lower groups_per_step instead."
            )

    @property
    def rollouts(self) -> RolloutSettings:
        """What the rollouts are told."""
        return RolloutSettings(
            seed=self.seed,
            num_steps=self.num_steps,
            groups_per_step=self.groups_per_step,
            group_size=self.group_size,
            max_staleness=self.source.max_staleness,
            independence=self.independence,
            aid=read_aid(self.aid),
            anneal_from=self.anneal_from,
            anneal_shape=self.source.anneal_shape,
            max_refills=self.source.max_refills,
        )

    @property
    def rewards(self) -> RewardSettings:
        """What the rewards are told."""
        return RewardSettings(
            consult_bonus=self.consult_bonus,
            consult_cost=self.consult_cost,
            overlong_buffer=self.overlong_buffer,
        )

    @property
    def optimizer_settings(self) -> OptimizerSettings:
        """What the optimiser is told."""
        return OptimizerSettings(
            name=self.optimizer.name,
            lr=self.lr,
            beta1=self.optimizer.beta1,
            beta2=self.optimizer.beta2,
            weight_decay=self.optimizer.weight_decay,
        )

    @property
    def update(self) -> UpdateSettings:
        """What the update is told.

        Of episodes to imitate, it descends the mean cross-entropy: `cispo` is log p
        times a ratio that is 1 in the only update, over the number of tokens.
        """
        objective = self.objective
        updates_per_step = self.updates_per_step
        if self.source.sft_episodes:
            objective = ObjectiveConfig(base="cispo", agent_rule="masked")
            updates_per_step = 1
        return UpdateSettings(
            objective=objective,
            updates_per_step=updates_per_step,
            num_minibatches=self.num_minibatches,
            max_grad_norm=self.max_grad_norm,
            microbatch_tokens=self.microbatch_tokens,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able dictionary that `from_dict` turns back."""
        row: dict[str, Any] = {}
        for item in dataclasses.fields(self):
            # It writes itself, as what it was made from.
            if item.name == "environment":
                continue
            value = getattr(self, item.name)
            # A class that is a dataclass counts as one, besides its instances.
            is_nested = dataclasses.is_dataclass(value) and not isinstance(value, type)
            row[item.name] = dataclasses.asdict(value) if is_nested else value
        row["environment"] = self.environment.to_dict()
        row["out"] = str(self.out)
        row["held_out"] = list(self.held_out)
        return row

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "TrainConfig":
        """Rebuild a configuration.

        Raises:
            ConfigError: A key is unknown (the message suggests the nearest), or a value
                invalid.
        """
        return cls().changed(values)

    def changed(self, values: Mapping[str, Any]) -> "TrainConfig":
        """Return a configuration with other values; raises as `from_dict`.

        Args:
            values: By field. Of nested settings, those that are not named stay.
                `environment` may be an id or a source; `agents` beside it stands for
                its agents, `reward` for reward functions, as on the command line.
        """
        # A copy, from which is taken what is no field or needs to be read.
        values = with_aid(values)
        environment = self.environment
        if "environment" in values:
            environment = as_environment(environment, values.pop("environment"))
        if "agents" in values:
            environment = dataclasses.replace(environment, agents=values.pop("agents"))
        if "reward" in values:
            verifier = parse_rewards(values.pop("reward"))
            environment = dataclasses.replace(environment, verifier=verifier)
        for name in ("rules", "pool"):
            if name in values:
                raise ConfigError(
                    f"config: {name!r} belongs to the environment: write "
                    f'{{"environment": {{"{name}": …}}}}, or --environment.{name}.NAME'
                    " VALUE."
                )
        own = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        nested: dict[str, Any] = {}
        for name, part in own.items():
            change = values.get(name)
            # As an object of values; a part may be there whole as well.
            if dataclasses.is_dataclass(part) and isinstance(change, Mapping):
                nested[name] = construct(type(part), {**vars(part), **change}, name)
        changes = {**own, **values, **nested, "environment": environment}
        return construct(TrainConfig, changes, "config")


def _check_bound(name: str, pair: Any) -> None:
    """Raise ConfigError unless a bound is a pair of numbers or of nothing."""
    is_pair = isinstance(pair, list | tuple) and len(pair) == 2
    if not is_pair or not all(_is_bound(bound) for bound in pair):
        raise ConfigError(
            f"config: bounds has {pair!r} for {name!r}; write [low, high], null where"
            " there is none."
        )


def _is_bound(value: Any) -> bool:
    """Return whether a value is a number, or None for no bound."""
    return value is None or isinstance(value, int | float)
