"""What became of a consultation, in a word: for counts, metrics and reports."""

import re

from aipo_env.records import Consult

_FAULTS = {
    "lost": r"^lost: ",
    "429": r"HTTP 429",
    "5xx": r"HTTP 5\d\d",
    # Every other status, and what the pool itself says.
    "refused": r"HTTP \d|not asked|budget for agents is spent|withheld|no agent for",
    # What two HTTP libraries and we ourselves say, in two spellings.
    "cut": r"peer closed|[Pp]ayload|[Ii]ncomplete|more than \d+ bytes",
    "reset": (
        r"^Unreachable|ProtocolError|ReadError|Connect|[Dd]isconnect|Reset|OSError"
    ),
    "empty": r"the reply is empty",
    "garbage": r"no chat completion|no AgentReply|packed|token ids|logprobs",
    "timeout": r"no reply within|[Tt]imed? ?out",
}
"""Kinds of failure, by what stands in the error; the first that fits.

The order matters: "HTTP 429" is a refusal by its status too, and "Unreachable" may say
that it timed out.
"""
CONSULT_OUTCOMES = ("answered", "leaked", "denied", *_FAULTS, "other")
"""Every word of `consult_outcome`. "lost" is an agent that can never answer and is not
asked any more; "refused" is a status like 302, or a call that the pool did not make for
another reason; "reset" is also a connection never made.
"""


def consult_outcome(consult: Consult) -> str:
    """Return what became of a consultation; if it failed, the kind of its last fault.

    Returns:
        One of `CONSULT_OUTCOMES`.
    """
    if consult.status != "failed":
        return consult.status
    for kind, pattern in _FAULTS.items():
        if re.search(pattern, consult.error):
            return kind
    return "other"
