"""Consultations per second, and what one costs: the agent pool, whole episodes, and how
others do it.

    python benchmarks/agents.py --venvs ~/.cache/aipo-peers --out agents.json

A server on loopback, in a process of its own, answers after 50 ms. All ways ask as many
questions with as many calls at once, each in a process of its own; runs interleave and
each figure is the median of the repeats.

pool             the agent pool alone
client           a plain loop over the `openai` client, with a semaphore
episodes         whole episodes of one consultation and a verified answer, by `EpisodeRunner`
verifiers        the same by verifiers 0.1.9's environment, which asks by the `openai` client
pool, faults     three calls of ten fail in every way that the test server knows; one in 40 hangs
                 to the deadline, 2 s at 64 calls at once
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
    requests = (
        AgentRequest(kind="verify", query=f"{n} + 1 = {n + 1}", key=(n, 0))
        for n in range(num)
    )
    outcomes = await asyncio.gather(*map(pool.consult, requests))
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
    scenario = build_scenario(agents={"verify": ChatAgent("tiny", url)}, pool=limits)
    runner = EpisodeRunner(scenario, speak, concurrency=concurrency)
    played = [
        episode async for group in runner.groups(num) for episode in group.episodes
    ]
    return sum(
        consult.status == "answered"
        for episode in played
        for consult in episode.consults
    )


async def speak(messages: Any, stop: Any, limit: Any) -> str:
    """Be the policy, at no cost."""
    return "\\boxed{1}" if len(messages) > 2 else "<verify>1 + 1 = 2</verify>"


async def plain(url: str, num: int, concurrency: int) -> int:
    """Ask by the client alone, with a semaphore, as one would write it."""
    slots = asyncio.Semaphore(concurrency)
    system = {
        "role": "system",
        "content": (Path(__file__).parents[1] / PROMPT).read_text().strip(),
    }
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
                said: Any = await client.chat.completions.create(
                    model="tiny", messages=[system, user], max_tokens=512, seed=n
                )
            return bool(said.choices[0].message.content)

        return sum(await asyncio.gather(*map(ask, range(num))))


PROMPT = "aipo_env/agents/prompts/verify.md"
WAYS: dict[str, Any] = {
    "pool": pooled,
    "client": plain,
    "episodes": episodes,
    "verifiers": None,
    "pool, faults": pooled,
    "episodes, faults": episodes,
}
VERIFIERS = "verifiers==0.1.9"


def work(way: str, url: str, num: int, concurrency: int) -> None:
    """Run one way in this process and print what it took."""
    # Where calls hang they are given up, later where so many at once share the server's
    # one core.
    limit = {"deadline_s": max(2.0, concurrency / 32)} if way.endswith("faults") else {}
    asyncio.run(
        WAYS[way](url, min(64, num), concurrency, **limit)
    )  # whatever is loaded late is loaded now
    start, start_cpu = time.perf_counter(), time.process_time()
    answered = asyncio.run(WAYS[way](url, num, concurrency, **limit))
    wall_s, cpu_s = time.perf_counter() - start, time.process_time() - start_cpu
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {"answered": answered, "wall_s": wall_s, "cpu_s": cpu_s, "peak_mb": peak_mb}
        )
    )


def command_of(
    way: str, url: str, num: int, concurrency: int, venvs: Path
) -> list[str]:
    """Return the program that runs one way."""
    if way != "verifiers":
        return [sys.executable, __file__, "work", way, url, str(num), str(concurrency)]
    prompt = (Path(__file__).parents[1] / PROMPT).read_text().strip()
    program = Path(__file__).with_name("peers") / "run_verifiers_agents.py"
    return [
        str(venvs / VERIFIERS / "bin/python"),
        str(program),
        url,
        str(num),
        str(concurrency),
        prompt,
    ]


def measure(
    way: str, num: int, concurrency: int, delay_s: float, venvs: Path
) -> dict[str, float]:
    """Run one way against a fresh server, each in a process of its own."""
    script = ["reply"]
    if way.endswith("faults"):
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
        arguments = command_of(way, url, num, concurrency, venvs)
        done = subprocess.run(
            arguments, stdout=subprocess.PIPE, text=True, check=True, env=ENVIRONMENT
        )
        server.communicate()
    return json.loads(done.stdout.splitlines()[-1])


ENVIRONMENT = {**os.environ, "NO_PROXY": "127.0.0.1"}


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
        clean = next(
            r
            for r in rows
            if r["way"] == row["way"].partition(",")[0]
            and r["at once"] == row["at once"]
        )
        # replies a second, over the share of good calls times the rate without faults
        against = f"{clean['wall_s'] / row['wall_s']:.2f}" if row is not clean else ""
        lines.append(
            f"| {row['at once']} | {row['way']} | {row['answered']:.0f} of {num} |"
            f" {num / row['wall_s']:.0f} | {1_000 * row['cpu_s'] / num:.2f} |"
            f" {row['peak_mb']:.0f} | {against} |"
        )
    return "\n".join(lines)


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
    venvs = options.venvs.expanduser().resolve() if options.venvs else Path()
    if options.venvs:
        python_of(System("verifiers", (), 0, VERIFIERS), venvs)
    ways = [way for way in WAYS if options.venvs or way != "verifiers"]
    rows = []
    for concurrency in options.at_once:
        runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(options.repeats):
            for way, taken in runs.items():
                taken.append(
                    measure(way, options.num, concurrency, options.delay_s, venvs)
                )
        for way, taken in runs.items():
            middle = {
                name: statistics.median(run[name] for run in taken) for name in taken[0]
            }
            rows.append({"at once": concurrency, "way": way, **middle})
    print(table(rows, options.num))
    if options.out:
        options.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(json.loads(sys.argv[2]), float(sys.argv[3]))
    elif sys.argv[1:2] == ["work"]:
        work(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
