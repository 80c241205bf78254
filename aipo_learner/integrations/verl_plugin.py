"""What verl imports in each of its processes, by its entry points `verl.plugins`.

It registers the agent loop and the trainer, both by the name "aipo".
"""

import logging

_log = logging.getLogger("aipo_learner")

try:
    import aipo_learner.integrations.verl  # noqa: F401
except Exception as error:
    # verl would only say so to whoever debugs it, and not know the names later.
    _log.warning(
        "verl is left without the trainer and the agent loop 'aipo': %s", error
    )
