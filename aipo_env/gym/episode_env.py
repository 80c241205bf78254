"""What both Gymnasium environments share: tasks, seeding, `info`, rendering, the end.

No rule of the dialogue is here; `Session` and `Dialogue` hold them.
"""

import copy
import inspect
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Self, TypedDict, TypeVar, get_args

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded

from aipo_env.episode import Episode
from aipo_env.errors import ConfigError, check_choice, shown, suggest, whole
from aipo_env.event_loop import run_sync
from aipo_env.records import Message, Split, StopReason
from aipo_env.rollout.drive import begin
from aipo_env.rollout.environment import (
    FACES,
    AgentsSpec,
    CodecSpec,
    Environment,
    EnvironmentSpec,
    Pool,
    Rules,
    SourceSpec,
    ToolSpecs,
    VerifierSpec,
    from_arguments,
)
from aipo_env.rollout.scenario import byte_scenario
from aipo_env.rollout.session import Session
from aipo_env.rollout.voice import TextVoice
from aipo_env.tokenizers.base import Tokenizer
from aipo_env.tokenizers.bytes import ByteTokenizer
from aipo_env.viewer.render import episode_text, episodes_html, messages_text

ObsT = TypeVar("ObsT")
ActT = TypeVar("ActT")

_BUILT = ("scenario", "tokenizer", "_session", "_voice", "_facts", "_new")
"""What `_build` makes, and what belongs to an episode."""
MAX_SEED = 2**63 - 1
"""The largest whole number of 64 bits with a sign."""
NUM_SERIES = 2**31
"""So many seeds may be drawn for a series of episodes that was given none."""
MAX_TASKS = 2**31
"""Of an endless source so many tasks can be chosen by number."""


class EnvOptions(TypedDict, total=False):
    """The arguments of `EpisodeEnv`, for those who pass them on."""

    environment: EnvironmentSpec | None
    source: SourceSpec | None
    agents: AgentsSpec | None
    tools: ToolSpecs | None
    verifier: VerifierSpec | None
    codec: CodecSpec | None
    rules: Rules | None
    pool: Pool | None
    cassette: str | None
    aided: bool
    split: Split
    render_mode: str | None


@dataclass(frozen=True)
class EpisodeChoice:
    """What the options of `reset` choose for one episode.

    Args:
        index: The task, by its number in the split; None: the next of the series.
        split: Training or held-out tasks.
        aided: Whether the policy is told of the agents and may consult.
    """

    index: int | None
    split: Split
    aided: bool


RESET_OPTIONS = tuple(EpisodeChoice.__dataclass_fields__)
"""The names of what `reset(options=…)` takes."""


class RenderModeError(ConfigError, TypeError):
    """A mode there is not.

    A TypeError too: after one, Stable-Baselines3 goes on without the pixels it asks
    for.
    """


class EpisodeEnv(gym.Env[ObsT, ActT], Generic[ObsT, ActT]):
    """An environment whose actions end in turns of a `Session`.

    Args:
        environment: An `Environment`, a registered id, or the spec of a task source.
            The fields that follow are put over it.
        source, agents, tools, verifier, codec: As in `Environment`.
        rules: Rules that differ from those that are registered, from `BYTE_LIMITS` and
            from the source's own. Limits of tokens count bytes of UTF-8, unless the
            environment has another tokenizer.
        pool: Limits of the agents' pool that differ from its defaults.
        cassette: A file from which agents' replies are repeated, and to which they are
            recorded; see `Cassette`.
        aided: Whether the policy is told of the agents and may consult.
        split: "train" or "test".
        render_mode: "human" prints messages as they come; "ansi" has `render` return
            the transcript, "html" a web page of the episode. "ansi_list" and
            "html_list" collect one per step.

    Every argument has a JSON form, so that the environment's spec has one. `rules` and
    `pool` of `gymnasium.make` are merged with those that the id registers.
    `reset(seed=s)` and the resets after it play the episodes of an `EpisodeRunner` of
    that seed, one after another; without any seed, those of a seed drawn from
    `np_random`. Options of `reset` hold for one episode: `{"index": n}` plays task n
    instead, `{"split": "test"}` a task of that split, `{"aided": False}` without
    agents.

    An environment can be pickled; what comes back has no running episode. `copy.copy`
    and `copy.deepcopy` share its tasks and agents, and the latter copies the running
    episode.

    `info` holds `task_id`, `turn`, `num_policy_tokens`, `consults_used`; on the last
    step also `stop_reason`, `reward_parts` and `episode_record`, the `Episode`. The
    gold answer is in the `Episode` alone.

    `step` is `_act`, then its coroutine if there is one, then `_result`: whoever has an
    event loop may run the coroutines of many environments together.

    Raises:
        ConfigError: An argument or option is unknown or out of range. DataError: a task
            file cannot be read.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": ["human", "ansi", "html"],
        "render_fps": 4,
    }

    def __new__(cls, *args: Any, **options: Any) -> Self:
        """Say of an unknown argument, beside what Python says, which one is near."""
        parameters = inspect.signature(cls.__init__).parameters
        # A class of somebody's own may pass on what it does not name.
        takes_any = any(
            parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()
        )
        for name in options:
            if name not in parameters and not takes_any:
                _, *names = parameters  # without `self`
                near = suggest(name, names)
                raise TypeError(
                    f"{cls.__name__}.__init__() got an unexpected keyword argument "
                    f"{name!r}. {near}"
                )
        return super().__new__(cls)

    def __init__(
        self,
        *,
        environment: EnvironmentSpec | None = None,
        source: SourceSpec | None = None,
        agents: AgentsSpec | None = None,
        tools: ToolSpecs | None = None,
        verifier: VerifierSpec | None = None,
        codec: CodecSpec | None = None,
        rules: Rules | None = None,
        pool: Pool | None = None,
        cassette: str | None = None,
        aided: bool = True,
        split: Split = "train",
        render_mode: str | None = None,
    ) -> None:
        check_choice("environment: split", split, get_args(Split))
        modes = self.metadata["render_modes"]
        if render_mode not in (None, *modes):
            near = suggest(str(render_mode), modes)
            raise RenderModeError(f"environment: {render_mode=}. {near}")
        fields = Environment(
            source=source,
            agents=agents,
            tools=tools,
            verifier=verifier,
            codec=codec,
            rules=rules,  # type: ignore[arg-type]
            pool=pool,  # type: ignore[arg-type]
        )
        base = Environment() if environment is None else Environment.of(environment)
        self.environment = base.resolved().changed(fields)
        """What is played, without the limits that this face adds."""
        self.aided = aided
        self.split = split
        self.render_mode = render_mode
        self._cassette = cassette
        self._spec: EnvSpec | None = None
        self._series: int | None = None
        self._position = 0
        self._build()

    @property
    def spec(self) -> EnvSpec | None:
        """The spec that `gymnasium.make` made the environment of."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        """Take the spec; put what was given over what is registered.

        Rules and pool are merged setting by setting. Gymnasium replaces a registered
        argument by the one that `make` is given, and says which id it was only here.
        """
        self._spec = spec
        if spec is None or spec.id not in gym.registry:
            return
        registered = gym.registry[spec.id]
        what = f"environment {spec.id!r}"
        if registered.entry_point in FACES:
            # `environment=` stands over what is registered, and single fields over
            # both.
            made = {
                name: value
                for name, value in spec.kwargs.items()
                if value != registered.kwargs.get(name)
            }
            base = from_arguments(registered.kwargs, what)
            merged = base.changed(from_arguments(made, what))
        else:
            # A class of somebody's own has its say; of rules and pool single settings.
            own = {name: registered.kwargs.get(name) for name in ("rules", "pool")}
            merged = from_arguments(own, what).changed(self.environment)
        if merged != self.environment:
            self.environment = merged
            self._build()

    def _build(self) -> None:
        """Build what is played; no episode is running then."""
        self.scenario = byte_scenario(self.environment, self._cassette)
        self.tokenizer: Tokenizer = ByteTokenizer()
        self._session: Session | None = None
        self._voice = TextVoice()
        self._new: list[Message] = []
        self._is_over = True

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs: no connections, no running episode."""
        state = vars(self).copy()
        for name in _BUILT:
            state.pop(name, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Build it anew."""
        vars(self).update(state)
        self._build()

    def __copy__(self) -> Self:
        """Return an environment of the same tasks and agents, with no episode."""
        twin = object.__new__(type(self))
        vars(twin).update(vars(self))
        twin._session = None
        twin._voice = TextVoice()
        twin._new = []
        twin._is_over = True
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return an environment of the same tasks and agents, its episode copied.

        Raises:
            ConfigError: A tool has a state, which may be a process or a connection.
        """
        if self.scenario.toolbox.has_state:
            raise ConfigError(
                "environment: its tools have a state that cannot be copied, so neither"
                " can the running episode. copy.copy() gives an environment without"
                " one."
            )
        shared = [self.scenario, *vars(self.scenario).values(), self.environment]
        shared.append(self.tokenizer)
        # What stands in the memo is taken for copied already.
        memo.update({id(part): part for part in shared})
        twin = object.__new__(type(self))
        vars(twin).update(copy.deepcopy(vars(self), memo))
        return twin

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[ObsT, dict[str, Any]]:
        """Start an episode. Waits for nothing.

        Args:
            seed: Begins the series of episodes of that seed.
            options: "index", "split" and "aided" of this episode alone.

        Raises:
            ConfigError: The seed is no whole number from 0 to 2**63 - 1, or an option
                is unknown or cannot be used.
        """
        seed = _checked_seed(seed)
        chosen = self._chosen(options or {})
        super().reset(seed=seed)
        if seed is not None or self._series is None:
            # A series goes on over resets without a seed.
            self._series = self._drawn_series() if seed is None else seed
            self._position = 0
        self._end_tools()
        self._session = self.scenario.rollout(
            chosen.split,
            self._series,
            self._position,
            index=chosen.index,
            aided=chosen.aided,
        )
        self._voice = TextVoice(self.tokenizer)
        self._position += 1
        self._clear()
        # Only then: a switch to the event loop costs more than the rest of a reset.
        if self.scenario.toolbox.has_state:
            run_sync(self._session.prepare())
        begin(self._session, self._voice)
        self._note()
        return self._observe(), self._info()

    def check_reset(self, seed: Any, options: Mapping[str, Any]) -> None:
        """Raise ConfigError where `reset` would refuse these arguments."""
        _checked_seed(seed)
        self._chosen(options)

    def step(self, action: ActT) -> tuple[ObsT, float, bool, bool, dict[str, Any]]:
        """Take an action.

        What a turn earns comes with its last token, and the verdict's reward with the
        last step. An episode that failed (a verifier, a tool, the policy's engine) is
        truncated, and `info["error"]` says why.

        Raises:
            InvalidAction: The action is not of the action space. ResetNeeded: no
                episode is running.
        """
        work = self._act(action)
        if work is not None:
            run_sync(work)
        return self._result()

    def _chosen(self, options: Mapping[str, Any]) -> EpisodeChoice:
        """Return what the options of `reset` choose.

        Raises:
            ConfigError: One is unknown, of a wrong type or out of range.
        """
        for name in options:
            check_choice("reset: option", name, RESET_OPTIONS)
        split = options.get("split")
        if split is None:
            split = self.split
        check_choice("reset: split", split, get_args(Split))
        aided = options.get("aided")
        if aided is None:
            aided = self.aided
        if not isinstance(aided, bool):
            raise ConfigError(f"reset: aided={shown(aided)} must be true or false.")
        index = options.get("index")
        if index is not None:
            num_tasks = self.scenario.source.num_tasks(split)
            index = whole("reset: index", index, 0, (num_tasks or MAX_TASKS) - 1)
        return EpisodeChoice(index, split, aided)

    def _drawn_series(self) -> int:
        """Draw the seed of a series of episodes from the environment's generator."""
        return int(self.np_random.integers(NUM_SERIES))

    def close(self) -> None:
        """Close the cassette, and the tools of an episode that is left."""
        self._end_tools()
        if self.scenario.pool.journal:
            self.scenario.pool.journal.close()

    async def leave(self) -> None:
        """Leave the running episode: close what its tools hold."""
        if self._session is not None:
            await self._session.close()

    def _end_tools(self) -> None:
        """Close the tools of an episode that was left in the midst."""
        if self._session is not None and self.scenario.toolbox.has_state:
            run_sync(self._session.close())

    def _act(self, action: ActT) -> Coroutine[Any, Any, Any] | None:
        """Take an action; return what has to be awaited before `_result`, if anything.

        Most tokens only join the turn: then it is None.
        """
        raise NotImplementedError

    def _observe(self) -> ObsT:
        """Return the observation."""
        raise NotImplementedError

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The strings after which a turn of the current episode ends."""
        return self._session.dialogue.stop_strings() if self._session else ()

    @property
    def num_consults(self) -> int:
        """Consultations of agents in the current episode so far."""
        return self._session.dialogue.num_consults if self._session else 0

    @property
    def num_consults_left(self) -> int:
        """Consultations that the current episode's own budget still allows."""
        session = self._session
        if session is None or not session.dialogue.offered:
            return 0
        budget = self.scenario.rules.consult_budget
        return max(0, budget - session.dialogue.num_consults)

    def limit_consults(self, num_more: int) -> None:
        """Deny the current episode's consultations beyond so many more.

        Each call replaces the limit of the one before; the episode's own budget stays.
        """
        if self._session is None:
            return
        dialogue = self._session.dialogue
        budget = dialogue.num_consults + min(num_more, self.num_consults_left)
        dialogue.rules = replace(dialogue.rules, consult_budget=budget)

    def render(self) -> str | None:
        """Return the transcript in mode "ansi", a web page in mode "html".

        "human" has printed it already.

        Raises:
            ConfigError: A page is asked for, and jinja2 is not installed.
        """
        if self.render_mode is None:
            modes = " or ".join(
                f'render_mode="{mode}"' for mode in self.metadata["render_modes"]
            )
            gym.logger.warn(
                f"render() does nothing: make the environment with {modes}."
            )
        session = self._session
        if self.render_mode in (None, "human") or session is None:
            return None
        if self.render_mode == "html":
            return episodes_html([_so_far(session)], title=session.task.id)
        if session.stop_reason is None:
            return messages_text(session.messages, session.task)
        return episode_text(session.episode())

    def _running(self) -> Session:
        """Return the running session.

        Raises:
            ResetNeeded: There is none: `reset` was not called yet, or the episode is
                over.
        """
        if self._session is None or self._is_over:
            raise ResetNeeded(
                "step() without a running episode: call reset() first, and after each"
                " episode."
            )
        return self._session

    def _clear(self) -> None:
        """Forget the episode before."""
        self._is_over = False
        self._num_shown = 0
        self._earned = 0.0
        self._new = []
        self._facts: dict[str, Any] = {}

    def _note(self) -> None:
        """Take note of what came since the last call; in mode "human", print it."""
        session = self._running()
        self._new = session.messages[self._num_shown :]
        self._num_shown += len(self._new)
        if self.render_mode == "human" and self._new:
            print(messages_text(self._new, session.task))
        self._facts = {
            "task_id": session.task.id,
            "turn": len(session.dialogue.turns),
            "num_policy_tokens": session.dialogue.num_policy_tokens,
            "consults_used": session.dialogue.num_consults,
        }

    def _info(self) -> dict[str, Any]:
        """Return a fresh `info`."""
        return dict(self._facts)

    def _result(self) -> tuple[ObsT, float, bool, bool, dict[str, Any]]:
        """Return what `step` returns."""
        session = self._running()
        # What this step has earned: the session counts from the beginning.
        earned = session.turn_reward - self._earned
        self._earned = session.turn_reward
        if session.stop_reason is None:
            # Between turns nothing is new, and there are many steps between.
            if len(session.messages) > self._num_shown:
                self._note()
            return self._observe(), earned, False, False, self._info()
        self._note()
        episode = session.episode()
        info = self._info()
        info["stop_reason"] = episode.stop_reason.value
        info["episode_record"] = episode
        info["reward_parts"] = dict(episode.reward_parts)
        # A failure is no outcome of the task: nothing is earned, and nothing is lost.
        truncated = episode.stop_reason.is_truncated or episode.reward is None
        reward = 0.0
        if episode.reward is None:
            info["error"] = episode.verdict.reason if episode.verdict else ""
        else:
            # What turns before have earned was returned as it fell.
            reward = episode.reward - (session.turn_reward - earned)
        # Before it is over: an observation needs a running session.
        observation = self._observe()
        self._is_over = True
        return observation, reward, not truncated, truncated, info


def _checked_seed(seed: Any) -> int | None:
    """Return the seed of `reset`.

    Raises:
        ConfigError: It is no whole number from 0 to `MAX_SEED`.
    """
    return None if seed is None else whole("reset: seed", seed, 0, MAX_SEED)


def _so_far(session: Session) -> Episode:
    """Return the record of an episode that may still be running.

    It is then as if it were cancelled, and without the answer that it is after: the
    page may be shown to the policy.
    """
    if session.stop_reason is not None:
        return session.episode()
    # A copy has a stop reason of its own; the session goes on.
    cancelled = copy.copy(session)
    cancelled.abort(StopReason.CANCELLED)
    episode = cancelled.episode()
    task = replace(episode.task, answer="(not told before the end)")
    return replace(episode, task=task)
