"""Which rule for agents' tokens, where: `python -m experiments.rules --seeds 1`."""

from experiments.arms import Table
from experiments.places import skill
from experiments.runner import main

TABLE = Table(
    name="rules",
    question="Where does the weight of an agent's token matter, and which is best?",
    worlds={
        "skill, p0 1e-2": skill("1e-2"),
        "skill, p0 1e-3": skill("1e-3"),
        "skill, chatter": skill("1e-2", "chatter=0.8"),
        "skill, wrong": skill("1e-2", "wrong=0.3"),
    },
    methods=(
        *("masked", "on_policy", "plain_is", "luffy_rule", "mixture"),
        *("floored_001", "floored_01", "floored_03"),
    ),
    against="on_policy",
    seeds=(201, 202, 203),
)

if __name__ == "__main__":
    main("rules")
