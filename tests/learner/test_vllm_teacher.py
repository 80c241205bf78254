"""A vLLM server as a teacher, played by a small server that answers as vLLM does."""

import json
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from aipo_env import PolicyError
from aipo_learner.policy.teacher import TeacherContext
from aipo_learner.run.metrics_log import read_metrics
from aipo_learner.samplers.vllm.teacher import VLLMTeacher
from aipo_learner.settings.objective import ObjectiveConfig
from aipo_learner.settings.train import TrainConfig
from aipo_learner.training import train

pytest.importorskip("openai")
Answer = tuple[int, Any]
LOGPROB = -0.25
"""Of every token but the first."""
POLL_S = 0.01
"""How long the end of a server may take."""


class Server:
    """Answers as `vllm serve` does.

    Args:
        tokenizer: Of what it serves.
        answer: Takes the path and the body, and returns a status with an answer in the
            place of its own, or None.
    """

    def __init__(
        self,
        tokenizer: Any,
        answer: Callable[[str, Any], Answer | None] = lambda path, body: None,
        max_model_len: int | None = 4096,
    ) -> None:
        self.asked: list[tuple[str, Any]] = []
        outer = self

        def own(path: str, body: Any) -> Answer:
            if path == "/v1/models":
                model = {"id": "teacher", "max_model_len": max_model_len}
                return 200, {"object": "list", "data": [model]}
            if path == "/detokenize":
                return 200, {"prompt": tokenizer.decode(body["tokens"])}
            assert path == "/v1/completions"
            assert (body["model"], body["max_tokens"]) == ("teacher", 1)
            assert body["prompt_logprobs"] == 0
            scores = [
                {str(each): {"logprob": LOGPROB, "rank": 1, "decoded_token": "x"}}
                for each in body["prompt"]
            ]
            choice = {"text": "x", "prompt_logprobs": [None, *scores[1:]]}
            return 200, {"choices": [choice]}

        class Handler(BaseHTTPRequestHandler):
            def respond(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                outer.asked.append((self.path, body))
                status, value = answer(self.path, body) or own(self.path, body)
                data = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = respond

            def log_message(self, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_S,)
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


Serve = Callable[..., Server]


@pytest.fixture
def serve(tokenizer: Any) -> Iterator[Serve]:
    """Return what starts a server, which ends with the test."""
    started: list[Server] = []

    def start(*args: Any, **options: Any) -> Server:
        started.append(Server(options.pop("tokenizer", tokenizer), *args, **options))
        return started[-1]

    yield start
    for server in started:
        server.close()


def context(*token_ids: int, wanted: str) -> TeacherContext:
    is_wanted = np.array([letter == "x" for letter in wanted])
    return TeacherContext(np.array(token_ids, np.int64), is_wanted)


CONTEXTS = [
    [context(5, 6, 7, wanted="..x"), context(8, 9, 9, 7, wanted=".xx.")],
    [context(wanted=""), context(4, 4, wanted="xx")],
]


def test_a_server_scores_the_wanted_tokens_of_every_context(
    serve: Serve, tokenizer: Any
):
    server = serve()
    with closing(VLLMTeacher(tokenizer, server.url + "/")) as teacher:
        # One token is drawn behind what it reads.
        assert teacher.max_tokens == 4095
        made = teacher.score(CONTEXTS)
    assert [[scores.tolist()[-1:] for scores in of_pass] for of_pass in made] == [
        [[LOGPROB], [LOGPROB]],
        [[], [LOGPROB]],
    ]
    assert [[len(scores) for scores in of_pass] for of_pass in made] == [[1, 2], [0, 2]]
    # Of the first token of all there is none; of what nobody wants, nothing is asked.
    assert math.isnan(made[1][1][0])
    prompts = [body["prompt"] for path, body in server.asked if path.endswith("tions")]
    assert sorted(prompts) == [[4, 4], [5, 6, 7], [8, 9, 9, 7]]
    asked_ids = [
        token_id
        for path, body in server.asked
        if path == "/detokenize"
        for token_id in body["tokens"]
    ]
    assert asked_ids == list(range(len(tokenizer)))
    assert all(made.dtype == np.float32 for of_pass in made for made in of_pass)


def test_a_server_without_a_limit_reads_any_number(serve: Serve, tokenizer: Any):
    server = serve(max_model_len=None)
    with closing(VLLMTeacher(tokenizer, server.url)) as teacher:
        assert teacher.max_tokens is None


def test_a_server_of_another_vocabulary_is_refused(serve: Serve, tokenizer: Any):
    def shifted(path: str, body: Any) -> Answer | None:
        if path != "/detokenize":
            return None
        return 200, {"prompt": tokenizer.decode([each + 1 for each in body["tokens"]])}

    server = serve(shifted)
    with pytest.raises(
        PolicyError, match="has another vocabulary than the policy: the"
    ):
        VLLMTeacher(tokenizer, server.url)


def test_a_dead_server_ends_the_run_with_the_reason(serve: Serve, tokenizer: Any):
    server = serve()
    server.close()
    message = rf"no vLLM serves at {server.url} within 0.2 s: .*(refused|failed)"
    with pytest.raises(PolicyError, match=message):
        VLLMTeacher(tokenizer, server.url, startup_s=0.2)


def test_a_server_that_dies_once_is_asked_again(serve: Serve, tokenizer: Any):
    deaths = iter([True, True, False])

    def fragile(path: str, body: Any) -> Answer | None:
        dies = path == "/v1/completions" and next(deaths)
        return (500, {"error": {"message": "engine dead"}}) if dies else None

    server = serve(fragile)
    with closing(VLLMTeacher(tokenizer, server.url)) as teacher:
        [[scores]] = teacher.score([[CONTEXTS[0][0]]])
    assert scores.tolist() == [LOGPROB]
    paths = [path for path, _ in server.asked if path != "/detokenize"]
    assert paths == ["/v1/models", *["/v1/completions", "/v1/models"] * 2, paths[1]]


@pytest.mark.parametrize(
    ("status", "answer", "message"),
    [
        (500, {"error": {"message": "engine dead"}}, "died 4 times .*engine dead"),
        (400, {"error": {"message": "too long"}}, "completions refuses: .*too long"),
        (200, {"choices": []}, "which is no answer of vLLM's"),
        (200, ["x"], "which is no answer of vLLM's"),
        (200, "<html>", "which is no answer of vLLM's"),
        (200, {"choices": [{"prompt_logprobs": None}]}, "which is no answer of vLLM's"),
        (
            200,
            {"choices": [{"prompt_logprobs": [None, {"6": {"logprob": -1}}]}]},
            "which is no answer of vLLM's",
        ),
        (
            200,
            {"choices": [{"prompt_logprobs": [None, None, {"8": {"logprob": -1}}]}]},
            "which is no answer of vLLM's",
        ),
        (
            200,
            {"choices": [{"prompt_logprobs": [None, None, {"7": {"logprob": 3.5}}]}]},
            "gave 3.5 for a log-probability. Start the server without --logprobs-mode",
        ),
    ],
)
def test_what_is_no_score_ends_the_run_with_the_reason(
    serve: Serve, tokenizer: Any, status: int, answer: Any, message: str
):
    server = serve(
        lambda path, body: (status, answer) if path == "/v1/completions" else None
    )
    with (
        closing(VLLMTeacher(tokenizer, server.url)) as teacher,
        pytest.raises(PolicyError, match=message),
    ):
        teacher.score([[CONTEXTS[0][0]]])


@pytest.mark.parametrize("answer", [{"data": []}, {}, [], "hello", {"data": [{}]}])
def test_an_address_of_something_else_is_refused(
    serve: Serve, tokenizer: Any, answer: Any
):
    server = serve(lambda path, body: (200, answer))
    with pytest.raises(PolicyError, match="Give the address of a vLLM server, without"):
        VLLMTeacher(tokenizer, server.url)


def test_a_run_is_taught_by_a_server(serve: Serve, tmp_path: Path):
    server = serve(max_model_len=500)
    config = TrainConfig(
        out=tmp_path,
        num_steps=1,
        groups_per_step=2,
        group_size=4,
        num_threads=1,
        loggers="",
        objective=ObjectiveConfig(teacher=f"vllm:{server.url},startup_s=5"),
    )
    train(config, Console(quiet=True))
    [row] = read_metrics(tmp_path / "metrics.jsonl")
    prompts = [body["prompt"] for path, body in server.asked if path.endswith("tions")]
    # Every row whose context it can read, with the token that is drawn behind it.
    assert len(prompts) == row["rows/taught"] > 0
    assert row["rows/taught"] + row["rows/unreadable"] == row["rows"]
    assert max(map(len, prompts)) < 500
    assert row["teacher_gap"] < 0
