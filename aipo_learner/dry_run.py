"""`aipo train --dry-run`: one step with a tiny policy, and what the real run takes.

The tiny policy has random weights and the architecture of the real one.
"""

import math
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)

from aipo_env import (
    AgentError,
    DataError,
    DialogueRules,
    Environment,
    PolicyError,
    RuleSettings,
    build_scenario,
    check_agents,
    hub_fault,
    parse_spec,
    read_episodes,
    run_sync,
    write_episodes,
)
from aipo_learner.build import read_sampler, with_origin
from aipo_learner.policy.fitness import check_context
from aipo_learner.policy.load import load_architecture, policy_folder, save_policy
from aipo_learner.policy.lora import num_adapter_weights
from aipo_learner.policy.tiny import build_tokenizer
from aipo_learner.policy.whereabouts import known_architectures
from aipo_learner.run.checkpoint_size import checkpoint_bytes
from aipo_learner.run.progress import say
from aipo_learner.run.words import bytes_text
from aipo_learner.settings.aid import SHARE
from aipo_learner.settings.checkpoints import CheckpointConfig
from aipo_learner.settings.episode_source import EpisodeSource
from aipo_learner.settings.evaluation import EvaluationSchedule
from aipo_learner.settings.objective import ObjectiveConfig
from aipo_learner.settings.teacher import read_teacher
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train

GIB = 2**30
_GPUS = {
    "A100 80 GB": (79.2, 312e12, 2e12),
    "H100 80 GB": (79.2, 989e12, 3.35e12),
    "H200": (139.8, 989e12, 4.8e12),
}
"""GiB, dense bfloat16 FLOP/s and bytes/s, from the manufacturer's data sheets."""
_NUMS_OF_GPUS = (1, 8)
"""One, and a machine full."""
# What is taken to be reached of each: assumptions, not measurements.
_SHARE_OF_FLOPS = 0.4
_SHARE_OF_BANDWIDTH = 0.6
_SHARE_OF_MEMORY = 0.9

_FLOAT32_BYTES = 4
_BFLOAT16_BYTES = 2
_TRAINED_BYTES = 12
"""Beside a weight that is trained: its gradient and AdamW's two means, in float32."""
_PASSES = 3
"""Forward passes that an update costs: a backward pass costs two."""
_PASSES_WITH_CHECKPOINTING = 4
"""With gradient checkpointing every layer is computed once more."""
_ENTROPY_LOGITS = 5
"""Tensors of all logits that are held at once where the entropy has a gradient, in
float32: measured, as the most that forward and backward pass came to."""
_PROBE_TOKENS = (256, 512)
"""Lengths that are measured: the difference is of tokens, the rest of the weights."""

_HEADERS = (
    "GPUs",
    "weights, optimiser",
    "update",
    "sampler's weights",
    "GiB",
    "episodes at once",
    "rollouts, min",
    "update, min",
)
_NO_ESTIMATE = ("does not fit", "", "")
"""The last three columns where not even one episode can be sampled."""
_SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "head_dim": 16,
    "moe_intermediate_size": 32,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 8192,
    "max_seq_len": 8192,
}
"""Sizes of the tiny policy, as far as its architecture has them."""
_NUM_SHARED_HEADS = 2
"""Key-value heads of the tiny policy, where the real one shares them."""
_NO_RETRIES = {"retries": 0}
_PATIENCE_S = 0.5
"""Agents are asked only to see whether the addresses are right."""
_REHEARSED_TURN_TOKENS = 24
"""A random policy writes nonsense up to the limit, so that it is low."""
_REHEARSED_CONTEXT_TOKENS = 8000
"""The tiny policy's tokenizer takes more tokens for a prompt than a large one."""


def dry_run(config: TrainConfig, console: Console) -> None:
    """Make one step of a run in a temporary folder; print what the real run takes.

    Args:
        config: Of the real run.
        console: What is printed to.

    Raises:
        ConfigError, DataError, PolicyError: What the real run would raise.
    """
    config = with_origin(config)
    shape = architecture(config)
    with TemporaryDirectory() as folder:
        rules = rehearse(config, shape, Path(folder), console)
    size = measure(shape, config, rules.max_context_tokens)
    episodes = (
        f"all episodes of {rules.max_context_tokens} tokens, {rules.max_policy_tokens}"
        " of them sampled"
    )
    title = (
        f"{config.policy}: {size.num_params / 1e9:.2f} billion weights; GiB per GPU;"
        f" {episodes}"
    )
    table = Table(*_HEADERS, title=title)
    for num_gpus, gpu in product(_NUMS_OF_GPUS, _GPUS):
        cells = estimate(config, rules, size, gpu, num_gpus)
        table.add_row(f"{num_gpus} x {gpu}", *cells)
    console.print(table)
    bytes_of_one = checkpoint_bytes(
        config, num_params=size.num_params, num_trained=size.num_trained
    )
    say(
        console,
        f"A checkpoint takes {bytes_text(bytes_of_one)}, every"
        f" {config.checkpoint_every} steps; the newest {config.keep_checkpoints} and"
        " the best are kept.",
    )


def architecture(config: TrainConfig) -> PretrainedConfig:
    """Return the policy's architecture, from our table, its folder or the Hub.

    Raises:
        PolicyError: It is in none of them.
    """
    table = known_architectures()
    # First, so that a model need not be there, nor a network.
    if config.policy in table:
        return AutoConfig.for_model(**table[config.policy])
    try:
        folder = policy_folder(config.policy)
        return load_architecture(folder, trust_remote_code=config.trust_remote_code)
    except (OSError, ValueError) as error:
        fault = hub_fault(error, config.policy) or "it cannot be read."
        raise PolicyError(
            f"policy {config.policy!r} has no readable config.json here or on the Hub:"
            f" {fault} Download its folder, or choose one whose architecture is known:"
            f" {', '.join(table)}."
        ) from error


def shrunk(shape: PretrainedConfig, vocabulary: int) -> PretrainedConfig:
    """Return the architecture with two narrow layers.

    What it shares among heads stays shared.
    """
    fields = shape.to_dict()
    # An architecture may have another name for a size, and take ours as well.
    small = {
        shape.attribute_map.get(name, name): size
        for name, size in _SMALL.items()
        if getattr(shape, name, None) is not None
    }
    if fields.get("num_key_value_heads"):
        is_shared = shape.num_key_value_heads != shape.num_attention_heads
        num_heads = _SMALL["num_attention_heads"]
        small["num_key_value_heads"] = _NUM_SHARED_HEADS if is_shared else num_heads
    # Those of the real vocabulary may be more than this one has.
    for name in ("eos_token_id", "pad_token_id", "bos_token_id"):
        if name in fields:
            small[name] = 0
    # One has an entry for each of the real layers; the other names a class.
    for derived in ("layer_types", "architectures"):
        fields.pop(derived, None)
    fields |= small
    fields |= {"vocab_size": vocabulary, "dtype": "float32"}
    return AutoConfig.for_model(**fields)


def rehearse(
    config: TrainConfig, shape: PretrainedConfig, folder: Path, console: Console
) -> DialogueRules:
    """Sample one group, then update from it as if half of its episodes had been right.

    Args:
        config: Of the real run.
        shape: The architecture, of which the policy is a tiny one.
        folder: Where both runs are made.
        console: Where it is said what was made, and what could not be.

    Returns:
        The rules of the real run's episodes.
    """
    try:
        scenario = build_scenario(config.environment, pool=_NO_RETRIES)
        run_sync(check_agents(scenario.pool, patience_s=_PATIENCE_S))
    except (AgentError, DataError) as error:
        console.print(
            f"The toy world and its agents stand in: {error}",
            highlight=False,
            markup=False,
        )
        # The rules stay: what the run takes depends on them.
        stand_in = Environment(source="toy", rules=config.environment.rules)
        # Its tasks are of no family of the real ones.
        config = replace(config, environment=stand_in, aid=SHARE)
        scenario = build_scenario(config.environment)
    sampling = _sampling_run(config, shape, folder)
    train(sampling, Console(quiet=True))
    episodes = read_episodes(sampling.out / "episodes" / "step-000001.jsonl")
    # A random policy gets nothing right, and equal rewards would leave no gradient.
    rewarded = (
        replace(episode, reward=float(number % 2), reward_parts={})
        for number, episode in enumerate(episodes)
    )
    path = folder / "rewarded.jsonl"
    write_episodes(path, rewarded, reveal=True)
    source = EpisodeSource(episodes=str(path))
    updating = replace(sampling, out=folder / "updated", source=source)
    train(updating, Console(quiet=True))
    if updating.objective.teacher != config.objective.teacher:
        say(
            console,
            f"Without the teacher {config.objective.teacher}, which knows other tokens:"
            " no figure has it in.",
        )
    console.print(
        "One step of sampling, update and checkpoint was made with a random tiny"
        " policy."
    )
    return scenario.rules


def _sampling_run(
    config: TrainConfig, shape: PretrainedConfig, folder: Path
) -> TrainConfig:
    """Save a tiny policy in `folder`; return a run of one step that samples from it."""
    tokenizer = build_tokenizer()
    torch.manual_seed(config.seed)
    model = AutoModelForCausalLM.from_config(
        shrunk(shape, len(tokenizer)), trust_remote_code=config.trust_remote_code
    )
    save_policy(model, tokenizer, folder / "policy")
    brief = RuleSettings(
        max_policy_tokens=_REHEARSED_TURN_TOKENS,
        max_context_tokens=_REHEARSED_CONTEXT_TOKENS,
    )
    environment = config.environment.changed(Environment(rules=brief))
    # All else is as in the real run, but for what writes elsewhere, needs other files,
    # or judges a random policy.
    return replace(
        config,
        policy=str(folder / "policy"),
        out=folder / "sampled",
        num_steps=1,
        groups_per_step=1,
        num_minibatches=1,
        environment=environment,
        # Those to start from are of the real policy.
        compute=replace(config.compute, lora_adapter=""),
        checkpoints=CheckpointConfig(save_dtype=config.checkpoints.save_dtype),
        loggers="",
        objective=_rehearsed_objective(config.objective),
        bounds={},
        held_out=(),
        overlong_buffer=0,
        sampler="transformers",
        evaluation=EvaluationSchedule(),
        source=EpisodeSource(),
    )


def _rehearsed_objective(objective: ObjectiveConfig) -> ObjectiveConfig:
    """Return an objective without what knows other tokens than the tiny policy's."""
    if objective.has_teacher and read_teacher(objective.teacher)[0] != "self":
        return objective.without_teacher()
    return objective


@dataclass(frozen=True)
class Footprint:
    """What an architecture takes.

    Args:
        num_params: Weights in all.
        num_trained: Weights with a gradient.
        num_layers: Decoder layers.
        hidden_size: Numbers that a layer takes and gives, per token.
        cast_bytes: Copies of all weights in the precision of the layers.
        activation_bytes: Kept for the backward pass, per token, without gradient
            checkpointing.
        cache_bytes: Keys and values of a token in bfloat16.
        token_flops: Forward pass, per token of an episode as long as it may be.
        vocabulary: Logits of a token; 0 counts none.
    """

    num_params: int
    num_trained: int
    num_layers: int
    hidden_size: int
    cast_bytes: float
    activation_bytes: float
    cache_bytes: int
    token_flops: float
    vocabulary: int = 0


def measure(
    shape: PretrainedConfig, config: TrainConfig, max_context_tokens: int
) -> Footprint:
    """Measure an architecture on tensors that have a size and no memory.

    Args:
        shape: The architecture.
        config: Of the run: precision and adapters.
        max_context_tokens: Length of the episodes.
    """
    short, long = _PROBE_TOKENS
    with FakeTensorMode():
        model = AutoModelForCausalLM.from_config(
            shape, dtype=torch.float32, trust_remote_code=config.trust_remote_code
        )
        is_cast = config.compute.precision != "float32"
        kept_of_short = _kept_bytes(model, short, is_cast)
        kept_of_long = _kept_bytes(model, long, is_cast)
    # A line through two points: what does not grow with tokens is of the weights.
    per_token = (kept_of_long - kept_of_short) / (long - short)
    of_weights = max(0.0, kept_of_short - short * per_token)
    num_params = sum(parameter.numel() for parameter in model.parameters())
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    head_size = (
        getattr(shape, "head_dim", None)
        or shape.hidden_size // shape.num_attention_heads
    )
    num_key_value_heads = (
        getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads
    )
    num_keys_and_values = 2 * shape.num_hidden_layers * num_key_value_heads * head_size
    # Two products, of queries with keys and of scores with values, with half of the
    # places of the longest episode on the average.
    attention = (
        shape.num_hidden_layers
        * shape.num_attention_heads
        * head_size
        * max_context_tokens
    )
    num_weights = sum(module.weight.numel() for module in linear)
    check_context(model, max_context_tokens)
    return Footprint(
        num_params=num_params,
        num_trained=_num_adapter_weights(shape, config) or num_params,
        num_layers=shape.num_hidden_layers,
        hidden_size=shape.hidden_size,
        cast_bytes=of_weights,
        activation_bytes=per_token,
        cache_bytes=_BFLOAT16_BYTES * num_keys_and_values,
        # Every weight is multiplied and added once.
        token_flops=2.0 * (num_weights + attention),
        vocabulary=shape.get_text_config(decoder=True).vocab_size,
    )


def _num_adapter_weights(shape: PretrainedConfig, config: TrainConfig) -> int:
    """Return how many weights the adapters of a model have; 0 without adapters."""
    compute = config.compute
    if not compute.lora_rank:
        return 0
    # Without memory, as above, on which peft can put adapters too.
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            shape, trust_remote_code=config.trust_remote_code
        )
    return num_adapter_weights(model, compute.lora_rank, compute.lora_targets)


def _kept_bytes(model: PreTrainedModel, num_tokens: int, is_cast: bool) -> int:
    """Return the bytes that a forward pass keeps for the backward pass.

    The weights themselves are not counted, but copies of them in bfloat16 are.
    """
    dtype = torch.bfloat16 if is_cast else torch.float32
    # A mask of ours, so that it can be left out of the sum.
    mask = torch.zeros(1, 1, num_tokens, num_tokens, dtype=dtype)
    # By storage: views of one tensor are kept once.
    there = set(map(_place, (mask, *model.parameters())))
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[_place(tensor)] = tensor
        return tensor

    cast = torch.autocast("cpu", torch.bfloat16, enabled=is_cast)
    with saved_tensors_hooks(keep, lambda tensor: tensor), cast:
        ids = torch.zeros(1, num_tokens, dtype=torch.long)
        # Without the head: its log-probabilities are computed in chunks.
        model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    return sum(
        tensor.untyped_storage().nbytes()
        for place, tensor in kept.items()
        if place not in there
    )


def _place(tensor: Tensor) -> int:
    """Return what tells a tensor's storage from others; fakes have no address."""
    return int(tensor.untyped_storage()._cdata)


def estimate(
    config: TrainConfig, rules: DialogueRules, size: Footprint, gpu: str, num_gpus: int
) -> tuple[str, ...]:
    """Return a row of the table, without its first column.

    docs/scaling.md has the sums.

    Args:
        config: Of the run.
        rules: Of its episodes.
        size: What its architecture takes.
        gpu: A name of `_GPUS`.
        num_gpus: How many of them.
    """
    memory, flops, bandwidth = _GPUS[gpu]
    has_checkpointing = config.compute.gradient_checkpointing
    state, work, copies = _bytes_per_gpu(config, rules, size, num_gpus)
    usable = _SHARE_OF_MEMORY * memory * GIB
    cells = [f"{part / GIB:.1f}" for part in (state, work, copies)]
    cells.append(f"{(state + work + copies) / GIB:.1f} of {usable / GIB:.1f}")
    context = rules.max_context_tokens
    num_episodes = math.ceil(config.groups_per_step * config.group_size / num_gpus)
    left = usable - state - work - copies
    num_fitting = int(left // (context * size.cache_bytes))
    at_once = min(num_episodes, num_fitting)
    if at_once < 1:
        return (*cells, *_NO_ESTIMATE)
    # To sample one token of each, the weights and all caches are read, which are half
    # full on the average. Reading is what takes the time.
    bytes_of_weights = _BFLOAT16_BYTES * size.num_params
    bytes_of_caches = at_once * context / 2 * size.cache_bytes
    read_bytes = bytes_of_weights + bytes_of_caches
    num_waves = math.ceil(num_episodes / at_once)
    num_reads = num_waves * rules.max_policy_tokens
    rollouts_s = num_reads * read_bytes / (_SHARE_OF_BANDWIDTH * bandwidth)
    num_passes = _PASSES_WITH_CHECKPOINTING if has_checkpointing else _PASSES
    num_tokens = num_episodes * context
    num_flops = num_tokens * size.token_flops * num_passes
    update_s = num_flops / (_SHARE_OF_FLOPS * flops)
    return (
        *cells,
        f"{at_once} of {num_episodes}",
        f"{rollouts_s / 60:.1f}",
        f"{update_s / 60:.1f}",
    )


def _bytes_per_gpu(
    config: TrainConfig, rules: DialogueRules, size: Footprint, num_gpus: int
) -> tuple[float, float, float]:
    """Return the bytes of weights and optimiser, of an update, and of whole copies."""
    has_checkpointing = config.compute.gradient_checkpointing
    is_spread = num_gpus > 1
    of_weights = _FLOAT32_BYTES * size.num_params
    state = (of_weights + _TRAINED_BYTES * size.num_trained) / num_gpus
    activations = size.activation_bytes
    if has_checkpointing:
        # The inputs of all layers, and one layer's activations at a time.
        layer_inputs = _FLOAT32_BYTES * size.num_layers * size.hidden_size
        activations = layer_inputs + size.activation_bytes / size.num_layers
    if config.objective.entropy_coef:
        # Only those before the policy's tokens.
        share = min(1.0, rules.max_policy_tokens / rules.max_context_tokens)
        activations += share * _ENTROPY_LOGITS * _FLOAT32_BYTES * size.vocabulary
    work = activations * config.microbatch_tokens
    # FSDP2 gathers one layer at a time; autocast keeps every copy of a trained weight
    # for the whole pass.
    by_layer = is_spread or (has_checkpointing and config.compute.lora_rank)
    work += size.cast_bytes / (size.num_layers if by_layer else 1)
    copies = 0
    if _has_own_weights(config):
        copies += _BFLOAT16_BYTES * size.num_params
    if is_spread:
        # Every rank samples from, or exports, a whole copy.
        copies += _FLOAT32_BYTES * size.num_params
    return state, work, copies


def _has_own_weights(config: TrainConfig) -> bool:
    """Return whether the sampler has a copy of the weights on the learner's GPU."""
    spec_type, _ = parse_spec(config.sampler, "sampler")
    # On the machine that it is meant for, it may be vLLM.
    if spec_type == "auto":
        return True
    kind, options = read_sampler(config.sampler)
    # A server that is named is elsewhere.
    return kind != "transformers" and not options.get("url")
