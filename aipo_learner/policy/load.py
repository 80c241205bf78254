"""Loading and saving the policy as a Hugging Face folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from aipo_env import PolicyError, data_folder, hub_fault, is_hub_reachable, shown
from aipo_learner.policy.chat import choose_template
from aipo_learner.policy.fitness import check_logits, check_vocabulary, check_weights
from aipo_learner.policy.lora import merged_state
from aipo_learner.policy.whereabouts import whereabouts

# Bars of loading would stand among the lines of the run.
disable_progress_bar()

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
)
"""A folder with a tokenizer has one of these. From one without, transformers may make a
tokenizer that knows no words, and say nothing.
"""
_COPY_TOKENIZER = (
    "Copy the tokenizer of the model that it was made of into its folder:"
    " AutoTokenizer.from_pretrained(BASE).save_pretrained(FOLDER)."
)
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
"""Files of weights that run code when they are read."""
_OTHER_TASKS = (
    "ForMaskedLM",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
    "ForNextSentencePrediction",
    "ForPreTraining",
)
"""How the names of models end that do not write text from left to right."""
_QUANTISED = ("quantization_config", "compression_config")
"""What a config.json has where weights are kept in few bits."""


def load_policy(
    path: str, *, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a Hugging Face causal LM with its tokenizer.

    A tokenizer without a chat template, as base models have, gets a plain one, and a
    warning says so.

    The weights are float32, from safetensors only, and on the GPU if there is one. Of a
    folder nothing is fetched that it names, unless its code is trusted.

    Args:
        path: A folder, or a name on the Hub.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        PolicyError: There is no such model, no tokenizer or no end token; the folder is
            an adapter, is quantised, or is of another kind; the model needs or names
            code that is not trusted; it lacks weights, has numbers that are not finite,
            or fewer rows than the tokenizer has tokens.
    """
    path = whereabouts(path)
    folder = Path(path)
    if folder.is_dir():
        _check_folder(folder)
    part = "model"
    try:
        # First: what it is decides on all the rest.
        load_architecture(path, trust_remote_code=trust_remote_code)
        part = "tokenizer"
        tokenizer = load_tokenizer(path, trust_remote_code=trust_remote_code)
        part = "model"
        # With what was missing, which is annotated as if it were never asked for.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            local_files_only=_is_offline(path, trust_remote_code),
            # Told below, with the weight's name.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except PolicyError:
        raise
    # transformers has many kinds of errors for one fault: the files are not there.
    except Exception as error:
        # Its advice names the argument by which code is trusted.
        if not trust_remote_code and "trust_remote_code" in str(error):
            raise PolicyError(
                f"policy {path!r}: its {part} needs code that comes with it. Read that"
                " code, and if you trust it, let it run with --trust-remote-code."
            ) from error
        fault = "" if folder.is_dir() else hub_fault(error, path)
        if fault:
            raise PolicyError(
                f"policy {path!r}: {fault} Or give the folder of a model that is here."
            ) from error
        lines = str(error).strip().splitlines()
        # What follows the first line is advice for programmers, unless that announces
        # it.
        num_lines = 2 if lines and lines[0].endswith(":") else 1
        reason = " ".join(map(str.strip, lines[:num_lines])) or type(error).__name__
        mend = f" {_COPY_TOKENIZER}" if part == "tokenizer" else ""
        raise PolicyError(
            f"policy {path!r} has no usable {part}: {reason}{mend}"
        ) from error
    if tokenizer.eos_token_id is None:
        raise PolicyError(
            f"policy {path!r}: its tokenizer names no end-of-turn token (eos_token)."
        )
    if not tokenizer.chat_template:
        tokenizer.chat_template = choose_template(tokenizer)
    model: PreTrainedModel
    model, report = loaded
    if hasattr(model, "peft_config"):
        # Of the Hub, where transformers itself puts an adapter on its base model.
        raise PolicyError(_adapter_message(path))
    if torch.cuda.is_available():
        # That of transformers is annotated as if it took the module once more.
        nn.Module.cuda(model)
    check_weights(model, report, path)
    check_vocabulary(model, tokenizer, path)
    check_logits(model, path)
    _train_every_row(model)
    return model, tokenizer


def load_tokenizer(
    path: str, *, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Load a tokenizer alone; errors are those of transformers.

    Args:
        path: A folder, or a name on the Hub.
        trust_remote_code: Whether code that comes with it may run.
    """
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        path,
        trust_remote_code=trust_remote_code,
        local_files_only=_is_offline(path, trust_remote_code),
    )
    return tokenizer


def _train_every_row(model: PreTrainedModel) -> None:
    """Let the embedding of the padding token learn, which often is the end token too.

    transformers keeps gradients from that row. Here padding is in no loss, and nothing
    attends to it: it needs none.
    """
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.padding_idx = None


def _adapter_message(path: str) -> str:
    """Return what is said of an adapter that was given as the policy."""
    return (
        f"policy {path!r} is an adapter (adapter_config.json), and no whole model. Give"
        " the base model as the policy, and the adapter as what to start from"
        " (--compute.lora-adapter FOLDER --compute.lora-rank RANK), or export the two"
        " merged (peft: merge_and_unload, then save_pretrained)."
    )


def count_weights(path: str, *, trust_remote_code: bool = False) -> int:
    """Return how many weights a model has, before it is loaded; 0 if it cannot be told.

    What is wrong with it, `load_policy` says.
    """
    try:
        shape = load_architecture(path, trust_remote_code=trust_remote_code)
        # Tensors that have a size and no memory.
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(
                shape, trust_remote_code=trust_remote_code
            )
    except Exception:
        return 0
    return sum(weight.numel() for weight in model.parameters())


def load_architecture(
    path: str, *, trust_remote_code: bool = False
) -> PreTrainedConfig:
    """Read a model's config.json, from a folder or the Hub.

    Raises:
        OSError, ValueError: It cannot be read, as transformers says.
        PolicyError: It names code of the Hub that is not trusted, or is of a kind that
            is not trained here.
    """
    config: PreTrainedConfig = AutoConfig.from_pretrained(
        path,
        trust_remote_code=trust_remote_code,
        local_files_only=_is_offline(path, trust_remote_code),
    )
    if not trust_remote_code:
        _check_kernels(config, path)
    _check_kind(config, path)
    return config


def _is_offline(path: str, trust_remote_code: bool) -> bool:
    """Return whether nothing is to be fetched for a policy.

    A folder may name models and code of the Hub, and who wrote it chose them. Of a name
    on the Hub, what was downloaded before is taken where the Hub cannot be reached.
    """
    if Path(path).is_dir():
        return not trust_remote_code
    return not is_hub_reachable()


def _check_folder(folder: Path) -> None:
    """Raise PolicyError unless a folder holds a whole model with its tokenizer.

    Before transformers reads it, whose errors for these do not say what to do.
    """
    for path in folder.iterdir():
        # Links are common here: the Hub's cache is made of them.
        if path.exists() and not path.is_file() and not path.is_dir():
            raise PolicyError(
                f"policy {str(folder)!r}: {path.name} is no file, and would be read for"
                " ever. Delete it."
            )
    if (folder / "adapter_config.json").is_file():
        raise PolicyError(_adapter_message(str(folder)))
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise PolicyError(
            f"policy {str(folder)!r} has no usable tokenizer: there is none of"
            f" {', '.join(_TOKENIZER_FILES)} in it. {_COPY_TOKENIZER}"
        )
    if not (folder / "config.json").is_file():
        raise PolicyError(
            f"policy {str(folder)!r} has no usable model: there is no config.json in"
            " it. Give a folder that save_pretrained wrote."
        )
    if any(folder.glob("*.safetensors")):
        return
    pickled = [path.name for kind in _PICKLED for path in folder.glob(kind)]
    if pickled:
        raise PolicyError(
            f"policy {str(folder)!r} has no usable model: its weights are in"
            f" {min(pickled)}, which runs code when it is read, and not in"
            " model.safetensors. If you trust it, load it with transformers and export"
            " it anew (save_pretrained)."
        )
    raise PolicyError(
        f"policy {str(folder)!r} has no usable model: there are no weights in it"
        " (model.safetensors). Give a folder that save_pretrained wrote, downloaded"
        " whole."
    )


def _parts(config: PreTrainedConfig) -> list[PreTrainedConfig]:
    """Return a configuration and those of its parts.

    A model of several, such as one that sees, has one of each.
    """
    parts = [config]
    for sub_name in config.sub_configs:
        sub_config = getattr(config, sub_name, None)
        if sub_config:
            parts.append(sub_config)
    return parts


def _check_kind(config: PreTrainedConfig, path: str) -> None:
    """Raise PolicyError if a model is no causal one, or its weights are quantised."""
    # Of a model's own kinds of task, it names that which it was saved as.
    names = getattr(config, "architectures", None) or []
    others = [name for name in names if str(name).endswith(_OTHER_TASKS)]
    if getattr(config, "is_encoder_decoder", False):
        others.append("an encoder with a decoder")
    if others:
        raise PolicyError(
            f"policy {path!r} has no usable model: a {config.model_type}, which is"
            f" {others[0]}, does not write text from left to right. Use a causal"
            " language model."
        )
    for part in _parts(config):
        for name in _QUANTISED:
            quantised = getattr(part, name, None)
            if quantised:
                raise PolicyError(
                    f"policy {path!r}: its weights are quantised (config.json has"
                    f" {name}: {shown(_method(quantised))}), and cannot be trained. Use"
                    " the model before quantisation, or dequantise it and export it"
                    " anew."
                )


def _method(quantised: Any) -> Any:
    """Return the name of a way to quantise; all that is said of it, if it has none."""
    if isinstance(quantised, dict):
        return quantised.get("quant_method") or quantised
    return getattr(quantised, "quant_method", quantised)


def _check_kernels(config: PreTrainedConfig, path: str) -> None:
    """Raise PolicyError if a model has its attention computed by code of the Hub."""
    for part in _parts(config):
        for name, value in vars(part).items():
            # transformers downloads and runs what is named "OWNER/NAME".
            if "_implementation" in name and "/" in str(value):
                raise PolicyError(
                    f"policy {path!r}: its config.json names {shown(value)} for"
                    f" {name.strip('_')}, which is code of the Hub. Delete it there, or"
                    " trust the model's code with --trust-remote-code if you have"
                    " read it."
                )


def policy_folder(name: str) -> str:
    """Return where a policy is, as a folder or a name on the Hub.

    "tiny" is the shipped one, a training run's folder stands for its newest export.

    Raises:
        DataError: The shipped policy is damaged.
    """
    if name == "tiny":
        return str(data_folder("tiny_policy"))
    # Steps have six digits, so that the order of names is that of steps.
    exports = sorted(Path(name).glob("checkpoints/step-??????/policy"))
    return str(exports[-1]) if exports else name


def save_policy(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    path: Path,
    *,
    is_bfloat16: bool = False,
) -> None:
    """Write a Hugging Face folder, adapters merged.

    `path` is replaced only once all is written.

    Args:
        model: Stays as it is.
        tokenizer: Goes with it.
        path: The folder.
        is_bfloat16: Whether weights are rounded to bfloat16, or written in the model's
            own dtype.
    """
    scratch = path.with_name(path.name + ".writing")
    shutil.rmtree(scratch, ignore_errors=True)
    state = merged_state(model)
    if is_bfloat16:
        state = _rounded(state or model.state_dict())
    model.save_pretrained(scratch, state_dict=state)
    if is_bfloat16:
        _name_bfloat16(scratch / "config.json")
    tokenizer.save_pretrained(scratch)
    shutil.rmtree(path, ignore_errors=True)
    scratch.rename(path)


def _rounded(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights in bfloat16, in the machine's memory; numbers of others stay.

    Tensors that are one under several names, as tied weights are, stay one.
    """
    rounded: dict[tuple[int, ...], Tensor] = {}
    for tensor in state.values():
        if tensor.is_floating_point() and _place(tensor) not in rounded:
            rounded[_place(tensor)] = tensor.detach().cpu().to(torch.bfloat16)
    return {name: rounded.get(_place(tensor), tensor) for name, tensor in state.items()}


def _place(tensor: Tensor) -> tuple[int, ...]:
    """Return what tells a tensor from others: where it begins, and its shape."""
    return (tensor.data_ptr(), *tensor.shape)


def _name_bfloat16(path: Path) -> None:
    """Write into a model's config.json what its weights are, for those who load it.

    transformers writes what the model has in memory.
    """
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings["dtype"] = "bfloat16"
    path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
