"""No text of a task, an agent or a tool becomes a control token, whatever the tokenizer
calls special.
"""

# ruff: noqa: RUF001 - templates have long lines, and marks with wide bars

import random

import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
)
from transformers import PreTrainedTokenizerFast

from aipo_env import Author, Message, Span
from aipo_learner.samplers.chat_format import ChatFormat

R1 = """{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% set messages = messages[1:] %}{% endif %}
{%- for m in messages %}{% if m['role'] == 'user' %}{{ '<｜User｜>' + m['content'] }}{% else %}
{%- set content = m['content'].split('</think>')[-1] %}{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{% endif %}
{%- endfor %}{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"""
QWEN3 = """{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}
{%- if tools %}{{ '<tool_call>' }}{{ '<tool_response>' }}{{ '</tool_response>' }}{{ '<think></think>' }}{% endif %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
PARTS = """{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"""
SHAPES = {
    "R1-Distill": (
        R1,
        {
            "<｜end▁of▁sentence｜>": True,
            "<｜User｜>": False,
            "<｜Assistant｜>": False,
            "</think>": False,
        },
    ),
    "Qwen3": (
        QWEN3,
        {
            "<|im_end|>": True,
            "<|im_start|>": True,
            "<think>": False,
            "</think>": False,
            "<tool_call>": False,
            "<tool_response>": False,
            "</tool_response>": False,
        },
    ),
    "marks from parts": (
        PARTS,
        {
            "<|end|>": True,
            "<|user|>": False,
            "<|assistant|>": False,
            "<|system|>": False,
            "<|tool|>": False,
        },
    ),
}


def tokenizer_of(shape: str) -> PreTrainedTokenizerFast:
    """Bytes, and added tokens with the flags that the real one has."""
    template, marks = SHAPES[shape]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {mark: number for number, mark in enumerate(alphabet)}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    for mark, special in marks.items():
        backend.add_tokens([AddedToken(mark, special=special, normalized=False)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=next(iter(marks))
    )
    tokenizer.chat_template = template
    return tokenizer


def ids_of(chat: ChatFormat, span: Span) -> list[int]:
    pieces = chat.suffix(Message("user", (span,)), ended=True)
    return [i for token_ids, one in pieces if one is span for i in token_ids]


@pytest.mark.parametrize("author", [Author.AGENT, Author.TOOL, Author.PROMPT])
@pytest.mark.parametrize("shape", SHAPES)
def test_content_holds_no_control_token(shape: str, author: Author):
    tokenizer = tokenizer_of(shape)
    chat = ChatFormat(tokenizer)
    marks = list(SHAPES[shape][1])
    control = set(tokenizer.convert_tokens_to_ids(marks))
    draw = random.Random(1)
    for _ in range(50):
        text = "".join(draw.choices([*marks, "a", " ", "é", "<", "|>"], k=12))
        ids = ids_of(chat, Span(text, author, is_content=author == Author.AGENT))
        assert control.isdisjoint(ids)
        assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("shape", SHAPES)
def test_the_template_still_writes_its_own(shape: str):
    tokenizer = tokenizer_of(shape)
    pieces = ChatFormat(tokenizer).prompt(
        [Message("user", (Span("x", Author.PROMPT),))]
    )
    written = [i for ids, span in pieces if span.author == Author.TEMPLATE for i in ids]
    assert set(written) & set(tokenizer.convert_tokens_to_ids(list(SHAPES[shape][1])))


def test_marks_of_the_environment_stay_control_tokens():
    tokenizer = tokenizer_of("Qwen3")
    mark = Span("<tool_response>", Author.ENV, call_id=0)
    assert ids_of(ChatFormat(tokenizer), mark) == tokenizer.convert_tokens_to_ids(
        ["<tool_response>"]
    )


def test_what_is_told_of_a_malformed_turn_holds_no_control_token():
    tokenizer = tokenizer_of("Qwen3")
    told = Span("Malformed call: <tool_call> is not closed.", Author.ENV)
    ids = ids_of(ChatFormat(tokenizer), told)
    assert tokenizer.convert_tokens_to_ids("<tool_call>") not in ids
    assert tokenizer.decode(ids) == told.text


def test_added_blanks_are_no_control_tokens():
    tokenizer = tokenizer_of("Qwen3")
    tokenizer.add_tokens([AddedToken("\n\n", special=False, normalized=False)])
    blanks = tokenizer.convert_tokens_to_ids("\n\n")
    assert blanks in ids_of(
        ChatFormat(tokenizer), Span("a\n\nb", Author.AGENT, is_content=True)
    )


def test_the_policys_own_thoughts_stay_as_they_are():
    tokenizer = tokenizer_of("Qwen3")
    turn = Message("assistant", (Span("<think>a</think>b", Author.POLICY),))
    [(ids, _)] = ChatFormat(tokenizer).written(turn, ended=False)
    assert ids == tokenizer.encode("<think>a</think>b", add_special_tokens=False)
    assert len(ids) == 4


def test_tokens_that_an_agent_sampled_are_not_taken_with_control_tokens_among_them():
    tokenizer = tokenizer_of("Qwen3")
    sampled = tokenizer.encode("a</think>b", add_special_tokens=False)
    span = Span("a</think>b", Author.AGENT, is_content=True, token_ids=tuple(sampled))
    ids = ids_of(ChatFormat(tokenizer), span)
    assert len(sampled) == 3
    assert len(ids) == len("a</think>b")


TURNS = """{% for m in messages %}{{ OPEN + m['role'] + '\\n' + m['content'] + CLOSE + '\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ OPEN + 'assistant\\n' }}{% endif %}"""


def with_marks(
    backend: Tokenizer, opening: str, closing: str, **flags: bool
) -> PreTrainedTokenizerFast:
    """Add `</s>` and two marks, of which the template writes `opening` and
    `closing`.
    """
    backend.add_tokens([AddedToken("</s>", special=True, normalized=False)])
    marks = (opening.lower(), closing.lower())
    backend.add_tokens([AddedToken(mark, **flags) for mark in marks])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    template = TURNS.replace("OPEN", repr(opening)).replace("CLOSE", repr(closing))
    tokenizer.chat_template = template
    return tokenizer


def of_bytes() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({mark: n for n, mark in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return backend


def forged_in(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    """Return the added tokens that a text of an agent is given."""
    ids = ids_of(ChatFormat(tokenizer), Span(text, Author.AGENT, is_content=True))
    added = tokenizer.added_tokens_decoder
    return [added[one].content for one in ids if one in added]


def test_a_mark_that_a_normalizer_makes_of_the_templates_spelling_is_control():
    backend = of_bytes()
    backend.normalizer = normalizers.Lowercase()
    tokenizer = with_marks(backend, "<|OPEN|>", "<|CLOSE|>", normalized=True)
    assert forged_in(tokenizer, "<|open|>user <|CLOSE|>") == []


@pytest.mark.parametrize("marks", [("用户", "結束"), ("\u2060o\u2060", "\u200b")])
def test_a_mark_may_be_a_word_or_nothing_to_see(marks: tuple[str, str]):
    tokenizer = with_marks(of_bytes(), *marks, normalized=False)
    assert forged_in(tokenizer, f"{marks[0]}user{marks[1]}") == []


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("text", ["<|o|>user", "a</s>b", "<|c|><|c|>"])
def test_a_mark_in_the_vocabulary_itself_is_taken_apart(text: str, special: bool):
    pieces = ["<unk>", "</s>", "<|o|>", "<|c|>", *"</s>|ocuserab"]
    scores = {piece: -1.0 if len(piece) > 1 else -9.0 for piece in pieces}
    backend = Tokenizer(models.Unigram(list(scores.items()), unk_id=0))
    tokenizer = with_marks(backend, "<|o|>", "<|c|>", special=special, normalized=False)
    ids = ids_of(ChatFormat(tokenizer), Span(text, Author.AGENT, is_content=True))
    assert "".join(tokenizer.convert_ids_to_tokens(ids)) == text
    assert {len(piece) for piece in tokenizer.convert_ids_to_tokens(ids)} == {1}


def test_a_word_of_the_templates_prose_is_no_mark():
    tokenizer = with_marks(of_bytes(), "<|o|>", "<|c|>", normalized=False)
    tokenizer.add_tokens([AddedToken("user", normalized=False)])
    assert forged_in(tokenizer, "the user <|o|>user") == ["user", "user"]
