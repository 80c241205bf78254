"""`vllm serve`, as an engine: one of yours, or a process that lives as long as the
learner.
"""

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
_GRACE_S = 20.0
# The kernel ends the server when its learner dies, however that happens.
_TIED_TO_US = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execvp(sys.argv[1],"
    " sys.argv[1:])"
)


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
    """

    def __init__(
        self,
        url: str = "",
        command: str = "vllm",
        startup_s: float = 900.0,
        request_s: float = 3600.0,
        **options: Any,
    ) -> None:
        try:
            openai = importlib.import_module("openai")
        except ImportError as error:
            raise ConfigError(
                'sampler: a vLLM server needs openai: pip install "aipo-rl[openai]".'
            ) from error
        if url and options:
            raise ConfigError(
                f"sampler: options {sorted(options)} are for a server of ours, not for"
                f" {url}."
            )
        places = [os.environ.get("PATH", ""), str(Path(sys.executable).parent)]
        self._program = shutil.which(command, path=os.pathsep.join(places))
        if not url and not self._program:
            raise ConfigError(
                f"sampler vllm-serve: there is no program {command!r}. Install vLLM,"
                ' name the program of another environment, {"type": "vllm-serve",'
                ' "command": "/path/bin/vllm"}, or a server: vllm:http://HOST:8000.'
            )
        self.url, self._is_ours, self._options = url.rstrip("/"), not url, options
        self._startup_s, self._model = startup_s, ""
        self._process: subprocess.Popen[bytes] | None = None
        self._faults = (openai.APIConnectionError, openai.InternalServerError)
        self._refusals = openai.APIError
        # One for all servers that we start after another: requests in flight must not
        # lose it under them.
        key = os.environ.get("VLLM_API_KEY") or "none"
        self._client = openai.AsyncOpenAI(
            api_key=key, base_url=url or None, max_retries=0, timeout=request_s
        )

    async def start(self, folder: Path) -> None:
        """Start our server, or wait for the other and give it the weights of a model
        folder.
        """
        log = folder.with_name("vllm.log")
        if self._is_ours:
            await self._end()
            self._launch(folder, log)
        loop, fault = asyncio.get_running_loop(), ""
        deadline = loop.time() + self._startup_s
        while loop.time() < deadline and (
            self._process is None or self._process.poll() is None
        ):
            try:
                self._model = (await self._ask("get", "/v1/models"))["data"][0]["id"]
                if not self._is_ours:
                    await self.reload(folder)
                return
            except EngineFault as error:
                fault = str(error)
                await asyncio.sleep(_POLL_S)
        lines = (
            log.read_text(encoding="utf-8", errors="replace").splitlines()
            if self._is_ours
            else []
        )
        told = (
            [line for line in lines if "Error: " in line][:3] or lines[-3:] or [fault]
        )
        raise PolicyError(
            f"sampler: no vLLM serves at {self.url} within {self._startup_s:g} s, or it"
            f" ended: {' | '.join(told)}"
        )

    async def generate(
        self, token_ids: Sequence[int], sampling: Mapping[str, Any]
    ) -> Sampled:
        """Continue `token_ids`. Raises EngineFault, or PolicyError for a request that
        can never be served.
        """
        body = {
            "model": self._model,
            "prompt": token_ids,
            "return_token_ids": True,
            **sampling,
        }
        choice = (await self._ask("post", "/v1/completions", body))["choices"][0]
        return (
            choice["token_ids"],
            choice["logprobs"]["token_logprobs"],
            choice["finish_reason"] == "length",
        )

    async def reload(self, folder: Path) -> None:
        """Take the weights of a model folder and forget what was cached under the old
        ones.
        """
        await self._ask("post", "/pause?mode=wait")
        call = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        await self._ask("post", "/collective_rpc", call)
        await self._ask("post", "/resume")

    def weight_client(self, loop: asyncio.AbstractEventLoop) -> Any:
        """Return a `VLLMWeightSyncClient`, which blocks."""
        return importlib.import_module(
            "vllm.distributed.weight_transfer"
        ).HTTPVLLMWeightSyncClient(self.url)

    async def num_workers(self) -> int:
        """Return the number of processes that hold weights."""
        return int((await self._ask("get", "/get_world_size"))["world_size"])

    async def close(self) -> None:
        """End a server of ours. May be called twice."""
        await self._client.close()
        await self._end()

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        # The group holds the engine's own processes, which outlive a server that was
        # killed.
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(process.wait, _GRACE_S)

    def _launch(self, folder: Path, log: Path) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        flags = [
            "serve",
            str(folder),
            "--host=127.0.0.1",
            f"--port={port}",
            "--served-model-name=policy",
        ]
        for name, value in engine_options(
            {"uvicorn_log_level": "warning", **self._options}
        ).items():
            flag = name.replace("_", "-")
            text = value if isinstance(value, str) else json.dumps(value)
            switch = f"--{flag}" if value else f"--no-{flag}"
            flags.append(switch if isinstance(value, bool) else f"--{flag}={text}")
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _TIED_TO_US, str(self._program), *flags],
                env={**ENVIRONMENT, **os.environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        options = {} if body is None else {"body": body}
        try:
            return await getattr(self._client, method)(
                self.url + path, cast_to=object, **options
            )
        except self._faults as error:
            raise EngineFault(
                f"{self.url}{path}: {error.__cause__ or error}"
            ) from error
        except self._refusals as error:
            raise PolicyError(f"sampler: {self.url}{path} refuses: {error}") from error
