"""What a chat template writes, as text: around messages, and between turns.

A template is a program that writes a whole conversation. It is looked at from outside:
rendered around placeholders, and split at them.
"""

import datetime
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from aipo_env import PolicyError
from aipo_learner.policy.chat import choose_template

PROMPT_DATE = datetime.datetime(2025, 1, 1)
"""What a template that asks for today's date is told.

The prompts of a run, and those of two evaluations, are then the same on every day.
"""
_DIRECTIVES = [f"%-{letter}" for letter in "dmHIMSj"] + [
    f"%{letter}" for letter in "aAwdbBmyYHIpMSfjUWcxXGuVDFTReh"
]
"""What a format of a date may ask for; those with a minus first, as the longer."""
_SLOTS = re.compile(r"⟦(\d+)⟧")
"""Placeholders, as `_slot` writes them."""
_SHOWN_CHARS = 40
"""How much of what a template wrote an error shows."""
_BLANKS = "\n \t"
"""What is put around a placeholder to see whether the template takes it away."""
_NASTY = '"\\\n<é>&'
"""Characters that a template may write in another way."""


def _slot(index: int) -> str:
    """Return what stands in a rendered template for the content of a message."""
    return f"⟦{index}⟧"


def _date_macro() -> str:
    """Return what stands before a template: its function for dates, of a fixed date.

    It is written in the template's own language, since transformers passes no functions
    on to templates.
    """
    filters = "".join(
        f" | replace('{directive}', '{PROMPT_DATE.strftime(directive)}')"
        for directive in _DIRECTIVES
    )
    macro = "{%- macro strftime_now(format) -%}{{ format" + filters + " }}"
    # The empty text keeps a newline with which a template may begin.
    return macro + "{%- endmacro %}{{ '' }}"


class Shaping(NamedTuple):
    """What a template does to the content of a message.

    Args:
        left: Blanks that it takes away before it, as for `str.lstrip`.
        right: The same behind it.
        is_json: Whether it writes it as the inside of a JSON string.
    """

    left: str | None = ""
    right: str | None = ""
    is_json: bool = False

    def apply(self, texts: Sequence[str]) -> list[str]:
        """Return the parts of a content as the template writes them."""
        shaped = list(texts)
        for place, text in enumerate(shaped):
            shaped[place] = text.lstrip(self.left)
            if shaped[place]:
                break
        for place in reversed(range(len(shaped))):
            shaped[place] = shaped[place].rstrip(self.right)
            if shaped[place]:
                break
        if self.is_json:
            # The quotes at both ends are the template's.
            return [json.dumps(text, ensure_ascii=False)[1:-1] for text in shaped]
        return shaped


_STRIPPED = ("", "\n", " ", " \n", None)
"""What templates take away at an end, as for `str.strip`; None is any blanks."""
_SHAPINGS = [
    Shaping(left, right, is_json)
    for is_json, left, right in product((False, True), _STRIPPED, _STRIPPED)
]
"""What templates do to contents, the least first."""


class Between(NamedTuple):
    """What a template writes from the end of the policy's turn to its next one.

    Args:
        before: Up to the message that came back.
        after: Behind it.
    """

    before: str
    after: str


@dataclass(frozen=True)
class ChatTemplate:
    """The chat template of a tokenizer.

    Args:
        tokenizer: With a chat template.
    """

    tokenizer: PreTrainedTokenizerBase

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"the chat template of {self.tokenizer.name_or_path!r}"

    @cached_property
    def text(self) -> str:
        """The template that conversations without tools are written by."""
        return choose_template(self.tokenizer)

    @cached_property
    def _dated_text(self) -> str:
        return _date_macro() + self.text if "strftime_now" in self.text else self.text

    @cached_property
    def takes_system(self) -> bool:
        """Whether the template shows a system turn: some drop it without a word."""
        roles = ["system", "user"]
        try:
            return _slot(0) in self.render(roles, add_generation_prompt=True)
        # Templates refuse a system turn by raising whatever they like.
        except Exception:
            return False

    def opening(self, roles: Sequence[str]) -> list[str]:
        """Return what is written around the messages of a prompt, in order.

        The last part ends where the policy begins to write.

        Raises:
            PolicyError: The template loses a message, or writes one twice.
        """
        key = tuple(roles)
        if key not in self._openings:
            self._openings[key] = self._find_opening(roles)
        return self._openings[key]

    @cached_property
    def _openings(self) -> dict[tuple[str, ...], list[str]]:
        """What was found, by the roles of all messages."""
        return {}

    def _find_opening(self, roles: Sequence[str]) -> list[str]:
        rendered = self.render(roles, add_generation_prompt=True)
        parts = _SLOTS.split(rendered)
        # Split at a pattern with one group: text, number of a slot, text, ..., text.
        slots = [int(number) for number in parts[1::2]]
        if slots != list(range(len(roles))):
            raise PolicyError(
                f"{self.name} does not write each message of a conversation of"
                f" {', '.join(roles)} once and in order, but {slots}. Give another:"
                " --chat-template FILE."
            )
        return parts[::2]

    def opening_of(self, turns: Sequence[tuple[str, str]]) -> list[str] | None:
        """Return what is written around and in the messages of a prompt, in order.

        A template may look at contents and write other text around them, or leave a
        word of theirs out. None where one is not written once, or they are not in
        order.

        Args:
            turns: Roles and contents.

        Returns:
            The text before the first content, that content, the text behind it, ...,
            the text behind the last. What is taken away at the ends of a content still
            stands there.

        Raises:
            PolicyError: The template refuses the prompt.
        """
        marked = [
            (role, f"{_slot(2 * number)}{content}{_slot(2 * number + 1)}")
            for number, (role, content) in enumerate(turns)
        ]
        parts = _SLOTS.split(self.write(marked))
        slots = [int(number) for number in parts[1::2]]
        return parts[::2] if slots == list(range(2 * len(turns))) else None

    def between(self, roles: Sequence[str], role: str) -> Between:
        """Return what is written between two turns of the policy.

        It is looked up after the first time: episodes have the same roles.

        Args:
            roles: Of all messages before the first of the two turns.
            role: Of the message between them.

        Raises:
            PolicyError: The template loses a turn, or rewrites what it wrote before.
        """
        key = (tuple(roles), role)
        if key not in self._betweens:
            self._betweens[key] = self._find_between(roles, role)
        return self._betweens[key]

    @cached_property
    def _betweens(self) -> dict[tuple[tuple[str, ...], str], Between]:
        """What was found, by the roles of all messages."""
        return {}

    def _find_between(self, roles: Sequence[str], role: str) -> Between:
        whole = self.render([*roles, "assistant", role], add_generation_prompt=True)
        turn, answer = _slot(len(roles)), _slot(len(roles) + 1)
        _, _, behind = whole.partition(turn)
        is_moved = not self._is_kept(roles, whole) or len(_SLOTS.findall(behind)) != 1
        if is_moved and roles[0] == "system":
            # Some put the system's words into the last of the user's turns. They stay
            # where the prompt had them.
            return self.between(roles[1:], role)
        if turn not in whole or answer not in behind:
            raise PolicyError(
                f"{self.name} leaves a turn out of a conversation of"
                f" {', '.join([*roles, 'assistant', role])}. Give another:"
                " --chat-template FILE."
            )
        if is_moved:
            raise PolicyError(
                f"{self.name} rewrites earlier turns when one is added (a conversation"
                f" of {', '.join(roles)} begins otherwise when it goes on:"
                f" {whole[:_SHOWN_CHARS]!r}). Use a template that only appends:"
                " --chat-template FILE."
            )
        return Between(*behind.split(answer))

    def _is_kept(self, roles: Sequence[str], whole: str) -> bool:
        """Return whether a longer conversation begins as one of these roles alone.

        Some open the policy's turn otherwise when they ask for it, as with a thought;
        others write an end of text when they do not.
        """
        return any(
            whole.startswith(self.render(roles, add_generation_prompt=is_asked))
            for is_asked in (True, False)
        )

    @cached_property
    def end(self) -> str:
        """What is written behind a turn of the policy that is the last of all."""
        try:
            whole = self.render(["user", "assistant"], add_generation_prompt=False)
        except PolicyError:
            return ""
        return whole.partition(_slot(1))[2]

    @cached_property
    def lead(self) -> str:
        """What is written before the content of the policy's turn, as part of it.

        It stands in turns of the history, and not where the policy begins to write: the
        blank of "[/INST] answer", or the name of a channel.
        """
        opened = self.render(["user"], add_generation_prompt=True)
        whole = self.render(["user", "assistant", "user"], add_generation_prompt=True)
        before = whole.partition(_slot(1))[0]
        # Else the turn is opened otherwise, as where thoughts are asked for.
        return before.removeprefix(opened) if before.startswith(opened) else ""

    @cached_property
    def generation_prompt(self) -> str:
        """What asks the policy for its turn."""
        opened = self.render(["user"], add_generation_prompt=True)
        return opened.removeprefix(self.render(["user"], add_generation_prompt=False))

    def shaping(self, roles: Sequence[str], place: int) -> Shaping:
        """Return what the template does to the content of a message.

        It may depend on the others: some write the system's words and the user's as one
        content.

        Args:
            roles: Of all messages of a conversation.
            place: Number of the message among them.

        Raises:
            PolicyError: It is nothing that we know how to do.
        """
        key = (tuple(roles), place)
        if key not in self._shapings:
            self._shapings[key] = self._find_shaping(roles, place)
        return self._shapings[key]

    @cached_property
    def _shapings(self) -> dict[tuple[tuple[str, ...], int], Shaping]:
        """What was found, by roles and place."""
        return {}

    def _find_shaping(self, roles: Sequence[str], place: int) -> Shaping:
        content = f"{_BLANKS}{_NASTY}{_slot(place)}{_NASTY}{_BLANKS[::-1]}"
        turns = [(role, _slot(index)) for index, role in enumerate(roles)]
        plain = self.write(turns)
        turns[place] = (roles[place], content)
        shaped = self.write(turns)
        before, _, behind = plain.partition(_slot(place))
        for shaping in _SHAPINGS:
            [text] = shaping.apply([content])
            if shaped == f"{before}{text}{behind}":
                return shaping
        raise PolicyError(
            f"{self.name} changes what messages say: of {content!r} it makes"
            f" {shaped[len(before) :][:_SHOWN_CHARS]!r}. Give another:"
            " --chat-template FILE."
        )

    def render(self, roles: Sequence[str], *, add_generation_prompt: bool) -> str:
        """Return what the template writes around slots for messages of some roles.

        Raises:
            PolicyError: It refuses such a conversation.
        """
        turns = [(role, _slot(index)) for index, role in enumerate(roles)]
        return self.write(turns, add_generation_prompt=add_generation_prompt)

    def write(
        self, turns: Sequence[tuple[str, str]], *, add_generation_prompt: bool = True
    ) -> str:
        """Return a conversation as the template writes it.

        Args:
            turns: Roles and contents.
            add_generation_prompt: Whether the policy is asked for its turn.

        Raises:
            PolicyError: The template refuses it.
        """
        return self._write(
            [(role, self._as_content(content)) for role, content in turns],
            add_generation_prompt,
        )

    def _as_content(self, text: str) -> Any:
        """Return a text as the template wants the content of a message."""
        return [{"type": "text", "text": text}] if self._wants_parts else text

    @cached_property
    def _wants_parts(self) -> bool:
        """Whether it loses a content that is a text, and takes one that is a list.

        Those of models that see images do.
        """
        for content in (_slot(0), [{"type": "text", "text": _slot(0)}]):
            try:
                text = self._write([("user", content)], True)
            except PolicyError:
                continue
            if _slot(0) in text:
                return not isinstance(content, str)
        return False

    def _write(
        self, turns: Sequence[tuple[str, Any]], add_generation_prompt: bool
    ) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                [{"role": role, "content": content} for role, content in turns],
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                chat_template=self._dated_text,
            )
        except Exception as error:
            roles = ", ".join(role for role, _ in turns)
            raise PolicyError(
                f"{self.name} refuses a conversation of {roles}: {error}. Use a"
                " template that takes it: --chat-template FILE."
            ) from error
        return str(text)
