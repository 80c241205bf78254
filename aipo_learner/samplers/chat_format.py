"""How chat messages become token ids that are only ever appended to, each with its
author.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from aipo_env import Author, Message, Piece, PolicyError, Span


def _slot(index: int) -> str:
    return f"⟦{index}⟧"


def _stands_in(mark: str, template: str) -> bool:
    return bool(mark) and not mark.isalnum() and mark in template


_ROLES = (
    ("user", "assistant"),
    ("system", "user"),
    ("user", "assistant", "tool"),
    ("developer", "user"),
)
"""Conversations whose marks a template writes, as far as it takes them."""
_SLOTS = re.compile(r"⟦(\d+)⟧")


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

    Raises:
        PolicyError: The template loses a message or rewrites earlier turns.
    """

    tokenizer: PreTrainedTokenizerBase

    def prompt(self, messages: Sequence[Message]) -> list[Piece]:
        """Return the prompt's pieces, up to where the policy begins to write."""
        spans = [message.spans for message in messages]
        roles = [message.role for message in messages]
        if roles[0] == "system" and not self._takes_system:
            spans = [(*spans[0], Span("\n\n", Author.PROMPT), *spans[1]), *spans[2:]]
            roles = roles[1:]
        return self._pieces(self._render(roles, add_generation_prompt=True), spans)

    def suffix(self, message: Message, *, ended: bool) -> list[Piece]:
        """Return what follows the policy's turn: its end unless it `ended` by itself,
        the message, a new turn.
        """
        text = self._suffix
        if ended:
            text = text.removeprefix(self._end_text)
        return self._pieces(text, [(), (), message.spans])

    def written(self, message: Message, *, ended: bool) -> list[Piece]:
        """Return a turn of the policy that is known by its text; where it `ended` by
        itself, its end token too.
        """
        pieces = [(self._ids(span), span) for span in message.spans]
        if ended:
            end = self._encode(self._end_text, special=True) or [
                int(self.tokenizer.eos_token_id)
            ]
            pieces.append((end, Span(self._end_text, Author.POLICY)))
        return [piece for piece in pieces if piece[0]]

    def end_ids(self) -> set[int]:
        """Return the tokens that end a turn: the tokenizer's end token, and the
        template's if it has its own.
        """
        own = (
            self.tokenizer.convert_tokens_to_ids(self._end_text)
            if self._end_text
            else None
        )
        return {int(self.tokenizer.eos_token_id)} | (
            {int(own)} if isinstance(own, int) else set()
        )

    @cached_property
    def _end_text(self) -> str:
        """The special token with which the template closes the policy's turn, "" if it
        closes with none.
        """
        ids = self._encode(self._suffix, special=True)
        first = str(self.tokenizer.decode(ids[:1])) if ids else ""
        is_special = bool(ids) and ids[0] in self.tokenizer.all_special_ids
        return first if is_special and self._suffix.startswith(first) else ""

    @cached_property
    def _takes_system(self) -> bool:
        try:
            return _slot(0) in self._render(
                ["system", "user"], add_generation_prompt=True
            )
        except (
            Exception
        ):  # templates refuse a system turn by raising whatever they like
            return False

    @cached_property
    def _suffix(self) -> str:
        opened = self._render(["user"], add_generation_prompt=True)
        whole = self._render(["user", "assistant", "user"], add_generation_prompt=True)
        if not whole.startswith(opened + _slot(1)):
            raise PolicyError(
                f"the chat template of {self.tokenizer.name_or_path!r} rewrites earlier"
                f" turns when one is added (after {opened!r} comes"
                f" {whole[len(opened) : len(opened) + 40]!r}). Use a template that only"
                " appends."
            )
        return whole[len(opened + _slot(1)) :]

    def _render(self, roles: Sequence[str], *, add_generation_prompt: bool) -> str:
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
        pieces: list[Piece] = []
        for index, text in enumerate(_SLOTS.split(rendered)):
            if index % 2:
                pieces += [(self._ids(span), span) for span in spans[int(text)]]
            elif text:
                pieces.append(
                    (self._encode(text, special=True), Span(text, Author.TEMPLATE))
                )
        return [piece for piece in pieces if piece[0]]

    def _ids(self, span: Span) -> list[int]:
        """Return a span's tokens: those its author sampled, if they are all of the text
        and nothing else.
        """
        is_policys = span.author == Author.POLICY
        barred = self._special_ids if is_policys else self._control_ids
        sampled = list(span.token_ids)
        while sampled and sampled[-1] in barred:
            sampled.pop()
        is_known = (
            sampled
            and barred.isdisjoint(sampled)
            and max(sampled) < len(self.tokenizer)
        )
        if (
            is_known
            and self.tokenizer.decode(sampled, skip_special_tokens=False) == span.text
        ):
            return sampled
        if is_policys:  # whose marks of a thought are its own
            return self._encode(span.text, special=False)
        # What is told of a malformed turn belongs to no call, and may name a mark.
        is_of_env = span.author == Author.ENV and not span.is_content
        if is_of_env and span.call_id >= 0:
            return self._encode(span.text, special=True)
        return self._plain(span.text)

    @cached_property
    def _special_ids(self) -> set[int]:
        added = self.tokenizer.added_tokens_decoder.items()
        return {
            *self.tokenizer.all_special_ids,
            *(token_id for token_id, token in added if token.special),
        }

    @cached_property
    def _control_ids(self) -> set[int]:
        added = self.tokenizer.added_tokens_decoder
        # A template may put a mark together from parts, and may have marks that this
        # conversation needs none of.
        rendered = [self._marks_of(roles) for roles in _ROLES]
        template = "".join([str(self.tokenizer.chat_template), *rendered])
        control = set(self._special_ids)
        for token_id, token in added.items():
            if _stands_in(token.content.strip(), template):
                control.add(token_id)
        # The tokenizer may make a mark of what the template spells otherwise. Blanks
        # are none: many tokenizers have tokens for runs of them.
        for text in rendered:
            for token_id in self._encode(text, special=True):
                if token_id in added and added[token_id].content.strip():
                    control.add(token_id)
        return control

    def _marks_of(self, roles: Sequence[str]) -> str:
        """Return what the template writes around messages of some roles; nothing if it
        takes none such.
        """
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
        for index, part in enumerate(self._control_marks.split(text)):
            ids += self._split(part) if index % 2 == 0 else self._one_by_one(part)
        if self._control_ids.isdisjoint(ids):
            return ids
        return self._one_by_one(text)

    def _one_by_one(self, text: str) -> list[int]:
        """Return the tokens of each character alone, without control tokens."""
        ids = [token_id for char in text for token_id in self._split(char)]
        return [token_id for token_id in ids if token_id not in self._control_ids]

    @cached_property
    def _control_marks(self) -> re.Pattern[str]:
        """A pattern for the text of any control token, as one group."""
        decoded = (str(self.tokenizer.decode([one])) for one in self._control_ids)
        marks = sorted(filter(None, decoded), key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, marks)) or '(?!)'})")

    def _split(self, text: str) -> list[int]:
        """Return the tokens of a text in which every added control token is split like
        any other text.
        """
        if self._control_ids == self._special_ids:
            return self._encode(text, special=False)
        return list(self._plain_backend.encode(text, add_special_tokens=False).ids)

    @cached_property
    def _plain_backend(self) -> Tokenizer:
        """The tokenizer with every control token a special one, which it splits like
        any other text.
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
            token["special"] = token["special"] or token["id"] in self._control_ids
        plain = Tokenizer.from_str(json.dumps(described))
        plain.encode_special_tokens = True
        plain.no_truncation()
        plain.no_padding()
        return plain

    def _encode(self, text: str, *, special: bool) -> list[int]:
        options: dict[str, Any] = {
            "add_special_tokens": False,
            "split_special_tokens": not special,
        }
        return list(self.tokenizer.encode(text, **options))
