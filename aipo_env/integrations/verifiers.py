"""Our environments in verifiers, and by it in prime-rl.

    vf-eval aipo_verifiers --env.taskset.environment toy:kinds=knowledge -n 8

verifiers takes tasks from a taskset and has a harness play each, against an endpoint of
its own that asks the model and keeps every call as the trace. Here the harness is our
own loop of turns, in the same process: sessions, rules, agents and verifiers are those
of any other door. Beside the trace stands who wrote what, in `trace.info["aipo"]`.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import count
from typing import Any, Self

from aipo_env.agents.pool.preflight import check_agents
from aipo_env.codecs.openai_calls import OpenAICodec
from aipo_env.commands.extras import how_to_install
from aipo_env.episode import Episode
from aipo_env.errors import AipoError, ConfigError
from aipo_env.flags import read_spec
from aipo_env.integrations.authors import agents_tokens
from aipo_env.keys import rollout_number
from aipo_env.records import Completion, Message, Split, StopReason
from aipo_env.rollout.chat_policy import turn_text
from aipo_env.rollout.drive import play
from aipo_env.rollout.environment import Environment, with_limits
from aipo_env.rollout.scenario import Scenario, build_scenario
from aipo_env.rollout.session import Session
from aipo_env.rollout.voice import TextVoice
from aipo_env.tokenizers.base import Tokenizer
from aipo_env.tokenizers.bpe import build_tokenizer
from aipo_env.tools.mcp_tools import MCP_EXTRAS

SERIES = "0.4."
"""How versions of verifiers begin whose interfaces these are."""


def _check_version() -> None:
    """Raise ConfigError unless verifiers is there, in a version that was tested."""
    install = (
        f"{how_to_install('verifiers')}, in an environment without the extras mcp and"
        f" openenv. {MCP_EXTRAS}"
    )
    try:
        installed = version("verifiers")
    except PackageNotFoundError as error:
        raise ConfigError(
            f"verifiers is needed and not installed: {install}"
        ) from error
    if not installed.startswith(SERIES):
        raise ConfigError(
            f"verifiers {installed} is installed, and aipo_verifiers is written for"
            f" {SERIES}x: {install}"
        )


_check_version()

# Only behind the check: an import that fails would say less.
import openai  # noqa: E402
import verifiers.v1 as vf  # noqa: E402
from pydantic import Field, field_validator, model_validator  # noqa: E402

INFO = "aipo"
"""Where in `trace.info` the episode stands."""
DEFAULT_TOKENIZER = "tiktoken:aipo"
"""Ships with the package, and is near enough for limits; see `ChatPolicy`."""
NUM_RETRIES = 6
"""How often a turn is asked for again that failed and may pass; as of `ChatPolicy`."""
_LIMITS = {
    "max_turns": StopReason.MAX_TURNS,
    "max_output_tokens": StopReason.MAX_SAMPLED_TOKENS,
    "max_input_tokens": StopReason.CONTEXT_OVERFLOW,
    "max_total_tokens": StopReason.CONTEXT_OVERFLOW,
}
"""Limits of verifiers that may end an episode, and what they are called here."""
_TEXT_RULES = ("plain_prompt", "consult_prompt")
"""Rules that are text; a number on the command line is no number there."""


class AipoTasksetConfig(vf.TasksetConfig):
    """Which environment is played, and how; under `--env.taskset`.

    The environment is built when the settings are read, so that what is wrong with it
    is said beside them.

    Raises:
        ValidationError: It cannot be built, or not be played here; the message is that
            of our ConfigError or DataError.
    """

    environment: str | dict[str, Any] = Field("toy", validate_default=True)
    """A registered id, the spec of a task source, or an object with the fields of an
    environment: `--env.taskset.environment.source file:tasks.jsonl`."""
    split: Split = "train"
    """Which tasks: train or test."""
    aided: float = Field(1.0, ge=0, le=1)
    """The share of tasks that are played with agents; the others are without. A task's
    rollouts are all of one kind, so that a group has the baseline of its kind."""
    seed: int = Field(0, ge=0)
    """The toy world's, and of what agents draw."""
    tokenizer: str = DEFAULT_TOKENIZER
    """Counts the tokens of rules that limit them: tiktoken:NAME, hf:FOLDER or byte."""

    @field_validator("environment")
    @classmethod
    def _read_environment(cls, value: Any) -> dict[str, Any]:
        """Return the environment with all of its fields by name."""
        return _environment(value).to_dict()

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse what cannot be played."""
        if self.system_prompt is not None:
            raise ConfigError(
                "system_prompt: prompts are rules of the environment: set"
                " environment.rules.plain_prompt and .consult_prompt."
            )
        scenario = self.scenario
        if isinstance(scenario.codec, OpenAICodec):
            raise ConfigError(
                "environment: codec='openai' has calls in a field of their own, and"
                " turns are text here. Choose 'tags' or 'hermes'."
            )
        if scenario.source.num_tasks(self.split) == 0:
            raise ConfigError(f"split: there are no tasks in {self.split!r}.")
        _tokenizer(self.tokenizer)
        return self

    @property
    def scenario(self) -> Scenario:
        """The environment, built."""
        return _scenario(_written(self.environment), self.seed, self.tokenizer)


class AipoData(vf.TaskData):
    """A task, by what it takes to play it: it travels to whoever does."""

    environment: dict[str, Any]
    split: Split
    index: int
    aided: bool
    seed: int
    tokenizer: str


class AipoTask(vf.Task[AipoData]):
    """A task whose episode is scored by the environment's verifier."""

    @vf.reward
    async def verdict(self, trace: vf.Trace) -> dict[str, float]:
        """Return the addends of the reward by their names."""
        return _reward_parts(trace)

    @vf.metric
    async def counts(self, trace: vf.Trace) -> dict[str, float]:
        """Return what there is to count of the episode."""
        metrics: dict[str, float] = trace.info.get(INFO, {}).get("metrics", {})
        return metrics


class AipoTaskset(vf.Taskset[AipoTask, AipoTasksetConfig]):
    """The tasks of an environment, in the order of its source."""

    def __init__(self, config: AipoTasksetConfig) -> None:
        super().__init__(config)
        self._source = config.scenario.source
        self._num_tasks = self._source.num_tasks(config.split)
        # Of the class by default; here it depends on the source.
        self.INFINITE = self._num_tasks is None

    def load(self) -> Iterator[AipoTask]:
        """Yield the tasks; those of a source without end for ever."""
        config = self.config
        indices = count() if self._num_tasks is None else range(self._num_tasks)
        for index in indices:
            task = self._source.task(config.split, index)
            data = AipoData(
                id=task.id,
                prompt=task.prompt,
                environment=config.environment,
                split=config.split,
                index=index,
                aided=_is_aided(index, config.aided),
                seed=config.seed,
                tokenizer=config.tokenizer,
            )
            yield AipoTask(data, config.task)


class AipoHarnessConfig(vf.HarnessConfig):
    """Has nothing to set: what is played, the taskset says."""


class AipoHarness(vf.Harness[AipoHarnessConfig]):
    """Plays episodes: the loop of turns that every other door has, too.

    In this process: nothing of an episode runs in a runtime of verifiers.
    """

    APPENDS_SYSTEM_PROMPT = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: vf.ModelContext,
        trace: vf.Trace,
        runtime: vf.Runtime,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: AipoData,
    ) -> vf.ProgramResult:
        """Play an episode of a task.

        Raises:
            AipoError: It has no reward: something else than the policy failed.
                verifiers keeps it as an error of the trace, which nobody trains on.
        """
        session = session_of(data, trace.id)
        tokenizer = _tokenizer(data.tokenizer)
        async with _client(endpoint, secret) as client:
            turns = _Turns(client, ctx.model, trace, session, tokenizer)
            episode = await play(session, TextVoice(tokenizer, turns.say))
        trace.info[INFO] = _told(episode)
        _reward_parts(trace)
        return vf.ProgramResult(exit_code=0, stdout="", stderr="")


class AipoEnvConfig(vf.EnvConfig):
    """The one seat, the policy's.

    Raises:
        ValidationError: It has another harness, or a runtime in which nothing would
            run.
    """

    agent: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse a seat that says one thing and would do another."""
        harness, runtime = self.agent.harness, self.agent.runtime
        if not isinstance(harness, AipoHarnessConfig | None):
            raise ConfigError(
                f"agent.harness.id={harness.id!r}: aipo_verifiers plays its episodes"
                " itself. Leave it out."
            )
        if not isinstance(runtime, vf.SubprocessConfig):
            raise ConfigError(
                f"agent.runtime.type={runtime.type!r}: nothing of an episode runs in a"
                " runtime of verifiers. Leave it out, or write 'subprocess'."
            )
        return self


class AipoEnv(vf.Env[AipoEnvConfig]):
    """One policy that plays the taskset."""

    async def start(self) -> None:
        """Ask agents one question before a run, which may take hours.

        Raises:
            AgentLost: Some can never answer.
        """
        await check_agents(self.config.taskset.scenario.pool)

    async def run(self, task: AipoTask, agents: vf.Agents) -> None:
        """Have the policy play a task."""
        await agents.agent.run(task)


def session_of(data: AipoData, trace_id: str) -> Session:
    """Start the episode of a rollout.

    Args:
        data: The task.
        trace_id: verifiers' own name of the rollout. What agents draw derives from it,
            as rollouts of one task may be played by several workers, in any order.
    """
    scenario = _scenario(_written(data.environment), data.seed, data.tokenizer)
    return scenario.rollout(
        data.split,
        data.seed,
        data.index,
        rollout_number(trace_id),
        aided=data.aided,
        index=data.index,
    )


def agent_mask(
    trace: vf.Trace, branch: vf.Branch, decode: Callable[[list[int]], str]
) -> list[bool]:
    """Return which tokens of a branch an agent wrote, of all tokens of the branch.

    A token that is in part of a reply's wrapper is not among them, and neither is what
    a tool or the environment wrote.

    Args:
        trace: Of an episode that was played here.
        branch: One of `trace.branches`. Only a client that trains writes token ids into
            it; without them there is nothing to tell.
        decode: Turns token ids into text, special tokens included.

    Raises:
        AipoError: The tokens of a message are not its text, as with a template that
            rewrites it.
    """
    spans = trace.info[INFO]["spans"]
    mask = []
    for number, node in enumerate(branch.nodes):
        mask += agents_tokens(node.token_ids, spans[number], decode)
    return mask


class _Turns:
    """Asks an endpoint for the turns of one episode.

    Args:
        client: Of the endpoint.
        model: The model's name there.
        trace: Of the rollout, which says when verifiers has stopped it.
        session: That is played.
        tokenizer: Counts the tokens of turns.
    """

    def __init__(
        self,
        client: openai.AsyncOpenAI,
        model: str,
        trace: vf.Trace,
        session: Session,
        tokenizer: Tokenizer,
    ) -> None:
        self._client = client
        self._model = model
        self._trace = trace
        self._session = session
        self._tokenizer = tokenizer
        self._rows: list[Any] = []
        """The conversation, as the endpoint is sent it."""

    async def say(
        self, messages: Sequence[Message], stop: Sequence[str], max_tokens: int
    ) -> Completion:
        """Say a turn; see `TextPolicy`."""
        for message in messages[len(self._rows) :]:
            self._rows.append({"role": message.role, "content": message.content})
        try:
            response = await self._client.chat.completions.create(
                model=self._model, messages=self._rows, max_tokens=max_tokens
            )
        except openai.OpenAIError:
            if self._trace.stop_condition is not None:
                # Refused, because a limit of verifiers has been reached.
                reason = _LIMITS.get(self._trace.stop_condition, StopReason.CANCELLED)
                self._session.abort(reason)
            raise
        choice = response.choices[0]
        said = choice.message.content or ""
        is_cut = choice.finish_reason == "length"
        text, ended_by = turn_text(said, stop, max_tokens, is_cut=is_cut)
        # Sent back as it came, reasoning included: verifiers would take anything else
        # for another conversation, and branch the trace.
        row = choice.message.model_dump(exclude_none=True)
        if text != said:
            row = {"role": "assistant", "content": text}
        self._rows.append(row)
        token_ids = tuple(self._tokenizer.encode(text))
        return Completion(text, token_ids, (), ended_by)


def _client(endpoint: str, secret: str) -> openai.AsyncOpenAI:
    """Return a client of verifiers' endpoint, which is on this machine."""
    transport = openai.DefaultAsyncHttpxClient(
        # Certificates take long to load, and plain HTTP has none.
        verify=not endpoint.startswith("http://"),
        # No proxy of the environment's stands between.
        trust_env=False,
        # The seat has one: --env.agent.timeout.rollout.
        timeout=None,
    )
    return openai.AsyncOpenAI(
        base_url=endpoint,
        api_key=secret,
        max_retries=NUM_RETRIES,
        http_client=transport,
    )


@cache
def _scenario(environment: str, seed: int, tokenizer: str) -> Scenario:
    """Return the scenario of an environment, which is one for all its episodes."""
    return build_scenario(with_limits(json.loads(environment), tokenizer), seed=seed)


@cache
def _tokenizer(spec: str) -> Tokenizer:
    """Return what counts the tokens of turns."""
    return build_tokenizer(spec, {})


def _is_aided(index: int, share: float) -> bool:
    """Return whether a task is among those with agents, which are spread evenly."""
    return int((index + 1) * share) > int(index * share)


def _written(environment: Any) -> str:
    """Return an environment's JSON form as text, equal for equal ones."""
    return json.dumps(environment, sort_keys=True)


def _environment(value: Any) -> Environment:
    """Return the environment that a setting of verifiers is.

    Its command line has texts for all that is deeper than the field itself.
    """
    if isinstance(value, str):
        return Environment.of(read_spec(value))
    fields = {name: _read(part) for name, part in value.items()}
    for part in ("rules", "pool"):
        if isinstance(fields.get(part), Mapping):
            fields[part] = {
                name: setting if name in _TEXT_RULES else _number(setting)
                for name, setting in fields[part].items()
            }
    return Environment.of(fields)


def _read(value: Any) -> Any:
    """Return a spec, which is JSON if it looks so."""
    return read_spec(value) if isinstance(value, str) else value


def _number(value: Any) -> Any:
    """Return what a text of the command line says, if it is JSON."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _told(episode: Episode) -> dict[str, Any]:
    """Return what a trace is told of an episode: all of it as JSON.

    `spans` has those of each message, in the order of the messages of the trace.
    """
    verdict = episode.verdict
    answered = [call for call in episode.consults if call.status == "answered"]
    return {
        "aided": episode.aided,
        "stop_reason": str(episode.stop_reason),
        "status": verdict.status if verdict else "",
        "reason": verdict.reason if verdict else "",
        "reward_parts": dict(episode.reward_parts),
        "metrics": {
            "aided": float(episode.aided),
            "truncated": float(episode.stop_reason.is_truncated),
            "consults": float(len(episode.consults)),
            "answered_consults": float(len(answered)),
            "invalid_turns": float(episode.num_invalid),
        },
        "consults": [
            {"kind": call.kind, "agent": call.agent_id, "status": call.status}
            for call in episode.consults
        ],
        "spans": [
            [span.told() for span in message.spans] for message in episode.messages
        ],
    }


def _reward_parts(trace: vf.Trace) -> dict[str, float]:
    """Return the addends of a trace's reward.

    Raises:
        AipoError: There are none, which is no reward of 0.
    """
    told = trace.info.get(INFO)
    if told is None:
        raise AipoError("the episode did not end, so that there is no verdict on it")
    parts: dict[str, float] = told["reward_parts"]
    if not parts:
        raise AipoError(
            f"the episode has no reward ({told['stop_reason']}): {told['reason']}"
        )
    return parts
