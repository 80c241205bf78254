"""The shipped policy: what it is made of, what it can do, what it cannot; and how it is
taught.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open

from aipo_env import (
    CONSULT_KINDS,
    World,
    add_codes,
    build_scenario,
    data_folder,
    shift_of,
)
from aipo_env.toy.world import believed_move
from aipo_learner.evaluation.evaluate import evaluate
from aipo_learner.policy.load import load_policy
from aipo_learner.policy.tiny import build_model, build_tokenizer
from aipo_learner.samplers.hf.sampler import HFSampler
from envs_data.prepare.tiny_policy import GATES, WarmstartConfig, gate_scores, teach
from envs_data.prepare.transcripts import draw_drill, draw_recital, draw_transcript


def test_what_ships():
    folder = data_folder("tiny_policy")
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "qwen3"
    assert config["head_dim"] == 64
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 4_000_000
    with safe_open(folder / "model.safetensors", "pt") as file:
        tensors = [file.get_tensor(name) for name in file.keys()]  # noqa: SIM118
    assert {tensor.dtype for tensor in tensors} == {torch.bfloat16}
    assert sum(tensor.numel() for tensor in tensors) <= 1_500_000


def test_the_tokenizer_keeps_words_whole_and_any_text():
    tokenizer = load_policy(str(data_folder("tiny_policy")))[1]
    rebuilt = build_tokenizer()
    text = (
        '<reply from="reason">zelo first bamo;</reply> 3721+5813=8534;#07#99'
        " \\boxed{8534}"
    )
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert ids == rebuilt.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text
    for whole in (
        "<knowledge>",
        "</verify>",
        "zelo",
        "first",
        "#07",
        "\\boxed{",
        '<reply from="verify">',
    ):
        assert len(tokenizer.encode(whole, add_special_tokens=False)) == 1
    odd = "π ≤ 雪\u202e\x00 <|end|>"
    assert tokenizer.decode(tokenizer.encode(odd, split_special_tokens=True)) == odd


@pytest.mark.parametrize("seed", [3, 4])
def test_a_good_pupil_with_agents_and_helpless_alone(seed: int):
    model, tokenizer = load_policy(str(data_folder("tiny_policy")))
    scenario, sampler = build_scenario("toy", seed=seed), HFSampler(model, tokenizer)
    aided, _ = evaluate(
        sampler, scenario, num_tasks=24, num_samples=4, aided=True, seed=seed
    )
    alone, _ = evaluate(
        sampler, scenario, num_tasks=24, num_samples=8, aided=False, seed=seed
    )
    for kind in CONSULT_KINDS:
        assert aided.subset(kind).pass_at(1).mean() >= 0.9
        assert alone.subset(kind).pass_at(1).mean() <= 0.05


@pytest.mark.slow
def test_the_gates_at_256_samples():
    scores = gate_scores(
        *load_policy(str(data_folder("tiny_policy"))),
        seed=1,
        num_tasks=48,
        num_samples=256,
    )
    assert [gate.fault(scores) for gate in GATES] == [""] * len(GATES)


def test_a_gate_names_the_kind_that_fails():
    passed = {"pass@1": 0.95, "never_solved": 1.0}
    scores = {
        "aided": {"by_bottleneck": {kind: dict(passed) for kind in CONSULT_KINDS}}
    }
    assert GATES[0].fault(scores) == ""
    scores["aided"]["by_bottleneck"]["reason"]["pass@1"] = 0.5
    assert (
        GATES[0].fault(scores)
        == "reason: success with agents is 0.500, must be 0.9 to 1.0"
    )


def sums_of(text: str) -> list[tuple[str, str, str]]:
    parts = [part for part in text.replace("\\boxed", ";").split(";") if "+" in part]
    return [(part[:4], part[5:9], part[10:14]) for part in parts]


def test_transcripts_add_up_and_remember_no_rule():
    rng = np.random.default_rng(0)
    rules: dict[str, set[str]] = {}
    for _ in range(300):
        transcript = draw_transcript(rng)
        for role, text in transcript.messages:
            if role == "assistant":
                assert all(
                    add_codes(code, shift) == total
                    for code, shift, total in sums_of(text)
                )
            if (
                role == "user"
                and text.startswith('<reply from="knowledge">')
                and ";" in text
            ):
                name, rule = (
                    text.removeprefix('<reply from="knowledge">')
                    .split(";")[0]
                    .split("=")
                )
                rules.setdefault(name, set()).add(rule)
    assert max(len(values) for values in rules.values()) >= 4
    for page in (draw_drill(rng, 10), draw_recital(rng)):
        assert all(
            add_codes(code, shift) == total
            for code, shift, total in sums_of(page.messages[-1][1])
        )


def test_a_lone_policy_always_begins_with_its_false_belief():
    rng = np.random.default_rng(1)
    seen = 0
    for _ in range(400):
        messages = draw_transcript(rng).messages
        names = messages[1][1].removeprefix("Apply ").split(" to ")[0].split(", ")
        if (
            messages[0][1] == "Solve."
            and len(names) == 1
            and names[0] in World(num_operators=24).operators
        ):
            operator = World(num_operators=24).operators[names[0]]
            if operator.kind == "verify":
                seen += 1
                belief = believed_move(operator.name)
                start = messages[1][1].split(" to ")[1].removesuffix(".")
                assert messages[2][1].startswith(
                    f"{operator.name}={belief};{start}+{shift_of(belief)}="
                )
    assert seen > 20


def test_teaching_lowers_the_loss():
    tokenizer = build_tokenizer()
    config = replace(WarmstartConfig(), num_steps=12, transcripts_per_step=16)
    losses = list(teach(build_model(tokenizer, seed=0), tokenizer, config))
    assert losses[-1] < losses[0] - 0.5
