"""Does it work at all, and against what: `python -m experiments.main`."""

from experiments.arms import Measure, Table
from experiments.places import facts, skill
from experiments.runner import main

TABLE = Table(
    name="main",
    question="Does learning from agents' words help a policy that is then alone?",
    worlds={"facts": facts(), "skill": skill("1e-2")},
    methods=("base", "masked", "on_policy", "aipo"),
    against="aipo",
    seeds=(101, 102, 103, 104, 105),
    # Half of the tasks of other tables, for so many samples of each.
    measure=Measure(tasks=48, samples=256),
)

if __name__ == "__main__":
    main("main")
