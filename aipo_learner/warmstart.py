"""Warm start: teach the tiny policy its trade from generated transcripts, then hold it to its gates."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from aipo_learner.batch import Row, collate, split_rows
from aipo_learner.policy import token_logprobs
from aipo_learner.tiny import build_model, build_tokenizer
from aipo_learner.transcripts import Transcript, draw_transcript


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmstartConfig:
    """How to teach.

    Args:
        seed: Draws the weights and the transcripts.
        num_steps: Optimiser steps.
        transcripts_per_step: Fresh transcripts per step.
        lr: Peak learning rate of AdamW; 50 steps of warm-up, then a cosine to a hundredth.
        microbatch_tokens: Tokens per forward-backward, padding included.
    """

    seed: int = 0
    num_steps: int = 1200
    transcripts_per_step: int = 128
    lr: float = 3e-3
    microbatch_tokens: int = 8192


def transcript_row(transcript: Transcript, tokenizer: PreTrainedTokenizerFast) -> Row:
    """Return a transcript as a row that is learnt from the first assistant token on."""
    messages = [{"role": role, "content": content} for role, content in transcript.messages]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    token_ids = np.asarray(tokenizer.encode(text, add_special_tokens=False), np.int64)
    start = int(np.argmax(token_ids == tokenizer.convert_tokens_to_ids("<|assistant|>"))) + 1
    learnt = np.arange(len(token_ids)) >= start
    nothing = np.full(len(token_ids), np.nan, np.float32)
    return Row(
        token_ids=token_ids,
        policy_mask=learnt,
        agent_mask=np.zeros_like(learnt),
        sampler_logprobs=nothing,
        agent_logprobs=nothing,
        advantage=1.0,
    )


def warmstart(
    config: WarmstartConfig,
) -> Iterator[tuple[int, float, PreTrainedModel, PreTrainedTokenizerFast]]:
    """Teach, yielding (step, mean loss in nats, model, tokenizer) after every step."""
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, config.seed)
    rng = np.random.default_rng([config.seed, 4])
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr, betas=(0.9, 0.95), weight_decay=0.01)
    for step in range(config.num_steps):
        warmup = min(1.0, (step + 1) / 50)
        decay = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / config.num_steps))
        for group in optimizer.param_groups:
            group["lr"] = config.lr * warmup * decay
        rows = [transcript_row(draw_transcript(rng), tokenizer) for _ in range(config.transcripts_per_step)]
        num_learnt = sum(int(row.policy_mask.sum()) for row in rows)
        optimizer.zero_grad()
        total = 0.0
        for part in split_rows(rows, config.microbatch_tokens):
            batch = collate(part, tokenizer.pad_token_id)
            logprobs, _ = token_logprobs(model, batch)
            loss = -logprobs[batch.policy_mask].sum() / num_learnt
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        yield step, total, model, tokenizer
