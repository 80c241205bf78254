"""AIPO beside other ways to learn from help: `python -m experiments.rivals`."""

from experiments.arms import Table
from experiments.places import facts, skill
from experiments.runner import main

TABLE = Table(
    name="rivals",
    question="Which other way to learn from help does as well, and where?",
    worlds={"facts": facts(), "skill": skill("1e-2")},
    methods=("aipo", "echo", "opsd", "all_wrong", "eapo"),
    against="aipo",
    seeds=(401, 402),
)

if __name__ == "__main__":
    main("rivals")
