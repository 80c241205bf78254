"""AipoAgentLoop around a server that writes what it is told to."""

import asyncio
import json
import pickle
from types import SimpleNamespace
from typing import Any

import verl_engine

verl_engine.prepare()

import numpy as np  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402
from verl.experimental.agent_loop.agent_loop import (  # noqa: E402
    DictConfigWrap,
    _agent_loop_registry,
)
from verl.trainer.ppo.metric_utils import process_validation_metrics  # noqa: E402
from verl.utils.tensordict_utils import list_of_dict_to_tensordict  # noqa: E402

from aipo_env import Author, Episode, build_scenario  # noqa: E402
from aipo_learner import policy_folder  # noqa: E402
from aipo_learner.integrations.verl import AipoAgentLoop  # noqa: E402
from aipo_learner.integrations.verl.agent_loop import EPISODE, FAILURE  # noqa: E402
from aipo_learner.integrations.verl.rows import row_fields  # noqa: E402
from aipo_learner.learn.rows import Row  # noqa: E402

POLICY = policy_folder("tiny")
TOKENIZER = AutoTokenizer.from_pretrained(POLICY)
CONSULT = "<knowledge>mele</knowledge>"
END = TOKENIZER.eos_token
ANSWER = f"\\boxed{{7623}}{END}"
CALLS = "calls"


class Server:
    """Writes the turns that it is told to, whatever it is asked."""

    def __init__(self, turns: list[Any], log_probs: bool = True) -> None:
        self.turns = turns
        self.log_probs = log_probs
        self.asked: list[dict[str, Any]] = []

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any]
    ) -> Any:
        self.asked.append({"id": request_id, "prompt": prompt_ids, **sampling_params})
        turn = self.turns[len(self.asked) - 1]
        if isinstance(turn, Exception):
            raise turn
        token_ids = TOKENIZER.encode(turn, add_special_tokens=False)
        return SimpleNamespace(
            token_ids=token_ids,
            log_probs=[-0.5] * len(token_ids) if self.log_probs else None,
            extra_fields={"global_steps": 6},
        )


def agent_loop(server: Server, *overrides: str) -> AipoAgentLoop:
    """Return the loop as verl's workers make it."""
    config = verl_engine.verl_config(
        POLICY,
        "actor_rollout_ref.rollout.n=4",
        "data.train_batch_size=2",
        # As the trainer writes them once it has counted the tasks.
        "actor_rollout_ref.actor.optim.total_training_steps=100",
        "+trainer.v1.aipo.environment='toy:kinds=knowledge'",
        *overrides,
    )
    return AipoAgentLoop(
        trainer_config=DictConfigWrap(config),
        server_manager=server,
        tokenizer=TOKENIZER,
        processor=None,
        dataset_cls=None,
        data_config=DictConfigWrap(config.data),
        hf_model_type="qwen3",
        tools=None,
    )


def row(session_id: int, **changes: Any) -> dict[str, Any]:
    """Return a row as verl gives it to the loop."""
    task = {"split": "train", "index": 0, "task_id": "toy-0-train-0"} | changes
    if task.pop("unnamed", False):
        task = {"index": 0}
    return {
        "raw_prompt": [],
        "uid": "u",
        "session_id": session_id,
        "global_steps": 7,
        "index": 0,
        "extra_info": task,
    }


async def played(
    turns: list[Any], session_id: int, *overrides: str, **changes: Any
) -> dict[str, Any]:
    """Return what verl keeps of a rollout, and what the server was asked."""
    server = Server(turns, log_probs=changes.pop("log_probs", True))
    loop = agent_loop(server, *overrides)
    output = await loop.run({"temperature": 1.0}, **row(session_id, **changes))
    kept = output.as_dict()
    return {**kept, CALLS: server.asked}


def written(kept: dict[str, Any], name: str) -> str:
    """Return the text of the tokens of a response that a mask has."""
    chosen = kept["responses"][kept[name].bool()]
    return TOKENIZER.decode(chosen.tolist())


async def refusal(*arguments: Any, **changes: Any) -> str:
    try:
        await played(*arguments, **changes)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def empty_row() -> dict[str, Any]:
    """Return what verl keeps of a row without a token."""
    unknown = np.full(0, np.nan, np.float32)
    row = Row(
        token_ids=np.zeros(0, np.int64),
        policy_mask=np.zeros(0, bool),
        agent_mask=np.zeros(0, bool),
        sampler_logprobs=unknown,
        agent_logprobs=unknown,
        advantage=1.0,
    )
    return {name: made.tolist() for name, made in row_fields(row, 9).items()}


def test_answer() -> str:
    """Return the turn that answers the first task of the test split."""
    scenario = build_scenario("toy:kinds=knowledge")
    return f"\\boxed{{{scenario.source.task('test', 0).answer}}}{END}"


def validation_mean(kept: dict[str, Any]) -> dict[str, float]:
    """Return verl's means of three samples, of which the last is missing."""
    reward = kept["rm_scores"].sum().item()
    told = {"reward": reward, **kept["extra_fields"]["reward_extra_info"]}
    made = process_validation_metrics(
        ["toy"] * 2,
        ["a", "b"],
        {name: [value] * 2 for name, value in told.items()},
        expected_acc_counts={("toy", uid): 1 for uid in "abc"},
    )
    return {name: of_name["mean@1"] for name, of_name in sorted(made["toy"].items())}


async def main() -> None:
    aided = await played([CONSULT, ANSWER], 0)
    alone = await played([ANSWER], 2)
    wrong = await played([f"\\boxed{{1}}{END}"], 3)
    # As verl puts rollouts of different lengths beside each other.
    batch = list_of_dict_to_tensordict(
        [
            {name: kept[name] for name in kept if name not in ("metrics", CALLS)}
            for kept in (aided, alone, wrong)
        ]
    )
    episode: Episode = pickle.loads(aided["extra_fields"][EPISODE])
    first, second = aided[CALLS]
    other_draws = await played([CONSULT, ANSWER], 1)
    no_verdict = (
        "trainer.v1.aipo.environment={source: 'toy:kinds=knowledge',"
        " verifier: 'verl_engine:not_a_number'}"
    )
    without_verdict = await played([ANSWER], 2, no_verdict)
    dead = await played([CONSULT, OSError("no memory")], 0)
    short = await played(["unended"], 0)
    unknown = await played([ANSWER], 2, log_probs=False)
    own_policy = (
        "trainer.v1.aipo.environment={source: 'toy:kinds=knowledge', agents: self}"
    )
    of_itself = await played([CONSULT, f"five{END}", ANSWER], 0, own_policy)
    withheld = await played(
        [CONSULT, ANSWER],
        3,
        "+trainer.v1.aipo.independence=accept_anneal",
        # The last step, at which no reply is given any more.
        "actor_rollout_ref.actor.optim.total_training_steps=7",
    )
    full = await played(
        [],
        0,
        "trainer.v1.aipo.environment={source: 'toy:kinds=knowledge',"
        " rules: {max_context_tokens: 10}}",
    )
    agent_places = aided["agent_mask"].bool()
    validated = await played([test_answer()], 0, split="test", task_id="toy-0-test-0")
    told = {
        "registered": _agent_loop_registry["aipo"]["_target_"],
        "policy": written(aided, "response_mask"),
        "agent": written(aided, "agent_mask"),
        "prompt_ends_before_the_policy": aided["response_mask"][0].item(),
        "rewards": [kept["rm_scores"].sum().item() for kept in (aided, alone, wrong)],
        "reward_at_the_end": aided["rm_scores"][-1].item(),
        "agent_alone": alone["agent_mask"].sum().item(),
        "sampled": sorted(set(aided["rollout_log_probs"].tolist())),
        "agent_log_probs": [
            str(value) for value in set(aided["agent_log_probs"][agent_places].tolist())
        ],
        "elsewhere": aided["agent_log_probs"][~agent_places].abs().sum().item(),
        "nested": {
            name: bool(batch[name].is_nested)
            for name in ("response_mask", "agent_mask", "agent_log_probs")
        },
        "rows_of_batch": [
            len(part) == len(mask)
            for part, mask in zip(
                batch["agent_mask"].unbind(),
                batch["response_mask"].unbind(),
                strict=True,
            )
        ],
        "versions": [
            aided["extra_fields"][name]
            for name in ("min_global_steps", "max_global_steps")
        ],
        "episode": [
            episode.task.id,
            episode.aided,
            episode.group_id,
            episode.policy_version,
            episode.reward,
        ],
        "same_server": first["id"] == second["id"],
        "stop": first["stop"],
        "kept_stop": first["include_stop_str_in_output"],
        "end_token": TOKENIZER.eos_token_id in first["stop_token_ids"],
        "max_tokens": [first["max_tokens"], second["max_tokens"]],
        "whole_vocabulary": [first["top_p"], first["top_k"], first["min_p"]],
        "never_tokenised_again": second["prompt"][: len(first["prompt"])]
        == first["prompt"],
        "seeds": len(
            {
                call["seed"]
                for kept in (aided, other_draws, alone)
                for call in kept[CALLS]
            }
        ),
        "same_seeds": [call["seed"] for call in aided[CALLS]]
        == [call["seed"] for call in (await played([CONSULT, ANSWER], 0))[CALLS]],
        "authors": Author.AGENT in episode.tokens.author,
        "without_verdict": [
            without_verdict["rm_scores"].sum().item(),
            pickle.loads(without_verdict["extra_fields"][EPISODE]).reward,
        ],
        "of_itself": [
            written(of_itself, "agent_mask"),
            sorted(set(of_itself["agent_log_probs"].tolist())),
        ],
        "withheld": written(withheld, "agent_mask"),
        "full": [full["responses"].tolist(), full["response_mask"].tolist()],
        "empty_row": empty_row(),
        "dead": [dead["extra_fields"][FAILURE], dead["response_mask"].sum().item()],
        "fields_of_a_failure": sorted(set(aided) ^ set(dead)),
        "short": short["extra_fields"][FAILURE],
        "unknown": [str(x) for x in set(unknown["rollout_log_probs"].tolist())],
        "validated": validated["agent_mask"].sum().item(),
        "validation_mean": validation_mean(validated),
        "validation_dead": await refusal(
            [OSError("no memory")], 0, split="test", task_id="toy-0-test-0"
        ),
        "validation_without_verdict": await refusal(
            [ANSWER],
            0,
            no_verdict,
            split="test",
            task_id="toy-0-test-0",
        ),
        "other_tasks": (await played([ANSWER], 0, task_id="mine-1"))["extra_fields"][
            FAILURE
        ],
        "no_task": (await played([ANSWER], 0, unnamed=True))["extra_fields"][FAILURE],
        "one_too_many": (await played([ANSWER], 4))["extra_fields"][FAILURE],
        "other_trainer": await refusal([ANSWER], 0, "trainer.v1.trainer_mode=sync"),
    }
    print(json.dumps(told))


asyncio.run(main())
