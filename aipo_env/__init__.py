"""Gymnasium environments in which a policy reasons over several turns and may consult agents.

Everything public is imported from here; sub-modules may move.
"""

from aipo_env.agents.base import Agent, AgentReply, AgentRequest
from aipo_env.agents.knowledge import KnowledgeAgent
from aipo_env.agents.pool import AgentPool, Journal, Outcome, PoolLimits
from aipo_env.agents.reasoning import ReasoningAgent
from aipo_env.agents.scripted import ScriptedAgent
from aipo_env.agents.verify import VerifyAgent
from aipo_env.dialogue import Answer, Consults, Dialogue, DialogueRules, Ended, Feedback, Reply
from aipo_env.episode import Episode, TokenRecord, read_episodes, write_episodes
from aipo_env.errors import (
    AgentError,
    AgentTimeout,
    AipoError,
    CheckpointError,
    ConfigError,
    DataError,
    PolicyError,
    SandboxUnavailable,
    VerifierError,
    suggest,
)
from aipo_env.parsing import Codec, Parsed, TagsCodec
from aipo_env.records import (
    CONSULT_KINDS,
    Author,
    Call,
    Completion,
    Consult,
    ConsultKind,
    Message,
    Span,
    StopReason,
    Task,
    Turn,
    Verdict,
)
from aipo_env.registry import Spec, choose, construct, parse_spec
from aipo_env.render import episode_text, episodes_html, episodes_section, escape_terminal, html_templates
from aipo_env.scenario import TOY_RULES, Scenario, build_agents, build_scenario
from aipo_env.session import Session, run_sync
from aipo_env.shipped import data_folder
from aipo_env.tasks import FileSource, TaskSource, ToySource, build_source, task_index
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
    "CONSULT_KINDS",
    "MOVES",
    "OPERATOR_NAMES",
    "TOY_RULES",
    "Agent",
    "AgentError",
    "AgentPool",
    "AgentReply",
    "AgentRequest",
    "AgentTimeout",
    "AipoError",
    "Answer",
    "Author",
    "Call",
    "CheckpointError",
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
    "Feedback",
    "FileSource",
    "Journal",
    "KnowledgeAgent",
    "MathVerifier",
    "Message",
    "Operator",
    "Outcome",
    "Parsed",
    "PolicyError",
    "PoolLimits",
    "Problem",
    "ReasoningAgent",
    "Reply",
    "SandboxUnavailable",
    "Scenario",
    "ScriptedAgent",
    "Session",
    "Span",
    "Spec",
    "StopReason",
    "TagsCodec",
    "Task",
    "TaskSource",
    "TokenRecord",
    "ToySource",
    "Turn",
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
    "parse_spec",
    "read_episodes",
    "run_sync",
    "shift_of",
    "suggest",
    "task_index",
    "write_episodes",
]
