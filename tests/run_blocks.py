"""Run the Python blocks of a page in order and in one namespace, as their reader would.

`python run_blocks.py BLOCKS.json FAULTS.json` reads {"page": its path, "blocks":
[[line, code], …]} and writes {line: fault} for the blocks that failed: {"missing": a
package or "", "traceback": text}.
"""

import json
import sys
import traceback
from pathlib import Path
from typing import Any


def run(page: str, line: int, code: str, namespace: dict[str, Any]) -> None:
    # Empty lines before the code make tracebacks name the line of the page.
    source = "\n" * (line - 1) + code
    exec(compile(source, page, "exec"), namespace)


def describe(error: BaseException) -> dict[str, str]:
    missing = (error.name or "") if isinstance(error, ModuleNotFoundError) else ""
    return {
        "missing": missing.split(".")[0],
        "traceback": "".join(traceback.format_exception(error)),
    }


def main(given: Path, out: Path) -> None:
    work = json.loads(given.read_text(encoding="utf-8"))
    # Under this name, functions of the page can be sent to other processes.
    namespace = {"__name__": "__main__"}
    faults = {}
    for line, code in work["blocks"]:
        try:
            run(work["page"], line, code, namespace)
        except (Exception, SystemExit) as error:
            faults[line] = describe(error)
    out.write_text(json.dumps(faults), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
