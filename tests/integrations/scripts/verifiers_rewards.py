"""Reward functions for episodes that verifiers has played."""

from aipo_env import Task


def broken(task: Task, text: str) -> float:
    """Fail, which is no reward of 0."""
    raise RuntimeError("the grader is away")


def brief(task: Task, text: str) -> dict[str, float]:
    """Return a reward of two addends."""
    return {"right": float(task.answer in text), "brief": 0.25}
