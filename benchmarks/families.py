"""Which kinds of language models the learner trains, and the transformers sampler runs.

Of each a tiny model with random weights is built. Its attention reaches 8 tokens back
where the kind has a window, and weights are large enough for attention to matter. What
is compared with the log-probabilities of one whole sequence, computed by the model
itself: of the learner, its rows padded and packed, and of the sampler, several
conversations of two turns side by side.

    python benchmarks/families.py                  # prints the table
    python benchmarks/families.py llama "gpt_neo"  # of these alone
    python benchmarks/families.py --write          # renews docs/families.md
"""

import argparse
import asyncio
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from aipo_env import Author, Completion, Message, PolicyError, Span, all_of
from aipo_learner.learn.logprobs import microbatch_logprobs
from aipo_learner.learn.rows import Row, collate
from aipo_learner.policy.forward import LearnerForward
from aipo_learner.policy.tiny import build_tokenizer
from aipo_learner.samplers.hf.sampler import HFSampler, HFVoice
from aipo_learner.samplers.weight_sync import check_sampler
from aipo_learner.settings.compute import ComputeConfig

PAGE = Path(__file__).resolve().parents[1] / "docs" / "families.md"
TOKENIZER = build_tokenizer()
TEMPERATURE = 0.7
ROUNDING = 1e-3
"""Nats: what is further off is wrong."""
SCALE = 6.0
"""What matrices are multiplied by: at their first values attention is nearly even."""
UNSCALED = ("A_log", "conv", "router", "e_score")
"""Parts of names of tensors that are left as they are."""
SEED = 3
MAX_ROWS = 3
"""Fewer than there are conversations: some wait, and join those that go on."""
CONVERSATIONS = ((9, 6), (31, 2), (16, 9), (4, 4), (24, 7))
"""Words of the prompt and tokens of the first turn, of each."""
SECOND_TURN = 6

SIZES = {
    "vocab_size": 2112,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": int(TOKENIZER.eos_token_id),
}
"""Given to every kind, as far as it has them."""
WINDOW = {"sliding_window": 8}
BOTH = {"layer_types": ["sliding_attention", "full_attention"]}
EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "head_dim": 4,
    "first_k_dense_replace": 1,
    "num_key_value_heads": 4,
}
STATE = {
    "mamba_d_state": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_ssm": 64,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 16,
    "mamba_expand": 2,
    "mamba_d_conv": 4,
}
LINEAR = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
EYE = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
"""A vision tower, of which nothing is used."""
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
CAP = {"final_logit_softcapping": 2.0, "query_pre_attn_scalar": 8}
INDEXED = {
    **EXPERTS,
    **LATENT,
    "index_topk": 16,
    "index_head_dim": 8,
    "index_n_heads": 2,
}
GEMMA3 = {**WINDOW, **BOTH, "query_pre_attn_scalar": 8}
SHARED = {
    **WINDOW,
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "num_kv_shared_layers": 2,
    "vocab_size_per_layer_input": 2112,
    "hidden_size_per_layer_input": 8,
}
CHUNKS = {
    **EXPERTS,
    "attention_chunk_size": 8,
    "intermediate_size_mlp": 48,
    "layer_types": ["chunked_attention", "full_attention"],
}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama eager": {"attn": "eager"},
    "llama tied": {"tie_word_embeddings": True},
    "qwen2": {},
    "qwen2 sliding": {"use_sliding_window": True, "max_window_layers": 1, **WINDOW},
    "qwen3": {},
    "qwen3 sliding": {"use_sliding_window": True, "max_window_layers": 1, **WINDOW},
    "mistral": {},
    "mistral sliding": WINDOW,
    "mistral sliding eager": {"attn": "eager", **WINDOW},
    "ministral": {**WINDOW, **BOTH},
    "ministral3": {},
    "mixtral": EXPERTS,
    "mixtral sliding": {**WINDOW, **EXPERTS},
    "phi": {},
    "phi3": {},
    "phi3 sliding": WINDOW,
    "phimoe": EXPERTS,
    "gemma": {},
    "gemma2": {**WINDOW, **CAP},
    "gemma2 eager": {"attn": "eager", **WINDOW, **CAP},
    "gemma3_text": GEMMA3,
    "gemma3": {"text_config": GEMMA3, "vision_config": EYE},
    "gemma3n_text": {
        **SHARED,
        "laurel_rank": 8,
        "activation_sparsity_pattern": None,
        **CAP,
    },
    "gemma4_text": {**SHARED, "global_head_dim": 8, **CAP},
    "gemma4": {
        "text_config": {**SHARED, "global_head_dim": 8, **CAP},
        "vision_config": EYE,
    },
    "vaultgemma": {**WINDOW, **BOTH, **CAP},
    "recurrent_gemma": {
        "lru_width": 32,
        "attention_window_size": 8,
        "block_types": ["recurrent", "attention"],
    },
    "cohere": {"logit_scale": 0.25},
    "cohere2": {**WINDOW, **BOTH, "logit_scale": 0.25},
    "cohere2_moe": {**WINDOW, **BOTH, **EXPERTS},
    "granite": {"logits_scaling": 4.0, "attention_multiplier": 0.2},
    "granite_swa": WINDOW,
    "granitemoe": EXPERTS,
    "granitemoe_swa": {**WINDOW, **EXPERTS},
    "granitemoeshared": EXPERTS,
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention"],
        "position_embedding_type": "rope",
        "shared_intermediate_size": 16,
        **STATE,
        **EXPERTS,
    },
    "gpt2": GPT,
    "gpt_neox": {},
    "gpt_neox_japanese": {},
    "gptj": {**GPT, "rotary_dim": 8},
    "gpt_neo": {
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
    },
    "gpt_bigcode": GPT,
    "gpt_oss": {**WINDOW, **BOTH, **EXPERTS},
    "openai-gpt": GPT,
    "ctrl": {**GPT, "dff": 48},
    "codegen": {**GPT, "n_ctx": 512, "rotary_dim": 8},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "bloom": {"n_head": 4, "n_layer": 2},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 512},
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "falcon alibi": {"alibi": True},
    "stablelm": {},
    "starcoder2": {},
    "starcoder2 sliding": WINDOW,
    "olmo": {},
    "olmo2": {},
    "olmo3": {**WINDOW, **BOTH},
    "olmoe": EXPERTS,
    "olmo_hybrid": LINEAR,
    "flex_olmo": EXPERTS,
    "smollm3": {},
    "nemotron": {},
    "nemotron_h": {
        "hybrid_override_pattern": "M*",
        "layers_block_type": ["mamba", "attention"],
        "ssm_state_size": 8,
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "n_groups": 1,
        "chunk_size": 16,
        **EXPERTS,
    },
    "helium": {},
    "glm": {},
    "glm4": {},
    "glm4_moe": EXPERTS,
    "glm4_moe_lite": {**EXPERTS, **LATENT},
    "glm_moe_dsa": INDEXED,
    "exaone4": {**WINDOW, **BOTH},
    "exaone_moe": {**WINDOW, **BOTH, **EXPERTS},
    "qwen2_moe": EXPERTS,
    "qwen3_moe": EXPERTS,
    "qwen3_next": {**LINEAR, **EXPERTS},
    "qwen3_5_text": LINEAR,
    "qwen3_5": {"text_config": LINEAR},
    "qwen3_5_moe_text": {**LINEAR, **EXPERTS},
    "deepseek_v2": {**EXPERTS, **LATENT},
    "deepseek_v3": {**EXPERTS, **LATENT},
    "deepseek_v32": INDEXED,
    "minicpm3": LATENT,
    "llama4_text": CHUNKS,
    "llama4": {"text_config": CHUNKS, "vision_config": EYE},
    "ernie4_5": {},
    "ernie4_5_moe": {**EXPERTS, "moe_num_experts": 4, "moe_k": 2},
    "hunyuan_v1_dense": {},
    "hunyuan_v1_moe": EXPERTS,
    "hy_v3": EXPERTS,
    "seed_oss": {},
    "apertus": {},
    "arcee": {},
    "bitnet": {},
    "nanochat": {},
    "dots1": {**WINDOW, **EXPERTS},
    "minimax": {
        **EXPERTS,
        "layer_types": ["linear_attention", "full_attention"],
    },
    "minimax_m2": EXPERTS,
    "mimo_v2_flash": {**WINDOW, **EXPERTS},
    "mamba": {"state_size": 8},
    "mamba2": {
        "state_size": 8,
        "num_heads": 8,
        "head_dim": 8,
        "chunk_size": 16,
        "n_groups": 1,
    },
    "falcon_mamba": {"state_size": 8},
    "falcon_h1": STATE,
    "jamba": {
        **EXPERTS,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "mamba_d_state": 8,
        "use_mamba_kernels": False,
    },
    "bamba": {"attn_layer_indices": [1], **STATE},
    "zamba2": {
        "layers_block_type": ["mamba", "hybrid"],
        "mamba_d_state": 8,
        "n_mamba_heads": 8,
        "mamba_headdim": 8,
        "mamba_ngroups": 1,
        "num_mem_blocks": 1,
        "chunk_size": 16,
        "adapter_rank": 8,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3},
    "lfm2_moe": {
        "layer_types": ["conv", "full_attention"],
        "conv_L_cache": 3,
        "num_dense_layers": 1,
        **EXPERTS,
    },
    "lfm3": {"layer_types": ["conv", "full_attention"], "conv_L_cache": 3, **WINDOW},
    "kimi_linear": {
        **EXPERTS,
        **LATENT,
        "layer_types": ["linear_attention", "full_attention"],
        "num_experts_per_token": 2,
        "num_shared_experts": 1,
        "num_expert_group": 1,
        "linear_head_dim": 8,
        "linear_num_heads": 4,
    },
    "rwkv": {"attention_hidden_size": 32},
    "modernbert-decoder": {"local_attention": 16},
    "persimmon": {},
    "xglm": {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4},
    "biogpt": {},
    "doge": {},
    "diffllama": {},
    "jais2": {},
    "cwm": {**WINDOW, **BOTH},
    "afmoe": {**WINDOW, **BOTH, **EXPERTS},
    "solar_open": EXPERTS,
    "longcat_flash": {**EXPERTS, **LATENT},
    "jetmoe": {},
    "flint": {},
    "kolibri1": {**WINDOW, **BOTH, **EXPERTS},
    "mellum": {**WINDOW, **BOTH, **EXPERTS},
    "laguna": {
        **WINDOW,
        **BOTH,
        **EXPERTS,
        "num_attention_heads_per_layer": [4, 4],
        "mlp_layer_types": ["dense", "sparse"],
    },
    "internlm3": {},
    "hrm_text": {},
    "hyperclovax": {},
    "youtu": LATENT,
    "iquestcoder": {},
    "roformer": {"is_decoder": True},
    "deepseek_v4": {**EXPERTS, **WINDOW},
}
"""Settings by name, whose first word is the model type; "attn" is how attention is
computed.
"""


def build(name: str) -> PreTrainedModel:
    """Build the tiny model of a family; the same weights every time."""
    settings = dict(FAMILIES[name])
    attention = settings.pop("attn", None)
    torch.manual_seed(SEED)
    config = _config(name.split()[0], settings)
    model = AutoModelForCausalLM.from_config(
        config, attn_implementation=attention, trust_remote_code=False
    )
    with torch.no_grad():
        for tensor_name, tensor in model.named_parameters():
            is_scaled = not any(part in tensor_name for part in UNSCALED)
            if tensor.dim() > 1 and is_scaled:
                tensor.mul_(SCALE)
    return model.eval().float()


def _config(model_type: str, settings: dict[str, Any]) -> PreTrainedConfig:
    """Return a model's configuration, small in all that `settings` does not say."""
    make = CONFIG_MAPPING[model_type]
    if "text_config" in settings:
        text_type = make.sub_configs["text_config"].model_type
        text = _config(text_type, settings["text_config"])
        return make(**{**settings, "text_config": text.to_dict()})
    usual = make()
    # By another name it may be called as well.
    known = usual.to_dict().keys() | usual.attribute_map.keys()
    sizes = {name: size for name, size in SIZES.items() if name in known}
    return make(**{**sizes, **settings})


def compare_learner(model: PreTrainedModel, layout: str) -> float:
    """Return how far (nats) rows computed together are from each computed alone.

    Raises:
        PolicyError: The model cannot be computed in this layout.
    """
    rng = np.random.default_rng(SEED)
    num_words = SIZES["vocab_size"]
    sequences = [rng.integers(num_words, size=size) for size in (37, 52, 29)]
    compute = ComputeConfig(layout=layout, precision="float32")
    forward = LearnerForward(model, compute, temperature=TEMPERATURE)
    batch = collate([_row(sequence) for sequence in sequences], 0)
    with torch.no_grad():
        logprobs, _ = microbatch_logprobs(forward, batch)
    gaps = [
        (row[1 : len(sequence)] - _logprobs(model, sequence.tolist())).abs().max()
        for row, sequence in zip(logprobs, sequences, strict=True)
    ]
    return torch.stack(gaps).max().item()


def compare_sampler(model: PreTrainedModel) -> float:
    """Return how far (nats) the sampler's log-probabilities are from the model's."""
    sampler = HFSampler(model, TOKENIZER, temperature=TEMPERATURE, max_rows=MAX_ROWS)
    gaps = []
    for token_ids, completions in asyncio.run(_conversations(sampler)):
        expected = _logprobs(model, token_ids)
        for start, completion in completions:
            # The first token has no log-probability.
            own = expected[start - 1 : start - 1 + len(completion.token_ids)]
            gaps.append((own - torch.tensor(completion.logprobs)).abs().max())
    sampler.close()
    return torch.stack(gaps).max().item()


Conversation = tuple[list[int], list[tuple[int, Completion]]]
"""Token ids, and what was written, each with the place of its first token."""


async def _conversations(sampler: HFSampler) -> Sequence[Conversation]:
    voices = [sampler.voice((number,)) for number in range(len(CONVERSATIONS))]
    return await all_of(
        _conversation(voice, *sizes)
        for voice, sizes in zip(voices, CONVERSATIONS, strict=True)
    )


async def _conversation(
    voice: HFVoice, num_words: int, first_turn: int
) -> Conversation:
    completions = []
    voice.open([_said(" ".join(map(str, range(num_words))))])
    for number, max_tokens in enumerate((first_turn, SECOND_TURN)):
        if number:
            voice.append(_said("then 4 5 6"))
        start = len(voice.token_ids)
        completions.append((start, await voice.complete((), max_tokens)))
    token_ids = list(voice.token_ids)
    voice.close()
    return token_ids, completions


def _said(text: str) -> Message:
    return Message("user", (Span(text, Author.PROMPT),))


@torch.no_grad()
def _logprobs(model: PreTrainedModel, token_ids: list[int]) -> torch.Tensor:
    """Return the log-probability of each token but the first, as the model has it."""
    row = torch.tensor([token_ids])
    scores = torch.log_softmax(model(row).logits[0].float() / TEMPERATURE, dim=-1)
    return scores[:-1].gather(-1, row[0, 1:, None])[:, 0]


def _row(token_ids: np.ndarray) -> Row:
    """Return a row of the learner's, all of it the policy's but the first token."""
    is_own = np.ones(len(token_ids), bool)
    is_own[0] = False
    unknown = np.full(len(token_ids), np.nan, np.float32)
    return Row(
        token_ids=token_ids,
        policy_mask=is_own,
        agent_mask=np.zeros(len(token_ids), bool),
        sampler_logprobs=unknown,
        agent_logprobs=unknown,
        advantage=1.0,
    )


def sampler_outcome(model: PreTrainedModel) -> str:
    """Return what a run would meet, and how exact it is: =, refused or WRONG."""

    def measured() -> float:
        sampler = HFSampler(model, TOKENIZER, temperature=TEMPERATURE)
        # As before the first step of a run.
        check_sampler(sampler, model, ROUNDING)
        sampler.close()
        return compare_sampler(model)

    return outcome(measured)


def outcome(measure: Callable[[], float]) -> str:
    """Return how a comparison came out: "=", "refused" or "WRONG", and why."""
    try:
        gap = measure()
    except PolicyError as error:
        return f"refused: {error}"
    sign = "=" if gap <= ROUNDING else "WRONG"
    return f"{sign} {gap:.0e}"


def row_of(name: str) -> list[str]:
    """Return the table's row of a family."""
    model = build(name)
    cells = [name, sampler_outcome(model)]
    for layout in ("padded", "packed"):
        # Bound now: the loop goes on.
        cells.append(outcome(lambda layout=layout: compare_learner(model, layout)))
    # Why is said when it happens; in the table it would be said a hundred times.
    return [cell.partition(":")[0] for cell in cells]


def table(names: Iterable[str]) -> str:
    """Return the table of these families, in Markdown."""
    lines = [
        "| family | transformers sampler | learner, padded | learner, packed |",
        "|---|---|---|---|",
    ]
    for name in names:
        lines.append(f"| {' | '.join(row_of(name))} |")
    return "\n".join(lines) + "\n"


_PAGE = """# Families of models

Which kinds of models the learner trains, and the transformers sampler runs: tiny ones
with random weights, windows of 8 tokens, in float32 on a CPU, with
transformers {transformers} and torch {torch}. Made by

```bash
python benchmarks/families.py --write
```

"=" stands for log-probabilities that equal the model's own, computed for one sequence
at a time, with the largest difference in nats. "refused" is said before the first step
of a run, with the reason and what to use instead: `--sampler vllm` where the sampler is
meant (whether vLLM runs that kind is for vLLM to say), `--compute.layout padded`, which
is the default without a GPU, where packing is. Rows marked "WRONG" would be trained on
other log-probabilities than the model's: leave these kinds alone.

{table}"""


def main() -> None:
    """Print the table, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="families; all if none is named")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    text = table(options.names or FAMILIES)
    if options.write:
        page = _PAGE.format(
            table=text,
            torch=torch.__version__.partition("+")[0],
            transformers=transformers.__version__,
        )
        PAGE.write_text(page, encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
