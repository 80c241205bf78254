"""Train a policy that consults agents while it learns and does without them afterwards.

What others build on is imported from here, and only when it is first used: `import
aipo_learner` loads neither torch nor transformers. Sub-modules may move.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aipo_learner.build import build_sampler
    from aipo_learner.evaluation.evaluate import Scores, compare, evaluate, pass_at_k
    from aipo_learner.learn.advantages import (
        group_advantages,
        is_dropped,
        overlong_penalty,
    )
    from aipo_learner.learn.agent_free_rows import agent_free_rows
    from aipo_learner.learn.agent_rules import AgentTokens
    from aipo_learner.learn.base_algorithms import (
        BASE_ALGORITHMS,
        BaseAlgorithm,
        PolicyTokens,
        Surrogate,
        token_ratio,
        with_gradient,
    )
    from aipo_learner.learn.checker import check_agent_rule, check_base
    from aipo_learner.learn.episode_metrics import episode_metrics
    from aipo_learner.learn.idle import Learned
    from aipo_learner.learn.logprobs import microbatch_logprobs
    from aipo_learner.learn.metrics import merge_metrics, summarize
    from aipo_learner.learn.normalizers import Normalizers, batch_normalizers
    from aipo_learner.learn.objective import (
        agent_coefficient,
        agent_normalizer,
        aipo_loss,
        observation_normalizer,
        policy_normalizer,
    )
    from aipo_learner.learn.rows import (
        Microbatch,
        Row,
        collate,
        episode_row,
        split_rows,
    )
    from aipo_learner.learn.teaching import Teaching, taught_advantages
    from aipo_learner.learn.training_rows import TrainingRows, training_rows
    from aipo_learner.learn.update import update
    from aipo_learner.policy.forward import LearnerForward
    from aipo_learner.policy.head import token_logprobs_from_hidden
    from aipo_learner.policy.load import load_policy, policy_folder, save_policy
    from aipo_learner.policy.teacher import ForwardTeacher, Teacher, TeacherContext
    from aipo_learner.rollout.aid import PlayedAlone
    from aipo_learner.rollout.sampled import by_group
    from aipo_learner.rollout.waves import play_wave
    from aipo_learner.run.metrics_log import read_metrics
    from aipo_learner.samplers.base import Sampler
    from aipo_learner.samplers.generate import Generate, GenerateVoices
    from aipo_learner.samplers.hf.sampler import HFSampler
    from aipo_learner.samplers.weight_sync import check_sampler, sync_weights
    from aipo_learner.settings.compute import ComputeConfig
    from aipo_learner.settings.episode_source import EpisodeSource
    from aipo_learner.settings.evaluation import EvaluationSchedule
    from aipo_learner.settings.objective import (
        AGENT_TOKEN_RULES,
        BASES,
        ObjectiveConfig,
    )
    from aipo_learner.settings.optimizer import OptimizerConfig
    from aipo_learner.settings.recipes import RECIPES
    from aipo_learner.settings.stages import UpdateSettings
    from aipo_learner.settings.train import TrainConfig
    from aipo_learner.training import train

_HOMES = {
    "build": ("build_sampler",),
    "evaluation.evaluate": ("Scores", "compare", "evaluate", "pass_at_k"),
    "learn.advantages": ("group_advantages", "is_dropped", "overlong_penalty"),
    "learn.agent_free_rows": ("agent_free_rows",),
    "learn.agent_rules": ("AgentTokens",),
    "learn.base_algorithms": (
        "BASE_ALGORITHMS",
        "BaseAlgorithm",
        "PolicyTokens",
        "Surrogate",
        "token_ratio",
        "with_gradient",
    ),
    "learn.checker": ("check_agent_rule", "check_base"),
    "learn.episode_metrics": ("episode_metrics",),
    "learn.idle": ("Learned",),
    "learn.logprobs": ("microbatch_logprobs",),
    "learn.metrics": ("merge_metrics", "summarize"),
    "learn.normalizers": ("Normalizers", "batch_normalizers"),
    "learn.objective": (
        "agent_coefficient",
        "agent_normalizer",
        "aipo_loss",
        "observation_normalizer",
        "policy_normalizer",
    ),
    "learn.rows": ("Microbatch", "Row", "collate", "episode_row", "split_rows"),
    "learn.teaching": ("Teaching", "taught_advantages"),
    "learn.training_rows": ("TrainingRows", "training_rows"),
    "learn.update": ("update",),
    "policy.forward": ("LearnerForward",),
    "policy.head": ("token_logprobs_from_hidden",),
    "policy.load": ("load_policy", "policy_folder", "save_policy"),
    "policy.teacher": ("ForwardTeacher", "Teacher", "TeacherContext"),
    "rollout.aid": ("PlayedAlone",),
    "rollout.sampled": ("by_group",),
    "rollout.waves": ("play_wave",),
    "run.metrics_log": ("read_metrics",),
    "samplers.base": ("Sampler",),
    "samplers.generate": ("Generate", "GenerateVoices"),
    "samplers.hf.sampler": ("HFSampler",),
    "samplers.weight_sync": ("check_sampler", "sync_weights"),
    "settings.compute": ("ComputeConfig",),
    "settings.optimizer": ("OptimizerConfig",),
    "settings.episode_source": ("EpisodeSource",),
    "settings.objective": ("AGENT_TOKEN_RULES", "BASES", "ObjectiveConfig"),
    "settings.recipes": ("RECIPES",),
    "settings.evaluation": ("EvaluationSchedule",),
    "settings.stages": ("UpdateSettings",),
    "settings.train": ("TrainConfig",),
    "training": ("train",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AGENT_TOKEN_RULES",
    "BASES",
    "BASE_ALGORITHMS",
    "RECIPES",
    "AgentTokens",
    "BaseAlgorithm",
    "ComputeConfig",
    "EpisodeSource",
    "EvaluationSchedule",
    "ForwardTeacher",
    "Generate",
    "GenerateVoices",
    "HFSampler",
    "Learned",
    "LearnerForward",
    "Microbatch",
    "Normalizers",
    "ObjectiveConfig",
    "OptimizerConfig",
    "PlayedAlone",
    "PolicyTokens",
    "Row",
    "Sampler",
    "Scores",
    "Surrogate",
    "Teacher",
    "TeacherContext",
    "Teaching",
    "TrainConfig",
    "TrainingRows",
    "UpdateSettings",
    "agent_coefficient",
    "agent_free_rows",
    "agent_normalizer",
    "aipo_loss",
    "batch_normalizers",
    "build_sampler",
    "by_group",
    "check_agent_rule",
    "check_base",
    "check_sampler",
    "collate",
    "compare",
    "episode_metrics",
    "episode_row",
    "evaluate",
    "group_advantages",
    "is_dropped",
    "load_policy",
    "merge_metrics",
    "microbatch_logprobs",
    "observation_normalizer",
    "overlong_penalty",
    "pass_at_k",
    "play_wave",
    "policy_folder",
    "policy_normalizer",
    "read_metrics",
    "save_policy",
    "split_rows",
    "summarize",
    "sync_weights",
    "taught_advantages",
    "token_logprobs_from_hidden",
    "token_ratio",
    "train",
    "training_rows",
    "update",
    "with_gradient",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home when it is first used."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
