"""Loading and saving the policy as a Hugging Face folder."""

import shutil
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from aipo_env import PolicyError, data_folder
from aipo_learner.policy.lora import merged_state

disable_progress_bar()

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
)


def load_policy(
    path: str, *, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a Hugging Face causal LM with its tokenizer, in float32, safetensors only; on the GPU if there is one.

    Raises:
        PolicyError: There is no such model, no tokenizer, no chat template or no end token.
    """
    local = Path(path)
    if not local.is_dir() and (
        local.is_absolute() or path.startswith(".") or path.count("/") != 1
    ):
        raise PolicyError(
            f"policy {path!r}: no such folder. Give a Hugging Face model folder or hub name."
        )
    if local.is_dir() and not any(
        (local / name).is_file() for name in _TOKENIZER_FILES
    ):
        raise PolicyError(
            f"policy {path!r} has no usable tokenizer: there is none of {', '.join(_TOKENIZER_FILES)} in it."
        )
    part, options = "tokenizer", {"trust_remote_code": trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **options)
        part, options = "model", {**options, "use_safetensors": True}
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, **options
        )
    except (
        Exception
    ) as error:  # transformers raises many kinds for one fault: the files are not there
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise PolicyError(f"policy {path!r} has no usable {part}: {reason}") from error
    if not getattr(tokenizer, "chat_template", None):
        raise PolicyError(
            f"policy {path!r}: its tokenizer has no chat template. Put a chat_template.jinja beside it, or "
            "use the instruction-tuned version of the model."
        )
    if tokenizer.eos_token_id is None:
        raise PolicyError(
            f"policy {path!r}: its tokenizer names no end-of-turn token (eos_token)."
        )
    if torch.cuda.is_available():
        torch.nn.Module.cuda(model)
    return model, tokenizer


def policy_folder(name: str) -> str:
    """Return where a policy is: "tiny" is the shipped one, a training run's folder stands for its newest export.

    Raises:
        DataError: The shipped policy is damaged.
    """
    if name == "tiny":
        return str(data_folder("tiny_policy"))
    exports = sorted(Path(name).glob("checkpoints/step-??????/policy"))
    return str(exports[-1]) if exports else name


def save_policy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: Path
) -> None:
    """Write a Hugging Face folder in the model's own dtype; `path` is replaced only once all is written."""
    scratch = path.with_name(path.name + ".writing")
    shutil.rmtree(scratch, ignore_errors=True)
    model.save_pretrained(scratch, state_dict=merged_state(model))
    tokenizer.save_pretrained(scratch)
    shutil.rmtree(path, ignore_errors=True)
    scratch.rename(path)
