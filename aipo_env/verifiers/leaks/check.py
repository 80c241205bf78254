"""The leak rule asked: at once where that is quick, else in a worker process."""

import asyncio
import json
import os
from dataclasses import asdict

from aipo_env.verifiers.leaks.gold import Gold
from aipo_env.verifiers.leaks.plain_text import plain_length
from aipo_env.verifiers.leaks.rule import leaks
from aipo_env.verifiers.math.grade import Undecided, without_algebra
from aipo_env.verifiers.workers import shared_pool

MAX_INLINE_CHARS = 300
"""What is longer, all texts together and normalised, goes to a worker process."""
MAX_INLINE_GOLD = 32
"""A longer gold or statement goes there, too: to compare two formulas takes longest."""


async def gives_away(gold: Gold, reply: str, said: str) -> bool:
    """Return whether a reply gives the gold away; yes, where there is no time to tell.

    Args:
        gold: What must not be given away.
        reply: The agent's words.
        said: The policy's own words that let a reply repeat the gold.
    """
    texts = (reply, said, gold.prompt, *gold.choices)
    if len(gold.answer) <= MAX_INLINE_GOLD and _are_brief(texts):
        try:
            return leaks(gold, reply, said, _same_without_algebra, _parse_in_worker)
        except Undecided:
            pass  # a worker process knows algebra, and may parse
        except Exception:
            return True
    request = json.dumps([asdict(gold), reply, said], ensure_ascii=False)
    pool = shared_pool(os.getpid())
    outcome = await asyncio.wrap_future(pool.submit("leaks", request))
    return outcome.status != "answered" or bool(json.loads(outcome.text))


def _are_brief(texts: tuple[str, ...]) -> bool:
    """Return whether texts may be read without holding anybody up, once normalised."""
    # Normalising is linear, but of a long text it takes long, too.
    if sum(map(len, texts)) > MAX_INLINE_CHARS:
        return False
    return sum(map(plain_length, texts)) <= MAX_INLINE_CHARS


def _same_without_algebra(gold: str, statement: str) -> bool:
    if len(statement) > MAX_INLINE_GOLD:
        raise Undecided
    return without_algebra(gold, statement).status == "correct"


def _parse_in_worker(text: str, entry: str, said: str) -> bool:
    """Tell nothing: a program is parsed in a worker process only."""
    raise Undecided
