"""Keys of rollouts by the names that verifiers gives them; prints them."""

import json

from aipo_env.integrations.verifiers import AipoTasksetConfig, session_of
from aipo_verifiers import AipoTaskset

config = AipoTasksetConfig(environment="toy:kinds=knowledge", seed=5)
_, task = (task for task, _ in zip(AipoTaskset(config).load(), range(2), strict=False))
names = ("4f1c", "4f1d", "4f1c")
print(json.dumps([session_of(task.data, name).key for name in names]))
