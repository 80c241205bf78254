"""Consultations per second, and what one costs: our pool beside others' ways.

    python benchmarks/agents.py --venvs ~/.cache/aipo-peers --out agents.json

A server on loopback, in a process of its own, answers after 50 ms. All ways ask as many
questions with as many calls at once, each in a process of its own; runs interleave and
each figure is the median of the repeats.

pool             the agent pool alone
client           a plain loop over the `openai` client, with a semaphore
episodes         whole episodes of one consultation and a verified answer, by
                 `EpisodeRunner`
verifiers        the same by verifiers 0.1.9's environment, which asks by the `openai`
                 client
pool, faults     three calls of ten fail in every way that the test server knows; one in
                 40 hangs to the deadline, 2 s at 64 calls at once
episodes, faults the same

The last column is the rate of replies, as a part of what the share of good calls would
give without faults: 1.0 means that a failure costs what a reply costs, and no more.
"""

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import openai
from env_throughput import System, python_of

from aipo_env import AgentPool, AgentRequest, EpisodeRunner, PoolLimits, build_scenario
from aipo_env.agents.chat import ChatAgent
from aipo_env.testing import FaultServer

FAULTS = (
    "500",
    "429",
    "reset",
    "garbage",
    "empty",
    "utf8",
    "shape",
    "cut",
    "nested",
    "packed",
    "huge",
    "hang",
)
"""What happens to the calls that fail, by the names of `FaultServer`."""
NUM_GOOD = 7
"""Calls in a row that get a reply."""
NUM_BAD = 3
"""Calls in a row that fail, in one way."""
NUM_WARM = 64
"""Calls before the clock starts."""
MIN_DEADLINE_S = 2.0
CALLS_PER_S = 32
"""Of calls at once, so many more give a second more until they are given up."""
PROMPT = Path(__file__).parents[1] / "aipo_env/agents/prompts/verify.md"
VERIFIERS = "verifiers==0.1.9"
ENVIRONMENT = {**os.environ, "NO_PROXY": "127.0.0.1"}


def serve(script: list[str], delay_s: float) -> None:
    """Serve until standard input ends; the first line of output is the address."""
    with FaultServer(script, text="right, it holds.", delay_s=delay_s) as server:
        print(server.url, flush=True)
        sys.stdin.read()


async def pooled(url: str, num: int, concurrency: int, deadline_s: float = 60.0) -> int:
    """Ask through the pool; return how many replies came."""
    limits = PoolLimits(
        concurrency=concurrency, retries=0, break_after=0, deadline_s=deadline_s
    )
    pool = AgentPool({"verify": ChatAgent("tiny", url)}, limits)
    calls = []
    for n in range(num):
        request = AgentRequest(kind="verify", query=f"{n} + 1 = {n + 1}", key=(n, 0))
        calls.append(pool.consult(request))
    outcomes = await asyncio.gather(*calls)
    return sum(outcome.reply is not None for outcome in outcomes)


async def episodes(
    url: str, num: int, concurrency: int, deadline_s: float = 60.0
) -> int:
    """Play whole episodes; return how many replies came."""
    limits = {
        "concurrency": concurrency,
        "retries": 0,
        "break_after": 0,
        "deadline_s": deadline_s,
    }
    agent = ChatAgent("tiny", url)
    scenario = build_scenario(agents={"verify": agent}, pool=limits)
    runner = EpisodeRunner(scenario, speak, concurrency=concurrency)
    num_answered = 0
    async for group in runner.groups(num):
        for episode in group.episodes:
            for consult in episode.consults:
                num_answered += consult.status == "answered"
    return num_answered


async def speak(messages: Any, stop: Any, limit: Any) -> str:
    """Be the policy, at no cost."""
    has_reply = len(messages) > 2
    return "\\boxed{1}" if has_reply else "<verify>1 + 1 = 2</verify>"


async def plain(url: str, num: int, concurrency: int) -> int:
    """Ask by the client alone, with a semaphore, as one would write it."""
    slots = asyncio.Semaphore(concurrency)
    system = {"role": "system", "content": PROMPT.read_text().strip()}
    # The faster of the client's two transports is an extra of its package.
    try:
        http: Any = openai.DefaultAioHttpClient()
    except RuntimeError:
        http = openai.DefaultAsyncHttpxClient()
    async with openai.AsyncOpenAI(
        api_key="none", base_url=url, max_retries=0, timeout=600.0, http_client=http
    ) as client:

        async def ask(n: int) -> bool:
            user = {"role": "user", "content": f"Claim:\n{n} + 1 = {n + 1}"}
            async with slots:
                completion: Any = await client.chat.completions.create(
                    model="tiny", messages=[system, user], max_tokens=512, seed=n
                )
            return bool(completion.choices[0].message.content)

        answers = await asyncio.gather(*map(ask, range(num)))
        return sum(answers)


WAYS: dict[str, Any] = {
    "pool": pooled,
    "client": plain,
    "episodes": episodes,
    "verifiers": None,
    "pool, faults": pooled,
    "episodes, faults": episodes,
}


def work(way: str, url: str, num: int, concurrency: int) -> None:
    """Run one way in this process and print what it took."""
    ask = WAYS[way]
    limit = {}
    if way.endswith("faults"):
        # Where calls hang they are given up, later where so many at once share the
        # server's one core.
        limit["deadline_s"] = max(MIN_DEADLINE_S, concurrency / CALLS_PER_S)
    # Whatever is loaded late is loaded now.
    asyncio.run(ask(url, min(NUM_WARM, num), concurrency, **limit))
    start = time.perf_counter()
    start_cpu = time.process_time()
    answered = asyncio.run(ask(url, num, concurrency, **limit))
    row = {
        "answered": answered,
        "wall_s": time.perf_counter() - start,
        "cpu_s": time.process_time() - start_cpu,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(row))


def command_of(
    way: str, url: str, num: int, concurrency: int, venvs: Path
) -> list[str]:
    """Return the program that runs one way."""
    sizes = [str(num), str(concurrency)]
    if way != "verifiers":
        return [sys.executable, __file__, "work", way, url, *sizes]
    python = venvs / VERIFIERS / "bin/python"
    program = Path(__file__).with_name("peers") / "run_verifiers_agents.py"
    prompt = PROMPT.read_text().strip()
    return [str(python), str(program), url, *sizes, prompt]


def measure(
    way: str, num: int, concurrency: int, delay_s: float, venvs: Path
) -> dict[str, float]:
    """Run one way against a fresh server, each in a process of its own."""
    script = ["reply"]
    if way.endswith("faults"):
        script = []
        for fault in FAULTS:
            script += ["reply"] * NUM_GOOD + [fault] * NUM_BAD
    with subprocess.Popen(
        [sys.executable, __file__, "serve", json.dumps(script), str(delay_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        command = command_of(way, url, num, concurrency, venvs)
        program = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, env=ENVIRONMENT
        )
        server.communicate()  # ends its input, at which it ends
    return json.loads(program.stdout.splitlines()[-1])


def table(rows: list[dict[str, Any]], num: int) -> str:
    """Return the figures as a table in Markdown."""
    lines = [
        (
            "| at once | way | replies | consults/s | CPU ms/consult | peak MB |"
            " against the share |"
        ),
        "|---" * 7 + "|",
    ]
    for row in rows:
        clean = _without_faults(row, rows)
        # The rate of replies, over the share of good calls times the rate without
        # faults: the share stands above and below, and leaves the times.
        against = ""
        if row is not clean:
            against = f"{clean['wall_s'] / row['wall_s']:.2f}"
        lines.append(
            f"| {row['at once']} | {row['way']} | {row['answered']:.0f} of {num} |"
            f" {num / row['wall_s']:.0f} | {1_000 * row['cpu_s'] / num:.2f} |"
            f" {row['peak_mb']:.0f} | {against} |"
        )
    return "\n".join(lines)


def _without_faults(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the row of the same way and as many at once, without faults."""
    way = row["way"].partition(",")[0]
    for other in rows:
        if other["way"] == way and other["at once"] == row["at once"]:
            return other
    raise LookupError(f"{way} was not measured")


def main() -> None:
    """Measure everything and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num", type=int, default=4_000)
    parser.add_argument("--delay-s", type=float, default=0.05)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--at-once", type=int, nargs="+", default=[64, 2_000])
    parser.add_argument(
        "--venvs",
        type=Path,
        help="folder of the peers' environments; without one they are left out",
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    venvs = Path()
    if options.venvs:
        venvs = options.venvs.expanduser().resolve()
        python_of(System("verifiers", (), 0, VERIFIERS), venvs)
    ways = [way for way in WAYS if options.venvs or way != "verifiers"]
    rows = []
    for concurrency in options.at_once:
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(options.repeats):
            # The ways take turns, so that what else the machine does hits all alike.
            for way, repeats in runs.items():
                figures = measure(way, options.num, concurrency, options.delay_s, venvs)
                repeats.append(figures)
        for way, repeats in runs.items():
            row: dict[str, Any] = {"at once": concurrency, "way": way}
            for name in repeats[0]:
                row[name] = statistics.median(run[name] for run in repeats)
            rows.append(row)
    print(table(rows, options.num))
    if options.out:
        options.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    # This file is also the program of each process that it starts.
    if sys.argv[1:2] == ["serve"]:
        script_text, delay_text = sys.argv[2:]
        serve(json.loads(script_text), float(delay_text))
    elif sys.argv[1:2] == ["work"]:
        way_name, address, num_text, concurrency_text = sys.argv[2:]
        work(way_name, address, int(num_text), int(concurrency_text))
    else:
        main()
