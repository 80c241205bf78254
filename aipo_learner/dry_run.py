"""`aipo train --dry-run`: one step with a random tiny policy of the same architecture,
and what the real run takes.
"""

import json
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
    parse_spec,
    read_episodes,
    run_sync,
    write_episodes,
)
from aipo_learner.policy.load import load_architecture, policy_folder, save_policy
from aipo_learner.policy.tiny import build_tokenizer
from aipo_learner.settings.episode_source import EpisodeSource
from aipo_learner.settings.schedule import EvaluationSchedule
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train

GIB = 2**30
_GPUS = {
    "A100 80 GB": (79.2, 312e12, 2e12),
    "H100 80 GB": (79.2, 989e12, 3.35e12),
    "H200": (139.8, 989e12, 4.8e12),
}
"""GiB, dense bfloat16 FLOP/s and bytes/s, from the manufacturer's data sheets."""
_SHARE_OF_FLOPS, _SHARE_OF_BANDWIDTH, _SHARE_OF_MEMORY = 0.4, 0.6, 0.9
"""What is taken to be reached of each: assumptions, not measurements."""
_HEADERS = (
    "GPUs|weights, optimiser|update|sampler's weights|GiB|episodes at once|rollouts,"
    " min|update, min"
)
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
}


def dry_run(config: TrainConfig, console: Console) -> None:
    """Build all that a run needs, make one step of it in a temporary folder, print what
    the real run takes.

    Raises:
        ConfigError, DataError, PolicyError: What the real run would raise.
    """
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
    table = Table(*_HEADERS.split("|"), title=title)
    for num_gpus, gpu in product((1, 8), _GPUS):
        table.add_row(
            f"{num_gpus} x {gpu}", *estimate(config, rules, size, gpu, num_gpus)
        )
    console.print(table)


def architecture(config: TrainConfig) -> PretrainedConfig:
    """Return the policy's architecture: that of its folder, of our table, or of the
    Hub.

    Raises:
        PolicyError: It is in none of them.
    """
    known = json.loads(
        Path(__file__).with_name("architectures.json").read_text(encoding="utf-8")
    )
    if config.policy in known:
        return AutoConfig.for_model(**known[config.policy])
    try:
        folder = policy_folder(config.policy)
        return load_architecture(folder, trust_remote_code=config.trust_remote_code)
    except (OSError, ValueError) as error:
        raise PolicyError(
            f"policy {config.policy!r} has no readable config.json here or on the Hub."
            " Download its folder, or choose one whose architecture is known:"
            f" {', '.join(known)}."
        ) from error


def shrunk(shape: PretrainedConfig, vocabulary: int) -> PretrainedConfig:
    """Return the architecture with two narrow layers; what it shares among heads stays
    shared.
    """
    fields = shape.to_dict()
    known = [name for name in _SMALL if getattr(shape, name, None) is not None]
    small = {shape.attribute_map.get(name, name): _SMALL[name] for name in known}
    if fields.get("num_key_value_heads"):
        small["num_key_value_heads"] = (
            4 if shape.num_key_value_heads == shape.num_attention_heads else 2
        )
    small |= {
        name: 0
        for name in ("eos_token_id", "pad_token_id", "bos_token_id")
        if name in fields
    }
    for derived in ("layer_types", "architectures"):
        fields.pop(derived, None)
    return AutoConfig.for_model(
        **{**fields, **small, "vocab_size": vocabulary, "dtype": "float32"}
    )


def rehearse(
    config: TrainConfig, shape: PretrainedConfig, folder: Path, console: Console
) -> DialogueRules:
    """Sample one group, then make one update from its episodes as if half of them had
    been right.
    """
    try:
        scenario = build_scenario(config.environment, pool={"retries": 0})
        run_sync(check_agents(scenario.pool, patience_s=0.5))
    except (AgentError, DataError) as error:
        console.print(
            f"The toy world and its agents stand in: {error}",
            highlight=False,
            markup=False,
        )
        # The rules stay: what the run takes depends on them.
        stand_in = Environment(source="toy", rules=config.environment.rules)
        config = replace(config, environment=stand_in)
        scenario = build_scenario(config.environment)
    tokenizer, path = build_tokenizer(), folder / "rewarded.jsonl"
    torch.manual_seed(config.seed)
    save_policy(
        AutoModelForCausalLM.from_config(
            shrunk(shape, len(tokenizer)), trust_remote_code=config.trust_remote_code
        ),
        tokenizer,
        folder / "policy",
    )
    brief = RuleSettings(max_policy_tokens=24, max_context_tokens=8000)
    environment = config.environment.changed(Environment(rules=brief))
    sampled = replace(
        config,
        policy=str(folder / "policy"),
        out=folder / "sampled",
        num_steps=1,
        groups_per_step=1,
        environment=environment,
        loggers="",
        bounds={},
        held_out=(),
        overlong_buffer=0,
        sampler="transformers",
        evaluation=EvaluationSchedule(),
        source=EpisodeSource(),
    )
    train(sampled, Console(quiet=True))
    episodes = enumerate(read_episodes(sampled.out / "episodes" / "step-000000.jsonl"))
    rewarded = (
        replace(episode, reward=float(i % 2), reward_parts={})
        for i, episode in episodes
    )
    write_episodes(path, rewarded, reveal=True)
    source = EpisodeSource(episodes=str(path))
    train(replace(sampled, out=folder / "updated", source=source), Console(quiet=True))
    console.print(
        "One step of sampling, update and checkpoint was made with a random tiny"
        " policy."
    )
    return scenario.rules


@dataclass(frozen=True)
class Footprint:
    """What an architecture takes.

    Args:
        num_trained: Weights with a gradient.
        cast_bytes: Copies of all weights in the precision of the layers.
        activation_bytes: Kept for the backward pass, per token, without gradient
            checkpointing.
        cache_bytes: Keys and values of a token in bfloat16.
        token_flops: Forward pass, per token of an episode as long as it may be.
    """

    num_params: int
    num_trained: int
    num_layers: int
    hidden_size: int
    cast_bytes: float
    activation_bytes: float
    cache_bytes: int
    token_flops: float


def measure(
    shape: PretrainedConfig, config: TrainConfig, max_context_tokens: int
) -> Footprint:
    """Measure an architecture on tensors that have a size and no memory."""
    with FakeTensorMode():
        model = AutoModelForCausalLM.from_config(
            shape, dtype=torch.float32, trust_remote_code=config.trust_remote_code
        )
        is_cast = config.compute.precision != "float32"
        first, second = (
            _kept_bytes(model, num_tokens, is_cast) for num_tokens in (256, 512)
        )
    num_params, per_token = (
        sum(p.numel() for p in model.parameters()),
        (second - first) / 256,
    )
    head = model.get_output_embeddings()
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    rank_size = sum(
        module.in_features + module.out_features
        for module in linear
        if module is not head
    )
    head_dim = (
        getattr(shape, "head_dim", None)
        or shape.hidden_size // shape.num_attention_heads
    )
    num_shared = (
        getattr(shape, "num_key_value_heads", None) or shape.num_attention_heads
    )
    attention = (
        shape.num_hidden_layers
        * shape.num_attention_heads
        * head_dim
        * max_context_tokens
    )
    return Footprint(
        num_params=num_params,
        num_trained=config.compute.lora_rank * rank_size or num_params,
        num_layers=shape.num_hidden_layers,
        hidden_size=shape.hidden_size,
        cast_bytes=max(0.0, first - 256 * per_token),
        activation_bytes=per_token,
        cache_bytes=4 * shape.num_hidden_layers * num_shared * head_dim,
        token_flops=2.0 * (sum(module.weight.numel() for module in linear) + attention),
    )


def _kept_bytes(model: PreTrainedModel, num_tokens: int, is_cast: bool) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, beside the
    weights themselves.
    """
    mask = torch.zeros(
        1, 1, num_tokens, num_tokens, dtype=torch.bfloat16 if is_cast else torch.float32
    )
    own = {tensor.untyped_storage()._cdata for tensor in (mask, *model.parameters())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    cast = torch.autocast("cpu", torch.bfloat16, enabled=is_cast)
    with saved_tensors_hooks(keep, lambda tensor: tensor), cast:
        ids = torch.zeros(1, num_tokens, dtype=torch.long)
        model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    return sum(
        tensor.untyped_storage().nbytes()
        for place, tensor in kept.items()
        if place not in own
    )


def estimate(
    config: TrainConfig, rules: DialogueRules, size: Footprint, gpu: str, num_gpus: int
) -> tuple[str, ...]:
    """Return a row of the table: `_HEADERS` but the first. docs/scaling.md has the
    sums.
    """
    memory, flops, bandwidth = _GPUS[gpu]
    again = config.compute.gradient_checkpointing
    per_layer = size.activation_bytes / size.num_layers
    activations = (
        4 * size.num_layers * size.hidden_size + per_layer
        if again
        else size.activation_bytes
    )
    kind, options = parse_spec(config.sampler, "sampler")
    has_own_weights = (
        kind != "transformers" and not {"", "url"} & options.keys()
    )  # a server's are elsewhere
    state = (4 * size.num_params + 12 * size.num_trained) / num_gpus
    work = activations * config.microbatch_tokens
    # FSDP2 gathers one layer at a time; autocast keeps every copy of a trained weight
    # for the whole pass.
    by_layer = num_gpus > 1 or (again and config.compute.lora_rank)
    work += size.cast_bytes / (size.num_layers if by_layer else 1)
    copies = size.num_params * (2 * has_own_weights + 4 * (num_gpus > 1))
    usable = _SHARE_OF_MEMORY * memory * GIB
    shown = [f"{part / GIB:.1f}" for part in (state, work, copies)]
    shown.append(f"{(state + work + copies) / GIB:.1f} of {usable / GIB:.1f}")
    context = rules.max_context_tokens
    num_episodes = math.ceil(config.groups_per_step * config.group_size / num_gpus)
    at_once = min(
        num_episodes,
        int((usable - state - work - copies) // (context * size.cache_bytes)),
    )
    if at_once < 1:
        return (*shown, "does not fit", "", "")
    per_token = 2 * size.num_params + at_once * context / 2 * size.cache_bytes
    waves = math.ceil(num_episodes / at_once)
    rollouts_s = (
        waves * rules.max_policy_tokens * per_token / (_SHARE_OF_BANDWIDTH * bandwidth)
    )
    update_s = (
        num_episodes
        * context
        * size.token_flops
        * (4 if again else 3)
        / (_SHARE_OF_FLOPS * flops)
    )
    return (
        *shown,
        f"{at_once} of {num_episodes}",
        f"{rollouts_s / 60:.1f}",
        f"{update_s / 60:.1f}",
    )
