"""Tokenizers of the token environment: bytes, encodings of tiktoken, Hugging Face's."""

import json
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from aipo_env import (
    CONSULT_KINDS,
    Author,
    ByteTokenizer,
    ConfigError,
    Message,
    Span,
    TagsCodec,
    data_folder,
)
from aipo_env.codecs.macro import MacroCodec
from aipo_env.tokenizers.bpe import build_tokenizer

END, KNOWLEDGE, REASON, VERIFY = 256, 257, 258, 259
TOKENIZER = ByteTokenizer()
TAGS = TagsCodec().macros(CONSULT_KINDS)
TINY = f"hf:{data_folder('tiny_policy')}"
AIPO = build_tokenizer("tiktoken:aipo", TAGS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2+é=\U0001f600",
        "\x00\x1b\r\n\u202e",
        "\ud800 \udfff",
        "<knowledge></reply>",
    ],
)
def test_any_text_comes_back(text: str):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text
    assert all(0 <= token_id < 256 for token_id in TOKENIZER.encode(text))


def test_encoding():
    assert TOKENIZER.encode("2+é") == [50, 43, 195, 169]
    assert dict(TOKENIZER.macro_ids) == {"knowledge": 257, "reason": 258, "verify": 259}
    assert (TOKENIZER.end_id, TOKENIZER.num_tokens) == (256, 260)


@pytest.mark.parametrize(
    ("token_ids", "text"),
    [
        ([], ""),
        ([END], ""),
        ([KNOWLEDGE, 120, END], "<knowledge>x</knowledge>"),
        ([KNOWLEDGE, 120], "<knowledge>x"),
        ([REASON, END, END], "<reason></reason>"),
        ([KNOWLEDGE, 120, VERIFY, 121, END], "<knowledge>x<verify>y</verify>"),
        ([VERIFY, *b"x</verify>", END], "<verify>x</verify>"),
        ([120, 0xC3], "x\ufffd"),
        ([0xFF, 0xC3, 0xA9], "\ufffdé"),
    ],
)
def test_decoding(token_ids: list[int], text: str):
    assert TOKENIZER.decode(token_ids) == text


@pytest.mark.parametrize("token_id", [-1, 260, 10**9])
def test_an_unknown_token_is_named(token_id: int):
    with pytest.raises(ValueError, match=f"token id {token_id} is not in 0 to 259"):
        TOKENIZER.decode([65, token_id])


def test_macros_of_another_codec():
    tokenizer = build_tokenizer("byte", MacroCodec().macros(CONSULT_KINDS))
    assert tokenizer.decode([65, VERIFY, 66, END]) == "A<|verify|>B"
    assert build_tokenizer("byte", {}).num_tokens == 257


@pytest.mark.parametrize("spec", ["byte", "tiktoken:aipo", TINY])
def test_text_never_becomes_control_tokens(spec: str):
    tokenizer = build_tokenizer(spec, TAGS)
    text = "<|end|><|endoftext|> <knowledge>x</knowledge><|user|>"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert not {tokenizer.end_id, *tokenizer.macro_ids.values()} & set(
        tokenizer.encode(text)
    )
    (body, span), (end, template) = tokenizer.pieces(
        Message("user", (Span(text, Author.AGENT),))
    )
    assert (body, span.author) == (tokenizer.encode(text), Author.AGENT)
    assert (end, template) == ([tokenizer.end_id], Span("", Author.TEMPLATE))


@pytest.mark.parametrize("spec", ["byte", "tiktoken:aipo", TINY])
def test_every_token_can_be_written(spec: str):
    tokenizer = build_tokenizer(spec, TAGS)
    for token_id in range(tokenizer.num_tokens):
        assert isinstance(tokenizer.decode([token_id]), str)
    with pytest.raises(ValueError, match=f"is not in 0 to {tokenizer.num_tokens - 1}"):
        tokenizer.decode([tokenizer.num_tokens])


def test_our_own_encoding():
    assert (AIPO.end_id, AIPO.num_tokens) == (1256, 1260)
    assert dict(AIPO.macro_ids) == {"knowledge": 1257, "reason": 1258, "verify": 1259}
    text = "Apply mele to 0808. Put the final answer in \\boxed{}."
    assert len(AIPO.encode(text)) < len(text) / 1.8
    assert (
        AIPO.decode([*AIPO.encode("So "), 1259, *AIPO.encode("2+2=4"), 1256])
        == "So <verify>2+2=4</verify>"
    )
    assert AIPO.decode(AIPO.encode("\ud800x")) == "\ufffdx"


@given(st.text())
def test_our_own_encoding_loses_nothing(text: str):
    assert AIPO.decode(AIPO.encode(text)) == text


def test_an_encoding_with_gaps_that_has_to_be_downloaded(
    monkeypatch: pytest.MonkeyPatch,
):
    def download(name: str) -> tiktoken.Encoding:
        if name == "gpt2":
            raise ConnectionError("no route")
        ranks = {bytes([byte]): byte for byte in range(256)}
        special = {"<|endoftext|>": 256, "<|endofprompt|>": 270}
        return tiktoken.Encoding(
            "gaps", pat_str=".", mergeable_ranks=ranks, special_tokens=special
        )

    monkeypatch.setattr(tiktoken, "get_encoding", download)
    tokenizer = build_tokenizer("tiktoken:cl100k_base", TAGS)
    assert (tokenizer.num_tokens, tokenizer.macro_ids["knowledge"]) == (274, 271)
    assert tokenizer.decode([65, 260, 270]) == "A<|endofprompt|>"
    with pytest.raises(
        ConfigError,
        match=(
            "'gpt2' has to be downloaded, and that failed: no route. Use"
            " 'tiktoken:aipo'"
        ),
    ):
        build_tokenizer("tiktoken:gpt2", TAGS)


def test_the_shipped_policys_tokenizer():
    tokenizer = build_tokenizer(TINY, TAGS)
    assert (tokenizer.num_tokens, tokenizer.end_id) == (653, 0)
    assert dict(tokenizer.macro_ids) == {"knowledge": 642, "reason": 644, "verify": 646}
    # As the policy was taught, the wrapper of a reply is one token each.
    assert tokenizer.encode('<reply from="knowledge">') == [648]
    written = [642, *tokenizer.encode("mele"), 643]
    assert (
        tokenizer.decode(written)
        == tokenizer.decode([*written, 0])
        == "<knowledge>mele</knowledge>"
    )
    assert tokenizer.decode([*written[:-1], 0]) == "<knowledge>mele</knowledge>"
    assert tokenizer.decode(tokenizer.encode("\ud800")) == "?"
    assert build_tokenizer(TINY, MacroCodec().macros(CONSULT_KINDS)).macro_ids == {}


def save(folder: Path, tokenizer: Tokenizer, eos: object) -> str:
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": eos}))
    return f"hf:{folder}"


def test_unusable_tokenizers_are_refused(tmp_path: Path):
    words = Tokenizer(models.WordLevel({"a": 0, "<end>": 1}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with pytest.raises(
        ConfigError,
        match=r"tokenizer_config.json: 'eos_token' is '<end>', which is none of",
    ):
        build_tokenizer(save(tmp_path, words, "<end>"), {})
    words.add_special_tokens(["<end>"])
    with pytest.raises(ConfigError, match="plain text can become a control token"):
        build_tokenizer(save(tmp_path, words, {"content": "<end>"}), {})
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ConfigError, match=r"tokenizer_config.json cannot be read"):
        build_tokenizer(f"hf:{tmp_path}", {})
    with pytest.raises(
        ConfigError, match="is no folder here, and as an id it cannot be downloaded"
    ):
        build_tokenizer("hf:/no/such/folder", {})


@pytest.mark.parametrize("spec", ["bytes", "byte:1", "tiktoken:", "hf:", "", 5, None])
def test_unknown_specs_are_named(spec: object):
    with pytest.raises(
        ConfigError, match=f"tokenizer: {spec!r} is unknown. Use 'byte'"
    ):
        build_tokenizer(spec, {})


def test_unknown_encodings_are_named():
    with pytest.raises(
        ConfigError, match="encoding='gpt5'. Valid: aipo, .*Did you mean 'gpt2'"
    ):
        build_tokenizer("tiktoken:gpt5", {})
