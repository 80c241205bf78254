"""The settings of verl's command line, as the documentation shows them."""

import json
import sys

import verl_engine

verl_engine.prepare()

from verl.trainer.ppo.utils import need_critic, need_reference_policy  # noqa: E402
from verl.utils.config import validate_config  # noqa: E402

from aipo_learner import policy_folder  # noqa: E402
from aipo_learner.integrations.verl.arguments import (  # noqa: E402
    check_verl_config,
    training_run,
)


def main() -> None:
    overrides = [
        override
        for override in sys.argv[1:]
        if not override.startswith("actor_rollout_ref.model.path=")
    ]
    config = verl_engine.verl_config(policy_folder("tiny"), *overrides)
    # verl's own check, and ours.
    validate_config(
        config,
        use_reference_policy=need_reference_policy(config),
        use_critic=need_critic(config),
    )
    check_verl_config(config)
    settings, scenario = training_run(config)
    rollout = config.actor_rollout_ref.rollout
    told = {
        "environment": settings.environment.name,
        "floor": settings.objective.floor,
        "has_room": rollout.prompt_length + rollout.response_length
        >= scenario.rules.max_context_tokens,
    }
    print(json.dumps(told))


main()
