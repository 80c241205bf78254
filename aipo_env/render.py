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
from aipo_env.records import Author, Message, Task

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent / "templates"

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
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(char: str) -> str:
    if char == "\n" or char.isprintable() or unicodedata.category(char) == "Zs":
        return char
    return f"\\u{ord(char):04x}" if ord(char) <= 0xFFFF else f"\\U{ord(char):08x}"


def episode_text(episode: Episode) -> str:
    """Return the transcript in plain text, each line behind the mark of its author.

    Equal episodes give equal text: no wall-clock time is shown. Text of several lines
    is indented behind its mark, so that no text can imitate a mark.
    """
    episode = redact(episode)
    lines = [
        _line(
            "task",
            f"{episode.task.id}  ({'may consult' if episode.aided else 'alone'})",
        )
    ]
    lines.append(messages_text(episode.messages))
    for consult in episode.consults:
        who = f"{consult.kind} {consult.agent_id}".strip()
        account = (
            f"turn {consult.turn}: {who}, {consult.status}, {consult.tokens} tokens"
        )
        lines.append(_line("consult", account))
    if episode.verdict:
        found = (
            f", answer {episode.verdict.extracted}" if episode.verdict.extracted else ""
        )
        lines.append(_line("verdict", episode.verdict.status.replace("_", " ") + found))
    reward = "none" if episode.reward is None else f"{episode.reward:g}"
    lines.append(_line("end", f"{episode.stop_reason}, reward {reward}"))
    return "\n".join(lines)


def messages_text(messages: Iterable[Message], task: Task | None = None) -> str:
    """Return messages as `episode_text` does: the transcript of an episode on `task`
    that is still running.
    """
    notice = task.withheld if task else ""
    spans = [span for message in messages for span in message.spans if span.text]
    return "\n".join(
        _line(span.author.name.lower(), notice or span.text) for span in spans
    )


def _line(mark: str, text: str) -> str:
    return f"{mark:>8} │ " + escape_terminal(text).replace("\n", f"\n{'':8} │ ")


@dataclass(frozen=True, slots=True)
class Piece:
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
    return (
        html_templates()
        .get_template("episodes_page.html.j2")
        .render(title=title, section=section)
    )


def episodes_section(
    episodes: Sequence[Episode],
    *,
    tokens: Callable[[int], str] | None = None,
    coefficients: Sequence[NDArray[np.floating[Any]]] | None = None,
    sources: Sequence[str] | None = None,
) -> str:
    """Return the viewer alone, as jinja2 markup to put into a page made from
    `page.html.j2`.

    Args:
        tokens: Decodes one token id; without it text is shown span by span, without
            what is known of tokens.
        coefficients: float[T] per episode, what the objective multiplied each agent
            token by; NaN: not given.
        sources: Where each episode comes from, in words; readers can filter by it.

    Raises:
        ConfigError: jinja2 is not installed.
        ValueError: `coefficients` or `sources` do not match the episodes.
    """
    for name, given in (("coefficients", coefficients), ("sources", sources)):
        if given is not None and len(given) != len(episodes):
            raise ValueError(f"{len(given)} {name} for {len(episodes)} episodes")
    views = []
    for index, episode in enumerate(episodes):
        known = (
            coefficients[index]
            if coefficients
            else np.full(len(episode.tokens), np.nan)
        )
        if len(known) != len(episode.tokens):
            raise ValueError(
                f"episode {index}: {len(known)} coefficients for {len(episode.tokens)}"
                " tokens"
            )
        decode, shown = None if episode.task.withheld else tokens, redact(episode)
        pieces = _token_pieces(shown, decode, known) if decode else []
        views.append(
            _view(
                shown, pieces or _span_pieces(shown), sources[index] if sources else ""
            )
        )
    from markupsafe import Markup

    template = html_templates().get_template("episodes.html.j2")
    return Markup(template.render(views=views, authors=AUTHORS))


def html_templates(*folders: Path) -> "Environment":
    """Return templates from `folders` and from here, with every value escaped and the
    page's script at hand.

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
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals.update(script=Markup(script), script_digest=digest)
    environment.filters["duration"] = _duration
    return environment


def _harmless(value: Any) -> Any:
    """Escape what is not markup of ours; jinja2 applies this to every value, HTML
    escaping comes after it.
    """
    return (
        escape_terminal(value)
        if isinstance(value, str) and not hasattr(value, "__html__")
        else value
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{max(1.0, 1000 * seconds):.0f} ms"


def _view(
    episode: Episode, pieces: Iterable[tuple["_Place", Piece]], source: str
) -> dict[str, Any]:
    """Return an episode as the page shows it: in blocks by the policy or by everybody
    else.
    """
    blocks = []
    for (turn, _, is_policy), run in groupby(pieces, lambda item: item[0]):
        label = (
            f"Policy, turn {turn + 1}"
            if is_policy
            else "Returned"
            if turn
            else "Prompt"
        )
        asked = [c for c in episode.consults if is_policy and c.turn == turn + 1]
        blocks.append(
            {"label": label, "pieces": [piece for _, piece in run], "consults": asked}
        )
    outcome = (
        "undecided"
        if episode.reward is None
        else "correct"
        if episode.correct
        else "wrong"
    )
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
) -> list[tuple[_Place, Piece]]:
    record = episode.tokens
    columns = (
        record.token_ids,
        record.author,
        record.turn,
        record.behaviour_logprobs,
        coefficients,
    )
    pieces = []
    for token_id, author, turn, logprob, coefficient in zip(
        *(c.tolist() for c in columns), strict=True
    ):
        # A newline alone would leave nothing to point at.
        text = tokens(token_id).replace("\n", "⏎\n")
        piece = Piece(
            text,
            Author(author).name.lower(),
            token_id,
            _known(logprob),
            _known(coefficient),
        )
        pieces.append(((turn, 0, author == Author.POLICY), piece))
    return pieces


def _span_pieces(episode: Episode) -> Iterator[tuple[_Place, Piece]]:
    turn = 0
    for number, message in enumerate(episode.messages):
        is_policy = message.role == "assistant"
        for span in message.spans:
            yield (turn, number, is_policy), Piece(span.text, span.author.name.lower())
        turn += is_policy


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
