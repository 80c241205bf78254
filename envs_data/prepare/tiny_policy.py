"""Warm start: teach the tiny policy from generated transcripts, then test it.

aipo warmstart

The tests are its gates: it is to solve tasks with agents, and hardly any without.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from aipo_env import CONSULT_KINDS, PolicyError, Salt, build_scenario, keyed_rng
from aipo_learner.evaluation.evaluate import evaluate
from aipo_learner.learn.learning_rate import set_learning_rate
from aipo_learner.learn.logprobs import microbatch_logprobs
from aipo_learner.learn.rows import Row, collate, split_rows
from aipo_learner.policy.forward import LearnerForward
from aipo_learner.policy.load import load_policy, save_policy
from aipo_learner.policy.tiny import build_model, build_tokenizer
from aipo_learner.run.progress import SILENT, Progress, WorkCount
from aipo_learner.samplers.hf.sampler import HFSampler
from envs_data.prepare.transcripts import (
    Part,
    Transcript,
    draw_drill,
    draw_recital,
    draw_transcript,
)

WARMUP_STEPS = 50
"""Steps over which the rate rises."""
DECAY_SHARE = 0.4
"""Share of the steps, at the end, over which the rate falls to 0."""
DRILL_RATE = 0.75
"""Share of the rate at which sums are taught."""
ADAM_BETAS = (0.9, 0.98)
WEIGHT_DECAY = 0.01
MAX_GRAD_NORM = 1.0
PRINT_EVERY = 50
"""Steps between lines on the console."""

HOLD = 0.3
"""Weight of the squared distance, in nats, of what is held from where it is held. Rare
examples would not do: beside what is taught for certain, they are hardly heard.
"""

FIRST_TOP = 2
"""The added digits of the first sums are below it."""
TOP_STEP = 2
"""So many digits more come with each lesson that is learnt."""
LAST_TOP = 10
"""With it, all digits are there."""
DIGITS = 10
TOKENS_PER_SUM = 15
"""Of a page: `1234+5678=6802;`."""
GUESSES_PER_ADDEND = 4
"""Digits of an addend: nobody can predict them, those of the total follow."""
SMOOTHING = 0.8
"""Weight of the past in the running mean of the loss."""
NEWEST = 0.2
"""Weight of the newest loss in it."""
LEARNT_LOSS = 0.06
"""Nats per token above what guessing costs, below which larger digits come."""
MASTERED_LOSS = 0.02
"""Nats below which, with all digits, transcripts come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmstartConfig:
    """How to teach the tiny policy.

    First sums alone, from small digits up, then whole transcripts, with rules recited
    among them.

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
    """Return a transcript as a row that is learnt from the first turn of its own on.

    What agents reply between its turns is learnt as well, unless it is untaught. What
    is held is in `agent_mask` and not in `policy_mask`.
    """
    messages = [
        {"role": role, "content": content} for role, content in transcript.messages
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    token_ids = np.asarray(tokenizer.encode(text, add_special_tokens=False), np.int64)
    assistant_id = tokenizer.convert_tokens_to_ids("<|assistant|>")
    # Of true and false, argmax finds the first true.
    first_mark = int(np.argmax(token_ids == assistant_id))
    learnt = np.arange(len(token_ids)) > first_mark
    held = part_mask(transcript, transcript.held, tokenizer)
    untaught = part_mask(transcript, transcript.untaught, tokenizer)
    nothing = np.full(len(token_ids), np.nan, np.float32)
    return Row(
        token_ids=token_ids,
        policy_mask=learnt & ~held & ~untaught,
        agent_mask=held,
        sampler_logprobs=nothing,
        agent_logprobs=nothing,
        advantage=1.0,
    )


def part_mask(
    transcript: Transcript, parts: Sequence[Part], tokenizer: PreTrainedTokenizerFast
) -> NDArray[np.bool_]:
    """Return which tokens of a transcript's row lie within some parts: bool[T]."""
    # The text that the template makes: messages between marks, nothing else.
    text = ""
    content_starts: list[int] = []
    for role, content in transcript.messages:
        text += f"<|{role}|>"
        content_starts.append(len(text))
        text += f"{content}{tokenizer.eos_token}"
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    bounds = np.asarray(encoding["offset_mapping"])
    is_within = np.zeros(len(bounds), bool)
    for number, start, end in parts:
        begins = bounds[:, 0] >= content_starts[number] + start
        ends = bounds[:, 1] <= content_starts[number] + end
        is_within |= begins & ends
    return is_within


class Syllabus(Protocol):
    """What is taught when."""

    @property
    def rate_share(self) -> float:
        """Share of the learning rate for what `draw` returns next."""

    @property
    def held_probability(self) -> float:
        """At what probability each token is held that transcripts say is."""

    def draw(self) -> list[Transcript]:
        """Draw the transcripts of the next step."""

    def heard(self, step: int, loss: float) -> None:
        """Take the loss of a step, in nats per token."""


class Lessons:
    """What is taught when: sums, of larger digits once learnt, then transcripts."""

    held_probability = 1.0

    def __init__(self, config: WarmstartConfig) -> None:
        self.config = config
        self.rng = keyed_rng([config.seed], Salt.WARM_START)
        self.top = FIRST_TOP
        """The added digits of the sums are below it."""
        self.recent_loss = math.inf
        """Running mean of the loss above guessing; infinite before the first."""
        self.drilling = True
        """Whether sums are taught."""

    @property
    def rate_share(self) -> float:
        """Share of the learning rate: of sums less than of transcripts."""
        return DRILL_RATE if self.drilling else 1.0

    def draw(self) -> list[Transcript]:
        """Draw the transcripts of the next step."""
        number = self.config.transcripts_per_step
        if self.drilling:
            return [draw_drill(self.rng, self.top) for _ in range(number)]
        num_recitals = round(number * self.config.recital_share)
        num_transcripts = number - num_recitals
        recitals = [draw_recital(self.rng) for _ in range(num_recitals)]
        transcripts = [draw_transcript(self.rng) for _ in range(num_transcripts)]
        return [*recitals, *transcripts]

    def heard(self, step: int, loss: float) -> None:
        """Take the loss of a step, in nats per token."""
        if not self.drilling:
            return
        # The two addends of a sum are random, one of all digits, one of those below the
        # top. Whoever can add predicts all else.
        nats_per_digits = math.log(DIGITS) + math.log(self.top)
        guessing = GUESSES_PER_ADDEND * nats_per_digits / TOKENS_PER_SUM
        excess = loss - guessing
        if self.recent_loss == math.inf:
            self.recent_loss = excess
        else:
            past = SMOOTHING * self.recent_loss
            self.recent_loss = past + NEWEST * excess
        if self.recent_loss < LEARNT_LOSS and self.top < LAST_TOP:
            self.top += TOP_STEP
            # What was learnt of smaller digits says nothing of these.
            self.recent_loss = math.inf
        is_mastered = self.top == LAST_TOP and self.recent_loss < MASTERED_LOSS
        self.drilling = not is_mastered and step + 1 < self.config.drill_steps


def teach(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    config: WarmstartConfig,
    syllabus: Syllabus | None = None,
) -> Iterator[float]:
    """Teach the model in place, yielding the mean loss of every step, in nats.

    Args:
        model: New, in float32.
        tokenizer: Its tokenizer.
        config: How many steps, at what rate.
        syllabus: What is taught; the lessons of the toy world if not given.
    """
    lessons = Lessons(config) if syllabus is None else syllabus
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.lr, betas=ADAM_BETAS, weight_decay=WEIGHT_DECAY
    )
    for step in range(config.num_steps):
        warmup = min(1.0, (step + 1) / WARMUP_STEPS)
        num_decaying = DECAY_SHARE * config.num_steps
        decay = min(1.0, (config.num_steps - step) / num_decaying)
        rate = config.lr * warmup * decay * lessons.rate_share
        set_learning_rate(optimizer, rate)
        rows = [transcript_row(transcript, tokenizer) for transcript in lessons.draw()]
        loss = _learn(
            model,
            optimizer,
            rows,
            tokenizer.pad_token_id,
            config.microbatch_tokens,
            lessons.held_probability,
        )
        lessons.heard(step, loss)
        yield loss


@dataclass(frozen=True, slots=True)
class Gate:
    """A condition on the finished policy, checked for each kind of bottleneck.

    Args:
        name: What is measured, in words.
        column: "aided" or "unaided".
        measure: A key of the scores in it.
        low: The least value that passes.
        high: The greatest.
        kinds: Kinds of bottleneck that it holds for.
    """

    name: str
    column: str
    measure: str
    low: float
    high: float
    kinds: tuple[str, ...] = CONSULT_KINDS

    def fault(self, scores: Mapping[str, Any]) -> str:
        """Return what is wrong, or "" when the gate is passed."""
        for kind in self.kinds:
            value = scores[self.column]["by_bottleneck"][kind][self.measure]
            if not self.low <= value <= self.high:
                return (
                    f"{kind}: {self.name} is {value:.3f}, must be {self.low} to"
                    f" {self.high}"
                )
        return ""


GATES = (
    Gate("success with agents", "aided", "pass@1", 0.90, 1.0),
    Gate("success alone", "unaided", "pass@1", 0.0, 0.05),
    Gate("success alone against a belief", "unaided", "pass@1", 0.0, 0.01, ("verify",)),
    Gate("share of tasks never solved alone", "unaided", "never_solved", 0.5, 1.0),
)
"""What the tiny policy is for: agents help it, and alone it has all to learn."""
GATE_SEED = 1
"""Of the world in which it is measured."""
GATE_TASKS = 48
GATE_SAMPLES = 256
"""Of each task alone: enough to see a success that is rare."""
GATE_AIDED_SAMPLES = 16


def gate_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    num_tasks: int,
    num_samples: int,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Measure a policy for the gates in the world of `seed`."""
    scenario = build_scenario("toy", seed=seed)
    sampler = HFSampler(model, tokenizer)
    aided, _ = evaluate(
        sampler,
        scenario,
        num_tasks=num_tasks,
        num_samples=GATE_AIDED_SAMPLES,
        aided=True,
        seed=seed,
        progress=progress,
    )
    unaided, _ = evaluate(
        sampler,
        scenario,
        num_tasks=num_tasks,
        num_samples=num_samples,
        aided=False,
        seed=seed,
        progress=progress,
    )
    return {"aided": aided.to_dict(), "unaided": unaided.to_dict()}


def write_tiny_policy(config: WarmstartConfig, out: Path, console: Console) -> None:
    """Teach the tiny policy, write it in bfloat16, and measure what was written.

    Raises:
        PolicyError: A gate is not passed; the folder is there to look at.
    """
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, config.seed)
    with Progress(console) as progress:
        losses = teach(model, tokenizer, config)
        write_taught(model, tokenizer, losses, config, out, console, progress)
        # From the folder, since rounding to bfloat16 may cost what was learnt.
        stored_model, stored_tokenizer = load_policy(str(out))
        scores = gate_scores(
            stored_model,
            stored_tokenizer,
            seed=GATE_SEED,
            num_tasks=GATE_TASKS,
            num_samples=GATE_SAMPLES,
            progress=progress,
        )
    check_gates(scores, GATES, out)
    console.print(f"Passed all gates. Policy: {out}", highlight=False)


def write_taught(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    losses: Iterator[float],
    config: WarmstartConfig,
    out: Path,
    console: Console,
    progress: Progress,
) -> None:
    """Teach a model, and write it in bfloat16.

    Args:
        model: The one that is taught as the losses are drawn.
        tokenizer: Its tokenizer.
        losses: What `teach` returned for it.
        config: What `teach` was told.
        out: Folder for the model.
        console: For a line now and then.
        progress: For what goes on between them.
    """
    count = WorkCount("step", config.num_steps)
    with progress.part(count.text):
        for step, loss in enumerate(losses):
            count.add()
            if step % PRINT_EVERY == 0:
                console.print(
                    f"step {step}/{config.num_steps}  loss {loss:.3f}", highlight=False
                )
    out.parent.mkdir(parents=True, exist_ok=True)
    save_policy(model.bfloat16(), tokenizer, out)


def check_gates(scores: Mapping[str, Any], gates: Sequence[Gate], out: Path) -> None:
    """Raise PolicyError unless a policy passes its gates; it names those that fail.

    Args:
        scores: By column, as `Gate.fault` reads them.
        gates: What is asked.
        out: Where the policy lies.
    """
    faults = [gate.fault(scores) for gate in gates]
    faults = [fault for fault in faults if fault]
    if faults:
        raise PolicyError(
            f"{out}: the policy does not pass its gates: {'; '.join(faults)}."
        )


def _learn(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    rows: list[Row],
    pad_token_id: int,
    microbatch_tokens: int,
    held_probability: float,
) -> float:
    """Make one step of next-token prediction; return the loss per token learnt."""
    # Of the whole batch: the mean of parts' means would weigh short parts more.
    num_learnt = sum(int(row.policy_mask.sum()) for row in rows)
    optimizer.zero_grad()
    total = 0.0
    for part in split_rows(rows, microbatch_tokens):
        batch = collate(part, pad_token_id)
        logprobs, _ = microbatch_logprobs(LearnerForward(model), batch)
        learnt = logprobs[batch.policy_mask].sum()
        distance = logprobs[batch.agent_mask] - math.log(held_probability)
        held = HOLD * distance.square().sum()
        loss = (held - learnt) / num_learnt
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
    optimizer.step()
    return total
