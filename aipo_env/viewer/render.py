"""Episodes for people: a transcript in plain text, and one self-contained HTML page.

Everything a model wrote is hostile text. Here it is made harmless: `escape_terminal`
for terminals and logs; for pages the templates of `html_templates`, which apply it and
HTML escaping to every value by themselves. Episodes whose source forbids republication
appear as `redact` leaves them.
"""

import base64
import hashlib
import math
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aipo_env.episode import Episode, redact
from aipo_env.errors import ConfigError
from aipo_env.records import Author, Consult, Message, Task

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent / "templates"
_MARK_WIDTH = 8
"""Columns in which the marks of a transcript stand."""
_MAX_SHORT_ESCAPE = 0xFFFF
"""The last character that four digits name."""

AUTHORS = {
    Author.PROMPT: "the task as it was put",
    Author.POLICY: "written by the model in training",
    Author.AGENT: "a consulted agent's own words",
    Author.TOOL: "a tool's output",
    Author.ENV: "wrappers and notices of the environment",
    Author.TEMPLATE: "the chat template's marks",
}
"""What each author writes, in words for a reader."""


def escape_terminal(text: str) -> str:
    """Return text that cannot steer a terminal, a log or a page.

    Control codes, bidirectional marks, zero-width and all other format characters, line
    and paragraph separators, lone surrogates, private and unassigned code points become
    visible escapes such as `\\u202e` or `\\U000e0041`. Newlines stay.
    """
    if text.isprintable():
        return text  # nearly always, and much faster than character by character
    return "".join(map(_visible, text))


def _visible(char: str) -> str:
    # Blanks other than the space are not printable to Python, but do no harm.
    is_blank = unicodedata.category(char) == "Zs"
    if char == "\n" or char.isprintable() or is_blank:
        return char
    number = ord(char)
    if number <= _MAX_SHORT_ESCAPE:
        return f"\\u{number:04x}"
    return f"\\U{number:08x}"


def episode_text(episode: Episode) -> str:
    """Return the transcript in plain text, each line behind the mark of its author.

    Equal episodes give equal text: no wall-clock time is shown. Text of several lines
    is indented behind its mark, so that no text can imitate a mark.
    """
    episode = redact(episode)
    aid = "may consult" if episode.aided else "alone"
    lines = [
        _line("task", f"{episode.task.id}  ({aid})"),
        messages_text(episode.messages),
    ]
    for consult in episode.consults:
        who = f"{consult.kind} {consult.agent_id}".strip()
        lines.append(
            _line(
                "consult",
                f"turn {consult.turn}: {who}, {consult.status},"
                f" {consult.tokens} tokens",
            )
        )
    if episode.verdict:
        account = episode.verdict.status.replace("_", " ")
        if episode.verdict.extracted:
            account += f", answer {episode.verdict.extracted}"
        lines.append(_line("verdict", account))
    reward = "none" if episode.reward is None else f"{episode.reward:g}"
    lines.append(_line("end", f"{episode.stop_reason}, reward {reward}"))
    return "\n".join(lines)


def messages_text(messages: Iterable[Message], task: Task | None = None) -> str:
    """Return messages in plain text, as they stand in `episode_text`.

    Args:
        messages: Those of an episode, which may still be running.
        task: Its task; where that may not be republished, a notice says so in place of
            every text.
    """
    notice = task.withheld if task else ""
    lines = []
    for message in messages:
        for span in message.spans:
            if span.text:
                mark = span.author.name.lower()
                lines.append(_line(mark, notice or span.text))
    return "\n".join(lines)


def _line(mark: str, text: str) -> str:
    """Return a text behind its mark; further lines of it stand behind no mark."""
    first = f"{mark:>{_MARK_WIDTH}} │ "
    further = f"\n{'':{_MARK_WIDTH}} │ "
    # Escaped first: a carriage return could take the text back before its mark.
    return first + escape_terminal(text).replace("\n", further)


_ORDERS = {
    "reward": "reward",
    "tokens": "length",
    "turns": "turns",
    "consults": "consultations",
    "task": "task",
}
"""By what the list of a page can be sorted, and what a reader is told of it."""

TokenTexts = Callable[[Sequence[int]], Sequence[str | None]]
"""Gives the text of each of several tokens that follow each other; None for one that
holds only a part of a character, which stands at the token that completes it.
"""


@dataclass(frozen=True, slots=True)
class ShownToken:
    """A token, or a span of text where tokens cannot be decoded.

    Args:
        is_part: It holds only a part of a character, which a later token shows.
    """

    text: str
    author: str
    token_id: int | None = None
    logprob: float | None = None
    coefficient: float | None = None
    is_part: bool = False


def episodes_html(episodes: Sequence[Episode], *, title: str, **options: Any) -> str:
    """Return one HTML page that shows episodes and loads nothing from anywhere.

    Options and errors as in `episodes_section`.
    """
    section = episodes_section(episodes, **options)
    template = html_templates().get_template("episodes_page.html.j2")
    return template.render(title=title, section=section)


def episodes_section(
    episodes: Sequence[Episode],
    *,
    tokens: Sequence[TokenTexts | None] | None = None,
    coefficients: Sequence[NDArray[np.floating[Any]]] | None = None,
    sources: Sequence[str] | None = None,
) -> str:
    """Return the viewer alone, to put into a page made from `page.html.j2`.

    It is jinja2's markup, which is not escaped again.

    Args:
        episodes: In the order in which they are shown.
        tokens: Per episode, what gives the texts of its policy's tokens; where it is
            None, text is shown span by span, without what is known of tokens.
        coefficients: float[T] per episode, what the objective multiplied each agent
            token by; NaN: not given.
        sources: Where each episode comes from, in words; readers can filter by it.

    Raises:
        ConfigError: jinja2 is not installed.
        ValueError: `tokens`, `coefficients` or `sources` do not match the episodes.
    """
    # First, since it says what to install where that is missing.
    template = html_templates().get_template("episodes.html.j2")
    columns = {"tokens": tokens, "coefficients": coefficients, "sources": sources}
    for name, values in columns.items():
        if values is not None and len(values) != len(episodes):
            raise ValueError(f"{len(values)} {name} for {len(episodes)} episodes")
    views = []
    for index, episode in enumerate(episodes):
        num_tokens = len(episode.tokens)
        row = coefficients[index] if coefficients else np.full(num_tokens, np.nan)
        if len(row) != num_tokens:
            raise ValueError(
                f"episode {index}: {len(row)} coefficients for {num_tokens} tokens"
            )
        public = redact(episode)
        pieces: Iterable[tuple[_Place, ShownToken]] = []
        texts = tokens[index] if tokens else None
        # Token ids are the text once more, so they are not shown where it is withheld.
        if texts is not None and not episode.task.withheld:
            pieces = _token_pieces(public, texts, row)
        # An episode whose policy spoke text has no tokens.
        if not pieces:
            pieces = _span_pieces(public)
        source = sources[index] if sources else ""
        views.append(_view(public, pieces, source))
    from markupsafe import Markup

    return Markup(template.render(views=views, authors=AUTHORS, orders=_ORDERS))


def html_templates(*folders: Path) -> "Environment":
    """Return the templates of pages, with every value escaped and the script at hand.

    Args:
        folders: Where to look for templates, before the folder of this package.

    Raises:
        ConfigError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise ConfigError(
            'HTML pages need jinja2: pip install "aipo-rl[report]".'
        ) from error
    environment = Environment(
        loader=FileSystemLoader([*folders, _TEMPLATES]),
        autoescape=True,
        finalize=_harmless,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (_TEMPLATES / "episodes.js").read_text(encoding="utf-8")
    # The page allows this one script by its hash: one in model text could not run even
    # if it were unescaped.
    sha256 = hashlib.sha256(script.encode()).digest()
    digest = base64.b64encode(sha256).decode()
    environment.globals.update(script=Markup(script), script_digest=digest)
    environment.filters["duration"] = _duration
    return environment


def _harmless(value: Any) -> Any:
    """Escape a value, unless it is markup of ours.

    jinja2 applies this to every value of a template; HTML escaping comes after it.
    """
    is_markup = hasattr(value, "__html__")
    if isinstance(value, str) and not is_markup:
        return escape_terminal(value)
    return value


def _duration(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.1f} s"
    milliseconds = max(1.0, 1000 * seconds)  # "0 ms" would read as if it was not timed
    return f"{milliseconds:.0f} ms"


class _Place(NamedTuple):
    """Where a piece stands.

    Args:
        turn: Completions before it.
        message: Number of its message, as far as it is known.
        role: Of its message: "system", "user", "assistant", or "" where unknown.
    """

    turn: int
    message: int
    role: str

    @property
    def is_policy(self) -> bool:
        """Whether the policy wrote what stands here."""
        return self.role == "assistant"

    @property
    def label(self) -> str:
        """What a reader is told of it."""
        if self.is_policy:
            # People count from 1, and so do records of consults.
            return f"Policy, turn {self.turn + 1}"
        if self.turn:
            return "Returned"
        return _PROMPT_LABELS.get(self.role, "Prompt")


_PROMPT_LABELS = {"system": "System", "user": "User"}
"""What stands beside the messages before the policy's first turn."""


def _view(
    episode: Episode, pieces: Iterable[tuple[_Place, ShownToken]], source: str
) -> dict[str, Any]:
    """Return an episode as the page shows it.

    It is cut into blocks, each written by the policy or by everybody else.
    """
    blocks = []
    # Pieces in one place stand side by side.
    for place, run in groupby(pieces, lambda item: item[0]):
        consults: list[Consult] = []
        if place.is_policy:
            consults = [c for c in episode.consults if c.turn == place.turn + 1]
        block_pieces = [piece for _, piece in run]
        blocks.append(
            {"label": place.label, "pieces": block_pieces, "consults": consults}
        )
    if episode.reward is None:
        outcome = "undecided"
    elif episode.correct:
        outcome = "correct"
    else:
        outcome = "wrong"
    bottleneck = str(episode.task.meta.get("bottleneck", ""))
    num_consults = sum(consult.is_agents for consult in episode.consults)
    return {
        "episode": episode,
        "blocks": blocks,
        "source": source,
        "bottleneck": bottleneck,
        "outcome": outcome,
        "num_tokens": len(episode.tokens),
        "num_policy_tokens": int(episode.tokens.policy_mask.sum()),
        "num_turns": len(episode.turns),
        "num_consults": num_consults,
        "num_tool_calls": len(episode.consults) - num_consults,
    }


def _token_pieces(
    episode: Episode,
    texts: TokenTexts,
    coefficients: NDArray[np.floating[Any]],
) -> list[tuple[_Place, ShownToken]]:
    """Return the tokens of an episode, each with its place."""
    record = episode.tokens
    # Lists of Python's numbers: those of numpy are slow one by one.
    token_ids = record.token_ids.tolist()
    writers = list(
        zip(
            record.turn.tolist(),
            record.author.tolist(),
            record.call_id.tolist(),
            strict=True,
        )
    )
    shown_texts: list[str | None] = []
    # Nobody completes a character that somebody else began.
    for _, run in groupby(range(len(token_ids)), writers.__getitem__):
        shown_texts += texts([token_ids[position] for position in run])
    columns = zip(
        token_ids,
        shown_texts,
        record.author.tolist(),
        _token_places(episode),
        record.behaviour_logprobs.tolist(),
        coefficients.tolist(),
        strict=True,
    )
    pieces = []
    for token_id, text, author, place, logprob, coefficient in columns:
        piece = ShownToken(
            # A newline alone would leave nothing to point at.
            text=(text or "").replace("\n", "⏎\n"),
            author=Author(author).name.lower(),
            token_id=token_id,
            logprob=_finite(logprob),
            coefficient=_finite(coefficient),
            is_part=text is None,
        )
        pieces.append((place, piece))
    return pieces


def _token_places(episode: Episode) -> list[_Place]:
    """Return the place of each token of an episode.

    Which message a token of the prompt belongs to is not recorded. Between two of them
    stand marks of the template, so that the runs of the prompt's own tokens are the
    messages, where there are as many.
    """
    roles: list[str] = []
    for message in episode.messages:
        if message.role == "assistant":
            break
        if message.content:
            roles.append(message.role)
    authors = episode.tokens.author.tolist()
    turns = episode.tokens.turn.tolist()
    number = 0
    has_begun = False
    is_within = False
    numbers: list[int] = []
    for author, turn in zip(authors, turns, strict=True):
        is_prompt = author == Author.PROMPT and turn == 0
        if is_prompt and has_begun and not is_within:
            number += 1
        has_begun = has_begun or is_prompt
        is_within = is_prompt
        numbers.append(number)
    is_known = number + 1 == len(roles)
    places: list[_Place] = []
    for author, turn, number in zip(authors, turns, numbers, strict=True):
        if author == Author.POLICY:
            places.append(_Place(turn, 0, "assistant"))
        elif turn == 0 and is_known:
            places.append(_Place(turn, number, roles[number]))
        else:
            places.append(_Place(turn, 0, ""))
    return places


def _span_pieces(episode: Episode) -> Iterator[tuple[_Place, ShownToken]]:
    """Yield the spans of an episode, each with its place."""
    turn = 0
    for number, message in enumerate(episode.messages):
        place = _Place(turn, number, message.role)
        for span in message.spans:
            yield place, ShownToken(span.text, span.author.name.lower())
        turn += message.role == "assistant"


def _finite(value: float) -> float | None:
    """Return a number, or None for NaN, which stands for one that is not given."""
    return value if math.isfinite(value) else None
