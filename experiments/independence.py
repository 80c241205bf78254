"""What makes a policy independent: `python -m experiments.independence`."""

from experiments.arms import Table
from experiments.places import facts
from experiments.runner import main

TABLE = Table(
    name="independence",
    question="What makes a policy do without its agents?",
    worlds={"facts": facts()},
    methods=(
        *("mixed", "prompt_switch", "accept_anneal", "eapo", "internalised"),
        *("internalised_union", "internalised_per_mode"),
    ),
    against="internalised",
    seeds=(301, 302, 303),
)

if __name__ == "__main__":
    main("independence")
