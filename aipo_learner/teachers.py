"""A run's teacher, built from its settings, and what it is asked of."""

from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from aipo_env import ConfigError, PolicyError, Scenario
from aipo_learner.learn.teaching import Teaching
from aipo_learner.policy.distributed import shard
from aipo_learner.policy.fitness import max_positions
from aipo_learner.policy.forward import LearnerForward
from aipo_learner.policy.load import load_policy, policy_folder
from aipo_learner.policy.teacher import (
    ForwardTeacher,
    Teacher,
    check_same_vocabulary,
)
from aipo_learner.rollout.independence import aided_share
from aipo_learner.samplers.chat_format import ChatFormat
from aipo_learner.samplers.vllm.teacher import VLLMTeacher
from aipo_learner.settings.teacher import read_teacher
from aipo_learner.settings.train import TrainConfig


@dataclass(frozen=True)
class Tuition:
    """Who teaches, and what.

    Args:
        teacher: Scores the policy's tokens.
        teaching: Says of which rows.
    """

    teacher: Teacher
    teaching: Teaching


def build_tuition(
    config: TrainConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    forward: LearnerForward,
) -> Tuition | None:
    """Build the teacher of a run; None where the loss has none.

    Args:
        config: Of the run.
        model: The policy.
        tokenizer: The policy's.
        forward: The policy's pass in the update.

    Raises:
        ConfigError, PolicyError: It cannot be had, or cannot score the policy's tokens.
    """
    # Imitation is by cross-entropy alone.
    if not config.objective.has_teacher or config.source.sft_episodes:
        return None
    kind, options = read_teacher(config.objective.teacher)
    chat = ChatFormat(tokenizer)
    if kind == "self":
        teaching = Teaching(
            objective=config.objective,
            chat=chat,
            shown=options["shown"],
            max_tokens=max_positions(model),
        )
        return Tuition(ForwardTeacher(forward), teaching)
    max_tokens: int | None
    if kind == "vllm":
        _check_temperature(config)
        server = VLLMTeacher(tokenizer, **options)
        teacher: Teacher = server
        max_tokens = server.max_tokens
    else:
        teacher, max_tokens = _model_teacher(config, options["path"], tokenizer)
    teaching = Teaching(
        objective=config.objective,
        chat=chat,
        max_tokens=max_tokens,
        num_token_ids=len(tokenizer),
    )
    return Tuition(teacher, teaching)


def _model_teacher(
    config: TrainConfig, path: str, tokenizer: PreTrainedTokenizerBase
) -> tuple[ForwardTeacher, int | None]:
    """Load a model that teaches; return how many tokens it reads, too.

    Raises:
        PolicyError: It cannot be loaded, or has another vocabulary.
    """
    try:
        model, own_tokenizer = load_policy(
            policy_folder(path), trust_remote_code=config.trust_remote_code
        )
    except PolicyError as error:
        raise PolicyError(f"config: objective.teacher={path!r}: {error}") from error
    check_same_vocabulary(tokenizer, own_tokenizer, path)
    forward = LearnerForward(
        model.eval(), config.compute, temperature=config.temperature
    )
    # After the probes, which need all of it.
    shard(model, is_bfloat16=forward.is_bfloat16)
    return ForwardTeacher(forward), max_positions(model)


def _check_temperature(config: TrainConfig) -> None:
    """Raise ConfigError where a server would score at another temperature."""
    if config.temperature != 1:
        raise ConfigError(
            f"config: objective.teacher={config.objective.teacher!r} with"
            f" temperature={config.temperature}: a server scores a prompt at"
            " temperature 1, and the policy's own probabilities are at its. Use"
            " --temperature 1, or the teacher's model here."
        )


def check_shown(config: TrainConfig, scenario: Scenario) -> None:
    """Raise ConfigError where nobody says what the policy is to be shown.

    Of stored episodes only they themselves can tell.
    """
    objective = config.objective
    if not objective.has_teacher or config.source.is_stored:
        return
    shows_replies = objective.teacher == "self:replies"
    if shows_replies and not aided_share(config.rollouts, scenario):
        raise ConfigError(
            "config: objective.teacher='self:replies' shows the policy what agents"
            " said, and no rollout may consult one in the environment"
            f" {config.environment.name!r}. Name agents (--agents), raise"
            " --aided-share, or use self:verdict or self:answer."
        )
