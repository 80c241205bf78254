"""By which template a policy's conversations are written."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aipo_env import ConfigError, shown
from aipo_learner.settings.arguments import JsonField


@dataclass(frozen=True, kw_only=True)
class ChatSettings:
    """The chat template; by default the tokenizer's own."""

    chat_template: str = ""
    """File with a chat template (Jinja) in place of the tokenizer's."""
    chat_template_kwargs: JsonField = field(default_factory=dict)
    """Variables of the chat template: {"enable_thinking": false}. They become part of
    the template that is saved with the policy.
    """

    def __post_init__(self) -> None:
        # From a file they may be anything.
        template: Any = self.chat_template
        values: Any = self.chat_template_kwargs
        if not isinstance(template, str):
            raise ConfigError(
                f"config: chat_template={template!r} must be the path of a file."
            )
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"config: chat_template_kwargs={values!r} must be an object of names"
                " and values."
            )
        _check_json(values)


def _check_json(values: Mapping[Any, Any]) -> None:
    """Raise ConfigError unless values can be written as JSON, each by its name."""
    for name, value in values.items():
        if not isinstance(name, str):
            raise ConfigError(
                f"config: chat_template_kwargs: the name {shown(name)} must be text."
            )
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode("utf-8")
        # A date of a TOML file; NaN, or half a surrogate pair; what holds itself.
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(
                f"config: chat_template_kwargs: {shown(name)} is {shown(value)}, which"
                f" JSON has no form for ({error}). Give a text, a number, true, false,"
                " null, a list or an object of such; a date in quotes."
            ) from error
