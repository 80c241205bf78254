"""verl's trainer on our environments and our loss; the extra `verl` brings it."""

from aipo_learner.integrations.engine import check_engine

VERL_VERSIONS = ">=0.9.1,<0.10"
"""Those whose inside the trainer knows: it overrides what verl calls private."""

check_engine("verl", VERL_VERSIONS)

# Only behind the check: an import that fails would say less.
from aipo_learner.integrations.verl.agent_loop import AipoAgentLoop  # noqa: E402
from aipo_learner.integrations.verl.loss import aipo_verl_loss  # noqa: E402
from aipo_learner.integrations.verl.tasks import write_tasks  # noqa: E402
from aipo_learner.integrations.verl.trainer import AipoVerlTrainer  # noqa: E402

__all__ = [
    "VERL_VERSIONS",
    "AipoAgentLoop",
    "AipoVerlTrainer",
    "aipo_verl_loss",
    "write_tasks",
]
