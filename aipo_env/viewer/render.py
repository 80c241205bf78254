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
from typing import TYPE_CHECKING, Any

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


@dataclass(frozen=True, slots=True)
class ShownToken:
    """A token, or a span of text where tokens cannot be decoded."""

    text: str
    author: str
    token_id: int | None = None
    logprob: float | None = None
    coefficient: float | None = None


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
    tokens: Callable[[int], str] | None = None,
    coefficients: Sequence[NDArray[np.floating[Any]]] | None = None,
    sources: Sequence[str] | None = None,
) -> str:
    """Return the viewer alone, to put into a page made from `page.html.j2`.

    It is jinja2's markup, which is not escaped again.

    Args:
        episodes: In the order in which they are shown.
        tokens: Decodes one token id; without it text is shown span by span, without
            what is known of tokens.
        coefficients: float[T] per episode, what the objective multiplied each agent
            token by; NaN: not given.
        sources: Where each episode comes from, in words; readers can filter by it.

    Raises:
        ConfigError: jinja2 is not installed.
        ValueError: `coefficients` or `sources` do not match the episodes.
    """
    for name, values in (("coefficients", coefficients), ("sources", sources)):
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
        # Token ids are the text once more, so they are not shown where it is withheld.
        if tokens and not episode.task.withheld:
            pieces = _token_pieces(public, tokens, row)
        # An episode whose policy spoke text has no tokens.
        if not pieces:
            pieces = _span_pieces(public)
        source = sources[index] if sources else ""
        views.append(_view(public, pieces, source))
    from markupsafe import Markup

    template = html_templates().get_template("episodes.html.j2")
    return Markup(template.render(views=views, authors=AUTHORS))


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


def _view(
    episode: Episode, pieces: Iterable[tuple["_Place", ShownToken]], source: str
) -> dict[str, Any]:
    """Return an episode as the page shows it.

    It is cut into blocks, each written by the policy or by everybody else.
    """
    blocks = []
    # Pieces in one place stand side by side.
    for place, run in groupby(pieces, lambda item: item[0]):
        turn, _, is_policy = place
        consults: list[Consult] = []
        if is_policy:
            number = turn + 1  # people count from 1, and so do records of consults
            label = f"Policy, turn {number}"
            consults = [c for c in episode.consults if c.turn == number]
        elif turn:
            label = "Returned"
        else:
            label = "Prompt"
        block_pieces = [piece for _, piece in run]
        blocks.append({"label": label, "pieces": block_pieces, "consults": consults})
    if episode.reward is None:
        outcome = "undecided"
    elif episode.correct:
        outcome = "correct"
    else:
        outcome = "wrong"
    bottleneck = str(episode.task.meta.get("bottleneck", ""))
    return {
        "episode": episode,
        "blocks": blocks,
        "source": source,
        "bottleneck": bottleneck,
        "outcome": outcome,
    }


_Place = tuple[int, int, bool]
"""Where a piece stands: completions before it, its message where known, whether the
policy wrote it.
"""


def _token_pieces(
    episode: Episode,
    tokens: Callable[[int], str],
    coefficients: NDArray[np.floating[Any]],
) -> list[tuple[_Place, ShownToken]]:
    """Return the tokens of an episode, each with its place."""
    record = episode.tokens
    # Lists of Python's numbers: those of numpy are slow one by one.
    columns = zip(
        record.token_ids.tolist(),
        record.author.tolist(),
        record.turn.tolist(),
        record.behaviour_logprobs.tolist(),
        coefficients.tolist(),
        strict=True,
    )
    pieces = []
    for token_id, author, turn, logprob, coefficient in columns:
        # A newline alone would leave nothing to point at.
        text = tokens(token_id).replace("\n", "⏎\n")
        piece = ShownToken(
            text=text,
            author=Author(author).name.lower(),
            token_id=token_id,
            logprob=_finite(logprob),
            coefficient=_finite(coefficient),
        )
        place = (turn, 0, author == Author.POLICY)
        pieces.append((place, piece))
    return pieces


def _span_pieces(episode: Episode) -> Iterator[tuple[_Place, ShownToken]]:
    """Yield the spans of an episode, each with its place."""
    turn = 0
    for number, message in enumerate(episode.messages):
        is_policy = message.role == "assistant"
        for span in message.spans:
            place = (turn, number, is_policy)
            yield place, ShownToken(span.text, span.author.name.lower())
        turn += is_policy


def _finite(value: float) -> float | None:
    """Return a number, or None for NaN, which stands for one that is not given."""
    return value if math.isfinite(value) else None
