"""An environment behind TRL's environment_factory: by hand, and in GRPOTrainer."""

import json
import os
import tempfile
import warnings
from importlib import resources
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from transformers.utils import get_json_schema
from trl import GRPOConfig, GRPOTrainer

from aipo_env import AgentReply, AgentRequest, AipoError, ConfigError, Environment
from aipo_learner.integrations.trl import TRLEnvironment
from aipo_learner.policy.tiny import build_tokenizer

CALL = (
    '<tool_call>\n{"name": "consult", "arguments":'
    ' {"kind": "knowledge", "query": "mele"}}\n</tool_call>'
)


def add(first: int, second: int = 1) -> int:
    """Add two numbers.

    Args:
        first: The one.
        second: The other.
    """
    return first + second


def reset(name: str) -> str:
    """Take a name that is taken."""
    return name


def by_hand() -> dict[str, Any]:
    """Play two episodes, one with an agent and a tool and one that gives up."""
    spec = Environment(source="toy:kinds=knowledge", tools=[add])
    played = TRLEnvironment.of(spec)
    tasks = played.tasks(2)
    rollout, other = played(), played()
    for environment in (rollout, other):
        environment.reset(**tasks[1])
    replies = [
        rollout.consult(kind="knowledge", query="mele"),
        rollout.add(first=2, second=3),
        rollout.add(first=2),
    ]
    gold = played._played.scenario.source.task("train", 1).answer
    right = [{"role": "assistant", "content": f"\\boxed{{{gold}}}"}]
    wrong = [{"role": "assistant", "content": ""}]
    rewards = played.rewards([right, wrong], [rollout, other], task=[1, 1])
    return {
        "roles": [message["role"] for message in tasks[1]["prompt"]],
        "replies": replies,
        "rewards": rewards,
        "after": rollout.consult(kind="knowledge", query="mele"),
        "schemas": [get_json_schema(rollout.consult), get_json_schema(rollout.add)],
    }


class MisconfiguredAgent:
    """Raises what no further call of it can mend."""

    agent_id = "misconfigured"

    async def reply(self, request: AgentRequest) -> AgentReply:
        raise ConfigError("the key is wrong: 1234")


def of_others_words() -> dict[str, Any]:
    """Give rewards to rollouts that end with a tool's message, or with an error."""
    played = TRLEnvironment.of("toy:kinds=knowledge")
    gold = played._played.scenario.source.task("train", 0).answer
    by_tool = {"role": "tool", "content": f"\\boxed{{{gold}}}"}
    by_policy = {"role": "assistant", "content": f"\\boxed{{{gold}}}"}
    told = []
    for messages in ([by_policy, by_tool], [by_tool, by_policy], [by_tool], []):
        rollout = played()
        rollout.reset(index=0)
        told += played.rewards([messages], [rollout])
    return {"rewards_of_last_words": told}


def failing() -> dict[str, Any]:
    """Call what ends a run: the policy is shown nothing of it."""
    spec = Environment(source="toy:kinds=knowledge", agents=MisconfiguredAgent())
    played = TRLEnvironment.of(spec)
    rollout = played()
    rollout.reset(index=0)
    shown = rollout.consult(kind="knowledge", query="mele")
    try:
        played.rewards([[{"role": "assistant", "content": ""}]], [rollout])
    except ConfigError as error:
        return {"shown_of_error": shown, "raised": str(error)}
    return {"shown_of_error": shown, "raised": ""}


def seeds_of_processes() -> list[int]:
    """Return the seeds of two rollouts on each of two processes, and with another."""
    told = []
    for rank, seed in (("0", 0), ("1", 0), ("0", 1)):
        os.environ.update(RANK=rank, WORLD_SIZE="2")
        played = TRLEnvironment.of("toy:kinds=knowledge", seed=seed)
        told += [played()._seed, played()._seed]
    os.environ.pop("RANK")
    os.environ.pop("WORLD_SIZE")
    alone = TRLEnvironment.of("toy:kinds=knowledge")
    assert [alone()._seed, alone()._seed] == [told[0], told[2]]
    return told


def refusals() -> list[str]:
    told = []
    try:
        TRLEnvironment.of(Environment(source="toy", tools=[reset]))
    except AipoError as error:
        told.append(str(error))
    try:
        TRLEnvironment.of("toy").tasks()
    except AipoError as error:
        told.append(str(error))
    return told


class Calling(GRPOTrainer):
    """Has the policy, which knows nothing, call an agent in its first turn."""

    def _generate_single_turn(
        self, prompt_ids: Any, *asked: Any, **options: Any
    ) -> Any:
        ids, logprobs = super()._generate_single_turn(prompt_ids, *asked, **options)
        if getattr(self, "has_called", False):
            return ids, logprobs
        self.has_called = True
        call = self.processing_class.encode(CALL, add_special_tokens=False)
        return [[*call, self.processing_class.eos_token_id] for _ in ids], None

    def _compute_loss(self, model: Any, inputs: Any) -> torch.Tensor:
        ids, masks = inputs["completion_ids"], inputs["tool_mask"]
        self.masked = [
            self.processing_class.decode(row[mask == 0])
            for row, mask in zip(ids, masks, strict=True)
        ]
        return super()._compute_loss(model, inputs)


def by_trainer(folder: str) -> dict[str, Any]:
    """Make a step of TRL's own with a random policy."""
    template = resources.files("trl") / "chat_templates" / "qwen2_5.jinja"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer().backend_tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=template.read_text(),
    )
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
    )
    args = GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        dataloader_pin_memory=False,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=200,
        max_tool_calling_iterations=2,
        max_steps=1,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    played = TRLEnvironment.of("toy:kinds=knowledge")
    with warnings.catch_warnings():
        # TRL's own: that its environments are an experiment, and names that it uses.
        warnings.simplefilter("ignore")
        trainer = Calling(
            Qwen2ForCausalLM(config),
            args=args,
            train_dataset=played.tasks(4),
            processing_class=tokenizer,
            environment_factory=played,
            reward_funcs=played.rewards,
        )
        trainer.train()
    logged = trainer.state.log_history[0]
    return {"masked": trainer.masked, "reward": logged["reward"]}


def main() -> None:
    told = by_hand() | of_others_words() | failing() | {"refusals": refusals()}
    told["seeds"] = seeds_of_processes()
    with tempfile.TemporaryDirectory() as folder:
        told |= by_trainer(folder)
    print(json.dumps(told), flush=True)


torch.set_num_threads(1)
main()
