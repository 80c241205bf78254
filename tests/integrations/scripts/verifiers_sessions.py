"""Rollouts as verifiers has them played; prints their keys by the names that it gives
them, and how many tokens a policy may write.
"""

import json
from typing import Any

from aipo_env.integrations.verifiers import AipoTasksetConfig, session_of
from aipo_verifiers import AipoTaskset


def second_task(**settings: Any) -> Any:
    """Return what a worker is told of the second task."""
    config = AipoTasksetConfig(seed=5, **settings)
    tasks = AipoTaskset(config).load()
    next(tasks)
    return next(tasks).data


def limit(**settings: Any) -> int:
    """Return how many tokens the first turn may have."""
    return session_of(second_task(**settings), "4f1c").dialogue.token_limit()


task = second_task(environment="toy:kinds=knowledge")
keys = [session_of(task, name).key for name in ("4f1c", "4f1d", "4f1c")]
own = {"rules": {"max_policy_tokens": 77}}
limits = [limit(), limit(tokenizer="byte"), limit(environment=own)]
print(json.dumps({"keys": keys, "limits": limits}))
