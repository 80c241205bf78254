"""Episodes of our environments as verl's agent loop, with the author of each token."""

import logging
import pickle
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from torch import Tensor
from transformers import AutoConfig, GenerationConfig
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopBase,
    AgentLoopMetrics,
    AgentLoopOutput,
    register,
)

from aipo_env import (
    ConfigError,
    DataError,
    Episode,
    Key,
    Salt,
    Session,
    evaluation_key,
    rollout_key,
)
from aipo_learner.integrations.verl.arguments import MODE, training_run
from aipo_learner.integrations.verl.rows import row_fields
from aipo_learner.integrations.verl.tasks import task_name
from aipo_learner.learn.rows import episode_row
from aipo_learner.rollout.independence import (
    WithholdingPool,
    aided_flags,
    aided_share,
    anneal,
)
from aipo_learner.rollout.waves import play_wave
from aipo_learner.samplers.generate import GenerateVoices
from aipo_learner.samplers.vllm.engine import PLAIN_SAMPLING

_log = logging.getLogger("aipo_learner")
EPISODE = "aipo_episode"
"""Among verl's extra fields: the episode, pickled."""
CORRECT = "correct"
"""Of validation: verl's name for it, "acc", would count missing samples as wrong."""
FAILURE = "aipo_failure"
"""Among verl's extra fields: what was raised, where no episode came of it."""


class AuthoredOutput(AgentLoopOutput):
    """A rollout with tensors beside verl's own, which it keeps and sends as these.

    Args:
        authored: Tensors of each token of the response, by the names of `row_fields`.
    """

    authored: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return what verl keeps of the rollout."""
        output = super().as_dict()
        authored: dict[str, Tensor] = output.pop("authored")
        return output | authored


@register(MODE)
class AipoAgentLoop(AgentLoopBase):
    """Plays one rollout of a task around verl's engine.

    What is played, and how many of a group's rollouts may consult, say the settings in
    `trainer.v1.aipo`. A row of the dataset names its task: `write_tasks` makes them.
    Rows of the split "test" are validated: without agents, as in deployment.

    A rollout whose verifier or engine failed has no reward. verl would then score it by
    itself: it is given 0 here, and `AipoVerlTrainer` leaves its group out. What is
    raised goes to the trainer, and ends the run there. In validation, verl has no place
    for either: it is raised, verl logs why, and the sample is in none of its means.

    Args:
        arguments: As verl gives them.

    Raises:
        ConfigError: Another trainer would take the 0 for a reward.
    """

    def __init__(self, **arguments: Any) -> None:
        try:
            super().__init__(**arguments)
        except ValueError:
            # verl's own way from messages to tokens wants the tokens of the model's
            # family; it is not used.
            super().__init__(**arguments | {"hf_model_type": None})
        mode = self.config.trainer.v1.trainer_mode
        if mode != MODE:
            raise ConfigError(
                f"trainer.v1.trainer_mode={mode!r} with the agent loop {MODE!r}: that"
                " trainer knows neither whose a token is nor which rollouts failed. Set"
                f" trainer.v1.trainer_mode={MODE}."
            )

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> AuthoredOutput:
        """Play a rollout of the task that a row names.

        Args:
            sampling_params: verl's; the temperature is taken.
            row: Its `extra_info` has the task's `split`, `index` and `task_id`; verl
                adds the number of the rollout, `session_id`, and of the step,
                `global_steps`.

        Raises:
            DataError: In validation: the rollout has no reward.
        """
        is_trained = row["extra_info"].get("split") != "test"
        # verl counts from 1.
        step = int(row["global_steps"]) - 1
        engine = _Engine(self, float(sampling_params["temperature"]))
        try:
            session = self._session(row, step, is_trained=is_trained)
            episode = await self._play(session, engine)
        except Exception as error:
            if not is_trained:
                raise
            # The trainer says it as well, and knows no traceback.
            _log.error("a rollout could not be played", exc_info=error)
            failure = f"{type(error).__name__}: {error}"
            return _failed(failure, self.tokenizer.eos_token_id, step)
        if episode.reward is None and not is_trained:
            reason = episode.verdict.reason if episode.verdict else ""
            raise DataError(
                f"task {episode.task.id!r} has no reward:"
                f" {episode.stop_reason.value}. {reason}"
            )
        return _played(episode, self.tokenizer.eos_token_id, engine.versions or [step])

    def _session(self, row: dict[str, Any], step: int, *, is_trained: bool) -> Session:
        """Return the session of a rollout.

        Raises:
            DataError: The row names no task, or that of another environment.
            ConfigError: There are more rollouts of it than a group has.
        """
        settings, scenario = training_run(self.config)
        split, index, task_id = task_name(row)
        number = int(row["session_id"])
        task = scenario.source.task(split, index)
        if task.id != task_id:
            raise DataError(
                f"the dataset's row {index} of split {split!r} is task"
                f" {task_id!r}, and that of the environment"
                f" {settings.environment.name!r} is {task.id!r}. Write the tasks of"
                f" this environment, with seed={settings.seed} and held_out="
                f"{list(settings.held_out)}: write_tasks."
            )
        seed = settings.seed
        if not is_trained:
            key = evaluation_key(seed, index, number, aided=False)
            return scenario.session(task, aided=False, key=key, policy_version=step)
        if isinstance(scenario.pool, WithholdingPool):
            pool = scenario.pool.accepting(anneal(settings.rollouts, step))
            scenario = replace(scenario, pool=pool)
        share = aided_share(settings.rollouts, scenario)
        flags = aided_flags(settings.rollouts, share, step)
        if number >= len(flags):
            raise ConfigError(
                f"rollout {number} of a task whose group has {len(flags)}: leave the"
                " dataset's column __rollout_n__ out, and set"
                " actor_rollout_ref.rollout.n."
            )
        return scenario.session(
            task,
            aided=flags[number],
            key=rollout_key(seed, step, index, number),
            group_id=str(row["uid"]),
            policy_version=step,
        )

    async def _play(self, session: Session, engine: "_Engine") -> Episode:
        """Play a session to its end."""
        model = self.config.actor_rollout_ref.model
        end_ids, vocab_size = _model_ids(model.path, bool(model.trust_remote_code))
        voices = GenerateVoices(
            self.tokenizer, engine.generate, end_ids=end_ids, vocab_size=vocab_size
        )
        engine.end_ids = sorted(voices.end_ids)
        _, scenario = training_run(self.config)
        [episode] = await play_wave(scenario, [session], voices)
        return episode


class _Engine:
    """verl's servers, as one episode asks them for its turns.

    Args:
        loop: Of the rollout.
        temperature: Of the draws.
    """

    def __init__(self, loop: AipoAgentLoop, temperature: float) -> None:
        self._servers = loop.server_manager
        self._temperature = temperature
        # One server for all turns: it has kept what it computed of those before.
        self._request_id = uuid4().hex
        self.end_ids: list[int] = []
        self.versions: list[int] = []
        """Of the weights behind the turns, where the servers say so."""

    async def generate(
        self, token_ids: list[int], stop: tuple[str, ...], max_tokens: int, key: Key
    ) -> tuple[Sequence[int], Sequence[float] | None]:
        """Write a turn; see `Generate`."""
        entropy = [*key, Salt.TURN_TOKENS]
        seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
        own = {
            "temperature": self._temperature,
            "seed": seed,
            "stop": list(stop),
            "include_stop_str_in_output": True,
            "stop_token_ids": self.end_ids,
            "max_tokens": max_tokens,
            # verl's servers are asked whether, not for how many.
            "logprobs": True,
        }
        written = await self._servers.generate(
            request_id=self._request_id,
            prompt_ids=token_ids,
            sampling_params=PLAIN_SAMPLING | own,
        )
        version = written.extra_fields.get("global_steps")
        if version is not None:
            self.versions.append(int(version))
        return written.token_ids, written.log_probs or None


@cache
def _model_ids(path: str, trust_remote_code: bool) -> tuple[tuple[int, ...], int]:
    """Return the tokens at which a model's engine stops, and how many tokens it has."""
    config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    try:
        end_ids = GenerationConfig.from_pretrained(path).eos_token_id
    except OSError:
        # A model need not recommend anything.
        end_ids = None
    if end_ids is None:
        end_ids = []
    if isinstance(end_ids, int):
        end_ids = [end_ids]
    return tuple(end_ids), config.get_text_config().vocab_size


def _played(
    episode: Episode, pad_token_id: int, versions: Sequence[int]
) -> AuthoredOutput:
    """Return an episode as verl keeps it."""
    authored = row_fields(episode_row(episode, 0.0), pad_token_id)
    return AuthoredOutput(
        prompt_ids=authored.pop("prompts").tolist(),
        response_ids=authored.pop("responses").tolist(),
        response_mask=authored.pop("response_mask").tolist(),
        response_logprobs=authored.pop("rollout_log_probs").tolist(),
        reward_score=float(episode.reward or 0.0),
        num_turns=len(episode.turns),
        metrics=AgentLoopMetrics(),
        extra_fields={
            EPISODE: pickle.dumps(episode),
            "min_global_steps": min(versions),
            "max_global_steps": max(versions),
            "reward_extra_info": {CORRECT: float(episode.correct)},
        },
        authored=authored,
    )


def _failed(failure: str, token_id: int, step: int) -> AuthoredOutput:
    """Return what was raised in the place of an episode, with nothing to train on."""
    nothing = torch.zeros(1, dtype=torch.int64)
    return AuthoredOutput(
        prompt_ids=[token_id],
        response_ids=[token_id],
        response_mask=[0],
        response_logprobs=[0.0],
        reward_score=0.0,
        num_turns=0,
        metrics=AgentLoopMetrics(),
        extra_fields={
            FAILURE: failure,
            "min_global_steps": step,
            "max_global_steps": step,
            "reward_extra_info": {CORRECT: 0.0},
        },
        authored={
            "agent_mask": nothing,
            "agent_log_probs": torch.zeros(1),
            "is_rewritten": nothing,
        },
    )
