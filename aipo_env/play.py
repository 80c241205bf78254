"""A person is the policy, in the terminal, and can consult the agents."""

from aipo_env.envs.byte_session import ByteSession
from aipo_env.episode import Episode
from aipo_env.records import Split, StopReason
from aipo_env.render import escape_terminal, messages_text
from aipo_env.scenario import Scenario


def play(scenario: Scenario, *, split: Split = "train", index: int = 0, aided: bool = True) -> Episode:
    """Play one task on standard input and output; return the episode.

    A turn ends at an empty line or after a line that closes a call. Ctrl-D and Ctrl-C end the episode as
    cancelled.
    """
    session = scenario.session(scenario.source.task(split, index), aided=aided, key=(index,))
    running = ByteSession(session)
    print(messages_text(running.open()))
    print(_how_to(scenario, aided))
    try:
        while session.stop_reason is None:
            message = running.say(_read_turn(session.dialogue.stop_strings()))
            if message is not None:
                print(messages_text([message]))
    except (EOFError, KeyboardInterrupt):
        session.abort(StopReason.CANCELLED)
        print()
    episode = session.episode()
    print(_outcome(episode))
    return episode


def _how_to(scenario: Scenario, aided: bool) -> str:
    rules = scenario.rules
    protocol = f"\n{scenario.codec.instructions(rules.kinds, rules.consult_budget)}" if aided else ""
    return (
        f"{protocol}\nAn empty line ends your turn; a turn that asks nothing is your final answer, in "
        "\\boxed{}. Ctrl-D stops.\n"
    )


def _read_turn(stop_strings: tuple[str, ...]) -> str:
    """Read lines up to an empty one or one that closes a call; empty lines before the first do not count."""
    lines: list[str] = []
    while not (lines and lines[-1].endswith(stop_strings)):
        line = input("> ")
        if line:
            lines.append(line)
        elif lines:
            break
    return "\n".join(lines)


def _outcome(episode: Episode) -> str:
    """Return how the episode ended, in one line."""
    if episode.verdict is None:
        return f"Ended without a verdict: {episode.stop_reason}."
    status, extracted, reason = episode.verdict.status, episode.verdict.extracted, episode.verdict.reason
    return (
        f"Verdict: {status.replace('_', ' ')}"
        + (f" ({escape_terminal(reason)})." if reason else ".")
        + (f" Your answer: {escape_terminal(extracted)}." if extracted else "")
        + (f" Consultations: {len(episode.consults)}." if episode.consults else "")
    )
