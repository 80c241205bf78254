"""Record and replay: a rerun from a cassette is byte for byte the run that was
recorded.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from aipo_env import (
    AgentReply,
    AgentRequest,
    CannedAgent,
    Cassette,
    ConfigError,
    DataError,
    Episode,
    ScriptedPolicy,
    build_scenario,
    write_episodes,
)

ASKS = (
    "<knowledge>mele</knowledge>",
    '<reason>what now?</reason><twice>{"number": 4}</twice>',
    "\\boxed{7623}",
)


@dataclass
class Moody:
    """Counts its calls, so that no two replies are equal, and has nothing to say for
    "reason".
    """

    agent_id = "moody"
    num_calls: int = 0

    async def reply(self, request: AgentRequest) -> AgentReply:
        self.num_calls += 1
        if request.kind == "reason":
            raise ConnectionError(f"call {self.num_calls} was refused")
        return AgentReply(text=f"reply {self.num_calls}", tokens=2, cost_usd=0.5)


def twice(number: int) -> int:
    """Twice a number."""
    return 2 * number


def play(cassette: str | None, agent: object, key: tuple[int, ...] = (0,)) -> Episode:
    pool = {"retries": 1, "backoff_s": 0.0}
    scenario = build_scenario(agents=agent, tools=[twice], pool=pool, cassette=cassette)
    session = scenario.session(scenario.source.task("train", 0), aided=True, key=key)
    return ScriptedPolicy(ASKS).run(session)


def written(folder: Path, episode: Episode) -> bytes:
    path = folder / "episodes.jsonl"
    path.unlink(missing_ok=True)
    write_episodes(path, [episode])
    return path.read_bytes()


@pytest.mark.parametrize("prefix", ["", "replay:"])
def test_a_rerun_is_byte_for_byte_the_recorded_run(tmp_path: Path, prefix: str):
    cassette, agent = tmp_path / "replies.jsonl", Moody()
    recorded = play(str(cassette), agent)
    assert [
        (c.kind, c.status, c.reply, c.error, c.retries) for c in recorded.consults
    ] == [
        ("knowledge", "answered", "reply 1", "", 0),
        ("reason", "failed", "", "ConnectionError: call 3 was refused", 1),
        ("twice", "answered", "8", "", 0),
    ]
    assert all(consult.seconds > 0 for consult in recorded.consults)
    num_rows = len(cassette.read_text().splitlines())
    again = play(f"{prefix}{cassette}", agent)
    assert written(tmp_path, again) == written(tmp_path, recorded)
    assert (agent.num_calls, num_rows, len(cassette.read_text().splitlines())) == (
        3,
        3,
        3,
    )


def test_without_a_cassette_the_runs_differ():
    agent = Moody()
    assert play(None, agent).consults != play(None, agent).consults


def test_what_is_not_on_the_cassette_is_asked_and_added(tmp_path: Path):
    cassette, agent = tmp_path / "replies.jsonl", CannedAgent("fine")
    play(str(cassette), agent)
    play(str(cassette), agent, key=(1,))
    assert [request.key for request in agent.requests] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (1, 1),
    ]
    keys = [json.loads(line)["key"] for line in cassette.read_text().splitlines()]
    assert sorted(keys) == ["(0, 0)", "(0, 1)", "(0, 2)", "(1, 0)", "(1, 1)", "(1, 2)"]


def test_a_replay_never_asks(tmp_path: Path):
    cassette, agent = tmp_path / "replies.jsonl", CannedAgent("fine")
    play(str(cassette), agent)
    cassette.chmod(0o400)
    before, agent.requests = cassette.read_bytes(), []
    episode = play(f"replay:{cassette}", agent, key=(1,))
    assert {consult.status for consult in episode.consults} == {"failed"}
    assert {consult.error for consult in episode.consults} == {
        f"cassette {cassette} holds no reply to this request: record it"
    }
    assert "fine" not in "".join(message.content for message in episode.messages)
    assert agent.requests == []
    assert cassette.read_bytes() == before


def test_another_request_under_the_same_key_is_not_answered_from_the_cassette(
    tmp_path: Path,
):
    cassette = tmp_path / "replies.jsonl"
    play(str(cassette), CannedAgent("fine"))
    scenario = build_scenario(agents="scripted", cassette=f"replay:{cassette}")
    session = scenario.session(scenario.source.task("train", 0), aided=True, key=(0,))
    episode = ScriptedPolicy(["<knowledge>zura</knowledge>", "\\boxed{1}"]).run(session)
    assert [consult.status for consult in episode.consults] == ["failed"]


def test_a_line_cut_short_is_asked_again(tmp_path: Path):
    cassette = tmp_path / "replies.jsonl"
    play(str(cassette), CannedAgent("first"))
    cassette.write_bytes(cassette.read_bytes()[:-5])
    episode = play(str(cassette), CannedAgent("second"))
    assert [consult.reply for consult in episode.consults] == ["first", "first", "8"]
    assert play(f"replay:{cassette}", CannedAgent("third")).consults == episode.consults


def test_a_cassette_that_cannot_be_used_is_named(tmp_path: Path):
    with pytest.raises(
        DataError, match=r"gone.jsonl: no such file. Record it: cassette='.*gone.jsonl'"
    ):
        build_scenario(cassette=f"replay:{tmp_path}/gone.jsonl")
    with pytest.raises(
        ConfigError, match="there is no folder .*nowhere. Make it first"
    ):
        build_scenario(cassette=f"{tmp_path}/nowhere/replies.jsonl")


def test_closing_one_that_was_not_written_to_does_not_open_it(tmp_path: Path):
    Cassette(str(tmp_path / "replies.jsonl")).close()
    assert list(tmp_path.iterdir()) == []
