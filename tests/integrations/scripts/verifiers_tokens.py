"""A rollout by verifiers' client for training, which has token ids; prints who wrote
which.

The engine is a stand-in for vLLM's: it answers with the ids of a scripted text.
"""

import json
import re
import sys
import tempfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import verifiers.v1 as vf
from transformers import AutoTokenizer
from verifiers.v1.cli.eval.main import main

from aipo_env import add_codes
from aipo_env.integrations.verifiers import agent_mask

POLICY = Path(__file__).resolve().parents[3] / "envs_data" / "tiny_policy"
TOKENIZER: Any = AutoTokenizer.from_pretrained(POLICY)
LOGPROB = -0.5
asked: list[dict[str, Any]] = []


class Engine(BaseHTTPRequestHandler):
    """Asks for the rule, then applies it."""

    def do_GET(self) -> None:
        self.send_error(404)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        asked.append(body["sampling_params"])
        text = TOKENIZER.decode(body["token_ids"])
        name, code = re.search(r"Apply (\w+) to (\d+)", text).groups()
        told = re.search(rf"{name}=#(\d\d)#(\d\d);", text)
        said = f"<knowledge>{name}</knowledge>"
        if told:
            said = f"\\boxed{{{add_codes(code, ''.join(told.groups()))}}}"
        ids = [*TOKENIZER.encode(said), TOKENIZER.eos_token_id]
        content = [{"token": f"token_id:{one}", "logprob": LOGPROB} for one in ids]
        choice = {
            "token_ids": ids,
            "logprobs": {"content": content},
            "finish_reason": "stop",
        }
        reply = json.dumps({"request_id": "0", "choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *told: Any) -> None:
        """Say nothing."""


CONFIG = """
[env.taskset.environment]
source = "toy:kinds=knowledge"

[client]
type = "train"
base_url = "http://127.0.0.1:{port}/v1"
renderer_model_name = "{policy}"
renderer = {{ name = "default" }}

[sampling]
stop = ["</knowledge>"]
include_stop_str_in_output = true
"""


def play(folder: Path, port: int) -> vf.WireTrace:
    """Return the trace of a rollout."""
    config = folder / "eval.toml"
    config.write_text(CONFIG.format(port=port, policy=POLICY))
    out = folder / "out"
    common = ["--no-push", "--no-rich", "-o", str(out), "-n", "1", "-m", "scripted"]
    sys.argv = ["vf-eval"]
    main(["aipo_verifiers", "@", str(config), *common])
    [written] = out.glob("*/traces.jsonl")
    [episode] = map(json.loads, written.read_text().splitlines())
    return vf.WireTrace.model_validate(episode["traces"][0])


with ThreadingHTTPServer(("127.0.0.1", 0), Engine) as server:
    Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        trace = play(Path(folder), server.server_port)
    server.shutdown()
branches = []
for branch in trace.branches:
    mask = agent_mask(trace, branch, TOKENIZER.decode)
    ids = branch.token_ids
    by_agent = [one for one, is_agents in zip(ids, mask, strict=True) if is_agents]
    branches.append(
        {
            "text": TOKENIZER.decode(ids),
            "agents": [TOKENIZER.decode([one]) for one in by_agent],
            "sampled": sum(branch.sampled_mask),
            "logprob": sum(branch.logprobs),
            "both": sum(map(bool.__and__, mask, branch.sampled_mask)),
        }
    )
told = {"branches": branches, "reward": trace.reward, "stop": asked[0]["stop"]}
print("\n" + json.dumps(told))
