"""Chat messages as token ids that are only ever appended to, each with its author."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from aipo_env import Author, Message, Piece, PolicyError, Span

_ROLES = (
    ("user", "assistant"),
    ("system", "user"),
    ("user", "assistant", "tool"),
    ("developer", "user"),
)
"""Conversations whose marks a template writes, as far as it takes them."""
_SLOTS = re.compile(r"⟦(\d+)⟧")
"""Placeholders, as `_slot` writes them."""
_NO_MATCH = "(?!)"
"""A pattern that matches nowhere, the empty text included."""
_SHOWN_CHARS = 40
"""How much of what a template wrote an error shows."""


def _slot(index: int) -> str:
    """Return what stands in a rendered template for the content of a message."""
    return f"⟦{index}⟧"


def _is_written_by(mark: str, template: str) -> bool:
    """Return whether a template writes an added token, by its text.

    Letters and digits alone are no mark: words of the template's prose would be some.
    """
    return bool(mark) and not mark.isalnum() and mark in template


@dataclass(frozen=True)
class ChatFormat:
    """A tokenizer's chat template, taken apart so that every token has an author.

    The template is rendered around placeholders and split at them. Template text may
    become control tokens, and so may the marks that the environment puts around a
    reply; the content of messages never does, whatever it looks like, so that no text
    can open a turn, or a thought, of its own.

    Control tokens are those that the tokenizer says are special, and every added token
    that the template writes: many tokenizers do not call their role marks, `<think>` or
    `<tool_response>` special. Added tokens that are nothing but blanks are none.

    Args:
        tokenizer: With a chat template.

    Raises:
        PolicyError: The template loses a message or rewrites earlier turns.
    """

    tokenizer: PreTrainedTokenizerBase

    def prompt(self, messages: Sequence[Message]) -> list[Piece]:
        """Return the prompt's pieces, up to where the policy begins to write."""
        roles = [message.role for message in messages]
        spans = [message.spans for message in messages]
        if roles[0] == "system" and not self._takes_system:
            # What the system would say stands before what the user says.
            blank_line = Span("\n\n", Author.PROMPT)
            system_and_user = (*spans[0], blank_line, *spans[1])
            roles = roles[1:]
            spans = [system_and_user, *spans[2:]]
        rendered = self._render(roles, add_generation_prompt=True)
        return self._pieces(rendered, spans)

    def suffix(self, message: Message, *, ended: bool) -> list[Piece]:
        """Return what follows the policy's turn: its end, the message, a new turn.

        Args:
            message: What came back.
            ended: Whether the turn wrote its end itself, which then is left out here.
        """
        text = self._suffix
        if ended:
            text = text.removeprefix(self._end_text)
        # The first two messages come before the suffix.
        return self._pieces(text, [(), (), message.spans])

    def written(self, message: Message, *, ended: bool) -> list[Piece]:
        """Return a turn of the policy that is known by its text.

        Args:
            message: The turn.
            ended: Whether the policy wrote its end, which then is among the pieces.
        """
        pieces = [(self._ids(span), span) for span in message.spans]
        if ended:
            end = self._encode(self._end_text, special=True)
            if not end:
                end = [int(self.tokenizer.eos_token_id)]
            pieces.append((end, Span(self._end_text, Author.POLICY)))
        return _without_empty(pieces)

    def end_ids(self) -> set[int]:
        """Return the tokens that end a turn.

        They are the tokenizer's end token, and the template's if it has its own.
        """
        ends = {int(self.tokenizer.eos_token_id)}
        if self._end_text:
            own = self.tokenizer.convert_tokens_to_ids(self._end_text)
            if isinstance(own, int):
                ends.add(int(own))
        return ends

    @cached_property
    def _end_text(self) -> str:
        """The special token with which the template closes the policy's turn.

        "" if it closes with none.
        """
        ids = self._encode(self._suffix, special=True)
        if not ids or ids[0] not in self.tokenizer.all_special_ids:
            return ""
        first = str(self.tokenizer.decode(ids[:1]))
        # The tokenizer may put a token of its own before every text.
        return first if self._suffix.startswith(first) else ""

    @cached_property
    def _takes_system(self) -> bool:
        """Whether the template shows a system turn: some drop it without a word."""
        roles = ["system", "user"]
        try:
            return _slot(0) in self._render(roles, add_generation_prompt=True)
        # Templates refuse a system turn by raising whatever they like.
        except Exception:
            return False

    @cached_property
    def _suffix(self) -> str:
        """What the template writes from the end of the policy's turn to the next one.

        `_slot(2)` stands in it for the message between them.
        """
        opened = self._render(["user"], add_generation_prompt=True)
        whole = self._render(["user", "assistant", "user"], add_generation_prompt=True)
        before = opened + _slot(1)
        if not whole.startswith(before):
            instead = whole[len(opened) : len(opened) + _SHOWN_CHARS]
            raise PolicyError(
                f"the chat template of {self.tokenizer.name_or_path!r} rewrites earlier"
                f" turns when one is added (after {opened!r} comes"
                f" {instead!r}). Use a template that only"
                " appends."
            )
        return whole[len(before) :]

    def _render(self, roles: Sequence[str], *, add_generation_prompt: bool) -> str:
        """Return what the template writes around slots for messages of some roles."""
        messages = [
            {"role": role, "content": _slot(index)} for index, role in enumerate(roles)
        ]
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except Exception as error:
            raise PolicyError(
                f"the chat template of {self.tokenizer.name_or_path!r} refuses a"
                f" conversation of {', '.join(roles)}: {error}. Use a template that"
                " takes it."
            ) from error
        return str(text)

    def _pieces(self, rendered: str, spans: Sequence[Sequence[Span]]) -> list[Piece]:
        """Return template text and, where it has slots, the spans of the messages."""
        pieces: list[Piece] = []
        # Split at a pattern with one group: text, number of a slot, text, ..., text.
        for position, part in enumerate(_SLOTS.split(rendered)):
            is_slot = position % 2 == 1
            if is_slot:
                message_spans = spans[int(part)]
                pieces += [(self._ids(span), span) for span in message_spans]
            elif part:
                ids = self._encode(part, special=True)
                pieces.append((ids, Span(part, Author.TEMPLATE)))
        return _without_empty(pieces)

    def _ids(self, span: Span) -> list[int]:
        """Return a span's tokens.

        They are those that its author sampled, if these are all of the text and nothing
        else; a text has many tokenisations, and only that one was drawn.
        """
        is_policys = span.author == Author.POLICY
        barred = self._special_ids if is_policys else self._control_ids
        sampled = list(span.token_ids)
        # The end token was sampled, and is no part of the text.
        while sampled and sampled[-1] in barred:
            sampled.pop()
        # An agent of another model has ids that mean something else here, or nothing.
        is_readable = (
            sampled
            and barred.isdisjoint(sampled)
            and max(sampled) < len(self.tokenizer)
        )
        if is_readable:
            text = self.tokenizer.decode(sampled, skip_special_tokens=False)
            if text == span.text:
                return sampled
        if is_policys:  # whose marks of a thought are its own
            return self._encode(span.text, special=False)
        # The marks that the environment puts around a reply belong to a call. What it
        # says of a malformed turn belongs to none, and may name a mark.
        is_of_env = span.author == Author.ENV and not span.is_content
        if is_of_env and span.call_id >= 0:
            return self._encode(span.text, special=True)
        return self._plain(span.text)

    @cached_property
    def _special_ids(self) -> set[int]:
        """The tokens that the tokenizer calls special, by either of its lists."""
        special = set(self.tokenizer.all_special_ids)
        for token_id, token in self.tokenizer.added_tokens_decoder.items():
            if token.special:
                special.add(token_id)
        return special

    @cached_property
    def _control_ids(self) -> set[int]:
        """The tokens that no content of a message may become."""
        added = self.tokenizer.added_tokens_decoder
        # A template may put a mark together from parts, and may have marks that this
        # conversation needs none of: what it writes is looked at, and its own text.
        rendered = [self._marks_of(roles) for roles in _ROLES]
        template = "".join([str(self.tokenizer.chat_template), *rendered])
        control = set(self._special_ids)
        for token_id, token in added.items():
            if _is_written_by(token.content.strip(), template):
                control.add(token_id)
        # The tokenizer may make a mark of what the template spells otherwise. Blanks
        # are none: many tokenizers have tokens for runs of them.
        written = {
            token_id
            for text in rendered
            for token_id in self._encode(text, special=True)
            if token_id in added and added[token_id].content.strip()
        }
        words = {one for one in written if added[one].content.strip().isalnum()}
        control |= written - words
        # A word opens turns by itself only where no mark does: elsewhere it is prose,
        # as the names of the roles are.
        if written <= words:
            control |= words
        return control

    def _marks_of(self, roles: Sequence[str]) -> str:
        """Return what the template writes around some roles; "" if it refuses them."""
        try:
            return self._render(roles, add_generation_prompt=True)
        except PolicyError:
            return ""

    def _plain(self, text: str) -> list[int]:
        """Return the tokens of content, none of them a control token."""
        ids = self._split(text)
        if self._control_ids.isdisjoint(ids):
            return ids
        # The vocabulary itself, beside the added tokens, has a mark: its characters one
        # by one are none.
        ids = []
        for position, part in enumerate(self._control_marks.split(text)):
            is_mark = position % 2 == 1
            ids += self._one_by_one(part) if is_mark else self._split(part)
        if self._control_ids.isdisjoint(ids):
            return ids
        # Or it has one by another spelling than its own, such as a blank before it.
        return self._one_by_one(text)

    def _one_by_one(self, text: str) -> list[int]:
        """Return the tokens of each character alone, without control tokens."""
        ids = [token_id for char in text for token_id in self._split(char)]
        # A mark of one character is left out: there is no other way to write it.
        return [token_id for token_id in ids if token_id not in self._control_ids]

    @cached_property
    def _control_marks(self) -> re.Pattern[str]:
        """A pattern for the text of any control token, as one group."""
        texts = [str(self.tokenizer.decode([each])) for each in self._control_ids]
        # The longest first: of two that begin alike, an alternation takes the first.
        marks = sorted(filter(None, texts), key=len, reverse=True)
        alternatives = "|".join(map(re.escape, marks))
        return re.compile(f"({alternatives or _NO_MATCH})")

    def _split(self, text: str) -> list[int]:
        """Return a text's tokens; control marks in it are split like any other text."""
        if self._control_ids == self._special_ids:
            return self._encode(text, special=False)
        return list(self._plain_backend.encode(text, add_special_tokens=False).ids)

    @cached_property
    def _plain_backend(self) -> Tokenizer:
        """The tokenizer with every control token a special one.

        Special tokens are those that it can be told to split like any other text.

        Raises:
            PolicyError: It is written in Python, and so cannot be made from its JSON.
        """
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise PolicyError(
                f"the tokenizer of {self.tokenizer.name_or_path!r} has control tokens"
                " that it does not call special, and is no fast one, so text could"
                " forge them. Use its fast tokenizer (tokenizer.json)."
            )
        described = json.loads(backend.to_str())
        for token in described["added_tokens"]:
            if token["id"] in self._control_ids:
                token["special"] = True
        plain = Tokenizer.from_str(json.dumps(described))
        plain.encode_special_tokens = True
        # Both may have been set, and would cut or lengthen content.
        plain.no_truncation()
        plain.no_padding()
        return plain

    def _encode(self, text: str, *, special: bool) -> list[int]:
        """Return the tokens of a text; special ones only where `special` lets it."""
        options: dict[str, Any] = {
            # None is put before or behind by the tokenizer: pieces are only parts.
            "add_special_tokens": False,
            "split_special_tokens": not special,
        }
        return list(self.tokenizer.encode(text, **options))


def _without_empty(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the pieces that have tokens."""
    return [piece for piece in pieces if piece[0]]
