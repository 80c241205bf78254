"""The toy world and the agents that know it."""

import asyncio

import pytest

from aipo_env import (
    CONSULT_KINDS,
    MOVES,
    OPERATOR_NAMES,
    AgentReply,
    AgentRequest,
    ConfigError,
    Problem,
    ScriptedAgent,
    ToySource,
    World,
    add_codes,
    run_sync,
    shift_of,
)
from aipo_env.toy.world import MAX_OPERATORS, believed_move, luck, split_of


def test_world_0():
    world = World(seed=0)
    assert [(o.name, o.kind, o.rule) for o in world.operators.values()][3:5] == [
        ("mele", "knowledge", ("#78#25",)),
        ("rire", "reason", ("vora", "deza")),
    ]
    problem = world.problem("train", 0)
    assert (problem.text, problem.answer) == ("Apply mele to 0808.", "7623")
    assert world.problem("test", 1).text == "Apply rire to 9295."


def test_codes_are_added_digit_by_digit():
    assert add_codes("3799", "5802") == "8591"
    assert add_codes("0000", "9999") == "9999"


def test_rules_are_applied_in_order():
    world = World(seed=0)
    problem = Problem("3721", (world.operators["rire"], world.operators["riva"]))
    assert (shift_of("vora"), shift_of("deza"), shift_of("nire")) == (
        "4260",
        "2220",
        "8347",
    )
    assert problem.answer == "7448"  # 3721, 7981, 9101, 7448


def test_luck_is_the_share_of_pairs_with_the_same_sum():
    total = add_codes("4260", "2220")
    pairs = [(a, b) for a in MOVES for b in MOVES if a != b]
    same = sum(add_codes(shift_of(a), shift_of(b)) == total for a, b in pairs)
    assert luck(("vora", "deza")) == same / 9900


def test_names_and_moves_are_distinct():
    names = [*MOVES, *(name for kind in CONSULT_KINDS for name in OPERATOR_NAMES[kind])]
    assert len(set(names)) == 100 + 3 * MAX_OPERATORS == len(names)
    assert len({shift_of(move) for move in MOVES}) == 100


def test_rules_depend_on_the_seed_and_not_on_the_problems():
    world = World(seed=3)
    assert World(seed=3, difficulty=3, kinds=("verify",)).operators == world.operators
    assert World(seed=4).operators != world.operators
    rules = {
        problem.operators[0].rule
        for problem in (world.problem("train", i) for i in range(0, 300, 3))
    }
    assert rules == {
        problem.operators[0].rule
        for problem in (world.problem("test", i) for i in range(0, 300, 3))
    }


@pytest.mark.parametrize(("seed", "difficulty"), [(0, 1), (1, 2), (2, 3)])
def test_no_problem_is_in_both_splits(seed: int, difficulty: int):
    world = World(seed=seed, difficulty=difficulty)
    train = {world.problem("train", index).text for index in range(600)}
    test = {world.problem("test", index).text for index in range(600)}
    assert not train & test
    assert len(test) > 300
    assert all(
        len(world.problem("test", index).operators) == difficulty for index in range(30)
    )


def test_the_split_of_a_problem_is_the_same_in_every_world():
    for seed in range(3):
        for index in range(50):
            problem = World(seed=seed).problem("test", index)
            assert (
                split_of(
                    problem.start, [operator.name for operator in problem.operators]
                )
                == "test"
            )


def test_kinds_take_turns_and_indices_are_unlimited():
    world = World(seed=0)
    kinds = [world.problem("train", index).operators[0].kind for index in range(6)]
    assert kinds == ["knowledge", "reason", "verify"] * 2
    assert world.problem("train", 10**9) == World(seed=0).problem("train", 10**9)
    only = World(seed=0, kinds=("reason",), difficulty=2)
    assert {
        operator.kind
        for index in range(20)
        for operator in only.problem("train", index).operators
    } == {"reason"}


def test_a_false_belief_is_never_the_rule():
    for seed in range(60):
        for operator in World(
            seed=seed, num_operators=MAX_OPERATORS
        ).operators.values():
            if operator.kind == "verify":
                assert operator.rule[0] in MOVES
                assert operator.rule[0] != believed_move(operator.name)
            if operator.kind == "reason":
                assert operator.rule[0] != operator.rule[1]
                assert luck(operator.rule) <= 0.0011


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_operators": 25}, "num_operators=25 must be a whole number from 1 to 24"),
        ({"num_operators": "two"}, "num_operators='two' must be a whole number"),
        ({"difficulty": 0}, "difficulty=0 must be a whole number from 1 to 3"),
        ({"seed": -1}, "seed=-1 must be a whole number, at least 0"),
        ({"seed": "x"}, "seed='x' must be a whole number"),
        ({"kinds": ()}, "kinds is empty. Valid: knowledge, reason, verify"),
        ({"kinds": ("knowlege",)}, "Did you mean 'knowledge'"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        World(**options)


def test_one_kind_may_be_given_as_text():
    assert World(kinds="verify").kinds == ("verify",)


def say(
    agent: ScriptedAgent, kind: str, query: str, trace: str = "", seed: int = 0
) -> str:
    return run_sync(
        agent.reply(AgentRequest(kind=kind, query=query, trace=trace, seed=seed))
    ).text


@pytest.mark.parametrize(
    ("kind", "query", "trace", "text"),
    [
        ("knowledge", "mele", "", "mele=#78#25;"),
        ("knowledge", " mele\n", "", "mele=#78#25;"),
        ("knowledge", "zura", "", "unknown;"),
        ("knowledge", "What is mele?", "", "unknown;"),
        ("reason", "rire", "", "rire first vora;"),
        ("reason", "rire", "rire first vora;3721+4260=7981;", "rire then deza;"),
        ("reason", "rire", "rino first nina;", "rire first vora;"),
        ("verify", "riva=nire", "", "right;"),
        ("verify", "riva=mivo", "", "wrong at riva;riva=nire;"),
        ("verify", "riva", "", "wrong at riva;riva=nire;"),
        ("verify", "zura=kera", "", "unknown;"),
        pytest.param("verify", "a" * 1_000_000, "", "unknown;", id="a million letters"),
    ],
)
def test_the_scripted_agent_knows_its_world(
    kind: str, query: str, trace: str, text: str
):
    assert say(ScriptedAgent(ToySource(World(seed=0))), kind, query, trace) == text


def test_a_wrong_agent_states_another_rule_in_the_same_form():
    liar = ScriptedAgent(ToySource(World(seed=0)), wrong=1.0)
    lies = [say(liar, "knowledge", "mele", seed=seed) for seed in range(20)]
    assert all(
        len(lie) == len("mele=#78#25;") and lie.startswith("mele=#") for lie in lies
    )
    assert len(set(lies)) > 15
    assert lies == [say(liar, "knowledge", "mele", seed=seed) for seed in range(20)]
    assert say(liar, "verify", "riva=nire") != "right;"


def test_faults_come_at_their_rate_and_derive_from_the_seed():
    sometimes = ScriptedAgent(ToySource(World(seed=0)), wrong=0.5)
    wrong = [
        say(sometimes, "knowledge", "mele", seed=seed) != "mele=#78#25;"
        for seed in range(200)
    ]
    assert 70 < sum(wrong) < 130


def test_a_silent_agent_never_replies_and_a_slow_one_does():
    silent = run_sync(
        _reply_within(ScriptedAgent(ToySource(World(seed=0)), silent=1.0), 0.01)
    )
    slow = run_sync(
        _reply_within(
            ScriptedAgent(ToySource(World(seed=0)), slow=1.0, slow_s=0.001), 10.0
        )
    )
    assert (silent, slow and slow.text) == (None, "mele=#78#25;")


async def _reply_within(agent: ScriptedAgent, timeout_s: float) -> AgentReply | None:
    try:
        return await asyncio.wait_for(
            agent.reply(AgentRequest(kind="knowledge", query="mele")), timeout_s
        )
    except TimeoutError:
        return None


@pytest.mark.parametrize("fault", ["wrong", "slow", "silent"])
def test_a_fault_is_a_probability(fault: str):
    for value in (-0.1, 1.1, float("nan")):
        with pytest.raises(
            ConfigError, match=f"{fault}={value} must be a number from 0 to 1"
        ):
            ScriptedAgent(ToySource(World(seed=0)), **{fault: value})
