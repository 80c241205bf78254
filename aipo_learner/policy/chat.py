"""Which chat template a policy's conversations are written by."""

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from aipo_env import ConfigError, PolicyError, read_whole, shown

_log = logging.getLogger("aipo_learner")
PLAIN_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ message['role'] | capitalize + ':\n' + message['content'] }}"
    "{%- if message['role'] == 'assistant' -%}{{ eos_token }}{%- endif -%}"
    "{{ '\n\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'Assistant:\n' }}{%- endif -%}"
)
"""For base models, whose tokenizers have no template."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""What a template's variable may be called."""
_VALUES_BEGIN = "{#- Values of --chat-template-kwargs #}"
"""Stands before the lines that set them, of which each sets one."""
_VALUES_END = "{#- End of the values #}{{ '' }}"
"""Stands behind them. The empty text keeps a newline with which a template may begin.
"""
_VALUE = re.compile(r"\{%- set (\w+) = .* %\}")
"""A line that sets a value."""
_RESERVED = ("messages", "tools", "documents", "add_generation_prompt")
"""Variables that a conversation sets."""


def choose_template(
    tokenizer: PreTrainedTokenizerBase,
    file: str = "",
    values: Mapping[str, Any] | None = None,
) -> str:
    """Return the chat template that a policy is to have.

    It can be saved with the policy: whoever loads it then writes the same prompts.

    Args:
        tokenizer: The policy's. A base model's has no template; it gets a plain one,
            and a warning says so.
        file: A template (Jinja) in place of the tokenizer's.
        values: Variables of the template with their values, as {"enable_thinking":
            false}.

    Raises:
        ConfigError: The file cannot be read, or a value has no such name.
        PolicyError: The tokenizer has several templates, of which none is the default.
    """
    if file:
        template = _read(file)
    elif tokenizer.chat_template:
        template = _own_template(tokenizer)
    else:
        template = _plain_template(tokenizer)
        _log.warning(
            "the tokenizer of %r has no chat template, as those of base models: prompts"
            " are written as plain text (User: … Assistant: …). Another is given by"
            " --chat-template FILE.",
            tokenizer.name_or_path,
        )
    # Jinja takes all ends of lines for one, and so does a file that is read again: as
    # they are, a policy that was saved would seem to have another template.
    template = template.replace("\r\n", "\n").replace("\r", "\n")
    return _with_values(template, values or {})


def check_template(tokenizer: PreTrainedTokenizerBase, template: str) -> None:
    """Check that a checkpoint's policy has the template that its run is to have.

    Raises:
        PolicyError: It has another, so that its prompts would be others.
    """
    if template != tokenizer.chat_template:
        raise PolicyError(
            f"policy {tokenizer.name_or_path!r}: was trained with another chat template"
            " than --chat-template and --chat-template-kwargs give now. Give those with"
            " which the run began."
        )


def _read(file: str) -> str:
    try:
        # Else a pipe would be waited for.
        if not Path(file).is_file():
            raise OSError("there is no such file")
        # Editors may put a mark of the encoding first, which is no text.
        return read_whole(Path(file)).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"config: chat_template={file!r} cannot be read: {error}. It is the path of"
            " a Jinja file, as a model folder's chat_template.jinja."
        ) from error


def _own_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the tokenizer's template; of several, the default one."""
    templates = tokenizer.chat_template
    if isinstance(templates, dict) and "default" not in templates:
        raise PolicyError(
            f"the tokenizer of {tokenizer.name_or_path!r} has chat templates of the"
            f" names {', '.join(map(shown, sorted(templates)))}, and none is the"
            " default. Give one: --chat-template FILE."
        )
    return str(tokenizer.get_chat_template())


def _plain_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the plain template, for a text as the tokenizer would have it begin."""
    bos_id = tokenizer.bos_token_id
    # Any text but none, of which the first token may be one that stands behind texts.
    token_ids = list(tokenizer("a")["input_ids"])
    begins = bos_id is not None and token_ids[:1] == [bos_id]
    return "{{ bos_token }}" + PLAIN_TEMPLATE if begins else PLAIN_TEMPLATE


def _with_values(template: str, values: Mapping[str, Any]) -> str:
    """Return a template that sets its variables; those that it has are kept or set
    anew.
    """
    lines, template = _taken_apart(template)
    for name, value in values.items():
        if not _NAME.fullmatch(name) or name in _RESERVED:
            raise ConfigError(
                f"config: chat_template_kwargs: {shown(name)} can be no variable of a"
                " chat template."
            )
        lines[name] = f"{{%- set {name} = {_literal(value)} %}}"
    if not lines:
        return template
    return "\n".join([_VALUES_BEGIN, *lines.values(), _VALUES_END]) + template


def _taken_apart(template: str) -> tuple[dict[str, str], str]:
    """Return the lines by which a template sets values, by name, and the rest of it."""
    lines: dict[str, str] = {}
    block, end, rest = template.partition(f"\n{_VALUES_END}")
    begin, *setting = block.split("\n")
    if begin != _VALUES_BEGIN or not end:
        return lines, template
    for line in setting:
        match = _VALUE.fullmatch(line)
        if match is None:
            # Somebody has changed it: it is a template like any other.
            return {}, template
        lines[match[1]] = line
    return lines, rest


def _literal(value: Any) -> str:
    """Return a JSON value in the template's language."""
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        pairs = [f"{_literal(key)}: {_literal(item)}" for key, item in value.items()]
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    # Escapes are the same; only what is not ASCII must stand as it is.
    return json.dumps(value, ensure_ascii=False)
