"""An agent that notes whom it answered, and kills the process that it is in once."""

import os
import signal
from pathlib import Path

from aipo_env import AGENTS, AgentReply, AgentRequest, TaskSource


class NotingAgent:
    """The scripted agent; in step 1, at its third reply, it kills its process if
    `folder` has no file `killed`.
    """

    agent_id = "noting"

    def __init__(self, folder: str, source: TaskSource) -> None:
        self._folder, self._mind, self._num_replies = (
            Path(folder),
            AGENTS.build("scripted", source=source),
            0,
        )

    async def reply(self, request: AgentRequest) -> AgentReply:
        if request.key[1] == 1:
            self._num_replies += 1
        if self._num_replies == 3 and self._once():
            os.kill(os.getpid(), signal.SIGKILL)
        with (self._folder / "answered").open("a") as file:
            file.write(f"{request.key} {os.getpid()}\n")
        return await self._mind.reply(request)

    def _once(self) -> bool:
        try:
            (self._folder / "killed").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True
