"""What vf-eval says to settings of aipo_verifiers that cannot be; prints it."""

import contextlib
import io
import json
import os
import sys

from verifiers.v1.cli.eval.main import main

SETTINGS = (
    ("environmnt", "toy"),
    ("environment.sorce", "toy"),
    ("environment", "nosuch:thing"),
    ("environment", "Nobody/Nothing-v0"),
    ("environment", "file:missing.jsonl"),
    ("environment.rules.max-turns", "many"),
    ("environment.agents", "openai:model@http://127.0.0.1:1/v1?key=1"),
    ("environment.codec", "openai"),
    ("aided", "2"),
    ("split", "valid"),
    ("tokenizer", "nope"),
    ("system-prompt", __file__),
)
SEATS = (("harness.id", "null"), ("runtime.type", "docker"))


def said(flag: str, value: str) -> str:
    """Return what vf-eval says, without the lines of its panel."""
    arguments = ["aipo_verifiers", "--dry-run", "--no-push", flag, value]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
        except SystemExit as end:
            text = f"{out.getvalue()}{err.getvalue()}{end}"
        else:
            text = "taken"
    return " ".join(text.replace("│", " ").split())


# The panel is as wide as this says, so that no line of it is broken.
os.environ["COLUMNS"] = "1000"
told = {
    "settings": [said(f"--env.taskset.{name}", value) for name, value in SETTINGS],
    "seats": [said(f"--env.agent.{name}", value) for name, value in SEATS],
    "taken": said("--env.taskset.environment.rules.max-turns", "3"),
}
print(json.dumps(told), file=sys.stdout)
