"""The policies of the skill world: taught from scratch, measured, held to their gates.

    python -m experiments.worlds.skill_policy --p0 1e-2 --out runs/skill_1e-2
    python -m experiments.worlds.skill_policy --p0 1e-3 --origin runs/skill_1e-2 \\
        --out runs/skill_1e-3

`p0` is how likely the policy carries at a place where it has to, alone and before it
has learnt to: in a third of these cases it writes the line at once, in a third it
states the rule first, in a third it finds its line wrong and mends it.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from tyro.conf import arg

from aipo_env import (
    CONSULT_KINDS,
    ConfigError,
    ConsultKind,
    Environment,
    Scenario,
    build_scenario,
    write_anew,
)
from aipo_learner.evaluation.evaluate import evaluate
from aipo_learner.learn.logprobs import microbatch_logprobs
from aipo_learner.learn.rows import Row, collate
from aipo_learner.policy.forward import LearnerForward
from aipo_learner.policy.load import load_policy
from aipo_learner.policy.runtime import prepare
from aipo_learner.policy.tiny import build_model, build_tokenizer
from aipo_learner.run.progress import SILENT, Progress
from aipo_learner.samplers.hf.sampler import HFSampler
from envs_data.prepare.tiny_policy import (
    Gate,
    WarmstartConfig,
    check_gates,
    part_mask,
    teach,
    transcript_row,
    write_taught,
)
from envs_data.prepare.transcripts import Transcript
from experiments.worlds.knobs import PHRASES
from experiments.worlds.skill import (
    DIGITS,
    PLAIN_PROMPT,
    RULE,
    Draw,
    Multiplication,
    SkillSource,
    check_share,
    draw_multiplication,
    drawing,
    skill_rules,
)
from experiments.worlds.skill_transcripts import (
    draw_skill_transcript,
    place_to_learn,
)

WORDS = (
    "Solve You may consult knowledge reason verify Multiply by carry tens ones next"
    " check wrong at right unknown unavailable no consultations left"
)
"""Words of the world's prompts, replies and queries."""
TEACHING = WarmstartConfig(num_steps=1300, transcripts_per_step=24)
"""How a policy is taught from scratch."""
FURTHER_TEACHING = replace(TEACHING, num_steps=150, lr=5e-4)
"""How one is taught on, to another p0."""
NUM_THREADS = 1
"""Of torch: part of what makes a policy the same again."""
RECORD = "skill.json"
"""The file in a policy's folder that says what was measured of it."""
LONGER = (5, 6)
"""Digits of numbers that are longer than any in which something was carried."""
P0_FACTOR = 2.0
"""How far from what was asked the probability of carrying may be measured."""
GATE_SEED = 1
"""Of the problems on which a policy is measured."""
GATE_TASKS = 48
GATE_SAMPLES = 256
"""Of each task alone: enough to see a success that is rare."""
GATE_AIDED_SAMPLES = 8
P0_PROBLEMS = 200
"""Problems at whose places p0 is measured."""


def skill_tokenizer() -> PreTrainedTokenizerFast:
    """Build the tokenizer of the skill world's policies: every word is one token."""
    signs = str.maketrans("", "", ".,:;")
    chatter = " ".join(PHRASES).translate(signs)
    return build_tokenizer([*WORDS.split(), *chatter.split()])


class SkillLessons:
    """Transcripts of the skill world, the same kind at every step."""

    rate_share = 1.0

    def __init__(self, config: WarmstartConfig, p0: float) -> None:
        self.config = config
        # Any of three kinds of help makes a place right.
        self.held_probability = p0 / len(CONSULT_KINDS)
        self.rng = drawing(Draw.WARM_START, config.seed)

    def draw(self) -> list[Transcript]:
        """Draw the transcripts of the next step."""
        number = self.config.transcripts_per_step
        return [draw_skill_transcript(self.rng) for _ in range(number)]

    def heard(self, step: int, loss: float) -> None:
        """Change nothing: what is taught does not depend on how it goes."""


def skill_gates(p0: float) -> tuple[Gate, ...]:
    """Return what a policy must hold to that was taught with `p0`."""
    return (
        Gate("success with this agent alone", "aided", "pass@1", 0.90, 1.0),
        Gate("success alone", "unaided", "pass@1", 0.0, 0.05),
        Gate("share of tasks never solved alone", "unaided", "never_solved", 0.5, 1.0),
        Gate(
            "three times the probability of the word to be learnt",
            "unaided",
            "p0",
            p0 / P0_FACTOR,
            p0 * P0_FACTOR,
        ),
    )


def skill_scenario(
    kinds: Sequence[ConsultKind] = CONSULT_KINDS, digits: int = DIGITS
) -> Scenario:
    """Build the skill world with these roles offered, for measuring."""
    source = SkillSource(seed=GATE_SEED, digits=digits)
    return build_scenario(Environment(source=source, rules=skill_rules(kinds)))


def place_probabilities(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    num_problems: int = P0_PROBLEMS,
) -> dict[ConsultKind, float]:
    """Return how likely a policy alone writes the word that each role's help teaches.

    It is the mean over test problems and places, after right work, under the plain
    prompt.
    """
    rng = drawing(Draw.SKILL_PROBLEM, GATE_SEED)
    problems = [draw_multiplication(rng, DIGITS, "test") for _ in range(num_problems)]
    means: dict[ConsultKind, float] = {}
    for kind in CONSULT_KINDS:
        rows = [
            _row_at(problem, index, kind, tokenizer)
            for problem in problems
            for index in range(1, DIGITS)
        ]
        batch = collate(rows, tokenizer.pad_token_id)
        with torch.no_grad():
            logprobs, _ = microbatch_logprobs(LearnerForward(model), batch)
        means[kind] = float(logprobs[batch.policy_mask].exp().mean())
    return means


def _row_at(
    problem: Multiplication,
    index: int,
    kind: ConsultKind,
    tokenizer: PreTrainedTokenizerFast,
) -> Row:
    """Return a row whose one token of the policy is the word to be learnt at a place.

    Args:
        problem: Whose work it is.
        index: Of the place among the lines; every line before it is right.
        kind: Of the role whose help it is.
    """
    done = problem.lines()[:index]
    result = ""
    written = ""
    for line in done:
        result = f"{line.ones}{result}"
        written += f"{line.text}{result};"
    right = problem.lines()[index]
    told = RULE
    if kind == "verify":
        written += problem.line(index, 0).text
        told = f"wrong at {right.head};"
    elif kind == "reason":
        told = right.text
    start, end = place_to_learn(kind, told)
    messages = (
        ("system", PLAIN_PROMPT),
        ("user", problem.text),
        ("assistant", written + told),
    )
    transcript = Transcript(messages)
    row = transcript_row(transcript, tokenizer)
    part = (len(messages) - 1, len(written) + start, len(written) + end)
    return replace(row, policy_mask=part_mask(transcript, [part], tokenizer))


def skill_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    progress: Progress = SILENT,
    num_tasks: int = GATE_TASKS,
    num_samples: int = GATE_SAMPLES,
) -> dict[str, Any]:
    """Measure a policy for the gates.

    Returns:
        "aided": by role, with that one alone offered. "unaided": without agents, for
        each role with what p0 is measured to be by the word that its help teaches.
        "longer": by number of digits, with all roles and without, outside the gates.
    """
    sampler = HFSampler(model, tokenizer)

    def measured(
        scenario: Scenario, num_samples: int, *, aided: bool
    ) -> dict[str, Any]:
        scores, _ = evaluate(
            sampler,
            scenario,
            num_tasks=num_tasks,
            num_samples=num_samples,
            aided=aided,
            seed=GATE_SEED,
            progress=progress,
        )
        row = scores.to_dict()
        # Task by task it is long, and nobody reads it.
        del row["num_correct"]
        return row

    aided = {
        kind: measured(skill_scenario((kind,)), GATE_AIDED_SAMPLES, aided=True)
        for kind in CONSULT_KINDS
    }
    alone = measured(skill_scenario(), num_samples, aided=False)
    words = place_probabilities(model, tokenizer)
    # Help of three roles makes a place right, each in a third of the cases.
    unaided = {
        kind: {**alone, "p0": words[kind] * len(CONSULT_KINDS)}
        for kind in CONSULT_KINDS
    }
    longer = {}
    for digits in LONGER:
        scenario = skill_scenario(digits=digits)
        longer[str(digits)] = {
            "aided": measured(scenario, GATE_AIDED_SAMPLES, aided=True)["pass@1"],
            "unaided": measured(scenario, GATE_AIDED_SAMPLES, aided=False)["pass@1"],
        }
    return {
        "aided": {"by_bottleneck": aided},
        "unaided": {"by_bottleneck": unaided},
        "longer": longer,
    }


def write_skill_policy(
    p0: float,
    config: WarmstartConfig,
    out: Path,
    console: Console,
    origin: Path | None = None,
) -> None:
    """Teach a policy of the skill world, write it and its record, and measure it.

    Args:
        p0: How likely it carries at a place where it has to, alone.
        config: How it is taught, as far as that is not the toy world's alone.
        out: Folder for the model, and for the record, `skill.json`.
        console: For what came out.
        origin: A policy of this world to begin with; a new one if not given.

    Raises:
        PolicyError: A gate is not passed; the folder is there to look at.
    """
    start = time.monotonic()
    tokenizer = skill_tokenizer()
    if origin is None:
        model: PreTrainedModel = build_model(tokenizer, config.seed)
    else:
        model = load_policy(str(origin))[0].float()
    with Progress(console) as progress:
        losses = teach(model, tokenizer, config, SkillLessons(config, p0))
        write_taught(model, tokenizer, losses, config, out, console, progress)
        seconds = time.monotonic() - start
        # From the folder, since rounding to bfloat16 may cost what was learnt.
        stored_model, _ = load_policy(str(out))
        scores = skill_scores(stored_model, tokenizer, progress)
    record = {
        "p0": p0,
        "seed": config.seed,
        "num_steps": config.num_steps,
        "origin": None if origin is None else origin.name,
        "seconds": round(seconds, 1),
        **scores,
    }
    write_anew(out / RECORD, json.dumps(record, indent=2) + "\n")
    check_gates(scores, skill_gates(p0), out)
    console.print(f"Passed all gates. Policy: {out}", highlight=False)


@dataclass(frozen=True, kw_only=True)
class SkillPolicyOptions:
    """Teach a policy of the skill world from scratch and hold it to its gates."""

    p0: Annotated[
        float, arg(help="How likely it carries at a place where it has to, alone.")
    ] = 1e-2
    out: Annotated[Path, arg(help="Folder for the model and its record.")] = Path(
        "runs/skill_policy"
    )
    seed: Annotated[int, arg(help="Draws the weights and the transcripts.")] = 0
    origin: Annotated[
        Path | None,
        arg(
            help="A policy that this command made, for another p0: it is taught on for"
            " a few steps, so that p0 alone is different."
        ),
    ] = None


def main() -> None:
    """Run the command."""
    options = tyro.cli(SkillPolicyOptions)
    check_share("p0", options.p0)
    if not options.p0:
        raise ConfigError(
            "p0=0 cannot be held: no word has a probability of 0. Use 1e-3, or less."
        )
    prepare(NUM_THREADS)
    config = TEACHING if options.origin is None else FURTHER_TEACHING
    config = replace(config, seed=options.seed)
    write_skill_policy(options.p0, config, options.out, Console(), options.origin)


if __name__ == "__main__":
    main()
