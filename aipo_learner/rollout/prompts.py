"""Whether prompts and turns can be written: found out before anything is sampled."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from aipo_env import ConfigError, Scenario, Session, Split, StopReason, task_index
from aipo_learner.samplers.chat_format import ChatFormat

_NUM_TASKS = 4
"""So many tasks are looked at."""
_MAX_TURNS = 24
"""So many turns of an episode are: the time it takes grows with their square."""


def check_prompts(
    scenario: Scenario,
    tokenizer: PreTrainedTokenizerBase,
    *,
    split: Split,
    ways: Sequence[bool],
    seed: int,
) -> None:
    """Write the prompts of the first tasks, and what stands between turns after them.

    Args:
        scenario: What is played.
        tokenizer: The policy's, with its chat template.
        split: Which tasks are.
        ways: Whether episodes are aided; both, where some are and some are not.
        seed: Of the reading of the tasks.

    Raises:
        ConfigError: In every one of the prompts of a way no token is left for the
            policy.
        PolicyError: The chat template refuses a prompt, or a conversation that is as
            long as the rules allow.
    """
    chat = ChatFormat(tokenizer)
    rules = scenario.rules
    for aided in ways:
        lengths = []
        num_full = 0
        for position in range(_NUM_TASKS):
            index = task_index(scenario.source, split, position, seed)
            task = scenario.source.task(split, index)
            session = scenario.session(task, aided=aided)
            messages = session.open()
            pieces = chat.prompt(messages)
            chat.check_turns(messages, min(_num_turns(session), _MAX_TURNS))
            lengths.append(sum(len(token_ids) for token_ids, _ in pieces))
            session.show(pieces)
            num_full += session.stop_reason == StopReason.CONTEXT_OVERFLOW
        if num_full == _NUM_TASKS:
            kind = "aided" if aided else "unaided"
            raise ConfigError(
                f"config: max_context_tokens={rules.max_context_tokens} of the rules"
                f" leaves the policy no token behind the prompts of {kind} episodes,"
                f" which have {min(lengths)} to {max(lengths)}. Allow more"
                " (--environment.rules.max-context-tokens), or shorten the prompts."
            )


def _num_turns(session: Session) -> int:
    """Return how many turns an episode may have."""
    rules = session.dialogue.rules
    if session.dialogue.offered or session.dialogue.tools:
        return rules.max_turns
    # Only a malformed turn is answered.
    return min(rules.max_turns, rules.max_invalid + 1)
