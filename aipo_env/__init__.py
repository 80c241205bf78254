"""Gymnasium environments of several turns, in which a policy may consult agents.

Everything public is imported from here; sub-modules may move.
"""

from aipo_env.agents.base import (
    Agent,
    AgentLost,
    AgentReply,
    AgentRequest,
    BudgetSpent,
    PermanentFailure,
    RequestRefused,
    RetryLater,
    Unreachable,
)
from aipo_env.agents.chat import ChatAgent
from aipo_env.agents.consult_outcomes import CONSULT_OUTCOMES, consult_outcome
from aipo_env.agents.notes import NotesAgent
from aipo_env.agents.own_policy import OWN_POLICY, OwnPolicyAgent
from aipo_env.agents.pool.agent_pool import AgentPool
from aipo_env.agents.pool.journal import Cassette, Journal, Outcome
from aipo_env.agents.pool.limits import PoolLimits
from aipo_env.agents.pool.preflight import check_agents
from aipo_env.agents.roles import KnowledgeAgent, ReasoningAgent, VerifyAgent
from aipo_env.agents.scripted import ScriptedAgent
from aipo_env.checker import (
    check_agent,
    check_codec,
    check_task_source,
    check_tool,
    check_verifier,
)
from aipo_env.codecs.base import Codec, Parsed, ToolSchema
from aipo_env.codecs.hermes import HermesCodec
from aipo_env.codecs.macro import MacroCodec
from aipo_env.codecs.openai_calls import OpenAICodec, completion_text, openai_messages
from aipo_env.codecs.tags import TagsCodec
from aipo_env.episode import Episode, TokenRecord, TokenRun, redact, write_episodes
from aipo_env.errors import (
    AgentError,
    AipoError,
    CheckpointError,
    ConfigError,
    DataError,
    Interrupted,
    NoGradient,
    PolicyError,
    PolicyLost,
    SandboxUnavailable,
    Terminated,
    ToolError,
    VerifierError,
    shown,
    suggest,
)
from aipo_env.event_loop import (
    Running,
    in_process_loop,
    process_loop,
    run_sync,
    start,
)
from aipo_env.files import (
    bounded_lines,
    check_entries,
    check_line,
    check_place,
    check_tree,
    link_anew,
    read_whole,
    write_anew,
)
from aipo_env.flags import (
    SHORT_FORMS,
    flag_types,
    nearest_flags,
    read_spec,
    short_forms,
)
from aipo_env.gym.spaces import UnicodeText
from aipo_env.gym.token_env import TokenEnv
from aipo_env.gym.turn_env import TurnEnv
from aipo_env.gym.vector import VectorEnv
from aipo_env.hub_access import hub_fault, is_hub_reachable, no_network
from aipo_env.keys import Key, Salt, evaluation_key, free_key, keyed_rng, rollout_key
from aipo_env.records import (
    CONSULT_KINDS,
    Author,
    Call,
    CodeTests,
    Completion,
    Consult,
    ConsultKind,
    Message,
    Span,
    Split,
    StopReason,
    Task,
    Turn,
    Verdict,
)
from aipo_env.registry import (
    AGENTS,
    CODECS,
    TASKS,
    TOOLS,
    VERIFIERS,
    Registry,
    Spec,
    choose,
    construct,
    named_options,
    parse_spec,
)
from aipo_env.rollout.chat_policy import ChatPolicy
from aipo_env.rollout.dialogue import (
    Answer,
    Consults,
    Dialogue,
    Ended,
    Feedback,
)
from aipo_env.rollout.drive import begin, finish, play, take_turn
from aipo_env.rollout.environment import (
    AgentsSpec,
    Environment,
    EnvironmentSpec,
    PoolSettings,
    RuleSettings,
    ToolSpecs,
    VerifierSpec,
    as_environment,
    is_id,
    pointed_at,
    with_limits,
)
from aipo_env.rollout.rules import DialogueRules
from aipo_env.rollout.runner import EpisodeRunner, Group
from aipo_env.rollout.scenario import TOY_RULES, Scenario, build_agents, build_scenario
from aipo_env.rollout.session import Session
from aipo_env.rollout.voice import (
    PolicyFault,
    TextPolicy,
    TextVoice,
    TextVoices,
    Voice,
    Voices,
)
from aipo_env.sandboxes.base import Limits, Program, RunResult, Sandbox
from aipo_env.sandboxes.self_test import open_sandbox
from aipo_env.shipped import data_folder
from aipo_env.stored import lint_episodes, read_episodes
from aipo_env.tasks.base import (
    TaskSource,
    TaskTable,
    build_source,
    check_source_name,
    task_index,
    tasks_digest,
    trained_on,
)
from aipo_env.tasks.contamination import (
    ContaminationIndex,
    check_contamination,
    without_contaminated,
)
from aipo_env.tasks.datasets import Dataset, find_dataset, known_datasets
from aipo_env.tasks.file import FileSource
from aipo_env.tasks.rows import need
from aipo_env.tasks.spellings import source_spec
from aipo_env.tasks.toy import ToySource
from aipo_env.testing import CannedAgent, FaultServer, FaultyAgent, ScriptedPolicy
from aipo_env.threads import all_of
from aipo_env.tokenizers.base import Piece, Tokenizer
from aipo_env.tokenizers.bytes import ByteTokenizer
from aipo_env.tools.base import Tool
from aipo_env.tools.toolbox import EpisodeTools, Toolbox, build_tools
from aipo_env.toy.world import (
    MOVES,
    OPERATOR_NAMES,
    Operator,
    Problem,
    World,
    add_codes,
    shift_of,
)
from aipo_env.verifiers.base import (
    EpisodeView,
    Verifier,
    run_turn_reward,
    run_verifier,
    takes_episode,
)
from aipo_env.verifiers.build import build_verifier
from aipo_env.verifiers.by_kind import ByKind
from aipo_env.verifiers.choice import ChoiceVerifier
from aipo_env.verifiers.math.verifier import MathVerifier
from aipo_env.verifiers.rewards import RewardVerifier, parse_rewards
from aipo_env.verifiers.unit_tests import CodeVerifier
from aipo_env.viewer.render import (
    TokenTexts,
    episode_text,
    episodes_html,
    episodes_section,
    escape_terminal,
    html_templates,
)

__all__ = [
    "AGENTS",
    "CODECS",
    "CONSULT_KINDS",
    "CONSULT_OUTCOMES",
    "MOVES",
    "OPERATOR_NAMES",
    "OWN_POLICY",
    "SHORT_FORMS",
    "TASKS",
    "TOOLS",
    "TOY_RULES",
    "VERIFIERS",
    "Agent",
    "AgentError",
    "AgentLost",
    "AgentPool",
    "AgentReply",
    "AgentRequest",
    "AgentsSpec",
    "AipoError",
    "Answer",
    "Author",
    "BudgetSpent",
    "ByKind",
    "ByteTokenizer",
    "Call",
    "CannedAgent",
    "Cassette",
    "ChatAgent",
    "ChatPolicy",
    "CheckpointError",
    "ChoiceVerifier",
    "CodeTests",
    "CodeVerifier",
    "Codec",
    "Completion",
    "ConfigError",
    "Consult",
    "ConsultKind",
    "Consults",
    "ContaminationIndex",
    "DataError",
    "Dataset",
    "Dialogue",
    "DialogueRules",
    "Ended",
    "Environment",
    "EnvironmentSpec",
    "Episode",
    "EpisodeRunner",
    "EpisodeTools",
    "EpisodeView",
    "FaultServer",
    "FaultyAgent",
    "Feedback",
    "FileSource",
    "Group",
    "HermesCodec",
    "Interrupted",
    "Journal",
    "Key",
    "KnowledgeAgent",
    "Limits",
    "MacroCodec",
    "MathVerifier",
    "Message",
    "NoGradient",
    "NotesAgent",
    "OpenAICodec",
    "Operator",
    "Outcome",
    "OwnPolicyAgent",
    "Parsed",
    "PermanentFailure",
    "Piece",
    "PolicyError",
    "PolicyFault",
    "PolicyLost",
    "PoolLimits",
    "PoolSettings",
    "Problem",
    "Program",
    "ReasoningAgent",
    "Registry",
    "RequestRefused",
    "RetryLater",
    "RewardVerifier",
    "RuleSettings",
    "RunResult",
    "Running",
    "Salt",
    "Sandbox",
    "SandboxUnavailable",
    "Scenario",
    "ScriptedAgent",
    "ScriptedPolicy",
    "Session",
    "Span",
    "Spec",
    "Split",
    "StopReason",
    "TagsCodec",
    "Task",
    "TaskSource",
    "TaskTable",
    "Terminated",
    "TextPolicy",
    "TextVoice",
    "TextVoices",
    "TokenEnv",
    "TokenRecord",
    "TokenRun",
    "TokenTexts",
    "Tokenizer",
    "Tool",
    "ToolError",
    "ToolSchema",
    "ToolSpecs",
    "Toolbox",
    "ToySource",
    "Turn",
    "TurnEnv",
    "UnicodeText",
    "Unreachable",
    "VectorEnv",
    "Verdict",
    "Verifier",
    "VerifierError",
    "VerifierSpec",
    "VerifyAgent",
    "Voice",
    "Voices",
    "World",
    "add_codes",
    "all_of",
    "as_environment",
    "begin",
    "bounded_lines",
    "build_agents",
    "build_scenario",
    "build_source",
    "build_tools",
    "build_verifier",
    "check_agent",
    "check_agents",
    "check_codec",
    "check_contamination",
    "check_entries",
    "check_line",
    "check_place",
    "check_source_name",
    "check_task_source",
    "check_tool",
    "check_tree",
    "check_verifier",
    "choose",
    "completion_text",
    "construct",
    "consult_outcome",
    "data_folder",
    "episode_text",
    "episodes_html",
    "episodes_section",
    "escape_terminal",
    "evaluation_key",
    "find_dataset",
    "finish",
    "flag_types",
    "free_key",
    "html_templates",
    "hub_fault",
    "in_process_loop",
    "is_hub_reachable",
    "is_id",
    "keyed_rng",
    "known_datasets",
    "link_anew",
    "lint_episodes",
    "named_options",
    "nearest_flags",
    "need",
    "no_network",
    "open_sandbox",
    "openai_messages",
    "parse_rewards",
    "parse_spec",
    "play",
    "pointed_at",
    "process_loop",
    "read_episodes",
    "read_spec",
    "read_whole",
    "redact",
    "rollout_key",
    "run_sync",
    "run_turn_reward",
    "run_verifier",
    "shift_of",
    "short_forms",
    "shown",
    "source_spec",
    "start",
    "suggest",
    "take_turn",
    "takes_episode",
    "task_index",
    "tasks_digest",
    "trained_on",
    "with_limits",
    "without_contaminated",
    "write_anew",
    "write_episodes",
]
