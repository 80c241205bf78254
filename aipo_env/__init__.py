"""The public door of aipo_env."""
from aipo_env.agents.base import Agent, AgentReply, AgentRequest
from aipo_env.agents.pool import AgentPool, Journal, PoolLimits
from aipo_env.agents.scripted import ScriptedAgent
from aipo_env.dialogue import Dialogue, DialogueRules
from aipo_env.episode import Episode, TokenRecord, read_episodes, write_episodes
from aipo_env.errors import AipoError, AgentError, AgentTimeout, CheckpointError, ConfigError, DataError, PolicyError, SandboxUnavailable, VerifierError, suggest
from aipo_env.parsing import TagsCodec, Codec
from aipo_env.records import CONSULT_KINDS, Author, Completion, Consult, ConsultKind, Message, Span, StopReason, Task, Turn, Verdict
from aipo_env.session import Session, run_sync
from aipo_env.toy.world import (MOVES, OPERATOR_NAMES, Operator, Problem, World, add_codes, believed_move, draw_rule, shift_of)
