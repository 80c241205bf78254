"""`vllm serve`, as an engine: one of yours, or a process that ends with the learner."""

import asyncio
import contextlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aipo_env import ConfigError, PolicyError
from aipo_learner.samplers.vllm.engine import (
    ENVIRONMENT,
    EngineFault,
    Sampled,
    engine_options,
)
from aipo_learner.samplers.vllm.weights import free_port

_POLL_S = 0.5
"""How long to wait between two questions whether a server is up."""
_GRACE_S = 20.0
"""How long a server has to end by itself before it is killed."""
_NUM_ERROR_LINES = 3
"""How many lines of its log are told of a server that does not start."""
_PR_SET_PDEATHSIG = 1
"""Linux: `prctl` with it names the signal that a process gets when its parent dies."""
# Becomes the server, once the kernel has been told to end it when its learner dies,
# however that happens. `preexec_fn` would do the same, but runs between fork and exec,
# where another thread may hold a lock for ever.
_TIED_TO_US = (
    "import ctypes, os, sys;"
    f" ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, {int(signal.SIGTERM)});"
    " os.execvp(sys.argv[1], sys.argv[1:])"
)


class HTTPClient:
    """Asks vLLM servers.

    Args:
        what: What the servers are, for messages: "sampler".
        request_s: How long to wait for an answer.

    Raises:
        ConfigError: The client is not installed.
    """

    def __init__(self, what: str, request_s: float) -> None:
        try:
            openai = importlib.import_module("openai")
        except ImportError as error:
            raise ConfigError(
                f'{what}: a vLLM server needs openai: pip install "aipo-rl[openai]".'
            ) from error
        self._what = what
        self._faults = (openai.APIConnectionError, openai.InternalServerError)
        self._refusals = openai.APIError
        # It tries nothing again: its own retries would go to a server that is gone. A
        # key is needed even where no server asks for one.
        key = os.environ.get("VLLM_API_KEY") or "none"
        self._client = openai.AsyncOpenAI(api_key=key, max_retries=0, timeout=request_s)

    async def ask(self, method: str, url: str, body: Any = None) -> Any:
        """Return the JSON that a server answers to a request.

        Raises:
            EngineFault: It did not answer.
            PolicyError: It refuses.
        """
        options = {} if body is None else {"body": body}
        send = getattr(self._client, method)
        try:
            return await send(url, cast_to=object, **options)
        except self._faults as error:
            raise EngineFault(f"{url}: {error.__cause__ or error}") from error
        except self._refusals as error:
            raise PolicyError(f"{self._what}: {url} refuses: {error}") from error

    async def close(self) -> None:
        """End its connections."""
        await self._client.close()


class ServedEngine:
    """The same as `OwnEngine`, over HTTP.

    Args:
        url: Address without "/v1". Such a server needs VLLM_SERVER_DEV_MODE=1 and
            `--logprobs-mode processed_logprobs`, and must see the folder that weights
            are handed over in.
        command: The program, for a server of our own; it may live in another virtual
            environment.
        startup_s: How long to wait for the server.
        request_s: How long to wait for one turn, waiting for a place in the batch
            included.
        options: Command-line options of `vllm serve`, with underscores.

    Raises:
        ConfigError: The client or the program is not installed, or there are options
            for a server that we do not start.
    """

    def __init__(
        self,
        url: str = "",
        command: str = "vllm",
        startup_s: float = 900.0,
        request_s: float = 3600.0,
        **options: Any,
    ) -> None:
        # One client for all servers that we start after another: requests in flight
        # must not lose it under them.
        self._client = HTTPClient("sampler", request_s)
        if url and options:
            raise ConfigError(
                f"sampler: options {sorted(options)} are for a server of ours, not for"
                f" {url}."
            )
        # Beside this Python too: a virtual environment need not be activated.
        own_folder = str(Path(sys.executable).parent)
        search_path = os.pathsep.join([os.environ.get("PATH", ""), own_folder])
        self._program = shutil.which(command, path=search_path)
        if not url and not self._program:
            raise ConfigError(
                f"sampler vllm-serve: there is no program {command!r}. Install vLLM,"
                ' name the program of another environment, {"type": "vllm-serve",'
                ' "command": "/path/bin/vllm"}, or a server: vllm:http://HOST:8000.'
            )
        self.url = url.rstrip("/")
        self._is_ours = not url
        self._options = options
        self._startup_s = startup_s
        # The name by which the server calls the model that it serves.
        self._model = ""
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, folder: Path) -> None:
        """Start our server, or wait for the other and give it weights.

        Args:
            folder: The model folder whose weights it is to have.

        Raises:
            PolicyError: There is no server within `startup_s`, or it ended.
        """
        log = folder.with_name("vllm.log")
        if self._is_ours:
            await self._end()
            self._launch(folder, log)
        fault = ""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._startup_s
        while loop.time() < deadline and not self._has_ended():
            try:
                models = await self._ask("get", "/v1/models")
                self._model = models["data"][0]["id"]
                if not self._is_ours:
                    await self.reload(folder)
                return
            except EngineFault as error:
                fault = str(error)
                await asyncio.sleep(_POLL_S)
        reasons = _errors_in(log) if self._is_ours else []
        raise PolicyError(
            f"sampler: no vLLM serves at {self.url} within {self._startup_s:g} s, or it"
            f" ended: {' | '.join(reasons or [fault])}"
        )

    def _has_ended(self) -> bool:
        """Return whether a server of ours is gone; of others it is not known."""
        return self._process is not None and self._process.poll() is not None

    async def generate(
        self, token_ids: Sequence[int], sampling: Mapping[str, Any]
    ) -> Sampled:
        """Continue `token_ids` to the end of a turn.

        Args:
            token_ids: The conversation so far.
            sampling: Fields of a completion request.

        Raises:
            EngineFault: The server did not answer.
            PolicyError: The request can never be served.
        """
        body = {
            "model": self._model,
            "prompt": token_ids,
            "return_token_ids": True,
            **sampling,
        }
        answer = await self._ask("post", "/v1/completions", body)
        choice = answer["choices"][0]
        logprobs = choice["logprobs"]["token_logprobs"]
        is_cut = choice["finish_reason"] == "length"
        return choice["token_ids"], logprobs, is_cut

    async def reload(self, folder: Path) -> None:
        """Take the weights of a model folder; forget what is cached of the old ones.

        Requests that are being served are finished with the old weights first.

        Raises:
            EngineFault: The server did not answer.
            PolicyError: It refuses, as one without VLLM_SERVER_DEV_MODE=1 does.
        """
        await self._ask("post", "/pause?mode=wait")
        call = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        await self._ask("post", "/collective_rpc", call)
        await self._ask("post", "/resume")

    def weight_client(self, loop: asyncio.AbstractEventLoop) -> Any:
        """Return a `VLLMWeightSyncClient`, which blocks."""
        transfer = importlib.import_module("vllm.distributed.weight_transfer")
        return transfer.HTTPVLLMWeightSyncClient(self.url)

    async def num_workers(self) -> int:
        """Return the number of processes that hold weights."""
        answer = await self._ask("get", "/get_world_size")
        return int(answer["world_size"])

    async def close(self) -> None:
        """End a server of ours. May be called twice."""
        await self._client.close()
        await self._end()

    async def _end(self) -> None:
        """End a server of ours, by SIGTERM and after a while by SIGKILL."""
        process = self._process
        self._process = None
        if process is None:
            return
        # The group holds the engine's own processes, which outlive a server that was
        # killed: SIGKILL is sent even if the server itself has ended.
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, _GRACE_S)

    def _launch(self, folder: Path, log: Path) -> None:
        """Start a server of ours, on a port of this machine that is free."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        flags = [
            "serve",
            str(folder),
            "--host=127.0.0.1",
            f"--port={port}",
            "--served-model-name=policy",
        ]
        options = engine_options({"uvicorn_log_level": "warning", **self._options})
        flags += [_flag(name, value) for name, value in options.items()]
        command = [sys.executable, "-c", _TIED_TO_US, str(self._program), *flags]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                # What is set already goes before ours.
                env={**ENVIRONMENT, **os.environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # A group of its own, which `_end` signals; Ctrl-C does not reach it.
                start_new_session=True,
            )

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the JSON that the server answers to a request.

        Raises:
            EngineFault: It did not answer.
            PolicyError: It refuses.
        """
        return await self._client.ask(method, self.url + path, body)


def _flag(name: str, value: Any) -> str:
    """Return an option of the command line: --name=value, or --name and --no-name."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    text = value if isinstance(value, str) else json.dumps(value)
    return f"--{flag}={text}"


def _errors_in(log: Path) -> list[str]:
    """Return the first lines of a log that name an error, or else its last lines."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    # The first: those after them are mostly what followed from it.
    errors = [line for line in lines if "Error: " in line]
    return errors[:_NUM_ERROR_LINES] or lines[-_NUM_ERROR_LINES:]
