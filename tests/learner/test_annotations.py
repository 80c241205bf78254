from pathlib import Path

import numpy as np
import pytest
import torch

from aipo_env import (
    Author,
    DataError,
    Episode,
    write_episodes,
)
from aipo_env.testing import example_episode, example_tokens
from aipo_learner.learn.coefficients import (
    episode_coefficients,
    read_coefficients,
    write_coefficients,
)
from aipo_learner.policy.tiny import build_model, build_tokenizer
from aipo_learner.reporting.token_text import token_decoder
from aipo_learner.settings.objective import ObjectiveConfig

NAN = np.nan


def episode() -> Episode:
    """Return an episode of four tokens, the third of them an agent's."""
    tokens = example_tokens(
        token_ids=[5, 6, 7, 8],
        author=[Author.PROMPT, Author.POLICY, Author.AGENT, Author.ENV],
        call_id=[-1, -1, 0, -1],
        turn=[0, 0, 1, 1],
        behaviour_logprobs=[None, -1.0, None, None],
        is_content=[False, False, True, False],
    )
    return example_episode(tokens=tokens)


@pytest.mark.parametrize(
    ("rule", "expected"), [("floored", 0.25), ("masked", 0.0), ("on_policy", 1.0)]
)
def test_coefficients_are_the_rules_own_at_agent_tokens_only(
    rule: str, expected: float
) -> None:
    model = build_model(build_tokenizer(), seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            # every token has probability 1 / vocabulary: far below the floor
            parameter.zero_()
    objective = ObjectiveConfig(agent_rule=rule, floor=0.25)
    [found] = episode_coefficients(model, [episode()], objective, temperature=1.0)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(
        found, np.array([NAN, NAN, expected, NAN], np.float32)
    )


def test_coefficients_come_back_from_beside_the_episodes(tmp_path: Path) -> None:
    path = tmp_path / "step-000010.jsonl"
    write_episodes(path, [episode(), episode()])
    written = [np.array([NAN, NAN, 0.25, NAN], np.float32), np.full(4, NAN, np.float32)]
    write_coefficients(path, written)
    assert [file.name for file in sorted(tmp_path.iterdir())] == [
        "step-000010.coefficients.json",
        "step-000010.jsonl",
    ]
    for found, expected in zip(
        read_coefficients(path, [episode(), episode()]), written, strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_coefficients_are_written_through_no_link(tmp_path: Path) -> None:
    victim, beside = tmp_path / "victim", tmp_path / "step-000010.coefficients.json"
    victim.write_text("mine")
    beside.symlink_to(victim)
    write_coefficients(tmp_path / "step-000010.jsonl", [np.ones(1, np.float32)])
    assert (victim.read_text(), beside.read_text()) == ("mine", "[[1.0]]")


def test_without_a_file_nothing_is_known(tmp_path: Path) -> None:
    [found] = read_coefficients(tmp_path / "step-000010.jsonl", [episode()])
    np.testing.assert_array_equal(found, np.full(4, NAN, np.float32))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("[[1", "no lists of coefficients"),
        ("[1]", "no lists of coefficients"),
        ("[[0.5]]", "does not fit the episodes"),
        ("[" * 100_000, "no lists of coefficients"),
        (f"[[1, {10**400}]]", "no lists of coefficients"),
        ("[[1e39]]", "no lists of coefficients"),
        ('[["1", "2"]]', "no lists of coefficients"),
        ('[{"1": 1, "2": 3}]', "no lists of coefficients"),
        ('["12"]', "no lists of coefficients"),
        ("[[[1, 2], [3, 4], [5, 6], [7, 8]]]", "no lists of coefficients"),
        ("[[true]]", "no lists of coefficients"),
    ],
)
def test_corrupt_coefficients_are_named(
    tmp_path: Path, content: str, fault: str
) -> None:
    (tmp_path / "step-000010.coefficients.json").write_text(content)
    with pytest.raises(
        DataError, match=rf"step-000010\.coefficients\.json: {fault}.*Delete the file"
    ):
        read_coefficients(tmp_path / "step-000010.jsonl", [episode()])


def test_decoder_gives_the_text_of_each_token(tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    decode = token_decoder(tmp_path)
    ids = tokenizer.encode("Apply zura to 37\n", add_special_tokens=False)
    assert "".join(decode(token_id) for token_id in ids) == "Apply zura to 37\n"
    assert decode(tokenizer.eos_token_id) == "<|end|>"
