"""The report of a comparison or a single run, as one page that needs no other file."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from aipo_env import (
    DataError,
    Episode,
    TokenTexts,
    check_entries,
    check_place,
    episodes_section,
    html_templates,
    read_episodes,
    read_whole,
    write_anew,
)
from aipo_learner.learn.coefficients import read_coefficients
from aipo_learner.policy.load import policy_folder
from aipo_learner.reporting.arms import Arm, measured_arms, read_arms
from aipo_learner.reporting.charts import legend_key
from aipo_learner.reporting.facts import (
    cost_facts,
    duration,
    last_written,
    settings_facts,
)
from aipo_learner.reporting.figures import figures
from aipo_learner.reporting.run_files import flat_settings
from aipo_learner.reporting.token_text import token_decoder
from aipo_learner.reporting.trend import Conclusion, conclusion
from aipo_learner.settings.arguments import read_object

_EVALUATION = "evaluation-*.jsonl"
"""Files of episodes that were played to measure the policy."""
_TRAINING = "step-*.jsonl"
"""Files of episodes of single training steps."""
_OF_EVALUATION = "episodes.jsonl"
"""The file of episodes beside the scores of `aipo eval`."""
_RUN_PAGE, _COMPARISON_PAGE = "run.html.j2", "report.html.j2"
"""Templates of the two kinds of pages."""
_AIPO = "aipo"
"""Folder of the arm in question; all others are what it is compared with."""
MAX_SUMMARY_BYTES = 64 * 2**20
"""A longer summary is not read."""
_PER_EVALUATION = 3
"""Episodes shown of each evaluation: kinds of bottleneck take turns, so one of each."""

_Coefficients = NDArray[np.float32]
"""One for each token of an episode; NaN where there is none."""


def write_report(folder: Path) -> Path:
    """Write `folder/report.html` about a comparison or a single run; return its path.

    A comparison's folder has `summary.json` and its arms' folders, a run's
    `metrics.jsonl`. A run's folder may hold `config.json`, `checkpoints`,
    `episodes/step-*.jsonl` of its training, `episodes/evaluation-*.jsonl` after it, and
    what `aipo eval --out` wrote there or in a folder within it; `before/episodes` are
    those before training. What is missing is left out.

    Raises:
        DataError: There is nothing to report on, or a file is corrupt.
        ConfigError: jinja2 is not installed.
    """
    is_run = (folder / "metrics.jsonl").is_file()
    summary = {} if is_run else _read_summary(folder / "summary.json")
    arms = list(read_arms(folder, summary))
    if not arms:
        raise DataError(
            f"{folder}: holds no run. Give the --out folder of `aipo train` or `aipo"
            " demo`."
        )
    templates = html_templates(Path(__file__).parent / "templates")
    templates.filters["percent"] = _percent
    templates.filters["duration_of_run"] = duration
    # The page escapes every text but those that say they are markup.
    templates.globals["legend_key"] = lambda style: Markup(legend_key(style))
    measured = measured_arms(arms)
    page = templates.get_template(_RUN_PAGE if is_run else _COMPARISON_PAGE).render(
        arms=arms,
        measured=measured,
        bottlenecks=_without_doubles(arm.bottlenecks for arm in (*arms, *measured)),
        **figures(arms),
        outcomes=_without_doubles(arm.consults for arm in arms),
        episodes=_episodes(folder, arms),
        evaluation=_evaluation(arms),
        remarks=_remarks(arms),
        **(_of_run(arms[0]) if is_run else _of_comparison(arms, summary)),
    )
    path = folder / "report.html"
    write_anew(path, page)
    return path


def _of_run(arm: Arm) -> dict[str, Any]:
    """Return what the page of a single run says beside its figures."""
    return {
        "title": arm.title,
        "conclusion": _conclusion(arm),
        "facts": settings_facts(arm),
        "costs": cost_facts(arm),
        "written": last_written(arm),
        "settings": flat_settings(arm.settings),
        "columns": _columns([arm]),
    }


def _of_comparison(arms: Sequence[Arm], summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page of a comparison says beside its figures."""
    versions = summary.get("versions")
    if not isinstance(versions, Mapping):
        versions = {}
    return {
        "title": _headline(arms),
        "comparison": _comparison(arms),
        "columns": _columns(arms),
        "runs": [
            {**dict(settings_facts(arm)), "arm": arm, "word": _conclusion(arm).word}
            for arm in arms
            if arm.settings
        ],
        "differences": _differences(arms, summary.get("against")),
        "seed": summary.get("seed"),
        "versions": versions,
    }


def _conclusion(arm: Arm) -> Conclusion:
    """Return whether a run learned, by its metrics."""
    return conclusion(arm.rows, is_stored=arm.is_stored, is_imitation=arm.is_imitation)


def _columns(arms: Sequence[Arm]) -> dict[str, bool]:
    """Return which columns of the table of arms say something of any of them."""
    values: dict[str, list[float | None]] = {
        "rollouts": [arm.num_rollouts for arm in arms],
        "minutes": [arm.seconds for arm in arms],
        "before": [arm.number("unaided", "before", "pass@1") for arm in arms],
        "after": [arm.number("unaided", "after", "pass@1") for arm in arms],
        "largest": [arm.largest_k for arm in arms],
        "aided": [arm.number("aided", "after", "pass@1") for arm in arms],
        "gap": [arm.gap for arm in arms],
    }
    return {
        name: any(value is not None for value in column)
        for name, column in values.items()
    }


def _remarks(arms: Sequence[Arm]) -> list[str]:
    """Return what of the arms' folders was left out, in sentences."""
    if len(arms) == 1:
        return list(arms[0].remarks)
    return [f"{arm.title}: {remark}" for arm in arms for remark in arm.remarks]


def _without_doubles(names: Iterable[Iterable[str]]) -> list[str]:
    """Return all names once, in the order in which they first come."""
    # A dict keeps that order, which a set does not.
    return list(dict.fromkeys(itertools.chain.from_iterable(names)))


def _differences(arms: Sequence[Arm], against: object) -> list[str]:
    """Return a sentence for each arm that the first is compared with, task by task."""
    if not isinstance(against, Mapping):
        return []
    titles = {arm.folder.name: arm.title for arm in arms}
    sentences: list[str] = []
    for name, change in against.items():
        # Whatever is not as `aipo demo` writes it makes no sentence; the errors are
        # those of a missing name, of another type, of too many values, and of an
        # integer that is too large for a float.
        try:
            low, high = change["intervals"]["pass@1"]
            points = 100 * change["difference"]["pass@1"]
            gain = change["boundary_gain"]
            sentence = (
                f"{arms[0].title} against {titles[name]}, alone: {points:+.1f} points"
                f" of pass@1 (95 % paired bootstrap {100 * low:+.1f} to"
                f" {100 * high:+.1f}); {gain:.0%} of the tasks were solved by the first"
                " only."
            )
        except (KeyError, OverflowError, TypeError, ValueError):
            continue
        sentences.append(sentence)
    return sentences


def _read_summary(path: Path) -> Mapping[str, Any]:
    """Return the object in a JSON file; empty where there is none."""
    if not check_place(path).is_file():
        return {}
    try:
        return read_object(read_whole(path, MAX_SUMMARY_BYTES).decode("utf-8"))
    except ValueError as error:
        raise DataError(
            f"{path}: no JSON object ({error}). Run the command that wrote it again, or"
            " delete it."
        ) from error


def _headline(arms: Sequence[Arm]) -> str:
    """Return what was measured of the arm in question, in a sentence."""
    for arm in arms:
        before = arm.number("unaided", "before", "pass@1")
        after = arm.number("unaided", "after", "pass@1")
        if arm.folder.name == _AIPO and before is not None and after is not None:
            return (
                f"Alone, the policy solves {_percent(after)} of unseen tasks; before"
                f" training, {_percent(before)}"
            )
    return "What the policy can do alone"


def _comparison(arms: Sequence[Arm]) -> str:
    """Return what the arms beside it came to, in a sentence; "" without any."""
    parts: list[str] = []
    for arm in arms:
        after = arm.number("unaided", "after", "pass@1")
        if arm.folder.name == _AIPO or after is None:
            continue
        part = f"{_percent(after)} with “{arm.title}”"
        if arm.description:
            part += f" ({arm.description})"
        parts.append(part)
    if not parts:
        return ""
    # Where none is the arm in question, none is what it is compared with.
    has_leader = any(arm.folder.name == _AIPO for arm in arms)
    start = "For comparison, the" if has_leader else "The"
    return f"{start} policy alone came to {' and '.join(parts)}."


def _percent(share: float | None) -> str:
    """Return a share in per cent with one decimal; a dash where it is unknown."""
    if share is None:
        return "–"
    return f"{100 * share:.1f}%"


def _evaluation(arms: Sequence[Arm]) -> Mapping[str, float]:
    """Return how many tasks and answers each pass@k was measured on, where known."""
    for arm in arms:
        sizes: dict[str, float] = {}
        for name in ("num_tasks", "num_samples"):
            size = arm.number("unaided", "after", name)
            if size is not None:
                sizes[name] = size
        # All arms are measured alike, so that the first that says it speaks for all.
        if sizes:
            return sizes
    return {}


@dataclass(frozen=True, slots=True)
class _Exhibit:
    """An episode in the viewer.

    Args:
        source: Where it comes from, in words.
        coefficients: float32[T], as `read_coefficients` returns them.
        texts: Gives the texts of its policy's tokens; None where they are unknown.
    """

    source: str
    episode: Episode
    coefficients: _Coefficients
    texts: TokenTexts | None


def _episodes(folder: Path, arms: Sequence[Arm]) -> str:
    """Return the viewer of episodes as markup; "" without any.

    First the evaluation before training, then of each arm its training and the
    evaluation after it.
    """
    tokenizers = [_token_texts(arm.folder) for arm in arms]
    before = check_place(folder / "before", is_folder=True)
    # Which arm's policy was measured before training is not recorded.
    exhibits = _of_evaluations(before, "before training", tokenizers)
    for arm, own in zip(arms, tokenizers, strict=True):
        exhibits += _of_training(arm, own)
        exhibits += _of_evaluations(arm.folder, f"{arm.title}, after training", [own])
        exhibits += _of_task_sets(arm, own)
    if not exhibits:
        return ""
    return episodes_section(
        [exhibit.episode for exhibit in exhibits],
        tokens=[exhibit.texts for exhibit in exhibits],
        coefficients=[exhibit.coefficients for exhibit in exhibits],
        sources=[exhibit.source for exhibit in exhibits],
    )


def _of_evaluations(
    run: Path, source: str, tokenizers: Sequence[TokenTexts | None]
) -> list[_Exhibit]:
    """Return the first episodes of each of a run's evaluations.

    Args:
        tokenizers: One of them may be its policy's.
    """
    exhibits: list[_Exhibit] = []
    for path in _own_files(run, _EVALUATION):
        for episode, coefficients in _read(path)[:_PER_EVALUATION]:
            texts = _fitting(tokenizers, episode)
            exhibits.append(_Exhibit(source, episode, coefficients, texts))
    return exhibits


def _of_task_sets(arm: Arm, tokenizer: TokenTexts | None) -> list[_Exhibit]:
    """Return the first episodes that `aipo eval` kept of each task set."""
    exhibits: list[_Exhibit] = []
    for evaluation in arm.evaluations:
        path = evaluation.folder / _OF_EVALUATION
        # A link may lead anywhere, and a pipe has no end.
        if path.is_symlink() or not path.is_file():
            continue
        source = f"{arm.title}, {evaluation.name}"
        for episode in itertools.islice(read_episodes(path), _PER_EVALUATION):
            unknown = np.full(len(episode.tokens), np.nan, np.float32)
            texts = _fitting([tokenizer], episode)
            exhibits.append(_Exhibit(source, episode, unknown, texts))
    return exhibits


def _of_training(arm: Arm, tokenizer: TokenTexts | None) -> list[_Exhibit]:
    """Return the first aided and unaided episode from three steps of the training."""
    steps = _own_files(arm.folder, _TRAINING)
    if not steps:
        return []
    exhibits: list[_Exhibit] = []
    middle = len(steps) // 2
    chosen = (steps[0], steps[middle], steps[-1])
    # Of one or two steps, some of the three are the same.
    for path in dict.fromkeys(chosen):
        number = path.stem.removeprefix("step-").lstrip("0") or "0"
        source = f"{arm.title}, step {number}"
        first_of_mode: dict[bool, _Exhibit] = {}
        for episode, coefficients in _read(path):
            if episode.aided in first_of_mode:
                continue
            texts = _fitting([tokenizer], episode)
            first_of_mode[episode.aided] = _Exhibit(
                source, episode, coefficients, texts
            )
        for aided in (True, False):
            if aided in first_of_mode:
                exhibits.append(first_of_mode[aided])
    return exhibits


def _own_files(run: Path, pattern: str) -> list[Path]:
    """Return the files of episodes of a run, in order.

    None of them by a link: those in a folder from somebody else may lead anywhere.
    """
    folder = run / "episodes"
    if folder.is_symlink():
        return []
    return [path for path in sorted(folder.glob(pattern)) if not path.is_symlink()]


def _read(path: Path) -> list[tuple[Episode, _Coefficients]]:
    """Return the episodes of a file with the coefficients that stand beside it."""
    episodes = list(read_episodes(path))
    return list(zip(episodes, read_coefficients(path, episodes), strict=True))


def _token_texts(run: Path) -> TokenTexts | None:
    """Return what gives the texts of tokens of a run's policy, if it has a checkpoint.

    Each run has a tokenizer of its own: runs of a comparison may train other policies.
    """
    try:
        policy = Path(policy_folder(str(run)))
        # checkpoints, its step, and the policy in it: each may be a link elsewhere.
        for place in (policy.parents[1], policy.parent, policy):
            check_place(place, is_folder=True)
        check_entries(policy)
        return token_decoder(policy)
    # transformers has many kinds of errors for one fault: no tokenizer to read. The
    # page then shows the text without what is known of tokens.
    except Exception:
        return None


def _fitting(
    tokenizers: Sequence[TokenTexts | None], episode: Episode
) -> TokenTexts | None:
    """Return the first tokenizer in which the policy's tokens spell what it wrote.

    Token ids do not say which tokenizer they are of, and read as nonsense in another.
    """
    for texts in tokenizers:
        if texts is not None and _spells(texts, episode):
            return texts
    return None


def _spells(texts: TokenTexts, episode: Episode) -> bool:
    """Return whether the policy's tokens spell what it wrote, turn by turn."""
    record = episode.tokens
    turns = [message for message in episode.messages if message.role == "assistant"]
    for number, message in enumerate(turns):
        own = record.policy_mask & (record.turn == number)
        spelt = "".join(text or "" for text in texts(record.token_ids[own].tolist()))
        # The turn's end is a token, and no part of its text.
        if _without_blanks(message.content) not in _without_blanks(spelt):
            return False
    return True


def _without_blanks(text: str) -> str:
    """Return a text without blanks, of which tokenizers may drop some."""
    return "".join(text.split())
