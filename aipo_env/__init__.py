"""Gymnasium environments in which a policy reasons over several turns and may consult agents.

Everything public is imported from here; sub-modules may move.
"""

from aipo_env.agents.base import Agent, AgentReply, AgentRequest
from aipo_env.agents.knowledge import KnowledgeAgent
from aipo_env.agents.pool import AgentPool, Journal, Outcome, PoolLimits
from aipo_env.agents.reasoning import ReasoningAgent
from aipo_env.agents.scripted import ScriptedAgent
from aipo_env.agents.verify import VerifyAgent
from aipo_env.codecs.base import Codec, Parsed, ToolSchema
from aipo_env.codecs.tags import TagsCodec
from aipo_env.dialogue import (
    Answer,
    Consults,
    Dialogue,
    DialogueRules,
    Ended,
    Feedback,
    Need,
    PendingCall,
    Reply,
)
from aipo_env.envs.byte_session import ByteSession
from aipo_env.envs.byte_tokenizer import ByteTokenizer
from aipo_env.envs.spaces import UnicodeText
from aipo_env.envs.token_env import TokenEnv
from aipo_env.envs.turn_env import TurnEnv
from aipo_env.episode import Episode, TokenRecord, read_episodes, write_episodes
from aipo_env.errors import (
    AgentError,
    AgentTimeout,
    AipoError,
    CheckpointError,
    ConfigError,
    DataError,
    Interrupted,
    PolicyError,
    SandboxUnavailable,
    VerifierError,
    suggest,
)
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
    Plugin,
    Registry,
    Spec,
    choose,
    construct,
    parse_spec,
)
from aipo_env.render import (
    episode_text,
    episodes_html,
    episodes_section,
    escape_terminal,
    html_templates,
    messages_text,
)
from aipo_env.scenario import TOY_RULES, Scenario, build_agents, build_scenario
from aipo_env.session import Session, run_sync
from aipo_env.shipped import data_folder
from aipo_env.tasks.base import TaskSource, build_source, task_index
from aipo_env.tasks.file import FileSource
from aipo_env.tasks.toy import ToySource
from aipo_env.testing import CannedAgent, FaultyAgent, ScriptedPolicy
from aipo_env.tools.base import Tool
from aipo_env.toy.world import (
    MOVES,
    OPERATOR_NAMES,
    Operator,
    Problem,
    World,
    add_codes,
    believed_move,
    draw_rule,
    shift_of,
)
from aipo_env.verifiers.base import Verifier
from aipo_env.verifiers.math_equiv import MathVerifier

__all__ = [
    "AGENTS",
    "CODECS",
    "CONSULT_KINDS",
    "MOVES",
    "OPERATOR_NAMES",
    "TASKS",
    "TOOLS",
    "TOY_RULES",
    "VERIFIERS",
    "Agent",
    "AgentError",
    "AgentPool",
    "AgentReply",
    "AgentRequest",
    "AgentTimeout",
    "AipoError",
    "Answer",
    "Author",
    "ByteSession",
    "ByteTokenizer",
    "Call",
    "CannedAgent",
    "CheckpointError",
    "CodeTests",
    "Codec",
    "Completion",
    "ConfigError",
    "Consult",
    "ConsultKind",
    "Consults",
    "DataError",
    "Dialogue",
    "DialogueRules",
    "Ended",
    "Episode",
    "FaultyAgent",
    "Feedback",
    "FileSource",
    "Interrupted",
    "Journal",
    "KnowledgeAgent",
    "MathVerifier",
    "Message",
    "Need",
    "Operator",
    "Outcome",
    "Parsed",
    "PendingCall",
    "Plugin",
    "PolicyError",
    "PoolLimits",
    "Problem",
    "ReasoningAgent",
    "Registry",
    "Reply",
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
    "TokenEnv",
    "TokenRecord",
    "Tool",
    "ToolSchema",
    "ToySource",
    "Turn",
    "TurnEnv",
    "UnicodeText",
    "Verdict",
    "Verifier",
    "VerifierError",
    "VerifyAgent",
    "World",
    "add_codes",
    "believed_move",
    "build_agents",
    "build_scenario",
    "build_source",
    "choose",
    "construct",
    "data_folder",
    "draw_rule",
    "episode_text",
    "episodes_html",
    "episodes_section",
    "escape_terminal",
    "html_templates",
    "messages_text",
    "parse_spec",
    "read_episodes",
    "run_sync",
    "shift_of",
    "suggest",
    "task_index",
    "write_episodes",
]
