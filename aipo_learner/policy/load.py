"""Loading and saving the policy as a Hugging Face folder."""

import shutil
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from aipo_env import PolicyError, data_folder, shown
from aipo_learner.policy.chat import choose_template
from aipo_learner.policy.lora import merged_state

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
            an adapter; or the model names code of the Hub that is not trusted.
    """
    folder = Path(path)
    if folder.is_dir():
        _check_folder(folder)
    elif not _may_be_on_hub(path):
        raise PolicyError(
            f"policy {path!r}: no such folder. Give a Hugging Face model folder or hub"
            " name."
        )
    is_offline = _is_offline(path, trust_remote_code)
    part = "tokenizer"
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path, trust_remote_code=trust_remote_code, local_files_only=is_offline
        )
        part = "model"
        load_architecture(path, trust_remote_code=trust_remote_code)
        model = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            local_files_only=is_offline,
        )
    except PolicyError:
        raise
    # transformers has many kinds of errors for one fault: the files are not there.
    except Exception as error:
        lines = str(error).strip().splitlines()
        # What follows the first line is advice for programmers.
        reason = lines[0] if lines else type(error).__name__
        raise PolicyError(f"policy {path!r} has no usable {part}: {reason}") from error
    if tokenizer.eos_token_id is None:
        raise PolicyError(
            f"policy {path!r}: its tokenizer names no end-of-turn token (eos_token)."
        )
    if not tokenizer.chat_template:
        tokenizer.chat_template = choose_template(tokenizer)
    if torch.cuda.is_available():
        # That of transformers is annotated as if it took the module once more.
        torch.nn.Module.cuda(model)
    return model, tokenizer


def _may_be_on_hub(path: str) -> bool:
    """Return whether a name can be one on the Hub, "OWNER/NAME", and is no path."""
    is_path = Path(path).is_absolute() or path.startswith(".")
    return not is_path and path.count("/") == 1


def load_architecture(
    path: str, *, trust_remote_code: bool = False
) -> PreTrainedConfig:
    """Read a model's config.json, from a folder or the Hub.

    Raises:
        OSError, ValueError: It cannot be read, as transformers says.
        PolicyError: It names code of the Hub that is not trusted.
    """
    config: PreTrainedConfig = AutoConfig.from_pretrained(
        path,
        trust_remote_code=trust_remote_code,
        local_files_only=_is_offline(path, trust_remote_code),
    )
    if not trust_remote_code:
        _check_kernels(config, path)
    return config


def _is_offline(path: str, trust_remote_code: bool) -> bool:
    """Return whether nothing is to be fetched for a policy.

    A folder may name models and code of the Hub, and who wrote it chose them.
    """
    return Path(path).is_dir() and not trust_remote_code


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
        raise PolicyError(
            f"policy {str(folder)!r} is an adapter (adapter_config.json), and no whole"
            " model. Give the base model, or export the two merged (peft:"
            " merge_and_unload, then save_pretrained)."
        )
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise PolicyError(
            f"policy {str(folder)!r} has no usable tokenizer: there is none of"
            f" {', '.join(_TOKENIZER_FILES)} in it."
        )
    if not (folder / "config.json").is_file():
        raise PolicyError(
            f"policy {str(folder)!r} has no usable model: there is no config.json in"
            " it. Give a folder that save_pretrained wrote."
        )


def _check_kernels(config: PreTrainedConfig, path: str) -> None:
    """Raise PolicyError if a model has its attention computed by code of the Hub."""
    # A model of several parts, such as one that sees, has a configuration of each.
    parts = [config]
    for sub_name in config.sub_configs:
        sub_config = getattr(config, sub_name, None)
        if sub_config:
            parts.append(sub_config)
    for part in parts:
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
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path
) -> None:
    """Write a Hugging Face folder in the model's own dtype, adapters merged.

    `path` is replaced only once all is written.
    """
    scratch = path.with_name(path.name + ".writing")
    shutil.rmtree(scratch, ignore_errors=True)
    model.save_pretrained(scratch, state_dict=merged_state(model))
    tokenizer.save_pretrained(scratch)
    shutil.rmtree(path, ignore_errors=True)
    scratch.rename(path)
