"""What a policy that was loaded must be to be sampled from and trained."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aipo_env import ConfigError, PolicyError, shown

_PROBE_TOKENS = 4
"""Tokens of a row that a policy is run on when it is loaded."""
_SEEN_AHEAD = 1e-3
"""A causal model's logits do not depend on a later token: they may move by this part of
how far that token moves its own, for rounding. One that sees all tokens moves them by
five times as much before it is trained, and by far more afterwards.
"""
_STRETCHED = ("linear", "dynamic", "yarn")
"""Kinds of rotary positions that reach `factor` times as far as they were trained."""
_MAX_SPARE_ROWS = 2
"""Rows that a table of positions may have beyond those for positions."""


def check_vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: str
) -> None:
    """Raise PolicyError if a token that may come up has no row of the embedding."""
    embedding: Any = model.get_input_embeddings()
    num_rows = len(embedding.weight)
    special = set(tokenizer.all_special_ids)
    for token_id, added in tokenizer.added_tokens_decoder.items():
        if added.special:
            special.add(token_id)
    wanted = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    template = str(tokenizer.chat_template)
    vocabulary = tokenizer.get_vocab()
    for token in sorted(vocabulary, key=vocabulary.__getitem__):
        token_id = vocabulary[token]
        # No text becomes a special token but the template's: those that stand for
        # images, say, are never used here, and models go without their rows.
        is_unused = token_id in special - wanted and token not in template
        if token_id >= num_rows and not is_unused:
            raise PolicyError(
                f"policy {path!r}: its tokenizer has the token {shown(token)} with id"
                f" {token_id}, and its embedding has {num_rows} rows. Add rows"
                " (resize_token_embeddings(len(tokenizer)), then save_pretrained), or"
                " use the tokenizer that the model was trained with."
            )


@torch.no_grad()
def check_weights(model: PreTrainedModel, report: Mapping[str, Any], path: str) -> None:
    """Look at a policy's weights.

    Args:
        model: Of which weights that could not be read were drawn at random.
        report: Which those are, as transformers says.
        path: Where they were read.

    Raises:
        PolicyError: Some were not there, had another shape, or are no finite numbers.
    """
    for name, shape, wanted in sorted(report["mismatched_keys"]):
        raise PolicyError(
            f"policy {path!r} has no usable model: its weight {name!r} has the shape"
            f" {tuple(shape)} in the files, and {tuple(wanted)} by its config.json. Use"
            " the two that belong together."
        )
    missing = report["missing_keys"]
    if missing:
        raise PolicyError(
            f"policy {path!r}: its files lack {len(missing)} of the model's weights,"
            f" such as {min(missing)!r}, which would be drawn at random. Download or"
            " export it anew; if it is a model with another head, use one that writes"
            " text."
        )
    for name, weight in model.state_dict().items():
        if not weight.is_floating_point() or not weight.numel():
            continue
        # In place of isfinite, which takes memory for every number. NaN is both.
        low, high = weight.aminmax()
        if not low.isfinite() or not high.isfinite():
            raise PolicyError(
                f"policy {path!r}: its weight {name!r} has numbers that are not finite"
                " (NaN or infinite). Download or export it anew, or go back to an"
                " earlier checkpoint."
            )


@torch.no_grad()
def check_logits(model: PreTrainedModel, path: str) -> None:
    """Raise PolicyError unless a model runs, gives numbers, and sees no later token."""
    row = torch.arange(_PROBE_TOKENS, device=model.device)
    other = row.clone()
    other[-1] = 0
    try:
        token_ids = torch.stack([row, other])
        logits = model(input_ids=token_ids, use_cache=False).logits.float()
    except Exception as error:
        raise PolicyError(
            f"policy {path!r} cannot be run on tokens alone: {error}. Use a model that"
            " writes text from text."
        ) from error
    # A model may rule tokens out with minus infinity, but not all.
    if logits.log_softmax(-1).isnan().any():
        raise PolicyError(
            f"policy {path!r}: its weights are finite, and its logits are not (NaN or"
            " infinite). Its weights are too large for float32, or its config.json is"
            " another model's."
        )
    moved = (logits[0] - logits[1]).nan_to_num().abs().amax(-1)
    if moved[:-1].max() > _SEEN_AHEAD * moved[-1]:
        raise PolicyError(
            f"policy {path!r}: its logits depend on later tokens, as those of a masked"
            f" language model do ({model.config.model_type}). Use a causal one."
        )


def check_context(model: PreTrainedModel, max_context_tokens: int) -> None:
    """Compare the longest episode that the rules allow with what a model can read.

    Args:
        model: The policy.
        max_context_tokens: Of the rules.

    Raises:
        ConfigError: The episode is longer than the model has places for.
    """
    limit = max_positions(model)
    if limit is not None and max_context_tokens > limit:
        raise ConfigError(
            f"config: max_context_tokens={max_context_tokens} of the rules is more than"
            f" the {limit} positions of the policy ({model.config.model_type}). Allow"
            f" at most that (--environment.rules.max-context-tokens {limit}), or use a"
            " policy with a longer context."
        )


def max_positions(model: PreTrainedModel) -> int | None:
    """Return how many tokens a model can read; None if no number binds it."""
    config = model.config.get_text_config(decoder=True)
    limit = getattr(config, "max_position_embeddings", None)
    if limit is None:
        limit = getattr(config, "max_seq_len", None)
    # Attention that fades with distance (ALiBi) reaches any.
    if not isinstance(limit, int) or limit < 1 or getattr(config, "alibi", False):
        return None
    rotary = getattr(config, "rope_parameters", None)
    if rotary:
        # Layers may have kinds of their own.
        has_kinds = all(isinstance(kind, dict) for kind in rotary.values())
        kinds = rotary.values() if has_kinds else [rotary]
        return max([limit, *(_reach(kind, limit) for kind in kinds)])
    has_table = any(
        isinstance(module, nn.Embedding)
        and module is not model.get_input_embeddings()
        and limit <= module.num_embeddings <= limit + _MAX_SPARE_ROWS
        for module in model.modules()
    )
    # What else has a limit is a recurrent model, which only says what it was trained
    # on.
    is_bound = (
        has_table or hasattr(config, "rotary_dim") or hasattr(config, "max_seq_len")
    )
    return limit if is_bound else None


def _reach(kind: dict[str, Any], limit: int) -> int:
    """Return how far rotary positions reach, stretched if they are.

    Args:
        kind: Their parameters.
        limit: What the model says.
    """
    if kind.get("rope_type") not in _STRETCHED:
        return limit
    trained = kind.get("original_max_position_embeddings") or limit
    return int(trained * (kind.get("factor") or 1))
