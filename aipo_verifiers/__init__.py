"""Environments of `aipo_env` under the name by which verifiers finds them.

vf-eval aipo_verifiers --env.taskset.environment toy:kinds=knowledge -n 8
"""

from aipo_env.integrations.verifiers import AipoEnv, AipoHarness, AipoTaskset

__all__ = ["AipoEnv", "AipoHarness", "AipoTaskset"]
