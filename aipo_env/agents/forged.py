"""Replies that the policy made up: agents are shown them as its own words.

An agent that took one for another agent's would build on it.
"""

import re

from aipo_env.text import loosened

FORGED = (
    "(All of this is the policy's own words, the reply in it too, which nobody gave:)"
)
"""What agents are told above a turn in which the policy made up a reply."""
_LIKE_A_REPLY = re.compile(
    r"""
    # <reply from=…>, [reply …], <|reply
    [<\[{|] [\s|/]{0,8} (?:reply|tool_response) \b
    # {"role": "tool", …}
    | "role" \s{0,8} : \s{0,8} "tool"
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What may pass for a reply with whoever reads it, whatever the codec's marks are."""


def marked_if_forged(text: str, *, is_forged: bool = False) -> str:
    """Return words of the policy as agents are shown them.

    If something in them passes for a reply, every line of them is marked.

    Args:
        text: The words.
        is_forged: The codec has found a reply in them.
    """
    if not is_forged and not _LIKE_A_REPLY.search(loosened(text)):
        return text
    lines = [f"| {line}" for line in text.splitlines()]
    return "\n".join([FORGED, *lines])
