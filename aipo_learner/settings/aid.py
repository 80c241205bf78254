"""Who of a group's rollouts may consult, as a run's setting names it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aipo_env import ConfigError, Registry, Spec, parse_spec, shown, suggest

SHARE = "share"
"""Of every group a share may consult, whatever happened."""
AIDS = Registry(
    "aid",
    {
        "all_wrong": "aipo_learner.rollout.aid:all_wrong",
        "competence": "aipo_learner.rollout.aid:is_below",
    },
    package="aipo_learner",
)
"""What decides by what happened which groups are aided."""
_OPTIONS: dict[str, tuple[str, ...]] = {
    SHARE: ("share",),
    "all_wrong": ("share",),
    "competence": ("below", "share", "family"),
}
"""Options of what is ours; a value without a name is of the first."""
_OPTIONS_OF_OTHERS = ("share", "family")
"""Options beside a function of somebody's own."""
_WITHOUT_NAME = ""
"""Under this name `parse_spec` returns a value that was given without one."""
_FORMS = (
    "share, share:0.5, all_wrong, competence:0.25, competence:0.25,family=NAME or"
    ' "module:function"'
)


@dataclass(frozen=True, kw_only=True)
class AidSettings:
    """Who of a group may consult.

    Args:
        kind: `SHARE`, or what decides on a group: a name of `AIDS`, or the spec
            "module:function" of one.
        share: Of a group's rollouts, those that may consult where it is aided; None:
            the default.
        below: With "competence", the running success below which a group is aided.
        family: The key of a task's `meta` by whose value successes are counted; "":
            they are counted by task.
    """

    kind: str = SHARE
    share: float | None = None
    below: float = 0.0
    family: str = ""

    @property
    def is_decided(self) -> bool:
        """Whether what happened in a group decides, and not the share alone."""
        return self.kind != SHARE

    @property
    def has_memory(self) -> bool:
        """Whether what happened in earlier steps decides too."""
        return self.kind not in (SHARE, "all_wrong")


def read_aid(spec: Spec) -> AidSettings:
    """Read the setting `aid`; nothing is imported.

    Args:
        spec: As text, or as an object with its "type".

    Raises:
        ConfigError: There is none of that name, or an option cannot be used.
    """
    kind, options = parse_spec(spec, "config: aid")
    if kind not in _OPTIONS:
        return _of_ones_own(spec, kind, options)
    names = _OPTIONS[kind]
    if _WITHOUT_NAME in options:
        value = options.pop(_WITHOUT_NAME)
        if names[0] in options:
            raise ConfigError(f"config: aid={spec!r} gives {names[0]} twice.")
        options[names[0]] = value
    settings = _settings(spec, kind, options, names)
    if kind == "competence" and not settings.below:
        raise ConfigError(
            f"config: aid={spec!r} must say below which running success, above 0, a"
            " task is aided, as in competence:0.25."
        )
    return settings


def _of_ones_own(spec: Spec, kind: str, options: dict[str, Any]) -> AidSettings:
    """Read a spec of what is none of ours.

    Raises:
        ConfigError: It names nothing that could be imported, or has other options.
    """
    if not AIDS.is_named(spec):
        names = [SHARE, *AIDS.names()]
        raise ConfigError(
            f"config: aid={spec!r}. {suggest(kind, names)} It is written {_FORMS}."
        )
    attribute = options.pop(_WITHOUT_NAME, "")
    if attribute:
        # In "module:function:share=0.25", the options stand behind another colon.
        name, _, rest = str(attribute).partition(":")
        _, more = parse_spec(f"{kind}:{rest}", "config: aid")
        kind, options = f"{kind}:{name}", {**options, **more}
    return _settings(spec, kind, options, _OPTIONS_OF_OTHERS)


def _settings(
    spec: Spec, kind: str, options: Mapping[str, Any], names: tuple[str, ...]
) -> AidSettings:
    """Return settings with these options, which must be of those names.

    Raises:
        ConfigError: One is not, or is out of range.
    """
    for name in options:
        if name not in names:
            raise ConfigError(
                f"config: aid={spec!r} has no option {shown(name)}."
                f" {suggest(str(name), names)}"
            )
    family = options.get("family", "")
    if not isinstance(family, str):
        raise ConfigError(
            f"config: aid={spec!r}: family={family!r} must be a key of the tasks' meta."
        )
    share = None
    if "share" in options:
        share = _share(spec, "share", options["share"])
    if kind != SHARE and share in (0.0, 1.0):
        raise ConfigError(
            f"config: aid={spec!r}: share={share:g} must be above 0, so that somebody"
            " is aided, and below 1, so that somebody is not, and decides."
        )
    below = _share(spec, "below", options.get("below", 0.0))
    return AidSettings(kind=kind, share=share, below=below, family=family)


def _share(spec: Spec, name: str, value: Any) -> float:
    """Return an option that is a share.

    Raises:
        ConfigError: It is none.
    """
    try:
        # A value without a name is a text still; True would be the number 1.
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 <= number <= 1:
        raise ConfigError(
            f"config: aid={spec!r}: {name}={shown(value)} must be a number from 0 to 1."
        )
    return number


def canonical_aid(spec: Spec) -> Spec:
    """Return a spec in one form for all that say the same share; others as they are.

    Raises:
        ConfigError: As `read_aid`.
    """
    aid = read_aid(spec)
    if aid.is_decided:
        return spec
    return aid_of_share(aid.share)


def with_aid(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings in which `aid` says what `aided_share` says.

    Args:
        values: By name, as a configuration file has them.

    Raises:
        ConfigError: Both are given, or the share is none.
    """
    others = dict(values)
    if "aided_share" not in others:
        return others
    share = others.pop("aided_share")
    if "aid" in others:
        raise ConfigError(
            f"config: aided_share={shown(share)} beside aid={shown(others['aid'])}:"
            f" aided_share=X is short for aid='share:X'. Leave one of them out."
        )
    return {**others, "aid": aid_of_share(share)}


def aid_of_share(share: Any) -> str:
    """Return the `aid` that an `aided_share` stands for.

    Args:
        share: A number from 0 to 1; None for the default.

    Raises:
        ConfigError: It is none.
    """
    if share is None:
        return SHARE
    is_number = isinstance(share, int | float) and not isinstance(share, bool)
    if not is_number or not 0 <= share <= 1:
        raise ConfigError(
            f"config: aided_share={shown(share)} must be a number from 0 to 1, or left"
            " out."
        )
    return f"{SHARE}:{float(share)}"
