"""A person is the policy, in the terminal, and can consult the agents."""

from aipo_env.episode import Episode
from aipo_env.errors import ConfigError
from aipo_env.event_loop import run_sync
from aipo_env.records import Split, StopReason
from aipo_env.rollout.drive import begin, take_turn
from aipo_env.rollout.scenario import Scenario
from aipo_env.rollout.voice import TextVoice
from aipo_env.viewer.render import escape_terminal, messages_text


def play_in_terminal(
    scenario: Scenario, *, split: Split = "train", index: int = 0, aided: bool = True
) -> Episode:
    """Play one task on standard input and output; return the episode.

    A turn ends after a line that closes a call, or at an empty line; in a code task,
    whose answer may hold empty lines, at a line with only ".". Ctrl-D and Ctrl-C end
    the episode as cancelled. Limits of tokens count bytes.

    Raises:
        ConfigError: The task's source forbids republication, so it is not printed.
    """
    task = scenario.source.task(split, index)
    if task.withheld:
        raise ConfigError(
            f"play: task {task.id!r}: {task.withheld}. Play a task of another source."
        )
    session = scenario.rollout(split, seed=0, group=0, index=index, aided=aided)
    dialogue = session.dialogue
    voice = TextVoice()
    run_sync(session.prepare())
    print(messages_text(begin(session, voice)))
    # A program has empty lines, but none with a full stop alone.
    end = "." if task.kind == "code" else ""
    print(_how_to(scenario, aided, end, task.kind))
    try:
        while session.stop_reason is None:
            text = _read_turn(dialogue.stop_strings(), end)
            turn = voice.said(text, dialogue.token_limit())
            message = run_sync(take_turn(session, voice, turn))
            if message is not None:
                print(messages_text([message]))
    except (EOFError, KeyboardInterrupt):
        session.abort(StopReason.CANCELLED)
        run_sync(session.close())
        print()
    episode = session.episode()
    print(_outcome(episode))
    return episode


_FORMS = {"math": ", in \\boxed{}", "choice": ", in \\boxed{}", "code": ", a program"}
"""The form of a final answer, by the kind of task."""


def _how_to(scenario: Scenario, aided: bool, end: str, kind: str) -> str:
    """Return what a person has to know before the first turn."""
    rules = scenario.rules
    protocol = ""
    # A prompt of its own, for policies that know the protocol by heart, does not
    # explain it to a person.
    if aided and scenario.offered and rules.consult_prompt:
        codec = scenario.codec_of(aided=aided)
        protocol = "\n" + codec.instructions(scenario.offered, rules.consult_budget)
    form = _FORMS.get(kind, "")
    mark = "An empty line"
    if end:
        mark = 'A line with only "."'
    return (
        f"{protocol}\n{mark} ends your turn; a turn that asks nothing is your final"
        f" answer{form}. Ctrl-D stops.\n"
    )


def _read_turn(stop_strings: tuple[str, ...], end: str) -> str:
    """Read lines up to one that is `end` or closes a call.

    Empty lines before the first do not count, and neither does an `end` there.
    """
    lines: list[str] = []
    while True:
        line = input("> ")
        if line == end:
            if lines:
                break
            continue
        if not line and not lines:
            continue
        lines.append(line)
        if line.endswith(stop_strings):
            break
    return "\n".join(lines)


def _outcome(episode: Episode) -> str:
    """Return how the episode ended, in one line."""
    verdict = episode.verdict
    if verdict is None:
        return f"Ended without a verdict: {episode.stop_reason}."
    num_consults = sum(consult.is_agents for consult in episode.consults)
    num_calls = len(episode.consults) - num_consults
    sentence = f"Verdict: {verdict.status.replace('_', ' ')}"
    if verdict.reason:
        sentence += f" ({escape_terminal(verdict.reason)})"
    sentences = [f"{sentence}."]
    # A program has several lines and was just typed.
    if verdict.extracted and "\n" not in verdict.extracted:
        sentences.append(f"Your answer: {escape_terminal(verdict.extracted)}.")
    if num_consults:
        sentences.append(f"Consultations: {num_consults}.")
    if num_calls:
        sentences.append(f"Calls of tools: {num_calls}.")
    return " ".join(sentences)
