"""A whole training run, flat: rollouts, advantages, rows, the loss, a step, evaluation.

`aipo train` is this and what a long run needs beside it: checkpoints, other samplers,
several ranks. Put your own environment, model or loss in the place of a line.
"""

import torch

from aipo_env import build_scenario, rollout_key, run_sync, task_index
from aipo_learner import (
    HFSampler,
    LearnerForward,
    ObjectiveConfig,
    agent_free_rows,
    agent_normalizer,
    aipo_loss,
    by_group,
    collate,
    episode_row,
    evaluate,
    group_advantages,
    is_dropped,
    load_policy,
    merge_metrics,
    microbatch_logprobs,
    play_wave,
    policy_folder,
    policy_normalizer,
    split_rows,
    summarize,
)

SEED = 0
NUM_STEPS, TASKS_PER_STEP, GROUP_SIZE = 2, 4, 8
NUM_AIDED = 4  # of each group; the others see the plain prompt of deployment
OBJECTIVE = ObjectiveConfig(base="grpo", agent_rule="floored", floor=0.3)

torch.manual_seed(SEED)
torch.set_num_threads(1)
model, tokenizer = load_policy(policy_folder("tiny"))
model.eval()  # dropout would make the learner another policy than the one that sampled
scenario = build_scenario("toy", seed=SEED)
source = scenario.source
sampler = HFSampler(model, tokenizer)
forward = LearnerForward(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=7e-4, weight_decay=0.0)


def play_step(step: int):
    """Return the episodes of a step by their task."""
    sessions = []
    for group in range(TASKS_PER_STEP):
        index = task_index(source, "train", step * TASKS_PER_STEP + group, SEED)
        task = source.task("train", index)
        for rollout in range(GROUP_SIZE):
            is_aided = rollout < NUM_AIDED
            key = rollout_key(SEED, step, group, rollout)
            session = scenario.session(task, aided=is_aided, key=key, group_id=task.id)
            sessions.append(session)
    return by_group(run_sync(play_wave(scenario, sessions, sampler)))


def rows_of(groups):
    """Return rows of what teaches; correct aided episodes also without the agents."""
    rows = []
    for group in groups:
        if any(episode.reward is None for episode in group):
            continue  # an episode without a verdict: the baseline would be another
        aided = [episode.aided for episode in group]
        rewards = [episode.reward for episode in group]
        advantages = group_advantages(rewards, aided, base=OBJECTIVE.base)
        if is_dropped(advantages):
            continue
        rows += map(episode_row, group, advantages)
        rows += agent_free_rows(scenario, tokenizer, group, advantages)
    return rows


def descend(rows):
    """Make an optimiser step; a batch's loss is the sum of its microbatches' losses."""
    batches = [collate(part, tokenizer.pad_token_id) for part in split_rows(rows, 8192)]
    z_policy = sum(policy_normalizer(b.policy_mask, OBJECTIVE) for b in batches)
    z_agent = sum(
        agent_normalizer(b.agent_mask, b.advantages, OBJECTIVE) for b in batches
    )
    optimizer.zero_grad(set_to_none=True)
    parts = []
    for batch in batches:
        logprobs, _ = microbatch_logprobs(forward, batch)
        loss, metrics = aipo_loss(
            logprobs,
            logprobs.detach(),  # the weights are those of the rollouts
            batch.advantages,
            batch.policy_mask,
            batch.agent_mask,
            OBJECTIVE,
            agent_logprobs=batch.agent_logprobs,
            sampler_logprobs=batch.sampler_logprobs,
            policy_normalizer=z_policy,
            agent_normalizer=z_agent,
        )
        loss.backward()
        parts.append(metrics)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return summarize(merge_metrics(parts))


for step in range(NUM_STEPS):
    told = descend(rows_of(play_step(step)))
    loss, p_agent = told["loss"], told["agent_p_mean"]
    print(f"step {step + 1}: loss {loss:.3f}, p(agent) {p_agent:.3f}")
sizes = {"num_tasks": 8, "num_samples": 4}
scores, _ = evaluate(sampler, scenario, **sizes, aided=False, seed=SEED)
mean = scores.pass_at(1).mean()
print(f"alone, on {len(scores.task_ids)} held-out tasks: pass@1 {mean:.3f}")
sampler.close()
