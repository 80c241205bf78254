"""The Hugging Face Hub: whether it can be asked at all, and what its errors mean."""

import errno
import socket
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus

_DEADLINE_S = 8.0
"""Seconds in which the Hub must have said anything, the look-up of its name included.
Its own client asks five times, for 23 s.
"""
_REMEMBERED_S = 60.0
"""So long a Hub that could not be reached is not asked again."""
_unreachable_since: dict[str, float] = {}
"""By address: when it was found that nobody answers there."""


def is_hub_reachable() -> bool:
    """Return whether the Hub answers, whatever it says, within a few seconds.

    If not, only what was downloaded before can be had: `local_files_only=True`.
    """
    from huggingface_hub import constants

    address = constants.ENDPOINT
    if constants.HF_HUB_OFFLINE:
        return False
    since = _unreachable_since.get(address)
    if since is not None and time.monotonic() - since < _REMEMBERED_S:
        return False
    answers = _answers(address)
    if answers:
        _unreachable_since.pop(address, None)
    else:
        _unreachable_since[address] = time.monotonic()
    return answers


def _answers(address: str) -> bool:
    """Return whether anybody answers at an address."""
    from huggingface_hub import get_session

    found: list[bool] = []

    def ask() -> None:
        try:
            get_session().head(address, timeout=_DEADLINE_S)
        # Of another library, whose kinds of errors have changed their names.
        except Exception as error:
            found.append(not any(map(_is_of_network, _chain(error))))
        else:
            found.append(True)

    # The look-up of a name heeds no deadline, so it is not waited for.
    thread = threading.Thread(target=ask, name="hub", daemon=True)
    thread.start()
    thread.join(_DEADLINE_S)
    return found == [True]


def hub_fault(error: BaseException, repo_id: str) -> str:
    """Return what an error of the Hub means and what to do, as one or two sentences.

    Args:
        error: As it was raised, by the Hub's client or by a library that asked it.
        repo_id: What was asked for.

    Returns:
        "" if it, and what it was raised from, is none of the Hub's.
    """
    from huggingface_hub import constants, errors

    chain = list(_chain(error))

    def has(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    log_in = "log in with `hf auth login` or HF_TOKEN"
    # A gated repository is one that is not found, to the Hub's client.
    if has(errors.GatedRepoError):
        return (
            f"{repo_id} is gated on the Hub. Accept its terms on its page,"
            f" {constants.ENDPOINT}/{repo_id}, and {log_in}."
        )
    if has(errors.RepositoryNotFoundError):
        return (
            f"there is no such repository on the Hub, or it is private. Check the name,"
            f" {repo_id}; if it is private, {log_in}."
        )
    if has(errors.RevisionNotFoundError):
        return "the repository has no such revision. Check the name of the branch."
    # A file that a repository lacks: what that means, whoever asked for it knows.
    if has(errors.RemoteEntryNotFoundError):
        return ""
    for link in chain:
        if isinstance(link, errors.HfHubHTTPError):
            return _refusal(link.response.status_code, log_in)
    is_absent = has(errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)
    if is_absent or any(map(_is_of_network, chain)):
        return no_network()
    return ""


def no_network() -> str:
    """Return what to do where the Hub cannot be reached."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return (
            "HF_HUB_OFFLINE forbids to ask the Hub, and it was not downloaded before."
            " Unset that."
        )
    return (
        f"no network: the Hub ({constants.ENDPOINT}) cannot be reached, and it was not"
        " downloaded before. Check the connection, HTTPS_PROXY and HF_ENDPOINT."
    )


def _refusal(status: int, log_in: str) -> str:
    """Return what a status of the Hub means that is none of its own kinds of errors."""
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return f"the Hub refuses it ({status}). Check your token, or {log_in}."
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= 500:
        return f"the Hub answers {status}. Try again later."
    return f"the Hub answers {status}."


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, what it was raised from, and so on."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        yield error
        error = error.__cause__ or error.__context__


def _is_of_network(error: BaseException) -> bool:
    """Return whether an error says that nobody answers at an address."""
    # A name that cannot be looked up, an address that cannot be reached, a deadline:
    # Python's own errors, which those of every library are raised from.
    if not isinstance(error, OSError) or isinstance(error, FileNotFoundError):
        return False
    kinds = (ConnectionRefusedError, TimeoutError, socket.gaierror)
    unreachable = (errno.ENETUNREACH, errno.EHOSTUNREACH)
    return isinstance(error, kinds) or error.errno in unreachable
