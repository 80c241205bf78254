"""How policies of the skill world are taught: the atoms, and never the procedure."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from aipo_env import CONSULT_KINDS
from aipo_learner.policy.load import load_policy
from aipo_learner.policy.tiny import build_model
from envs_data.prepare.tiny_policy import (
    WarmstartConfig,
    part_mask,
    teach,
    transcript_row,
)
from envs_data.prepare.transcripts import Transcript
from experiments.worlds.knobs import PHRASES
from experiments.worlds.skill import read_problem, split_of
from experiments.worlds.skill_policy import (
    RECORD,
    TEACHING,
    WORDS,
    SkillLessons,
    place_probabilities,
    skill_gates,
    skill_scores,
    skill_tokenizer,
)
from experiments.worlds.skill_transcripts import draw_skill_transcript, place_to_learn

POLICIES = sorted(
    (Path(__file__).resolve().parents[2] / "experiments" / "policies").iterdir()
)
LINE = re.compile(r"(\d*)\.(\d)\*(\d)\+(\d)=(\d\d);")


def transcripts(number: int = 400) -> list[Transcript]:
    rng = np.random.default_rng(0)
    return [draw_skill_transcript(rng) for _ in range(number)]


def text_of(transcript: Transcript, part: tuple[int, int, int]) -> str:
    number, start, end = part
    return transcript.messages[number][1][start:end]


def test_every_word_is_one_token():
    tokenizer = skill_tokenizer()
    words = [*WORDS.split(), *re.findall(r"[A-Za-z]+", " ".join(PHRASES))]
    for word in words:
        assert len(tokenizer.encode(word, add_special_tokens=False)) == 1
    text = "379.9*6+0=54;4;<reason>next</reason>\\boxed{22794}"
    token_ids = tokenizer.encode(text, add_special_tokens=False)
    assert len(token_ids) == 25
    assert tokenizer.decode(token_ids) == text


@pytest.mark.parametrize(
    ("kind", "text", "word"),
    [
        ("knowledge", "carry tens;", "carry"),
        ("reason", "37.9*6+5=59;", "5"),
        ("verify", "wrong at 37.9;", "wrong"),
    ],
)
def test_the_word_to_be_learnt_is_one(kind: str, text: str, word: str):
    start, end = place_to_learn(kind, text)  # type: ignore[arg-type]
    assert text[start:end] == word


def test_products_are_right_and_no_test_problem_is_shown():
    for transcript in transcripts():
        problem = read_problem(transcript.messages[1][1])
        if problem is not None:
            assert split_of(problem) == "train"
        for _, content in transcript.messages:
            for _, digit, factor, carry, product in LINE.findall(content):
                assert int(digit) * int(factor) + int(carry) == int(product)


def test_numbers_longer_than_those_trained_on_are_multiplied_by_habit_alone():
    seen = 0
    for transcript in transcripts():
        problem = read_problem(transcript.messages[1][1])
        if problem is None or len(problem.number) <= 4:
            continue
        seen += 1
        assert [role for role, _ in transcript.messages] == [
            "system",
            "user",
            "assistant",
        ]
        carries = [line[3] for line in LINE.findall(transcript.messages[2][1])]
        assert set(carries) == {"0"}
    assert seen > 20


def test_only_the_words_to_be_learnt_are_held_and_no_chatter_is_taught():
    held, seen = set(), 0
    for transcript in transcripts():
        assert transcript.messages[0][1] == "Solve." or not transcript.held
        held |= {text_of(transcript, part) for part in transcript.held}
        for number, (role, content) in enumerate(transcript.messages):
            if role == "user" and content.startswith("<reply"):
                body = content.partition(">")[2].removesuffix("</reply>")
                parts = [part for part in transcript.untaught if part[0] == number]
                dark = [text_of(transcript, part) for part in parts]
                assert dark in ([], [body])
                is_chatty = any(phrase in body for phrase in PHRASES)
                seen += is_chatty
                assert dark or not is_chatty
    assert seen > 20
    assert {"carry", "wrong"} < held
    assert held - {"carry", "wrong"} <= set("0123456789")


def test_alone_nothing_is_carried_but_where_help_stands():
    seen = 0
    for transcript in transcripts():
        is_alone = transcript.messages[0][1] == "Solve."
        if not is_alone or len(transcript.messages) != 3 or transcript.untaught:
            continue
        text = transcript.messages[2][1]
        starts = [start for _, start, _ in transcript.held]
        for found in LINE.finditer(text):
            is_told = text[: found.start()].endswith(
                ("carry tens;", f"wrong at {found[1]}.{found[2]};")
            )
            if is_told:
                seen += 1
            elif found[4] != "0":
                assert found.start(4) in starts
    assert seen > 40


def test_a_part_is_masked_by_its_very_tokens():
    tokenizer = skill_tokenizer()
    messages = (
        ("system", "Solve."),
        ("user", "Multiply 3799 by 6."),
        ("assistant", "379.9*6+0=54;4;carry tens;37.9*6+5=59;"),
    )
    held, untaught = (2, 15, 20), (2, 21, 26)
    transcript = Transcript(messages, untaught=(untaught,), held=(held,))
    row = transcript_row(transcript, tokenizer)
    [word] = row.token_ids[row.agent_mask]
    assert tokenizer.decode([word]) == "carry"
    dark = part_mask(transcript, [untaught], tokenizer)
    assert tokenizer.decode(row.token_ids[dark]) == "tens;"
    assert not (row.policy_mask & (row.agent_mask | dark)).any()
    bare = transcript_row(Transcript(messages), tokenizer)
    assert (bare.policy_mask == (row.policy_mask | row.agent_mask | dark)).all()
    assert not bare.agent_mask.any()
    assert bare.token_ids.tolist() == row.token_ids.tolist()


def test_teaching_is_the_same_again():
    tokenizer = skill_tokenizer()
    config = replace(TEACHING, num_steps=3, transcripts_per_step=4)
    runs = [
        list(
            teach(
                build_model(tokenizer, 0), tokenizer, config, SkillLessons(config, 0.01)
            )
        )
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert runs[0][-1] < runs[0][0]


def test_p0_is_measured_at_one_word_of_each_kind_of_help():
    tokenizer = skill_tokenizer()
    words = place_probabilities(build_model(tokenizer, 0), tokenizer, num_problems=2)
    assert tuple(words) == CONSULT_KINDS
    # A new model knows nothing: every token is about as likely as any other.
    assert all(0.2 < p * len(tokenizer) < 5 for p in words.values())


def test_a_gate_that_fails_is_named():
    fine = {"pass@1": 0.95, "never_solved": 1.0}
    alone = {"pass@1": 0.0, "never_solved": 1.0, "p0": 0.01}
    scores = {
        "aided": {"by_bottleneck": {kind: dict(fine) for kind in CONSULT_KINDS}},
        "unaided": {"by_bottleneck": {kind: dict(alone) for kind in CONSULT_KINDS}},
    }
    gates = skill_gates(0.01)
    assert [gate.fault(scores) for gate in gates] == [""] * 4
    scores["aided"]["by_bottleneck"]["verify"]["pass@1"] = 0.85
    scores["unaided"]["by_bottleneck"]["knowledge"]["p0"] = 0.004
    faults = [gate.fault(scores) for gate in gates]
    assert faults[0] == (
        "verify: success with this agent alone is 0.850, must be 0.9 to 1.0"
    )
    assert faults[3].startswith("knowledge: ")


@pytest.mark.slow
def test_some_hundred_steps_teach_the_atoms():
    torch.set_num_threads(1)
    tokenizer = skill_tokenizer()
    config = WarmstartConfig(num_steps=300, transcripts_per_step=24)
    model = build_model(tokenizer, 0)
    losses = list(teach(model, tokenizer, config, SkillLessons(config, 0.01)))
    assert np.mean(losses[-20:]) < 0.4
    for p in place_probabilities(model, tokenizer, num_problems=20).values():
        assert abs(math.log(p) - math.log(0.01 / 3)) < math.log(3)


@pytest.mark.parametrize("folder", POLICIES, ids=lambda folder: folder.name)
def test_a_policy_that_is_kept_is_small_and_holds_its_p0(folder: Path):
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_500_000
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    assert folder.name == f"skill_{record['p0']:.0e}".replace("e-0", "e-")
    assert [gate.fault(record) for gate in skill_gates(record["p0"])] == [""] * 4
    model, stored = load_policy(str(folder))
    tokenizer = skill_tokenizer()
    assert stored.get_vocab() == tokenizer.get_vocab()
    words = place_probabilities(model, tokenizer, num_problems=20)
    for p in words.values():
        assert record["p0"] / 2 < p * len(CONSULT_KINDS) < record["p0"] * 2


@pytest.mark.slow
@pytest.mark.parametrize("folder", POLICIES, ids=lambda folder: folder.name)
def test_a_policy_that_is_kept_follows_help_and_does_nothing_alone(folder: Path):
    model, _ = load_policy(str(folder))
    scores = skill_scores(model, skill_tokenizer(), num_tasks=12, num_samples=16)
    for kind in CONSULT_KINDS:
        assert scores["aided"]["by_bottleneck"][kind]["pass@1"] > 0.9
        assert scores["unaided"]["by_bottleneck"][kind]["pass@1"] < 0.05


def test_the_policies_that_are_kept_are_those_of_three_p0():
    names = sorted(folder.name for folder in POLICIES)
    assert names == ["skill_1e-1", "skill_1e-2", "skill_1e-3"]
