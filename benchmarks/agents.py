"""Consultations per second, and what one costs: the agent pool against a plain loop over the `openai` client.

    python benchmarks/agents.py --out agents.json

A server on loopback, in a process of its own, answers after 50 ms. Both sides ask the same questions with as many
calls at once and interleave; each figure is the median of the repeats. "faults" is the pool alone, with three calls
of ten failing in every way that the test server knows: the share of replies, and the rate against what that share
of the calls would give.
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

from aipo_env import AgentPool, AgentRequest, PoolLimits
from aipo_env.agents.chat import ChatAgent
from aipo_env.testing import FaultServer

FAULTS = ("500", "429", "reset", "garbage", "empty", "utf8", "shape", "cut", "nested", "packed")


def serve(script: list[str], delay_s: float) -> None:
    """Serve until standard input ends; the first line of output is the address."""
    with FaultServer(script, text="right, it holds.", delay_s=delay_s) as server:
        print(server.url, flush=True)
        sys.stdin.read()


async def pooled(url: str, num: int, concurrency: int) -> int:
    """Ask through the pool; return how many replies came."""
    limits = PoolLimits(concurrency=concurrency, retries=0, break_after=0)
    pool = AgentPool({"verify": ChatAgent("tiny", url)}, limits)
    requests = (AgentRequest(kind="verify", query=f"{n} + 1 = {n + 1}", key=(n, 0)) for n in range(num))
    outcomes = await asyncio.gather(*map(pool.consult, requests))
    return sum(outcome.reply is not None for outcome in outcomes)


async def plain(url: str, num: int, concurrency: int) -> int:
    """Ask by the client alone, with a semaphore, as one would write it."""
    slots = asyncio.Semaphore(concurrency)
    system = {"role": "system", "content": (Path(__file__).parents[1] / PROMPT).read_text().strip()}
    try:
        http: Any = openai.DefaultAioHttpClient()
    except RuntimeError:
        http = openai.DefaultAsyncHttpxClient()
    async with openai.AsyncOpenAI(api_key="none", base_url=url, max_retries=0, http_client=http) as client:

        async def ask(n: int) -> bool:
            user = {"role": "user", "content": f"Claim:\n{n} + 1 = {n + 1}"}
            async with slots:
                said: Any = await client.chat.completions.create(
                    model="tiny", messages=[system, user], max_tokens=512, seed=n
                )
            return bool(said.choices[0].message.content)

        return sum(await asyncio.gather(*map(ask, range(num))))


PROMPT = "aipo_env/agents/prompts/verify.md"
WAYS = {"pool": pooled, "client": plain, "faults": pooled}


def work(way: str, url: str, num: int, concurrency: int) -> None:
    """Run one way in this process and print what it took."""
    asyncio.run(WAYS[way](url, min(64, num), concurrency))  # whatever is loaded late is loaded now
    start, start_cpu = time.perf_counter(), time.process_time()
    answered = asyncio.run(WAYS[way](url, num, concurrency))
    wall_s, cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"answered": answered, "wall_s": wall_s, "cpu_s": cpu_s, "peak_mb": peak_mb}))


def measure(way: str, num: int, concurrency: int, delay_s: float) -> dict[str, float]:
    """Run one way against a fresh server, each in a process of its own."""
    script = ["reply"]
    if way == "faults":
        script = [item for fault in FAULTS for item in [*["reply"] * 7, *[fault] * 3]]
    command = [sys.executable, __file__]
    with subprocess.Popen(
        [*command, "serve", json.dumps(script), str(delay_s)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        arguments = [*command, "work", way, url, str(num), str(concurrency)]
        done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=True, env=ENVIRONMENT)
        server.communicate()
    return json.loads(done.stdout)


ENVIRONMENT = {**os.environ, "NO_PROXY": "127.0.0.1"}


def main() -> None:
    """Measure everything and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num", type=int, default=4_000)
    parser.add_argument("--delay-s", type=float, default=0.05)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for concurrency in (64, 2_000):
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(options.repeats):
            for way, taken in runs.items():
                taken.append(measure(way, options.num, concurrency, options.delay_s))
        for way, taken in runs.items():
            middle = {name: statistics.median(run[name] for run in taken) for name in taken[0]}
            rows.append({"at once": concurrency, "way": way, **middle})
    print("| at once | way | replies | consults/s | CPU ms/consult | peak MB |\n|---|---|---|---|---|---|")
    for row in rows:
        rate, cpu_ms = options.num / row["wall_s"], 1_000 * row["cpu_s"] / options.num
        print(
            f"| {row['at once']} | {row['way']} | {row['answered']:.0f} of {options.num} | {rate:.0f} | "
            f"{cpu_ms:.2f} | {row['peak_mb']:.0f} |"
        )
    if options.out:
        options.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(json.loads(sys.argv[2]), float(sys.argv[3]))
    elif sys.argv[1:2] == ["work"]:
        work(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
