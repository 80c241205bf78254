"""TRL's GRPOTrainer on our environments and our loss; the extra `trl` brings it."""

from aipo_learner.integrations.engine import check_engine

TRL_VERSIONS = ">=1.16,<1.17"
"""Those whose inside the trainer knows: it overrides methods that TRL calls private."""

check_engine("trl", TRL_VERSIONS)

# Only behind the check: an import that fails would say less.
from aipo_learner.integrations.trl.arguments import grpo_arguments  # noqa: E402
from aipo_learner.integrations.trl.environment import TRLEnvironment  # noqa: E402
from aipo_learner.integrations.trl.trainer import AipoGRPOTrainer  # noqa: E402

__all__ = ["TRL_VERSIONS", "AipoGRPOTrainer", "TRLEnvironment", "grpo_arguments"]
