"""A policy behind an endpoint: a model that is measured and not trained.

policy = ChatPolicy("Qwen/Qwen3-8B@http://localhost:8000/v1")
runner = EpisodeRunner("AIPO-Math-Turn-v0", policy)
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
)

from aipo_env.agents.base import PermanentFailure, RequestRefused, RetryLater
from aipo_env.agents.endpoint import (
    CHARS_PER_TOKEN,
    DEFAULT_KEY,
    Endpoint,
    count_of,
    split_address,
)
from aipo_env.errors import (
    AgentError,
    ConfigError,
    PolicyLost,
    check_number,
    check_whole,
)
from aipo_env.keys import Key, Salt, keyed_rng, short_seed
from aipo_env.records import Completion, FinishReason, Message
from aipo_env.rollout.voice import TextVoice
from aipo_env.text import encodable
from aipo_env.tokenizers.base import Tokenizer
from aipo_env.tokenizers.bpe import build_tokenizer

FIRST_PAUSE_S = 1.0
"""Before the first retry; before each further one twice as much."""


@dataclass(eq=False)
class ChatPolicy:
    """Says each turn by one chat completion; gives each episode its voice.

    Tokens are counted by a tokenizer of ours, as the endpoint does not say which ones
    it sampled: limits are about those of the rules, and there are no log-probabilities.
    A turn is as long as its server let it be, and is cut behind a stop string here.

    Args:
        model: The model's name at the endpoint, or "MODEL@URL".
        url: The endpoint, up to "/v1"; by default the one of the `openai` client.
        key_env: The environment variable that holds the key. An endpoint with a URL may
            do without one.
        temperature: Of the draws; None leaves it to the endpoint. The seed derives from
            the episode's key and the turn, for endpoints that take one.
        concurrency: Completions that are asked for at once.
        retries: How often a completion is asked for again that failed, after pauses
            that double. While an endpoint asks for a pause, nobody asks it.
        deadline_s: Seconds after which one has failed.
        tokenizer: As in `gym.make`: "tiktoken:aipo", "tiktoken:o200k_base",
            "hf:FOLDER".
        extra: Further fields of the API's request; None takes one of ours away:
            {"max_tokens": None, "max_completion_tokens": 4096}.

    A refusal for good, as of a key, raises `PolicyLost`, which ends the run; any other
    failure that outlasts the retries ends its episode with `policy_error`.

    Raises:
        ConfigError: An option cannot be used, the key is missing, or `openai` is not
            installed.
    """

    model: str
    url: str = ""
    _: KW_ONLY
    key_env: str = DEFAULT_KEY
    temperature: float | None = 1.0
    concurrency: int = 32
    retries: int = 6
    deadline_s: float = 600.0
    tokenizer: str = "tiktoken:aipo"
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        what = "policy 'openai'"
        self.model, self.url = split_address(self.model, self.url, what)
        check_whole(f"{what}: concurrency", self.concurrency, 1)
        check_whole(f"{what}: retries", self.retries, 0)
        check_number(f"{what}: deadline_s", self.deadline_s)
        if self.temperature is not None:
            check_number(f"{what}: temperature", self.temperature)
        if not isinstance(self.extra, Mapping):
            raise ConfigError(f"{what}: extra must be an object of names and values.")
        self.name = f"openai:{self.model}"
        self.num_tokens = 0
        """Tokens that completions had so far, as the endpoint counts them."""
        self._endpoint = Endpoint(self.model, self.url, self.key_env, self.name, what)
        self._tokenizer: Tokenizer = build_tokenizer(self.tokenizer, {})
        # A semaphore belongs to the event loop it first waited in.
        self._slots: dict[asyncio.AbstractEventLoop, asyncio.Semaphore] = {}
        self._lost = ""
        # By the monotonic clock.
        self._rests_until = 0.0

    def voice(self, key: Key) -> TextVoice:
        """Return the voice of an episode."""
        return TextVoice(self._tokenizer, partial(self._say, key))

    async def check(self) -> None:
        """Ask for one short completion, to find out what is wrong before a run.

        Raises:
            ConfigError: There was none; the message says why.
        """
        question = [{"role": "user", "content": "What is 1 + 1?"}]
        try:
            await self._complete(question, 16, seed=0)
        except AgentError as error:
            raise ConfigError(
                f"policy 'openai': the first question to {self.model} at"
                f" {self.url or 'the endpoint'} was not answered: {error}. Check the"
                " model's name, the URL and the key."
            ) from None

    async def _say(
        self,
        key: Key,
        messages: Sequence[Message],
        stop: tuple[str, ...],
        max_tokens: int,
    ) -> Completion:
        """Say a turn; `TextPolicy` of the episode with that key."""
        written = [
            {"role": message.role, "content": message.content} for message in messages
        ]
        seed = short_seed((*key, len(messages)))
        text, is_cut = await self._with_retries(written, max_tokens, seed)
        turn, reason = turn_text(text, stop, max_tokens, is_cut=is_cut)
        token_ids = tuple(self._tokenizer.encode(turn))
        return Completion(turn, token_ids, (), reason)

    async def _with_retries(
        self, messages: Sequence[Mapping[str, str]], max_tokens: int, seed: int
    ) -> tuple[str, bool]:
        """Return a completion, asked for again where another try may succeed."""

        def pause_s(state: RetryCallState) -> float:
            # Drawn, so that calls that failed together do not come back together.
            rng = keyed_rng([seed], Salt.RETRY_PAUSE, state.attempt_number)
            mean_s: float = FIRST_PAUSE_S * 2 ** (state.attempt_number - 1)
            return min(mean_s * rng.uniform(0.5, 1.5), self.deadline_s)

        retrying = AsyncRetrying(
            retry=retry_if_exception(_may_pass),
            stop=stop_after_attempt(1 + self.retries),
            wait=pause_s,
            sleep=asyncio.sleep,
            reraise=True,
        )
        try:
            said: tuple[str, bool] = await retrying(
                self._complete, messages, max_tokens, seed
            )
        except PermanentFailure as failure:
            raise PolicyLost(
                f"policy 'openai': {self.model} can no longer be asked: {failure}. Mend"
                " that, and give the same command again: what was sampled is kept with"
                " --out."
            ) from None
        finally:
            # Its last actions refer to it: a cycle for each completion.
            retrying.iter_state.reset()
        return said

    async def _complete(
        self, messages: Sequence[Mapping[str, str]], max_tokens: int, seed: int
    ) -> tuple[str, bool]:
        """Return a completion's text, and whether a limit cut it off."""
        own = {
            "max_tokens": max_tokens,
            "temperature": self.temperature,
            "seed": seed,
        }
        async with self._slot():
            await self._rest()
            # Only now: all that queue are told at once.
            if self._lost:
                raise PermanentFailure(self._lost)
            try:
                async with asyncio.timeout(self.deadline_s):
                    body = await self._endpoint.complete(
                        messages, {**own, **self.extra}
                    )
            except TimeoutError:
                raise AgentError(f"no completion within {self.deadline_s} s") from None
            except PermanentFailure as failure:
                self._lost = str(failure)
                raise
            except RetryLater as failure:
                # Nobody else is to ask meanwhile.
                end = time.monotonic() + min(failure.retry_after_s, self.deadline_s)
                self._rests_until = max(self._rests_until, end)
                raise
        text, is_cut, num_tokens = self._read(body)
        self._endpoint.note_answer()
        self.num_tokens += num_tokens
        return text, is_cut

    def _read(self, body: bytes) -> tuple[str, bool, int]:
        """Return the text of a response, whether it is cut, and how many tokens it has.

        Raises:
            AgentError: It is no chat completion.
        """
        # Any part may be missing or of another type: one handler for all of it.
        try:
            data = json.loads(body)
            choice = data["choices"][0]
            content = choice["message"]["content"] or ""
            if not isinstance(content, str):
                raise TypeError("its content is no text")
            text = self._endpoint.without_key(content)
            is_cut = choice.get("finish_reason") == "length"
            num_tokens = count_of((data.get("usage") or {}).get("completion_tokens"))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise AgentError(
                f"the response is no chat completion: {self._endpoint.excerpt(body)}"
            ) from None
        return text, is_cut, num_tokens

    async def _rest(self) -> None:
        """Wait while the endpoint has asked for a pause."""
        while (left_s := self._rests_until - time.monotonic()) > 0:
            await asyncio.sleep(left_s)

    def _slot(self) -> asyncio.Semaphore:
        """Return what limits the calls of the running event loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._slots:
            self._slots = {loop: asyncio.Semaphore(self.concurrency)}
        return self._slots[loop]


def turn_text(
    text: str, stop: Sequence[str], max_tokens: int, *, is_cut: bool
) -> tuple[str, FinishReason]:
    """Return which part of an endpoint's text is the turn, and what ended it.

    Args:
        text: As the endpoint sent it.
        stop: Strings behind which a turn ends.
        max_tokens: How many tokens the turn may have. A text that is much too long for
            that is cut: its server does not count.
        is_cut: Whether the endpoint says that it was cut.
    """
    max_chars = CHARS_PER_TOKEN * max_tokens
    is_cut = is_cut or len(text) > max_chars
    text = encodable(text[:max_chars])
    end = _end_of_turn(text, stop)
    if end is not None:
        return text[:end], "stop"
    return text, "length" if is_cut else "stop"


def _may_pass(error: BaseException) -> bool:
    """Return whether the same request may be answered yet."""
    is_final = isinstance(error, PermanentFailure | RequestRefused)
    return isinstance(error, AgentError) and not is_final


def _end_of_turn(text: str, stop: Sequence[str]) -> int | None:
    """Return where the first stop string ends; None where none stands in the text.

    Endpoints leave the string out, and with it the mark by which a call is known.
    """
    ends = [text.index(mark) + len(mark) for mark in stop if mark in text]
    return min(ends, default=None)
