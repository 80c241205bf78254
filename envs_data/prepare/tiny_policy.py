"""Warm start: teach the tiny policy its trade from generated transcripts, then hold it
to its gates.

aipo warmstart
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from rich.console import Console
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from tyro.conf import arg

from aipo_env import CONSULT_KINDS, PolicyError, Salt, build_scenario, keyed_rng
from aipo_learner.evaluation.evaluate import evaluate
from aipo_learner.learn.logprobs import token_logprobs
from aipo_learner.learn.rows import Row, collate, split_rows
from aipo_learner.policy.load import load_policy, save_policy
from aipo_learner.policy.runtime import prepare
from aipo_learner.policy.tiny import build_model, build_tokenizer
from aipo_learner.samplers.hf.sampler import HFSampler
from envs_data.prepare.transcripts import (
    Transcript,
    draw_drill,
    draw_recital,
    draw_transcript,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmstartConfig:
    """How to teach: first sums alone, from small digits up, then whole transcripts with
    rules recited among them.

    Args:
        seed: Draws the weights and the transcripts.
        num_steps: Optimiser steps in all.
        drill_steps: The most steps that the sums may take; the rest is for transcripts.
        transcripts_per_step: Fresh transcripts per step.
        recital_share: Share of pages of rules and sums among the transcripts.
        lr: Peak learning rate of AdamW, three quarters of it for the sums; 50 steps of
            warm-up; the last two fifths fall to 0.
        microbatch_tokens: Tokens per forward-backward, padding included.
    """

    seed: int = 0
    num_steps: int = 4000
    drill_steps: int = 700
    transcripts_per_step: int = 48
    recital_share: float = 0.4
    lr: float = 2e-3
    microbatch_tokens: int = 6144


def transcript_row(transcript: Transcript, tokenizer: PreTrainedTokenizerFast) -> Row:
    """Return a transcript as a row that is learnt from the first assistant token on."""
    messages = [
        {"role": role, "content": content} for role, content in transcript.messages
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    token_ids = np.asarray(tokenizer.encode(text, add_special_tokens=False), np.int64)
    start = (
        int(np.argmax(token_ids == tokenizer.convert_tokens_to_ids("<|assistant|>")))
        + 1
    )
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


class Lessons:
    """What is taught when: raises the digits of sums as they are learnt, then moves on
    to transcripts.
    """

    def __init__(self, config: WarmstartConfig) -> None:
        self.config = config
        self.rng = keyed_rng([config.seed], Salt.WARM_START)
        self.top = 2
        self.recent_loss = math.inf
        self.drilling = True

    def draw(self) -> list[Transcript]:
        """Draw the transcripts of the next step."""
        count = self.config.transcripts_per_step
        if self.drilling:
            return [draw_drill(self.rng, self.top) for _ in range(count)]
        num_recitals = round(count * self.config.recital_share)
        recitals = [draw_recital(self.rng) for _ in range(num_recitals)]
        return recitals + [
            draw_transcript(self.rng) for _ in range(count - num_recitals)
        ]

    def heard(self, step: int, loss: float) -> None:
        """Take the loss of a step. Of a page's 15 tokens per sum, 8 are digits nobody
        can predict.
        """
        if not self.drilling:
            return
        guessing = 4 * (math.log(10) + math.log(self.top)) / 15
        excess = loss - guessing
        self.recent_loss = (
            excess
            if self.recent_loss == math.inf
            else 0.8 * self.recent_loss + 0.2 * excess
        )
        if self.recent_loss < 0.06 and self.top < 10:
            self.top, self.recent_loss = self.top + 2, math.inf
        mastered = self.top == 10 and self.recent_loss < 0.02
        self.drilling = not mastered and step + 1 < self.config.drill_steps


def teach(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, config: WarmstartConfig
) -> Iterator[float]:
    """Teach the model in place, yielding the mean loss in nats of every step."""
    lessons = Lessons(config)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.lr, betas=(0.9, 0.98), weight_decay=0.01
    )
    for step in range(config.num_steps):
        warmup = min(1.0, (step + 1) / 50)
        decay = min(1.0, (config.num_steps - step) / (0.4 * config.num_steps))
        for group in optimizer.param_groups:
            group["lr"] = (
                config.lr * warmup * decay * (0.75 if lessons.drilling else 1.0)
            )
        rows = [transcript_row(transcript, tokenizer) for transcript in lessons.draw()]
        loss = _learn(
            model, optimizer, rows, tokenizer.pad_token_id, config.microbatch_tokens
        )
        lessons.heard(step, loss)
        yield loss


@dataclass(frozen=True, slots=True)
class Gate:
    """A condition on the finished policy, checked for each kind of bottleneck."""

    name: str
    column: str
    measure: str
    low: float
    high: float
    kinds: tuple[str, ...] = CONSULT_KINDS

    def fault(self, scores: Mapping[str, Any]) -> str:
        """Return what is wrong, or "" when the gate is passed."""
        for kind in self.kinds:
            row = scores[self.column]["by_bottleneck"][kind]
            if not self.low <= row[self.measure] <= self.high:
                return (
                    f"{kind}: {self.name} is {row[self.measure]:.3f}, must be"
                    f" {self.low} to {self.high}"
                )
        return ""


GATES = (
    Gate("success with agents", "aided", "pass@1", 0.90, 1.0),
    Gate("success alone", "unaided", "pass@1", 0.0, 0.05),
    Gate("success alone against a belief", "unaided", "pass@1", 0.0, 0.01, ("verify",)),
    Gate("share of tasks never solved alone", "unaided", "never_solved", 0.5, 1.0),
)


def gate_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    num_tasks: int,
    num_samples: int,
) -> dict[str, Any]:
    """Measure a policy for the gates in the world of `seed`."""
    scenario = build_scenario("toy", seed=seed)
    sampler = HFSampler(model, tokenizer)
    common: dict[str, Any] = {"num_tasks": num_tasks, "seed": seed}
    aided, _ = evaluate(sampler, scenario, num_samples=16, aided=True, **common)
    unaided, _ = evaluate(
        sampler, scenario, num_samples=num_samples, aided=False, **common
    )
    return {"aided": aided.to_dict(), "unaided": unaided.to_dict()}


def write_tiny_policy(config: WarmstartConfig, out: Path, console: Console) -> None:
    """Teach the tiny policy, write it in bfloat16 and hold what was written to its
    gates.

    Raises:
        PolicyError: A gate is not passed; the folder is there to look at.
    """
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, config.seed)
    for step, loss in enumerate(teach(model, tokenizer, config)):
        if step % 50 == 0:
            console.print(
                f"step {step}/{config.num_steps}  loss {loss:.3f}", highlight=False
            )
    out.parent.mkdir(parents=True, exist_ok=True)
    save_policy(model.bfloat16(), tokenizer, out)
    scores = gate_scores(*load_policy(str(out)), seed=1, num_tasks=48, num_samples=256)
    faults = [fault for gate in GATES if (fault := gate.fault(scores))]
    if faults:
        raise PolicyError(
            f"{out}: the policy does not pass its gates: {'; '.join(faults)}."
        )
    console.print(f"Passed all gates. Policy: {out}", highlight=False)


@dataclass(frozen=True, kw_only=True)
class WarmstartOptions:
    """Teach the tiny policy from scratch and hold it to its gates."""

    out: Annotated[Path, arg(help="Folder for the Hugging Face model.")] = Path(
        "runs/tiny_policy"
    )
    seed: Annotated[int, arg(help="Draws the weights and the transcripts.")] = 0
    num_threads: Annotated[int, arg(help="CPU threads of torch.")] = 2


def warmstart(argv: list[str]) -> None:
    """Teach the tiny policy from scratch."""
    options = tyro.cli(WarmstartOptions, args=argv, prog="aipo warmstart")
    prepare(options.num_threads)
    write_tiny_policy(WarmstartConfig(seed=options.seed), options.out, Console())


def _learn(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    rows: list[Row],
    pad_token_id: int,
    microbatch_tokens: int,
) -> float:
    """Make one step of next-token prediction; return the mean loss."""
    num_learnt = sum(int(row.policy_mask.sum()) for row in rows)
    optimizer.zero_grad()
    total = 0.0
    for part in split_rows(rows, microbatch_tokens):
        batch = collate(part, pad_token_id)
        logprobs, _ = token_logprobs(model, batch)
        loss = -logprobs[batch.policy_mask].sum() / num_learnt
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return total
