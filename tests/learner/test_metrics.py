"""What a step's episodes come to in numbers."""

from aipo_env import Episode, ScriptedPolicy, build_scenario
from aipo_env.testing import CannedAgent, FaultyAgent
from aipo_learner.metrics import episode_metrics


def play(agent: object, aided: bool = True) -> Episode:
    pool = {"retries": 2, "backoff_s": 0.0, "deadline_s": 0.05}
    scenario = build_scenario(agents=agent, pool=pool, rules={"consult_budget": 1})
    session = scenario.session(scenario.source.task("train", 0), aided=aided, key=(0,))
    return ScriptedPolicy(["<knowledge>a</knowledge>"] * 2 + ["\\boxed{1}"]).run(
        session
    )


def test_consultations_are_counted_by_what_became_of_them():
    episodes = [
        play(CannedAgent("fine")),
        play(FaultyAgent("hang")),
        play(FaultyAgent("junk")),
    ]
    counts = {
        k: v for k, v in episode_metrics(episodes).items() if k.startswith("consults/")
    }
    assert counts == {
        "consults/answered": 1,
        "consults/denied": 1,
        "consults/timeout": 2,
        "consults/garbage": 2,
        "consults/retries": 8,
    }


def test_without_consultations_there_is_nothing_but_no_retries():
    counts = {
        k: v
        for k, v in episode_metrics([play(CannedAgent("fine"), aided=False)]).items()
        if "consults" in k
    }
    assert counts == {"consults/retries": 0}
