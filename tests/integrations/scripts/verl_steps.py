"""AipoVerlTrainer's own steps, in one process.

Its queue, replay buffer, agent loop worker and FSDP2 engine are verl's own. What stands
in is the tiny policy for the rollout servers, and one process for Ray's groups.
"""

import asyncio
import json
import os
import pickle
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import verl_engine

verl_engine.prepare()
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"

import ray  # noqa: E402
import torch  # noqa: E402
import transfer_queue as tq  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402
from verl.trainer.ppo.v1 import AgentLoopWorkerTQ, PPOTrainerSync  # noqa: E402

from aipo_env import Episode  # noqa: E402
from aipo_learner import load_policy, policy_folder, training_rows  # noqa: E402
from aipo_learner.integrations.verl import write_tasks  # noqa: E402
from aipo_learner.integrations.verl.agent_loop import EPISODE  # noqa: E402
from aipo_learner.integrations.verl.trainer import AipoVerlTrainer  # noqa: E402
from aipo_learner.learn.agent_free_rows import agent_free_rows  # noqa: E402

POLICY = policy_folder("tiny")
NUM_GROUPS, GROUP_SIZE = 6, 4
NUM_STEPS = 2
MICROBATCH = 5
"""Rows of a pass, of which no step has a multiple."""
FAILED, LOST = "toy-0-train-1", "toy-0-train-2"
"""Tasks: of the one, a rollout has no verdict; of the other, verl loses a rollout."""
LOST_GROUP = "toy-0-train-3"
"""The task of which verl loses every rollout, where it is told to."""
ROWS = ("responses", "response_mask", "agent_mask", "advantages", "is_rewritten")


class Servers:
    """The rollout servers: the policy on transformers, by the seed of each turn."""

    def __init__(self) -> None:
        self.model, self.tokenizer = load_policy(POLICY)
        self.model.eval()
        self.error: Exception | None = None

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]
    ) -> Any:
        if self.error:
            raise self.error
        torch.manual_seed(sampling_params["seed"])
        made = self.model.generate(
            torch.tensor([prompt_ids]),
            do_sample=True,
            top_k=0,
            max_new_tokens=sampling_params["max_tokens"],
            stop_strings=sampling_params["stop"] or None,
            eos_token_id=sampling_params["stop_token_ids"],
            pad_token_id=0,
            tokenizer=self.tokenizer,
            return_dict_in_generate=True,
            output_logits=True,
        )
        token_ids = made.sequences[0, len(prompt_ids) :]
        logprobs = torch.cat(made.logits).log_softmax(-1).gather(1, token_ids[:, None])
        return SimpleNamespace(
            token_ids=token_ids.tolist(),
            log_probs=logprobs[:, 0].tolist(),
            extra_fields={},
        )


class Workers:
    """One worker in the place of a group of them."""

    def __init__(self, worker: Any) -> None:
        self.worker = worker
        self._dispatch_info = {"actor": [0]}
        self.compute_log_prob = worker.infer_batch
        self.update_actor = worker.train_mini_batch
        self.set_loss_fn = worker.set_loss_fn


class Rollouts:
    """verl's own agent loop worker, in this process."""

    def __init__(self, config: Any, servers: Servers, lost_group: str = "") -> None:
        kind = AgentLoopWorkerTQ.__ray_metadata__.modified_class
        self.worker = kind(config, servers)
        self.lost_group = lost_group

    def generate_sequences(self, batch: Any) -> None:
        asyncio.run(self._generate(batch))
        for partition, keys in tq.kv_list().items():
            if partition != "train":
                continue
            lost = [key for key in keys if self._is_lost(key)]
            if lost:
                tq.kv_clear(keys=lost, partition_id=partition)

    async def _generate(self, batch: Any) -> None:
        await self.worker.generate_sequences(batch)
        await asyncio.gather(*self.worker.background_tasks)

    def _is_lost(self, key: str) -> bool:
        if not key.endswith("_0"):
            # It is a group's, and no rollout's.
            return False
        data = tq.kv_batch_get(keys=[key], partition_id="train")
        [info] = list(data["extra_info"])
        task_id = info["task_id"]
        is_lost_alone = key.endswith("_1_0") and task_id == LOST
        return is_lost_alone or task_id == self.lost_group


class Weights:
    """Gives the servers the weights of the worker."""

    def __init__(self, trainer: Any, servers: Servers) -> None:
        self.trainer, self.servers = trainer, servers

    def update_weights(self, step: int = 0) -> None:
        module = self.trainer.actor_rollout_wg.worker.engine.module
        state = {
            name: weight.full_tensor() if hasattr(weight, "full_tensor") else weight
            for name, weight in module.state_dict().items()
        }
        self.servers.model.load_state_dict(state)

    def sleep_replicas(self) -> None:
        pass


class Watched(AipoVerlTrainer):
    """Keeps the episodes of each step, and the rows that were made of them."""

    def _with_rows(self, batch: Any, metrics: Any) -> Any:
        data = tq.kv_batch_get(
            keys=batch.keys, partition_id="train", select_fields=["extra_fields"]
        )
        self.episodes = [
            pickle.loads(extra[EPISODE])
            for extra in data["extra_fields"]
            if EPISODE in extra
        ]
        return super()._with_rows(batch, metrics)

    def _update_actor(self, batch: Any, metrics: Any) -> Any:
        if not self._num_rows:
            return super()._update_actor(batch, metrics)
        data = tq.kv_batch_get(keys=batch.keys, partition_id="train")
        rows = [
            {name: data[name][place].tolist() for name in ROWS}
            for place in range(len(batch))
        ]
        self.seen = [*getattr(self, "seen", []), (self.episodes, rows)]
        made = super()._update_actor(batch, metrics)
        self.told = [*getattr(self, "told", []), dict(metrics)]
        return made


def trainer_of(
    servers: Servers, folder: Path, *overrides: str, lr: float = 1e-3
) -> Watched:
    """Return a trainer whose parts are here."""
    config = verl_engine.verl_config(
        POLICY,
        f"data.train_files={folder}/train.parquet",
        f"data.val_files={folder}/test.parquet",
        f"data.train_batch_size={NUM_GROUPS}",
        "data.shuffle=False",
        "data.dataloader_num_workers=0",
        f"actor_rollout_ref.rollout.n={GROUP_SIZE}",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={NUM_GROUPS}",
        f"actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu={MICROBATCH}",
        f"actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu={MICROBATCH}",
        f"trainer.total_training_steps={NUM_STEPS}",
        "trainer.n_gpus_per_node=1",
        "trainer.resume_mode=disable",
        "trainer.logger=[file]",
        "trainer.test_freq=2",
        "+trainer.v1.aipo.environment={source: 'toy:kinds=knowledge',"
        " verifier: 'verl_engine:exact'}",
        "+trainer.v1.aipo.objective={base: grpo, floor: 0.3}",
        *overrides,
    )
    config.transfer_queue.enable = True
    trainer = Watched(config)

    def set_up(trainer: Watched) -> None:
        trainer._init_tokenizer()
        trainer._init_dataloader()
        trainer._init_dump_executor()
        trainer.resource_pool_manager = SimpleNamespace(get_n_gpus=lambda: 1)
        worker = verl_engine.engine_worker(POLICY, micro_batch_size=MICROBATCH, lr=lr)
        trainer.actor_rollout_wg = Workers(worker)
        trainer.reward_loop_manager = SimpleNamespace(reward_loop_worker_handles=[])
        trainer.checkpoint_manager = Weights(trainer, servers)
        trainer.llm_server_manager = None
        trainer._load_checkpoint()

    PPOTrainerSync._setup = set_up
    trainer.init()
    return trainer


def expected_rows(trainer: Watched, episodes: list[Episode]) -> Counter[str]:
    """Return the rows of whole groups as texts, as `aipo train` makes them."""
    by_task: dict[str, list[Episode]] = {}
    for episode in episodes:
        by_task.setdefault(episode.task.id, []).append(episode)
    for group in by_task.values():
        group.sort(key=lambda episode: not episode.aided)
    made = training_rows(
        [group for group in by_task.values() if len(group) == GROUP_SIZE],
        lambda episode: episode.reward,
        base="grpo",
        baseline="split",
        further=partial(agent_free_rows, trainer._scenario, trainer.tokenizer),
    )
    texts: Counter[str] = Counter()
    for row in made.rows:
        first = int((row.policy_mask | row.agent_mask).argmax())
        texts[
            _text(
                row.token_ids[first:].tolist(),
                row.policy_mask[first:].astype(int).tolist(),
                row.agent_mask[first:].astype(int).tolist(),
                row.advantage,
                int(row.is_rewritten),
            )
        ] += 1
    return texts


def seen_rows(rows: list[dict[str, Any]]) -> tuple[Counter[str], int]:
    """Return rows as texts, and how many there are beside in which nothing counts."""
    texts: Counter[str] = Counter()
    num_padding = 0
    for row in rows:
        assert len({len(row[name]) for name in ROWS}) == 1
        if not any(row["response_mask"]) and not any(row["agent_mask"]):
            assert not any(row["advantages"])
            num_padding += 1
            continue
        [advantage] = set(row["advantages"])
        [is_rewritten] = set(row["is_rewritten"])
        texts[
            _text(
                row["responses"],
                row["response_mask"],
                row["agent_mask"],
                advantage,
                is_rewritten,
            )
        ] += 1
    return texts, num_padding


def _text(
    token_ids: Any, policy: Any, agent: Any, advantage: float, is_rewritten: int
) -> str:
    return f"{token_ids} {policy} {agent} {advantage:.5f} {is_rewritten}"


def step(trainer: Watched, rollouts: Rollouts, number: int = 1) -> dict[str, Any]:
    """Return the metrics of a step."""
    trainer.agent_loop_manager = rollouts
    trainer.global_steps = number
    trainer.curr_step_profile = False
    trainer.timing_raw = {}
    metrics: dict[str, Any] = {}
    trainer.step(metrics, trainer.timing_raw)
    return metrics


def refusal(call: Any, *arguments: Any) -> str:
    try:
        call(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def report(trainer: Watched, place: int) -> dict[str, Any]:
    """Return what a step was trained on."""
    episodes, rows = trainer.seen[place]
    seen, num_padding = seen_rows(rows)
    told = trainer.told[place]
    return {
        "num_episodes": len(episodes),
        "num_rows": sum(seen.values()),
        "num_padding": num_padding,
        "agent_free": sum(text.endswith(" 1") for text in seen.elements()),
        "as_aipo_train": seen == expected_rows(trainer, episodes),
        "partial": told["aipo/groups/partial"],
        "rows": told["aipo/rows"],
        "aided": told["aipo/success/aided"],
        "kl_sampler": told["aipo/kl_sampler"],
        "loss": told["aipo/loss"] - told["actor/loss"],
        "agent_tokens": told["aipo/agent_tokens"],
    }


def main() -> None:
    folder = Path(tempfile.mkdtemp())
    log = folder / "log.jsonl"
    os.environ["VERL_FILE_LOGGER_PATH"] = str(log)
    # Actors of the queue ask for more CPUs than there are.
    ray.init(num_cpus=16, include_dashboard=False, object_store_memory=10**8)
    servers = Servers()
    write_tasks("toy:kinds=knowledge", folder, num_train=12, num_test=3)
    trainer = trainer_of(servers, folder)
    queue = OmegaConf.merge(
        trainer.config.transfer_queue,
        {"backend": {"SimpleStorage": {"num_data_storage_units": 1}}},
    )
    tq.init(queue)
    rollouts = Rollouts(trainer.config, servers)
    before = {name: weight.clone() for name, weight in servers.model.named_parameters()}
    trainer.fit(rollouts)
    told: dict[str, Any] = {
        "steps": [report(trainer, place) for place in range(NUM_STEPS)],
        "has_learned": any(
            not torch.equal(weight, before[name])
            for name, weight in servers.model.named_parameters()
        ),
        "left_in_queue": sum(len(keys) for keys in tq.kv_list().values()),
    }
    lines = [json.loads(line)["data"] for line in log.read_text().splitlines()]
    told["validated"] = sorted(
        name for name in lines[0] if name.startswith("val-") and "/mean@" in name
    )
    told["logged"] = [line.get("aipo/success/unaided") for line in lines]
    # One optimiser step, two of half a batch each, and two of the batch, which change
    # nothing.
    told["losses"] = []
    told["policy_tokens"] = []
    for num_groups, num_epochs in (
        (NUM_GROUPS, 1),
        (NUM_GROUPS // 2, 1),
        (NUM_GROUPS, 2),
    ):
        still = trainer_of(
            servers,
            folder,
            f"actor_rollout_ref.actor.ppo_mini_batch_size={num_groups}",
            f"actor_rollout_ref.actor.ppo_epochs={num_epochs}",
            lr=0.0,
        )
        metrics = step(still, Rollouts(still.config, servers))
        told["losses"].append(metrics["aipo/loss"])
        told["policy_tokens"].append(metrics["aipo/policy_tokens"])
    idle = trainer_of(
        servers,
        folder,
        "+trainer.v1.aipo.environment.agents=none",
        "+trainer.v1.aipo.stop_after_idle_steps=2",
    )
    alone = Rollouts(idle.config, servers, lost_group=LOST_GROUP)
    metrics = step(idle, alone)
    told["idle"] = [metrics["aipo/rows"], "actor/grad_norm" in metrics]
    told["lost"] = metrics["aipo/groups/partial"]
    told["stopped"] = refusal(step, idle, alone, 2)
    told["validated_twice"] = refusal(
        trainer_of, servers, folder, f"data.val_files={folder}/train.parquet"
    )
    servers.error = OSError("no memory")
    told["dead"] = refusal(step, trainer, rollouts, 3)
    tq.close()
    ray.shutdown()
    print(json.dumps(told))
    sys.stdout.flush()


main()
