"""An environment behind TRL's `environment_factory`, with TRL's own loss."""

import copy
import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, ClassVar

import numpy as np
from datasets import Dataset

from aipo_env import ConfigError, Environment, EnvironmentSpec, TurnEnv

_RESERVED = ("reset", "get_reward", "of", "tasks", "rewards")
"""Methods that mean something else to TRL, or here."""
_TYPES = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "array": list,
    "object": dict,
}
"""What Python calls the types of JSON."""
_NUM_SEEDS = 2**63
"""Those that an environment takes are below."""
_IS_OVER = "The episode is over."


class TRLEnvironment:
    """One rollout of an environment, as TRL's `environment_factory` plays it.

    For whoever wants the environment and TRL's loss. TRL masks whatever its tools
    return: **the tokens of agents are in no loss there**, so that a policy learns to
    consult and nothing of what it is told, and no rollout is played without help. What
    agents say is learned by `AipoGRPOTrainer`.

    `of` makes a class whose methods are the environment's: `consult`, by which agents
    are asked, and its tools. TRL tells the policy of them by its chat template, stops
    turns and limits their length; the rules' budgets, of consultations and in bytes,
    hold beside that.

        Toy = TRLEnvironment.of("toy:kinds=knowledge")
        GRPOTrainer(…, train_dataset=Toy.tasks(512), environment_factory=Toy,
                    reward_funcs=Toy.rewards)
    """

    _played: ClassVar[TurnEnv]
    _seeds: ClassVar[Iterator[int]]

    @classmethod
    def of(cls, environment: EnvironmentSpec, seed: int = 0) -> "type[TRLEnvironment]":
        """Return the class of an environment's rollouts.

        Args:
            environment: What is played.
            seed: The draws of agents and tools derive from it, other ones on each
                process. A run that is resumed begins with them again, unless it has
                another seed.

        Raises:
            ConfigError: A tool has a name that means something else here, or the seed
                is no whole number from 0.
        """
        if type(seed) is not int or seed < 0:
            raise ConfigError(f"seed={seed!r} must be a whole number, 0 or more.")
        spec = Environment.of(environment).changed(Environment(codec="openai"))
        played = TurnEnv(environment=spec, observation="delta")
        scenario = played.scenario
        codec: Any = scenario.codec
        methods: dict[str, Any] = {"_played": played, "_seeds": _seeds(seed)}
        for schema in codec.functions(scenario.offered):
            function = schema["function"]
            name = function["name"]
            if name in _RESERVED or name.startswith("_"):
                raise ConfigError(
                    f"tool {name!r}: a method of that name means something else to"
                    " TRL's environments. Give the tool another."
                )
            methods[name] = _method(function)
        return type("TRLEnvironment", (cls,), methods)

    @classmethod
    def tasks(cls, num_tasks: int | None = None) -> Dataset:
        """Return TRL's dataset of training tasks: their prompts, and their numbers.

        Args:
            num_tasks: How many; None: all of a source that has an end.

        Raises:
            ConfigError: The source has no end, and no number is given.
        """
        scenario = cls._played.scenario
        number = num_tasks or scenario.source.num_tasks("train")
        if number is None:
            raise ConfigError(
                f"tasks: those of {cls._played.environment.name!r} have no end. Say how"
                " many: tasks(512)."
            )
        prompts = []
        for index in range(number):
            task = scenario.source.task("train", index)
            messages = scenario.session(task, aided=True).open()
            rows = [{"role": one.role, "content": one.content} for one in messages]
            prompts.append(rows)
        return Dataset.from_dict({"prompt": prompts, "index": list(range(number))})

    @classmethod
    def rewards(
        cls,
        completions: Sequence[Sequence[Mapping[str, Any]]],
        environments: "Sequence[TRLEnvironment]",
        **columns: Any,
    ) -> list[float | None]:
        """Return rewards: TRL's reward function, which ends the episodes.

        None, which TRL leaves out, is that of an episode whose verifier failed.

        Args:
            completions: Messages of each rollout; the last is its answer, unless an
                agent or a tool said it: TRL leaves no message of a turn that it cut to
                nothing.
            environments: That were played.
            columns: Of the dataset, and what else TRL tells.

        Raises:
            Exception: What an agent or a tool raised, which TRL would have shown to the
                policy: the run cannot succeed.
        """
        return [
            environment._finish(_answer(messages))
            for messages, environment in zip(completions, environments, strict=True)
        ]

    def __init__(self) -> None:
        # Of the same tasks and agents, with an episode of its own.
        self._env = copy.copy(self._played)
        self._seed: int | None = next(self._seeds)
        self._is_over = True
        self._reward: float | None = None
        self._error: Exception | None = None

    def reset(self, index: int, **row: Any) -> None:
        """Begin the task of that number, whose prompt the dataset has."""
        # Later episodes go on in the series of the first.
        self._env.reset(seed=self._seed, options={"index": index})
        self._seed = None
        self._is_over = False
        self._reward = None
        self._error = None

    def _take_turn(self, action: Any) -> str:
        """Have the environment take a turn of the policy; return what came back."""
        if self._is_over:
            return _IS_OVER
        observation, _, terminated, truncated, info = self._env.step(action)
        self._is_over = terminated or truncated
        if self._is_over:
            self._reward = info["episode_record"].reward
        return str(observation)

    def _call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Call an agent or a tool; return what it says, without a wrapper."""
        function = {"name": name, "arguments": json.dumps(arguments)}
        call = {"id": name, "type": "function", "function": function}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        try:
            observation = self._take_turn(message)
        except Exception as error:
            # TRL would show it to the policy and go on: `rewards` raises it.
            self._error = error
            self._is_over = True
        if self._is_over:
            return _IS_OVER
        try:
            return str(json.loads(observation)["content"])
        except ValueError:
            # What is said of a malformed call is no reply.
            return observation

    def _finish(self, answer: str) -> float | None:
        """Give the final answer, unless the episode is over; return the reward."""
        if self._error is not None:
            raise self._error
        self._take_turn(answer)
        # A malformed turn would be told so, but there is no other after it.
        while not self._is_over:
            self._take_turn("")
        return self._reward


def _seeds(seed: int) -> Iterator[int]:
    """Yield the seeds of this process's rollouts, of which no other process has one.

    TRL tears its groups over processes: with equal seeds, two rollouts of a task would
    hear the same.
    """
    # The launcher's: processes do not know each other yet.
    rank = int(os.environ.get("RANK", 0))
    num_processes = int(os.environ.get("WORLD_SIZE", 1))
    for number in count(rank, num_processes):
        yield int(np.random.default_rng([seed, number]).integers(_NUM_SEEDS))


def _answer(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the policy's last words, "" if others have spoken since."""
    last = messages[-1] if messages else {}
    if last.get("role") != "assistant":
        return ""
    return str(last.get("content") or "")


def _method(function: Mapping[str, Any]) -> Callable[..., str]:
    """Return a method that calls one of the environment's functions.

    TRL reads how it is called from its signature and its docstring.

    Args:
        function: As chat completion APIs have it.
    """
    name = function["name"]
    parameters = function["parameters"]

    def call(self: TRLEnvironment, **arguments: Any) -> str:
        return self._call(name, arguments)

    named = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    lines = [function["description"].strip(), "", "Args:"]
    annotations: dict[str, Any] = {}
    for parameter, schema in parameters["properties"].items():
        is_required = parameter in parameters["required"]
        kind = _TYPES.get(str(schema.get("type")), str)
        annotations[parameter] = kind if is_required else kind | None
        named.append(
            inspect.Parameter(
                parameter,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if is_required else None,
                annotation=annotations[parameter],
            )
        )
        told = schema.get("description") or parameter
        choices = (
            f" (choices: {json.dumps(schema['enum'])})" if "enum" in schema else ""
        )
        lines.append(f"    {parameter}: {told}{choices}")
    call.__name__ = name
    call.__qualname__ = f"TRLEnvironment.{name}"
    call.__doc__ = "\n".join([*lines, "", "Returns:", "    What came back."])
    call.__annotations__ = {**annotations, "return": str}
    call.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        named, return_annotation=str
    )
    return call
