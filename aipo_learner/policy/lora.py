"""Low-rank adapters by peft (arXiv 2106.09685), put into the model in place.

What is exported is a plain model, and beside it the adapter as a folder of peft. There
is no dropout: rows would be trained under another policy than the one that sampled
them, whose ratio to it is noise.
"""

import copy
import logging
import warnings
from collections.abc import Mapping
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from aipo_env import ConfigError, PolicyError, shown
from aipo_learner.settings.compute import ALL_LINEAR

if TYPE_CHECKING:
    from peft import LoraConfig

_log = logging.getLogger("aipo_learner")
_SCALE = 2
"""What an adapter adds is multiplied by it, unless alpha is given; alpha is it times
the rank.
"""
_ADAPTER_MARK = ".lora_"
"""Stands in the name of every weight of an adapter, and of no other."""
_BASE_MARK = ".base_layer"
"""Stands, in a layer with an adapter, in the names of its own weights."""
_ADAPTER_NAME = "default"
"""What peft calls an adapter that was given no name."""
_FILE_PREFIX = "base_model.model."
"""Stands before every name in an adapter's file."""
_CONFIG_FILE = "adapter_config.json"
_WEIGHTS_FILE = "adapter_model.safetensors"
_MAX_NAMED_LAYERS = 20
"""Kinds of linear layers that a message lists."""
_NEEDLESS_WARNINGS = (
    # Of layers that keep their weights transposed, as those of GPT-2: peft sees it.
    "fan_in_fan_out is set to",
    # Of fused experts, to which they apply: peft compares names of layers only.
    "The following (rank|alpha)_pattern keys did not match",
)
"""How warnings of peft begin that ask for nothing."""
_UNDERSTOOD = {
    "r",
    "lora_alpha",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "target_parameters",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    # Without effect here: dropout is off, and weights are loaded over the first ones.
    "lora_dropout",
    "fan_in_fan_out",
    # Where it comes from.
    "task_type",
    "peft_version",
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
}
"""Fields of an adapter's configuration that may have any value to start from it."""


def add_adapter(
    model: PreTrainedModel,
    rank: int,
    *,
    alpha: float | None = None,
    targets: str = ALL_LINEAR,
    start: str = "",
) -> None:
    """Freeze the model and give layers an adapter.

    The first matrices are drawn from torch's generator, the second are 0: the model's
    outputs stay. With `start` both are those of that folder.

    Args:
        model: Is changed in place.
        rank: Columns of the first matrix and rows of the second.
        alpha: What an adapter adds is multiplied by alpha / rank; twice the rank, or
            that of `start`, if None.
        targets: Names of layers, with commas between, or "all-linear": every linear
            layer but the head, or those of `start`. Of fused experts peft takes the
            expert and router weights.
        start: Folder of a peft adapter of this model; "" for none.

    Raises:
        ConfigError: peft is not installed, or `start` has other values than were given.
        PolicyError: peft cannot adapt the model or has none of the named layers, or
            `start` is no adapter of it.
    """
    _need_peft(rank)
    if start:
        config = _start_config(Path(start), rank, alpha, targets)
        _compare_base(start, config.base_model_name_or_path, model.name_or_path)
    else:
        config = _new_config(rank, alpha, targets)
    config.base_model_name_or_path = model.name_or_path
    layers = _linear_layers(model)
    _inject(model, config)
    _check_runs(model, layers)
    if start:
        try:
            load_adapter_state(model, _start_weights(Path(start)))
        except PolicyError as error:
            raise PolicyError(
                f"compute.lora_adapter={start!r} is no adapter of this policy: {error}"
                " Give the policy that it was trained on, or another adapter."
            ) from error


def _compare_base(start: str, of_adapter: str | None, of_policy: str | None) -> None:
    """Warn if an adapter names another model than the policy as what it was trained on.

    The two may be one model in two places, so it is no error.
    """
    if not of_adapter or not of_policy or _same_model(of_adapter, of_policy):
        return
    _log.warning(
        "compute.lora_adapter=%r was trained on %r by its %s, and the policy is %r. If"
        " these are two models, the adapter is none of this policy's: give the policy"
        " that it was trained on.",
        start,
        of_adapter,
        _CONFIG_FILE,
        of_policy,
    )


def _same_model(first: str, second: str) -> bool:
    """Return whether two names are of one model, as far as names tell.

    One of the Hub may have been copied into a folder, or a folder moved: the last part
    of the name stays. Of two folders that are there, each is another.
    """
    first_path, second_path = Path(first), Path(second)
    if first_path.is_dir() and second_path.is_dir():
        return first_path.resolve() == second_path.resolve()
    return first_path.name == second_path.name


def num_adapter_weights(model: PreTrainedModel, rank: int, targets: str) -> int:
    """Return how many weights `add_adapter` would have trained.

    Args:
        model: May be without memory, on the device "meta". Has adapters afterwards.
        rank: As there.
        targets: As there.

    Raises:
        ConfigError, PolicyError: As there.
    """
    _need_peft(rank)
    _inject(model, _new_config(rank, None, targets))
    return sum(weight.numel() for weight in adapter_state(model).values())


def _need_peft(rank: int) -> None:
    """Raise ConfigError if peft is not installed."""
    if find_spec("peft") is None:
        raise ConfigError(
            f'config: compute.lora_rank={rank} needs peft: pip install "aipo-rl[lora]".'
        )


def _new_config(rank: int, alpha: float | None, targets: str) -> "LoraConfig":
    """Return the configuration of an adapter that starts from nothing."""
    from peft import LoraConfig

    return LoraConfig(
        r=rank,
        # peft says that it is an integer, and only ever multiplies by it.
        lora_alpha=_SCALE * rank if alpha is None else alpha,  # type: ignore[arg-type]
        target_modules=_as_peft(targets),
        # peft leaves the head out of "all-linear" if it knows that it is one, and it
        # knows by the type of the task.
        task_type="CAUSAL_LM",
    )


def _as_peft(targets: str) -> str | list[str]:
    """Return the names of layers as peft takes them."""
    if targets == ALL_LINEAR:
        return targets
    return [name.strip() for name in targets.split(",")]


def _inject(model: PreTrainedModel, config: "LoraConfig") -> None:
    """Put adapters into the model.

    Raises:
        PolicyError: peft refuses, or a name is no layer's or that of embeddings.
    """
    from peft import inject_adapter_in_model

    layers = _linear_layers(model)
    try:
        with warnings.catch_warnings():
            for start in _NEEDLESS_WARNINGS:
                warnings.filterwarnings("ignore", message=start)
            inject_adapter_in_model(config, model)
        _check_targets(model, config)
    # What it cannot do it says with errors of many kinds.
    except Exception as error:
        raise _refusal(model, error, layers) from error


def _check_runs(model: PreTrainedModel, layers: str) -> None:
    """Raise PolicyError unless a model runs with its adapters.

    A layer that gives more than a tensor, say, is refused only when it is called.
    """
    token_ids = torch.zeros((1, 1), dtype=torch.long, device=model.device)
    try:
        with torch.no_grad():
            model(input_ids=token_ids, use_cache=False)
    except Exception as error:
        raise _refusal(model, error, layers) from error


def _refusal(model: PreTrainedModel, error: Exception, layers: str = "") -> PolicyError:
    """Return what is said of a model that cannot have the adapters.

    Args:
        model: Names its kind.
        error: What peft said.
        layers: Which layers it has, if that is known.
    """
    reason = str(error).rstrip(".")
    return PolicyError(
        f"adapters cannot be put on this {model.config.model_type}: {reason}. Name"
        f" layers that can take one (--compute.lora-targets NAME,NAME, of {layers}), or"
        " train all weights (--compute.lora-rank 0)."
    )


def _linear_layers(model: PreTrainedModel) -> str:
    """Return the last names of a model's linear layers, as a list for a message."""
    head = model.get_output_embeddings()
    names = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }
    return ", ".join(sorted(names)[:_MAX_NAMED_LAYERS]) or "none that are linear"


def _check_targets(model: PreTrainedModel, config: "LoraConfig") -> None:
    """Raise ValueError unless every target has an adapter, and no embedding has one."""
    from peft.tuners.lora import LoraLayer

    embeddings = (model.get_input_embeddings(), model.get_output_embeddings())
    if any(isinstance(layer, LoraLayer) for layer in embeddings):
        raise ValueError("the embeddings and the head stay as they are")
    names: list[str] = []
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            # An adapter of one weight of a module knows which.
            weight = getattr(layer, "parameter_name", "")
            names.append(f"{name}.{weight}".replace(_BASE_MARK, "").rstrip("."))
    # A text is a pattern of the adapter to start from, which need not be taken apart.
    modules = config.target_modules
    wanted = set() if isinstance(modules, str) else set(modules or ())
    wanted |= set(config.target_parameters or ())
    for target in sorted(wanted):
        if not any(f".{name}".endswith(f".{target}") for name in names):
            raise ValueError(f"no layer has the name {target!r}")


def _start_config(
    folder: Path, rank: int, alpha: float | None, targets: str
) -> "LoraConfig":
    """Read the configuration of the adapter to start from, and compare it.

    Raises:
        ConfigError: The settings have other values.
        PolicyError: It is none, or of a kind that is not trained here.
    """
    from peft import LoraConfig, PeftConfig

    place = f"compute.lora_adapter={str(folder)!r}"
    if not (folder / _CONFIG_FILE).is_file():
        raise PolicyError(
            f"{place} is no adapter's folder: there is no {_CONFIG_FILE} in it. Give"
            " one that peft's save_pretrained, or a run's checkpoint, has."
        )
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except Exception as error:
        raise PolicyError(
            f"{place}: its {_CONFIG_FILE} cannot be read: {error}."
        ) from error
    if not isinstance(config, LoraConfig):
        raise PolicyError(
            f"{place} is an adapter of the kind {config.peft_type}, and LORA alone is"
            " trained."
        )
    plain = LoraConfig()
    for item in fields(LoraConfig):
        value = getattr(config, item.name)
        is_plain = not value or value == getattr(plain, item.name)
        # The weights are loaded over what they were drawn as; but other ways to draw
        # them change the base model too.
        is_drawn = item.name == "init_lora_weights" and value == "gaussian"
        if item.name not in _UNDERSTOOD and not is_plain and not is_drawn:
            raise PolicyError(
                f"{place}: its {_CONFIG_FILE} has {item.name}={shown(value)}, which is"
                " not trained here. Start from one without, or from base and adapter"
                " merged (peft: merge_and_unload, then save_pretrained) as the policy."
            )
    _compare(place, "lora_rank", rank, config.r)
    if alpha is not None:
        _compare(place, "lora_alpha", alpha, config.lora_alpha)
    if targets != ALL_LINEAR:
        own = config.target_modules
        of_adapter = own if isinstance(own, str) else ",".join(sorted(own or ()))
        _compare(place, "lora_targets", ",".join(sorted(_as_peft(targets))), of_adapter)
    config.lora_dropout = 0.0
    config.init_lora_weights = True
    # Else peft freezes the adapter too.
    config.inference_mode = False
    return config


def _compare(place: str, setting: str, value: Any, of_adapter: Any) -> None:
    """Raise ConfigError if a setting is not what the adapter to start from has."""
    if value != of_adapter:
        raise ConfigError(
            f"config: compute.{setting}={value!r}, but the adapter to start from has"
            f" {of_adapter!r} ({place}). Set compute.{setting} to that, or start from"
            " another."
        )


def _start_weights(folder: Path) -> dict[str, Tensor]:
    """Read the weights of an adapter's folder, by their names in a model.

    Raises:
        PolicyError: They cannot be read.
    """
    path = folder / _WEIGHTS_FILE
    try:
        of_file = load_file(path)
    except Exception as error:
        raise PolicyError(f"its {_WEIGHTS_FILE} cannot be read ({error}).") from error
    weights: dict[str, Tensor] = {}
    for file_name, weight in of_file.items():
        # A file leaves out the adapter's own name, which stands before the last part.
        layer, _, last = file_name.removeprefix(_FILE_PREFIX).rpartition(".")
        weights[f"{layer}.{_ADAPTER_NAME}.{last}"] = weight
    return weights


def adapter_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return the adapters' weights by name; none of a model without adapters."""
    state = model.state_dict()
    return {name: value for name, value in state.items() if _ADAPTER_MARK in name}


@torch.no_grad()
def load_adapter_state(model: PreTrainedModel, state: Mapping[str, Tensor]) -> None:
    """Give the model's adapters other weights: all of them, and no others.

    Args:
        model: With adapters, or without any if `state` is empty.
        state: As `adapter_state` gives it.

    Raises:
        PolicyError: It lacks a weight, or has one too many, of another shape, or with
            numbers that are not finite. The model then is as it was.
    """
    own = adapter_state(model)
    for name in sorted({*own, *state}):
        if name not in state:
            raise PolicyError(f"the adapter's weight {name!r} is missing.")
        if name not in own:
            raise PolicyError(f"the policy's adapter has no weight {name!r}.")
        shape, wanted = tuple(state[name].shape), tuple(own[name].shape)
        if shape != wanted:
            raise PolicyError(
                f"the adapter's weight {name!r} has the shape {shape}, and the policy"
                f" has {wanted} there."
            )
        if not state[name].isfinite().all():
            raise PolicyError(
                f"the adapter's weight {name!r} has numbers that are not finite."
            )
    for name, weight in own.items():
        weight.copy_(state[name])


def save_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Write the adapter alone, as `peft.PeftModel.from_pretrained` reads it.

    Args:
        model: With adapters.
        folder: Is made.
    """
    config = model.peft_config[_ADAPTER_NAME]
    folder.mkdir()
    weights: dict[str, Tensor] = {}
    for name, weight in adapter_state(model).items():
        layer, _, last = name.rpartition(".")
        layer = layer.removesuffix(f".{_ADAPTER_NAME}")
        weights[f"{_FILE_PREFIX}{layer}.{last}"] = weight.cpu().contiguous()
    save_file(weights, folder / _WEIGHTS_FILE, metadata={"format": "pt"})
    # As one that is used, not trained on: it is what peft writes too.
    used = copy.copy(config)
    used.inference_mode = True
    used.save_pretrained(str(folder))


@torch.no_grad()
def merged_state(model: PreTrainedModel) -> dict[str, Tensor] | None:
    """Return the weights of a plain model that computes the same; None if it is one.

    The model itself keeps base and adapter apart: adding and taking away again would
    not give the same bits. What is not adapted is shared with it; each sum is a new
    tensor in the machine's memory, and of the GPU's only one at a time.

    Raises:
        PolicyError: Names or shapes are not those of the plain model.
    """
    if not hasattr(model, "peft_config"):
        return None
    from peft.tuners.lora import LoraLayer

    # Parameters of its own, which have the model's tensors until others are put in.
    shared: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.detach(), requires_grad=False)
        for parameter in model.parameters()
    }
    shared |= {id(buffer): buffer for buffer in model.buffers()}
    plain = copy.deepcopy(model, shared)
    # Inner ones first: of fused experts every weight has its adapter, each around the
    # one before.
    for name, layer in reversed(list(plain.named_modules())):
        if isinstance(layer, LoraLayer):
            # Safely: into a new tensor, and not if a sum is not finite.
            layer.merge(safe_merge=True)
            plain.set_submodule(name, layer.get_base_layer().cpu())
    state = plain.state_dict()
    _check_export(state, model)
    return state


def _check_export(state: Mapping[str, Tensor], model: PreTrainedModel) -> None:
    """Raise PolicyError unless a state is one of the plain model: names and shapes."""
    # It has no memory, and says how the weights of this architecture are called.
    with torch.device("meta"):
        plain = type(model)(copy.deepcopy(model.config))
    wanted = {name: tuple(value.shape) for name, value in plain.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    for name in sorted({*wanted, *found}):
        if wanted.get(name) != found.get(name):
            raise PolicyError(
                f"the adapters of a {model.config.model_type} cannot be merged: its"
                f" weight {name!r} has the shape {wanted.get(name)}, merged"
                f" {found.get(name)}. Train other layers (--compute.lora-targets), or"
                " all weights (--compute.lora-rank 0)."
            )
