"""Chat messages as token ids that are only ever appended to, each with its author."""

import json
import logging
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import accumulate
from typing import Any, NamedTuple

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from aipo_env import Author, Message, Piece, PolicyError, Span
from aipo_learner.samplers.chat_template import ChatTemplate

_log = logging.getLogger("aipo_learner")
_ROLES = (
    ("user", "assistant"),
    ("system", "user"),
    ("user", "assistant", "tool"),
    ("developer", "user"),
)
"""Conversations whose marks a template writes, as far as it takes them."""
_REPLY_ROLE = "user"
"""By this role the template writes what comes back after a turn."""
_REPLY_ROLES = ("user", "assistant", _REPLY_ROLE)
"""A conversation with such a message, the last."""
_NO_MATCH = "(?!)"
"""A pattern that matches nowhere, the empty text included."""
_LETTER = "a"
"""Stands for text of the policy's: what follows it is no beginning of a text, before
which a tokenizer may put a blank.
"""


def _is_written_by(mark: str, template: str) -> bool:
    """Return whether a template writes an added token, by its text.

    Letters and digits alone are no mark: words of the template's prose would be some.
    """
    return bool(mark) and not mark.isalnum() and mark in template


class _Part(NamedTuple):
    """A part of a conversation's text.

    Args:
        text: As the template writes it, which may take blanks away.
        span: What it is of; of the template itself, one with the same text.
    """

    text: str
    span: Span

    @property
    def may_hold_marks(self) -> bool:
        """Whether control tokens may be in it.

        The marks that the environment puts around a reply belong to a call. What it
        says of a malformed turn belongs to none, and may name a mark.
        """
        span = self.span
        is_of_call = span.call_id >= 0 and not span.is_content
        is_of_env = span.author == Author.ENV and is_of_call
        return span.author == Author.TEMPLATE or is_of_env


def _template_parts(text: str) -> list[_Part]:
    return [_Part(text, Span(text, Author.TEMPLATE))] if text else []


def _joined(around: Sequence[str], contents: Sequence[list[_Part]]) -> list[_Part]:
    """Return a prompt's parts: text of the template, a content, text, ..., text."""
    parts = _template_parts(around[0])
    for content, behind in zip(contents, around[1:], strict=True):
        parts += [*content, *_template_parts(behind)]
    return parts


def _text_of(parts: Sequence[_Part]) -> str:
    return "".join(part.text for part in parts)


@cache
def _warn_of_contents(name: str, reason: str) -> None:
    """Say once of a template that a prompt is not as it would write it."""
    _log.warning(
        "%s looks at what messages say: a prompt differs from its own text (%s)."
        " Messages are written as others of their roles are. What a template is to do"
        " in another way is set by --chat-template-kwargs.",
        name,
        reason,
    )


@dataclass(frozen=True)
class ChatFormat:
    """A tokenizer's chat template, taken apart so that every token has an author.

    Template text may become control tokens, and so may the marks that the environment
    puts around a reply; the content of messages never does, whatever it looks like, so
    that no text can open a turn, or a thought, of its own. Apart from that, the tokens
    of a prompt are those of the template's own text, tokenised as a whole: each belongs
    to the author of its first character.

    Control tokens are those that the tokenizer says are special, and every added token
    that the template writes: many tokenizers do not call their role marks, `<think>` or
    `<tool_response>` special. Added tokens that are nothing but blanks are none.

    Args:
        tokenizer: With a chat template.

    Its methods raise PolicyError where the template loses a message, changes what it
    says, or rewrites earlier turns.
    """

    tokenizer: PreTrainedTokenizerBase

    @cached_property
    def template(self) -> ChatTemplate:
        """The template, as text."""
        return ChatTemplate(self.tokenizer)

    def prompt(self, messages: Sequence[Message]) -> list[Piece]:
        """Return the prompt's pieces, up to where the policy begins to write."""
        roles = self._roles([message.role for message in messages])
        contents = [message.spans for message in messages]
        if len(roles) < len(messages):
            # What the system would say stands before what the user says.
            blank_line = Span("\n\n", Author.PROMPT)
            contents = [(*contents[0], blank_line, *contents[1]), *contents[2:]]
        return self._pieces(self._prompt_parts(roles, contents))

    def _prompt_parts(
        self, roles: Sequence[str], contents: Sequence[Sequence[Span]]
    ) -> list[_Part]:
        """Return a prompt's parts, which together are the template's own text of it.

        Where that cannot be had, they are what it writes around other contents, and a
        warning says so.
        """
        around = self.template.opening(roles)
        shaped = [
            self._shaped(roles, place, each) for place, each in enumerate(contents)
        ]
        parts = _joined(around, shaped)
        texts = ["".join(span.text for span in content) for content in contents]
        turns = list(zip(roles, texts, strict=True))
        try:
            own = self.template.write(turns)
            if _text_of(parts) == own:
                return parts
            # Text of the template's may become control tokens, and so must not be what
            # somebody said.
            has_marks = any(self._marks(text) for text in texts)
            rewritten = None if has_marks else self._rewritten(turns, contents, shaped)
            if rewritten is not None and _text_of(rewritten) == own:
                return rewritten
            reason = "it changes them or what stands around them"
        except PolicyError as error:
            reason = str(error)
        _warn_of_contents(self.template.name, reason)
        return parts

    def _rewritten(
        self,
        turns: Sequence[tuple[str, str]],
        contents: Sequence[Sequence[Span]],
        shaped: Sequence[list[_Part]],
    ) -> list[_Part] | None:
        """Return a prompt's parts as the template writes these very contents.

        None where it is not told whose they are.

        Args:
            turns: Roles and contents.
            contents: By their authors.
            shaped: Contents as the template writes others.
        """
        written = self.template.opening_of(turns)
        if written is None:
            return None
        roles = [role for role, _ in turns]
        own: list[list[_Part]] = []
        for place, (content, parts) in enumerate(zip(contents, shaped, strict=True)):
            shaping = self.template.shaping(roles, place)
            text = written[2 * place + 1].lstrip(shaping.left).rstrip(shaping.right)
            if text == _text_of(parts):
                own.append(parts)
                continue
            if len({span.author for span in content}) != 1:
                return None
            # The template leaves out a word that was meant for it.
            own.append([_Part(text, Span(text, content[0].author))])
        return _joined(written[::2], own)

    def suffix(
        self,
        message: Message,
        *,
        ended: bool,
        end_id: int | None = None,
        earlier: Sequence[str] = ("user",),
    ) -> list[Piece]:
        """Return what follows the policy's turn: its end, the message, a new turn.

        Args:
            message: What came back.
            ended: Whether the turn wrote its end itself, which then is left out here.
            end_id: The token that it wrote as its end; by default the template's.
            earlier: Roles of all messages before the policy's turn: templates may count
                them.
        """
        between = self.template.between(self._roles(earlier), _REPLY_ROLE)
        before, context = between.before, _LETTER
        if ended:
            before, context = self._behind_end(before, end_id)
        parts = [
            *_template_parts(before),
            *self._shaped(_REPLY_ROLES, len(_REPLY_ROLES) - 1, message.spans),
            *_template_parts(between.after),
        ]
        return self._pieces(parts, context)

    def check_turns(self, messages: Sequence[Message], num_turns: int) -> None:
        """Write what stands between the turns of an episode.

        Templates may count turns, and refuse or rewrite only long conversations.

        Args:
            messages: The prompt.
            num_turns: How many turns the policy may have.
        """
        roles = [message.role for message in messages]
        # Behind the last turn nothing is written.
        for number in range(num_turns - 1):
            earlier = [*roles, *("assistant", _REPLY_ROLE) * number]
            self.template.between(self._roles(earlier), _REPLY_ROLE)

    def written(self, message: Message, *, ended: bool) -> list[Piece]:
        """Return a turn of the policy that is known by its text.

        Args:
            message: The turn.
            ended: Whether the policy wrote its end, which then is among the pieces.
        """
        pieces = []
        lead = self.template.lead
        if lead and not message.content.startswith(lead):
            # The template's own text of such a turn, which the policy is to write.
            ids = self._encode(lead, special=True)
            pieces.append((ids, Span(lead, Author.POLICY)))
        for span in message.spans:
            part = _Part(span.text, span)
            # Marks of a thought are the policy's own.
            ids = self._sampled_ids(part) or self._encode(span.text, special=False)
            pieces.append((ids, span))
        if ended:
            end = self._end_mark
            ids = self._encode(end, special=True) or [int(self.tokenizer.eos_token_id)]
            pieces.append((ids, Span(end, Author.POLICY)))
        return _without_empty(pieces)

    def end_ids(self) -> set[int]:
        """Return the tokens that end a turn.

        They are the tokenizer's end token, and those by which the template closes a
        turn. Where it closes none, the mark of the next turn does.
        """
        marks = {self._control_texts[mark] for mark in self._end_marks}
        return {int(self.tokenizer.eos_token_id), *marks}

    def _roles(self, roles: Sequence[str]) -> tuple[str, ...]:
        """Return the roles by which the template is to write messages of some roles."""
        if roles[0] == "system" and not self.template.takes_system:
            # Alone, it has no user's message to stand before.
            return tuple(roles[1:]) or ("user",)
        return tuple(roles)

    def _shaped(
        self, roles: Sequence[str], place: int, content: Sequence[Span]
    ) -> list[_Part]:
        """Return the parts of a message, each as the template writes it."""
        texts = [span.text for span in content]
        shaped = self.template.shaping(roles, place).apply(texts)
        return [_Part(text, span) for text, span in zip(shaped, content, strict=True)]

    @cached_property
    def _after_turn(self) -> str:
        """What the template writes between a policy's turn and a user's message."""
        return self.template.between(("user",), _REPLY_ROLE).before

    @cached_property
    def _closing(self) -> str:
        """The part of `_after_turn` that closes the turn, and opens no other.

        "" where a turn is closed by the mark of the next one.
        """
        after, end = self._after_turn, self.template.end
        # Behind the last turn of all, an end of text may follow.
        places = [match.start() for match in self._control_marks.finditer(end)]
        for place in [len(end), *reversed(places)]:
            closing = end[:place]
            if self._marks(closing) and after.startswith(closing):
                return closing
        # The last turn may be closed otherwise. What opens the next one has, of the
        # marks there, those that open the policy's.
        opening = set(self._marks(self.template.generation_prompt))
        for match in self._control_marks.finditer(after):
            if match.group() in opening:
                return after[: match.start()]
        return ""

    @cached_property
    def _end_marks(self) -> list[str]:
        """The marks that end a turn, in the order in which the template writes them."""
        marks = self._marks(self.template.end)
        if marks:
            return marks
        after = self._after_turn.lstrip()
        return [mark for mark in self._marks(after)[:1] if after.startswith(mark)]

    @cached_property
    def _end_mark(self) -> str:
        """What a turn ends with that is known by its text; "" if no mark is written."""
        return self._end_marks[0] if self._end_marks else ""

    def _behind_end(self, text: str, end_id: int | None) -> tuple[str, str]:
        """Return what is left to write behind a turn that wrote its end itself.

        And what stands before that: the mark that it wrote.

        Args:
            text: What the template writes between the turn and the next message.
            end_id: The token that it wrote; by default the template's.
        """
        mark = self._end_mark
        if end_id is not None:
            mark = str(self.tokenizer.decode([end_id]))
        closing = self._closing if text.startswith(self._closing) else ""
        # Of two marks that close a turn, the policy wrote the first or both.
        if mark and mark in closing:
            return text.partition(mark)[2], mark
        if mark and not closing and text.lstrip().startswith(mark):
            return text.partition(mark)[2], mark
        # It is another than the template's, and stands in its place.
        unmarked = self._control_marks.sub("", closing)
        return unmarked + text[len(closing) :], mark or _LETTER

    def _marks(self, text: str) -> list[str]:
        """Return the control marks in a text of the template's."""
        return self._control_marks.findall(text)

    def _pieces(self, parts: Sequence[_Part], context: str = "") -> list[Piece]:
        """Return parts as pieces, all tokenised as one text where that is safe.

        Args:
            parts: Of the template and of messages, in order.
            context: What stands before them: a control mark, or text.
        """
        pieces: list[Piece] = []
        stretch: list[_Part] = []
        for part in parts:
            sampled = self._sampled_ids(part)
            if not sampled:
                stretch.append(part)
                continue
            # What an agent sampled stays as it was sampled.
            pieces += self._stretch_pieces(stretch, context)
            pieces.append((sampled, part.span))
            stretch, context = [], _LETTER
        pieces += self._stretch_pieces(stretch, context)
        return _without_empty(pieces)

    def _stretch_pieces(self, parts: Sequence[_Part], context: str) -> list[Piece]:
        for before in (context, ""):
            pieces = self._tokenised_whole(parts, before)
            if pieces is not None:
                return pieces
        # A content would become a control token: each part by itself, with care.
        return [(self._part_ids(part), part.span) for part in parts]

    def _tokenised_whole(
        self, parts: Sequence[_Part], before: str
    ) -> list[Piece] | None:
        """Return the tokens of all parts as one text; None where that is not safe.

        It is not where a token of the context reaches into the text, or a control token
        lies in a part that may have none.
        """
        if not self.tokenizer.is_fast:
            # It tells no offsets.
            return None
        text = before + "".join(part.text for part in parts)
        encoding = self.tokenizer(
            text,
            add_special_tokens=False,
            split_special_tokens=False,
            return_offsets_mapping=True,
        )
        ends = list(accumulate((len(part.text) for part in parts), initial=len(before)))
        ids_of_parts: list[list[int]] = [[] for _ in parts]
        pairs = zip(encoding["input_ids"], encoding["offset_mapping"], strict=True)
        for token_id, (start, end) in pairs:
            is_control = token_id in self._control_ids
            if is_control:
                # A mark may take the blanks around it with it.
                core = text[start:end]
                start += len(core) - len(core.lstrip())
                end = start + len(core.strip())
            if start < len(before):
                if end > len(before):
                    return None
                continue
            # Of the parts that begin at or before it, the last; none is empty there.
            place = min(bisect_right(ends, start), len(parts)) - 1
            last_place = bisect_left(ends, end) - 1
            is_reached = parts[place : last_place + 1]
            if is_control and not all(part.may_hold_marks for part in is_reached):
                return None
            ids_of_parts[place].append(token_id)
        return [(ids, part.span) for ids, part in zip(ids_of_parts, parts, strict=True)]

    def _part_ids(self, part: _Part) -> list[int]:
        """Return the tokens of a part that stands alone."""
        if part.may_hold_marks:
            return self._encode(part.text, special=True)
        return self._plain(part.text)

    def _sampled_ids(self, part: _Part) -> list[int]:
        """Return the tokens that the part's author sampled, if they are all of it.

        A text has many tokenisations, and only that one was drawn.
        """
        span = part.span
        if not span.token_ids or part.text != span.text:
            return []
        barred = (
            self._special_ids if span.author == Author.POLICY else self._control_ids
        )
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
        if not is_readable:
            return []
        text = self.tokenizer.decode(sampled, skip_special_tokens=False)
        return sampled if text == span.text else []

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
        template = "".join([self.template.text, *rendered])
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
            return self.template.render(roles, add_generation_prompt=True)
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
    def _control_texts(self) -> dict[str, int]:
        """The control tokens by their texts."""
        texts = {str(self.tokenizer.decode([each])): each for each in self._control_ids}
        texts.pop("", None)
        return texts

    @cached_property
    def _control_marks(self) -> re.Pattern[str]:
        """A pattern for the text of any control token, as one group."""
        # The longest first: of two that begin alike, an alternation takes the first.
        marks = sorted(self._control_texts, key=len, reverse=True)
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
