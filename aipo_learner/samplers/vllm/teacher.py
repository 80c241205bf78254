"""A vLLM server that scores tokens, as a teacher: `prompt_logprobs` of a completion."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from aipo_env import PolicyError, all_of, run_sync, shown
from aipo_learner.policy.teacher import TeacherContext, TokenScores
from aipo_learner.samplers.vllm.engine import EngineFault
from aipo_learner.samplers.vllm.sampler import NUM_TRIES
from aipo_learner.samplers.vllm.server import HTTPClient

_POLL_S = 0.5
"""How long to wait between two questions whether the server is up."""
_NUM_DRAWN = 1
"""Tokens that vLLM draws behind a prompt that it scores: it wants one at least."""
_IDS_AT_ONCE = 4096
"""So many ids are turned to text in one request."""
_ROUNDING = 1e-3
"""A log-probability may be so far above 0."""


class VLLMTeacher:
    """Scores contexts with a server that somebody started, at temperature 1.

    It is waited for at the start, and again when it does not answer.

    Args:
        tokenizer: The policy's.
        url: Address without "/v1".
        startup_s: How long to wait for the server.
        request_s: How long to wait for the scores of one context, waiting for a place
            in the batch included.

    Raises:
        ConfigError: The client is not installed.
        PolicyError: There is no server, or it has another vocabulary.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        url: str,
        startup_s: float = 900.0,
        request_s: float = 3600.0,
    ) -> None:
        self.url = url.rstrip("/")
        self._startup_s = startup_s
        self._client = HTTPClient("teacher", request_s)
        self._one_at_a_time = asyncio.Lock()
        # The name by which the server calls the model that it serves.
        self._model = ""
        self.max_tokens: int | None = None
        """What it can read of one context; any number if None."""
        try:
            run_sync(self._open(tokenizer))
        except BaseException:
            self.close()
            raise

    def score(self, passes: Sequence[Sequence[TeacherContext]]) -> list[TokenScores]:
        """Return the scores; the server is asked for all contexts at once.

        Raises:
            PolicyError: It refuses, answers something else, or did not answer again and
                again.
        """
        contexts = [context for of_pass in passes for context in of_pass]
        scores = iter(run_sync(self._score_all(contexts)))
        return [[next(scores) for _ in of_pass] for of_pass in passes]

    def close(self) -> None:
        """End the connections. May be called twice."""
        run_sync(self._client.close())

    async def _open(self, tokenizer: PreTrainedTokenizerBase) -> None:
        served = await self._wait()
        self._model = served["id"]
        limit = served.get("max_model_len")
        if limit is not None:
            self.max_tokens = int(limit) - _NUM_DRAWN
        await self._check_vocabulary(tokenizer)

    async def _wait(self) -> dict[str, Any]:
        """Return what the server says of its model, once it is up.

        Raises:
            PolicyError: It is not within `startup_s`, or serves nothing.
        """
        fault = ""
        loop = asyncio.get_running_loop()
        # One asks for all: many requests may have died with the server.
        async with self._one_at_a_time:
            deadline = loop.time() + self._startup_s
            while loop.time() < deadline:
                try:
                    models = await self._ask("get", "/v1/models")
                except EngineFault as error:
                    fault = str(error)
                    await asyncio.sleep(_POLL_S)
                    continue
                try:
                    served: dict[str, Any] = dict(models["data"][0])
                    return served | {"id": str(served["id"])}
                except (KeyError, IndexError, TypeError, ValueError) as error:
                    raise self._is_none("/v1/models", models) from error
        raise PolicyError(
            f"teacher: no vLLM serves at {self.url} within {self._startup_s:g} s:"
            f" {fault}"
        )

    async def _check_vocabulary(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Have the server say what the policy's ids mean.

        Raises:
            PolicyError: They mean something else there.
        """
        for first in range(0, len(tokenizer), _IDS_AT_ONCE):
            ids = list(range(first, min(first + _IDS_AT_ONCE, len(tokenizer))))
            body = {"model": self._model, "tokens": ids}
            answer = await self._ask("post", "/detokenize", body)
            try:
                text = answer["prompt"]
            except (KeyError, TypeError) as error:
                raise self._is_none("/detokenize", answer) from error
            if text != tokenizer.decode(ids, skip_special_tokens=False):
                raise PolicyError(
                    f"config: objective.teacher: {self.url} has another vocabulary than"
                    f" the policy: the ids {ids[0]} to {ids[-1]} are other texts there."
                    " Serve a model of the policy's family."
                )

    async def _score_all(self, contexts: Sequence[TeacherContext]) -> TokenScores:
        return await all_of(self._score(context) for context in contexts)

    async def _score(self, context: TeacherContext) -> NDArray[np.float32]:
        """Return the scores of one context.

        Raises:
            PolicyError: As `score`.
        """
        if not context.wanted.any():
            return np.zeros(0, np.float32)
        body = {
            "model": self._model,
            "prompt": context.token_ids.tolist(),
            "max_tokens": _NUM_DRAWN,
            # Of the prompt's own tokens, and of no others beside them.
            "prompt_logprobs": 0,
        }
        for _ in range(NUM_TRIES):
            try:
                answer = await self._ask("post", "/v1/completions", body)
            except EngineFault as error:
                fault = error
                await self._wait()
            else:
                return self._scores_in(answer, context)
        raise PolicyError(
            f"teacher: vLLM died {NUM_TRIES} times under one context: {fault}"
        )

    def _scores_in(self, answer: Any, context: TeacherContext) -> NDArray[np.float32]:
        """Return the scores of the wanted tokens that an answer has.

        Raises:
            PolicyError: It has none, or numbers that are no log-probabilities.
        """
        scores = []
        try:
            of_places = answer["choices"][0]["prompt_logprobs"]
            if len(of_places) != len(context.token_ids):
                raise ValueError("another number of tokens")
            for place in np.flatnonzero(context.wanted):
                by_token = of_places[place]
                token_id = str(context.token_ids[place])
                # Of a first token there is none.
                score = np.nan if by_token is None else by_token[token_id]["logprob"]
                scores.append(float(score))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise self._is_none("/v1/completions", answer) from error
        highest = max(scores)
        if highest > _ROUNDING:
            raise PolicyError(
                f"teacher: {self.url} gave {highest:.6g} for a log-probability. Start"
                " the server without --logprobs-mode, or with raw_logprobs."
            )
        return np.array(scores, np.float32)

    def _is_none(self, path: str, answer: Any) -> PolicyError:
        """Return the error that an answer is none of vLLM's."""
        return PolicyError(
            f"teacher: {self.url}{path} answered {shown(answer)}, which is no answer of"
            " vLLM's. Give the address of a vLLM server, without /v1."
        )

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON that the server answers.

        Raises:
            EngineFault: It did not answer.
            PolicyError: It refuses.
        """
        return await self._client.ask(method, self.url + path, body)
