"""Grades programs by `CodeVerifier` and by LiveCodeBench's own grader.

    python benchmarks/code_grading.py                    # our own cases
    python benchmarks/code_grading.py --grader PATH      # and the benchmark's verdicts

PATH is `lcb_runner/evaluation/testing_util.py` of LiveCodeBench, which is not kept
here. It runs programs in its own process and holds nobody: give it no programs but
these. A case is {"id", "name", "tests": [[input, output], ...], "code", "right",
"differs"}: `name` is the function that is called, empty for a program that prints;
`right` whether the program is; `differs` names the difference, of those listed in
docs/code_tasks.md, for which the benchmark grades it otherwise.
"""

import argparse
import asyncio
import base64
import json
import pickle
import subprocess
import sys
import time
import zlib
from pathlib import Path
from typing import Any

from aipo_env import CodeVerifier, Task
from aipo_env.sandboxes.self_test import open_sandbox
from aipo_env.tasks.livecodebench import read_problem

CASES = Path(__file__).parents[1] / "tests/env/data/code_cases.jsonl"
TIMEOUT_S = 6
"""Seconds per test that the benchmark's grader is told."""
START_S = 20
"""Seconds for its start, and for what it does not end by itself."""
_RUN = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("grader", sys.argv[1])
grader = importlib.util.module_from_spec(spec)
spec.loader.exec_module(grader)
given = json.load(sys.stdin)
out = sys.stdout
timeout = int(sys.argv[2])
results, _ = grader.run_test(given["sample"], test=given["code"], timeout=timeout)
passes = bool(results) and all(bool(one > 0) for one in results)
print("\\n" + json.dumps(passes), file=out)
"""
"""Runs the benchmark's grader on one program; its verdict is the last line."""


def row_of(case: dict[str, Any]) -> dict[str, Any]:
    """Return the case as a row of the dataset, its tests packed as they are there."""
    kind = "functional" if case["name"] else "stdin"
    tests = [
        {"input": given, "output": expected, "testtype": kind}
        for given, expected in case["tests"]
    ]
    packed = zlib.compress(pickle.dumps(json.dumps(tests)))
    return {
        "question_content": "?",
        "starter_code": "class Solution:\n    pass" if case["name"] else "",
        "metadata": json.dumps({"func_name": case["name"]} if case["name"] else {}),
        "public_test_cases": "[]",
        "private_test_cases": base64.b64encode(packed).decode(),
    }


async def own_verdicts(cases: list[dict[str, Any]]) -> list[bool]:
    """Return whether each program passes by this project's verifier."""
    verifier = CodeVerifier(await open_sandbox("auto"))
    verdicts = []
    for case in cases:
        task = Task(id=case["id"], **read_problem(row_of(case)))
        verdict, _ = await verifier.verify_program(task, case["code"])
        verdicts.append(verdict.correct is True)
    return verdicts


def benchmark_verdict(grader: Path, case: dict[str, Any]) -> bool:
    """Return whether a program passes by the benchmark's grader."""
    inputs, outputs = zip(*case["tests"], strict=True)
    tests = {"inputs": inputs, "outputs": outputs, "fn_name": case["name"] or None}
    given = {"sample": {"input_output": json.dumps(tests)}, "code": case["code"]}
    command = [sys.executable, "-c", _RUN, str(grader), str(TIMEOUT_S)]
    limit_s = (TIMEOUT_S + 1) * len(inputs) + START_S
    try:
        done = subprocess.run(
            command,
            input=json.dumps(given),
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.stdout.strip().rpartition("\n")[2] == "true"


def main() -> None:
    """Grade everything, and print how far the verdicts agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grader", type=Path, help="the benchmark's testing_util.py")
    parser.add_argument("--cases", type=Path, default=CASES)
    options = parser.parse_args()
    lines = options.cases.read_text(encoding="utf-8").splitlines()
    cases = [json.loads(line) for line in lines]
    start = time.perf_counter()
    own = asyncio.run(own_verdicts(cases))
    seconds = time.perf_counter() - start
    num_as_labelled = sum(
        passes == case["right"] for passes, case in zip(own, cases, strict=True)
    )
    print(f"as labelled: {num_as_labelled} of {len(cases)} ({seconds:.1f} s)")
    for passes, case in zip(own, cases, strict=True):
        if passes != case["right"]:
            print(f"  otherwise: {case['id']}, passes: {passes}")
    if not options.grader:
        return
    theirs = [benchmark_verdict(options.grader, case) for case in cases]
    agreed = {False: 0, True: 0}
    totals = {False: 0, True: 0}
    for passes, passes_there, case in zip(own, theirs, cases, strict=True):
        is_listed = bool(case["differs"])
        totals[is_listed] += 1
        agreed[is_listed] += passes == passes_there
        if (passes == passes_there) == is_listed:
            print(f"  {case['id']}: {passes}, in the benchmark {passes_there}")
    print(f"as the benchmark: {agreed[False]} of {totals[False]}")
    print(f"listed differences: {totals[True] - agreed[True]} of {totals[True]} differ")


if __name__ == "__main__":
    main()
