"""Write `envs_data/math/tasks.jsonl`: mathematics from arithmetic to olympiads.

python -m envs_data.prepare.math_tasks && python -m envs_data.prepare.manifest

Problems come from templates, a module of `math/` for each topic. Every template has
four, two for each split, whose parameters are drawn from a seed. Answers are computed;
the tests solve every problem in another way.
"""

import json
import random
from pathlib import Path
from types import ModuleType
from typing import Any

from envs_data.prepare.math import (
    algebra,
    arithmetic,
    calculus,
    combinatorics,
    geometry,
    inequalities,
    linear_algebra,
    number_theory,
    probability,
    sequences,
)
from envs_data.prepare.math.template import Problem, Template

FOLDER = Path(__file__).parents[1] / "math"
SEED = 0
"""Parameters are drawn from it."""
NUM_PROBLEMS = 4
"""Of each template."""
ANSWER_FORM = "Give the answer in \\boxed{}."
"""Stands below each problem."""
MAX_DRAWS = 10_000
"""A template that has too few good problems is found out after so many draws."""
TOPICS = (
    arithmetic,
    algebra,
    inequalities,
    number_theory,
    combinatorics,
    probability,
    geometry,
    sequences,
    calculus,
    linear_algebra,
)

Parameters = dict[str, Any]


def topic_name(module: ModuleType) -> str:
    """Return what a topic is called: "number theory"."""
    return module.__name__.rpartition(".")[2].replace("_", " ")


def templates(topic: ModuleType) -> list[Template]:
    """Return the templates of a topic, in the order in which they are written."""
    return [value for value in vars(topic).values() if isinstance(value, Template)]


def problems(template: Template) -> list[tuple[Parameters, Problem]]:
    """Draw the problems of a template, with their parameters.

    No two have the same parameters, the same text or the same answer, so that nothing
    of one split answers a problem of the other.
    """
    # Keyed by what they are for: a new template changes no other's draws.
    rng = random.Random(f"{SEED}-{template.name}")
    found: list[tuple[Parameters, Problem]] = []
    for _ in range(MAX_DRAWS):
        parameters = {name: rng.choice(at) for name, at in template.domains.items()}
        problem = template.ask(**parameters)
        if problem is None or problem.answer in problem.mistakes:
            continue
        earlier = [other for _, other in found]
        texts = {other.text for other in earlier}
        answers = {other.answer for other in earlier}
        if problem.text not in texts and problem.answer not in answers:
            found.append((parameters, problem))
        if len(found) == NUM_PROBLEMS:
            return found
    raise AssertionError(f"{template.name} has too few problems")


def rows() -> list[dict[str, Any]]:
    """Return all rows, topic by topic in turn."""
    rows: list[dict[str, Any]] = []
    drawn = [
        (topic_name(topic), template, problems(template))
        for topic in TOPICS
        for template in templates(topic)
    ]
    for number in range(NUM_PROBLEMS):
        for topic, template, found in drawn:
            rows.append(_row(topic, template, number, found[number][1]))
    return rows


def _row(
    topic: str, template: Template, number: int, problem: Problem
) -> dict[str, Any]:
    """Return the row of a problem."""
    return {
        "id": f"math-{template.name.replace('_', '-')}-{number}",
        "prompt": f"{problem.text}\n\n{ANSWER_FORM}",
        "answer": problem.answer,
        "kind": "math",
        "meta": {
            "topic": topic,
            "level": template.level,
            "notes": template.notes,
            "hint": problem.hint,
            "mistakes": problem.mistakes,
        },
        "source": "aipo-math",
        "licence": "Apache-2.0",
        "split": "test" if number % 2 else "train",
    }


def main() -> None:
    """Write the file."""
    FOLDER.mkdir(exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows())
    (FOLDER / "tasks.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
