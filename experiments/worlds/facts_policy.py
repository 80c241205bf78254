"""The policy of the facts world that follows help however it is dressed.

    python -m experiments.worlds.facts_policy --out runs/facts

The shipped tiny policy has only ever seen replies of one form, and is lost in chatter.
This one is the same, taught on with transcripts of which some have spoiled replies; no
word of these is learnt, only what follows from them.
"""

import json
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from tyro.conf import arg

from aipo_env import (
    MOVES,
    Operator,
    Problem,
    build_scenario,
    write_anew,
)
from aipo_learner.evaluation.evaluate import evaluate
from aipo_learner.policy.load import load_policy, policy_folder
from aipo_learner.policy.runtime import prepare
from aipo_learner.policy.tiny import build_tokenizer
from aipo_learner.run.progress import SILENT, Progress
from aipo_learner.samplers.hf.sampler import HFSampler
from envs_data.prepare.tiny_policy import (
    GATE_SEED,
    GATES,
    Gate,
    WarmstartConfig,
    check_gates,
    gate_scores,
    teach,
    write_taught,
)
from envs_data.prepare.transcripts import (
    AIDED,
    Part,
    Transcript,
    Writer,
    draw_problem,
    draw_recital,
)
from experiments.worlds.knobs import HARMLESS, Knobs, dressed
from experiments.worlds.skill import Draw, drawing

SPOILED = 0.5
"""Share of the transcripts whose replies are spoiled."""
CHATTER_LEVELS = (0.0, 0.5, 0.8)
LENGTH_LEVELS = (1, 2, 4)
TAKEN_BACK = 0.25
"""Share of the replies, in them, that begin with a false rule and take it back."""
FACTS_TEACHING = WarmstartConfig(
    num_steps=300, transcripts_per_step=24, recital_share=0.2, lr=7e-4
)
"""How the shipped policy is taught on."""
FACTS_RECORD = "facts.json"
"""The file in the policy's folder that says what was measured of it."""
NUM_THREADS = 1
"""Of torch."""
KNOBBED: dict[str, dict[str, float]] = {
    "chatter": {"chatter": 0.8},
    "length": {"length": 4},
}
"""Knobs under which the finished policy is measured, by the name of their column."""
KNOBBED_TASKS = 24
KNOBBED_SAMPLES = 8
FACTS_GATES = (
    *GATES,
    *(
        Gate(f"success with agents under {name}", name, "pass@1", 0.90, 1.0)
        for name in KNOBBED
    ),
)
"""What it must hold to: what the shipped policy must, and to follow dressed help."""

_RULE = re.compile(r"(?:#\d\d#\d\d|[a-z]+);\Z")
"""The value at the end of a statement."""


class DressedWriter(Writer):
    """Writes a transcript of the toy world in which help may be spoiled."""

    def __init__(self, problem: Problem, aided: bool, rng: np.random.Generator) -> None:
        super().__init__(problem, aided, rng)
        self.untaught: list[Part] = []
        self.knobs = HARMLESS
        self.is_spoiled = bool(rng.random() < SPOILED)
        if self.is_spoiled:
            self.knobs = Knobs(
                chatter=float(rng.choice(CHATTER_LEVELS)),
                length=int(rng.choice(LENGTH_LEVELS)),
            )

    def spoiled(self, statement: str) -> str:
        """Return help as it is said, which comes to the same."""
        if self.rng.random() < TAKEN_BACK and _RULE.search(statement):
            statement = f"{self._false(statement)}no {statement}"
        return dressed(statement, statement, self.knobs, self.rng)

    def _false(self, statement: str) -> str:
        """Return a statement with another value at its end."""
        left, right = self.rng.integers(100, size=2)
        move = MOVES[int(self.rng.integers(len(MOVES)))]
        value = f"#{left:02d}#{right:02d};" if "#" in statement else f"{move};"
        return _RULE.sub(value, statement)

    def ask(self, kind: str, query: str, reply: str) -> bool:
        """Write a consultation; return whether it was answered."""
        if not self.is_spoiled:
            return super().ask(kind, query, reply)
        text = reply if reply == "right;" else self.spoiled(reply)
        is_answered = super().ask(kind, query, text)
        if is_answered:
            start = len(f'<reply from="{kind}">')
            self.untaught.append((len(self.messages) - 1, start, start + len(text)))
        return is_answered

    def state(self, operator: Operator, step: int) -> str:
        """Write or be told step `step` of an operator's rule; return its shift."""
        before = len(self.written)
        shift = super().state(operator, step)
        if self.is_spoiled and not self.aided:
            statement = self.written[before:]
            self.written = self.written[:before]
            self.think(statement)
        return shift

    def judge_itself(self, correction: str) -> bool:
        """Write what the policy says of its belief; return whether it corrects it."""
        if not self.is_spoiled:
            return super().judge_itself(correction)
        self.think(correction)
        return True

    def think(self, statement: str) -> None:
        """Write spoiled help as a thought of the policy's own, which is not taught."""
        start = len(self.written)
        self.written += self.spoiled(statement)
        self.untaught.append((len(self.messages), start, len(self.written)))

    def write(self) -> Transcript:
        """Write the whole transcript."""
        return replace(super().write(), untaught=tuple(self.untaught))


def draw_dressed(rng: np.random.Generator) -> Transcript:
    """Draw one transcript of the toy world."""
    problem = draw_problem(rng)
    return DressedWriter(problem, bool(rng.random() < AIDED), rng).write()


class FactsLessons:
    """Transcripts of the toy world with recitals among them, alike at every step."""

    rate_share = 1.0
    held_probability = 1.0

    def __init__(self, config: WarmstartConfig) -> None:
        self.config = config
        self.rng = drawing(Draw.FACTS_WARM_START, config.seed)

    def draw(self) -> list[Transcript]:
        """Draw the transcripts of the next step."""
        number = self.config.transcripts_per_step
        num_recitals = round(number * self.config.recital_share)
        recitals = [draw_recital(self.rng) for _ in range(num_recitals)]
        work = [draw_dressed(self.rng) for _ in range(number - num_recitals)]
        return [*recitals, *work]

    def heard(self, step: int, loss: float) -> None:
        """Change nothing: what is taught does not depend on how it goes."""


def knobbed_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    progress: Progress = SILENT,
    num_tasks: int = KNOBBED_TASKS,
) -> dict[str, Any]:
    """Measure a policy with agents under each of `KNOBBED`, by its name."""
    columns: dict[str, Any] = {}
    for name, knobs in KNOBBED.items():
        agents: dict[str, Any] = {
            "type": "experiments.worlds.knobs:KnobsAgent",
            **knobs,
        }
        scenario = build_scenario("toy", agents, seed=GATE_SEED)
        scores, _ = evaluate(
            HFSampler(model, tokenizer),
            scenario,
            num_tasks=num_tasks,
            num_samples=KNOBBED_SAMPLES,
            aided=True,
            seed=GATE_SEED,
            progress=progress,
        )
        columns[name] = scores.to_dict()
    return columns


def write_facts_policy(
    config: WarmstartConfig,
    out: Path,
    console: Console,
    num_tasks: int = 48,
    num_samples: int = 256,
) -> None:
    """Teach the shipped policy on, write it and its record, and measure it.

    Args:
        config: How it is taught, as far as that is not the first lessons' alone.
        out: Folder for the model, and for the record, `facts.json`.
        console: For what came out.
        num_tasks: Test tasks of the gates.
        num_samples: Of each task alone.

    Raises:
        PolicyError: A gate is not passed; the folder is there to look at.
    """
    start = time.monotonic()
    tokenizer = build_tokenizer()
    model = load_policy(policy_folder("tiny"))[0].float()
    with Progress(console) as progress:
        losses = teach(model, tokenizer, config, FactsLessons(config))
        write_taught(model, tokenizer, losses, config, out, console, progress)
        seconds = time.monotonic() - start
        # From the folder, since rounding to bfloat16 may cost what was learnt.
        stored, _ = load_policy(str(out))
        scores = gate_scores(
            stored, tokenizer, GATE_SEED, num_tasks, num_samples, progress
        )
        scores |= knobbed_scores(stored, tokenizer, progress)
    for column in scores.values():
        # Task by task it is long, and nobody reads it.
        del column["num_correct"]
    record = {"seed": config.seed, "seconds": round(seconds, 1), **scores}
    write_anew(out / FACTS_RECORD, json.dumps(record, indent=2) + "\n")
    check_gates(scores, FACTS_GATES, out)
    console.print(f"Passed all gates. Policy: {out}", highlight=False)


@dataclass(frozen=True, kw_only=True)
class FactsPolicyOptions:
    """Teach the shipped policy to follow dressed help, and hold it to its gates."""

    out: Annotated[Path, arg(help="Folder for the model and its record.")] = Path(
        "runs/facts_policy"
    )
    seed: Annotated[int, arg(help="Draws the transcripts.")] = 0


def main() -> None:
    """Run the command."""
    options = tyro.cli(FactsPolicyOptions)
    prepare(NUM_THREADS)
    config = replace(FACTS_TEACHING, seed=options.seed)
    write_facts_policy(config, options.out, Console())


if __name__ == "__main__":
    main()
