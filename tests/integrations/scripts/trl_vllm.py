"""AipoGRPOTrainer with TRL's vLLM, for which a stand-in of the same calls answers."""

import asyncio
import json
import tempfile
from typing import Any

import torch
from transformers import GenerationConfig
from trl import GRPOConfig

from aipo_env import PolicyError
from aipo_learner import load_policy, policy_folder
from aipo_learner.integrations.trl import AipoGRPOTrainer
from aipo_learner.integrations.trl.turns import VLLMTurns


class StandIn:
    """What `VLLMGeneration` is to its caller, on transformers.

    Args:
        skips: Tokens of each turn whose log-probability it forgets.
    """

    def __init__(self, trainer: AipoGRPOTrainer, skips: int = 0) -> None:
        self.trainer = trainer
        self.skips = skips
        self.max_completion_length = 0
        self.generation_kwargs: dict[str, Any] = {}
        self.num_syncs = 0
        self.calls: list[tuple[int, int, list[str]]] = []

    def sync_weights(self) -> None:
        self.num_syncs += 1

    def generate(self, prompts: Any, images: Any, num_generations: int) -> Any:
        assert images is None
        assert num_generations == 1
        assert self.generation_kwargs["include_stop_str_in_output"]
        stop = self.generation_kwargs["stop"]
        self.calls.append((len(prompts), self.max_completion_length, stop))
        turns = [self.turn(prompt, stop) for prompt in prompts]
        ids = [token_ids for token_ids, _ in turns]
        return prompts, ids, [logprobs for _, logprobs in turns], None

    @torch.no_grad()
    def turn(self, prompt: list[int], stop: list[str]) -> Any:
        trainer = self.trainer
        made = trainer.model.generate(
            torch.tensor([prompt]),
            max_new_tokens=self.max_completion_length,
            stop_strings=stop or None,
            eos_token_id=trainer.eos_token_ids,
            tokenizer=trainer.processing_class,
            return_dict_in_generate=True,
            output_logits=True,
        )
        ids = made.sequences[0, len(prompt) :]
        logprobs = torch.cat(made.logits).log_softmax(-1).gather(1, ids[:, None])
        return ids.tolist(), logprobs.tolist()[self.skips :]


def trainer_of(folder: str, skips: int = 0) -> AipoGRPOTrainer:
    model, tokenizer = load_policy(policy_folder("tiny"))
    # Draws are from the whole vocabulary, whatever came with the model.
    model.generation_config = GenerationConfig(
        do_sample=True, top_k=0, pad_token_id=tokenizer.pad_token_id
    )
    args = GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        activation_checkpointing=False,
        dataloader_pin_memory=False,
        disable_dropout=True,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        num_generations=4,
        max_steps=1,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = AipoGRPOTrainer(
        model, "toy:kinds=knowledge", args, processing_class=tokenizer
    )
    # As if TRL had started vLLM, which is not installed here.
    trainer.use_vllm = True
    trainer.vllm_generation = StandIn(trainer, skips)
    return trainer


class Hostile:
    """Answers the first call otherwise than it should, and a later one rightly."""

    def __init__(self, dropped: int = 0, error: Exception | None = None) -> None:
        self.dropped = dropped
        self.error = error

    def generate(self, prompts: Any, images: Any, num_generations: int) -> Any:
        dropped, self.dropped = self.dropped, 0
        error, self.error = self.error, None
        if error is not None:
            raise error
        number = len(prompts) - dropped
        return prompts, [[1]] * number, [[[-0.5]]] * number, None


async def told_by(engine: Hostile) -> list[str]:
    """Return what three turns are told, of which one has another stop string."""
    turns = VLLMTurns(engine)
    asked = [turns.generate([1], (stop,), 4, ()) for stop in "aab"]
    answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 10)
    after = await asyncio.wait_for(turns.generate([1], (), 4, ()), 10)
    return [*map(repr, answers), str(after)]


async def cancelled() -> int:
    """Return how many of three turns learn that their work was cancelled."""
    turns = VLLMTurns(Hostile())
    asked = [asyncio.ensure_future(turns.generate([1], (), 4, ())) for _ in range(3)]
    await asyncio.sleep(0)
    assert turns._working is not None
    turns._working.cancel()
    answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 10)
    return sum(isinstance(answer, asyncio.CancelledError) for answer in answers)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(folder)
        trainer.train()
        forgetful = trainer_of(folder, skips=1)
        refusal = ""
        try:
            forgetful.train()
        except PolicyError as error:
            refusal = str(error)
    logged = trainer.state.log_history[0]
    engine = trainer.vllm_generation
    told = {
        "num_syncs": engine.num_syncs,
        "calls": engine.calls,
        "kl_sampler": logged["kl_sampler"],
        "success": logged["success/aided"],
        "agent_tokens": logged["agent_tokens"],
        "refusal": refusal,
        "one_too_few": asyncio.run(told_by(Hostile(dropped=1))),
        "one_too_many": asyncio.run(told_by(Hostile(dropped=-1))),
        "failed": asyncio.run(told_by(Hostile(error=OSError("no memory")))),
        "num_cancelled": asyncio.run(cancelled()),
    }
    print(json.dumps(told), flush=True)


torch.set_num_threads(1)
main()
