from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

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
from aipo_learner.reporting.token_text import texts_of_bytes, token_decoder
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
    texts = token_decoder(tmp_path)
    ids = tokenizer.encode("Apply zura to 37\n", add_special_tokens=False)
    assert "".join(text or "" for text in texts(ids)) == "Apply zura to 37\n"
    assert texts([tokenizer.eos_token_id]) == ["<|end|>"]


def test_characters_that_span_tokens_are_whole_in_a_byte_level_vocabulary(
    tmp_path: Path,
) -> None:
    tokenizer = build_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    texts = token_decoder(tmp_path)
    ids = tokenizer.encode("é中🎉", add_special_tokens=False)
    assert len(ids) == 9
    assert texts(ids) == [None, "é", None, None, "中", None, None, None, "🎉"]
    # Cut off within a character, as a limit may do.
    assert texts(ids[:4]) == [None, "é", None, "\ufffd"]
    assert texts([*ids[:1], *ids[2:5]]) == [None, "\ufffd", None, "中"]
    for text in ("数学 ∑ₙ x² – naïve", "👨‍👩‍👧 한국어\n\tमनमोहन", "a\ufffdb", ""):
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert "".join(text or "" for text in texts(ids)) == text


def test_characters_are_whole_in_a_vocabulary_that_falls_back_to_bytes(
    tmp_path: Path,
) -> None:
    names = [
        "<unk>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "▁▁▁",
        "h",
        "数",
    ]
    vocabulary = {name: number for number, name in enumerate(names)}
    backend = Tokenizer(
        models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True)
    )
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(tmp_path)
    texts = token_decoder(tmp_path)
    ids = backend.encode(" h∑数").ids
    assert texts(ids) == [" ", "h", None, None, "∑", "数"]
    assert texts([vocabulary["▁▁▁"], vocabulary["<0x0A>"]]) == ["   ", "\n"]


def test_ids_that_the_tokenizer_does_not_have_have_no_text(tmp_path: Path) -> None:
    build_tokenizer().save_pretrained(tmp_path)
    assert token_decoder(tmp_path)([2**31 - 1, 100_000]) == ["", ""]


def test_a_character_belongs_to_the_token_that_completes_it() -> None:
    # Each of the two middle tokens ends one character and begins another.
    first, second, third = (char.encode() for char in "数学中")
    tokens = [first[:2], first[2:] + second[:1], second[1:] + third[:1], third[1:]]
    assert texts_of_bytes(tokens) == [None, "数", "学", "中"]
    assert texts_of_bytes([b"\x80", b"a", b"\xff"]) == ["\ufffd", "a", "\ufffd"]
    assert texts_of_bytes([]) == []
