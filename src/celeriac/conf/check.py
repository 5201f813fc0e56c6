"""What each kind of setting accepts, and the value it is read as.

Knows one value at a time, not where it stands. Called by ``settings.py`` for everything a user sets.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from celeriac.conf.setting import Kind, Level, Setting
from celeriac.exceptions import ImproperlyConfigured

__all__ = ["check", "in_seconds"]

# What environment variables hold where a yes or no is meant. Celery takes any text, "false" too, for yes.
_TRUE = frozenset({"1", "on", "t", "true", "y", "yes"})
_FALSE = frozenset({"", "0", "f", "false", "n", "no", "off"})

_EXPECTED = {
    Kind.BOOL: "True or False",
    Kind.DICT: "a dict",
    Kind.FLOAT: "a number",
    Kind.INT: "a whole number",
    Kind.LIST: "a list of names",
    Kind.SECONDS: "a number of seconds or a timedelta",
    Kind.STR: "text",
}


def check(setting: Setting, value: Any) -> Any:
    """``value`` as the setting is read: numbers and booleans given as text are converted, all else stays as it is.

    None means "not set" where it is no value of its own: the default is returned then.

    Raises:
        ImproperlyConfigured: the value is of the wrong kind, not among the choices, or refused; one line.
    """
    if setting.status.level is Level.SILENT:
        return value
    if value is None:
        return None if setting.takes_none else setting.default
    converted = _convert(setting, value)
    if setting.choices and converted not in setting.choices:
        choices = " or ".join(repr(choice) for choice in setting.choices)
        raise ImproperlyConfigured(f"setting {setting.name!r} must be {choices}, not {value!r}")
    if setting.status.level is Level.REFUSED and converted != setting.default:
        reason, default = setting.status.reason, setting.default
        raise ImproperlyConfigured(
            f"setting {setting.name!r} cannot be {value!r}: {reason}; remove it or set it to {default!r}"
        )
    return converted


def in_seconds(value: float | timedelta | None) -> float | None:
    """The value of a setting of kind SECONDS as a float; None stays None."""
    if value is None:
        return None
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def _convert(setting: Setting, value: Any) -> Any:
    match setting.kind:
        case Kind.BOOL:
            return value if isinstance(value, str) and value in setting.choices else _boolean(setting, value)
        case Kind.INT | Kind.FLOAT | Kind.SECONDS:
            return _number(setting, value)
        case Kind.STR:
            return _text(setting, value)
        case Kind.LIST:
            return _names(setting, value)
        case Kind.DICT:
            if isinstance(value, Mapping):
                return value
            raise _wrong(setting, value)
        case _:
            return value


def _boolean(setting: Setting, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int) and value in {0, 1}:
        return bool(value)
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE:
            return True
        if word in _FALSE:
            return False
    raise _wrong(setting, value)


def _number(setting: Setting, value: Any) -> Any:
    if value is False or value == "":
        # `task_time_limit = False` and an empty environment variable mean "none" to Celery too.
        return None if setting.takes_none else 0
    if isinstance(value, timedelta) and setting.kind is Kind.SECONDS:
        return value
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                raise _wrong(setting, value) from None
    if value is True or not isinstance(value, (int, float)) or math.isnan(value):
        raise _wrong(setting, value)
    if setting.kind is Kind.INT and isinstance(value, float):
        if not value.is_integer():
            raise _wrong(setting, value)
        return int(value)
    return value


def _text(setting: Setting, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    raise _wrong(setting, value)


def _names(setting: Setting, value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, (list, tuple, set, frozenset)):
        return value
    if isinstance(value, Iterable) and not isinstance(value, (bytes, Mapping)):
        return tuple(value)
    raise _wrong(setting, value)


def _wrong(setting: Setting, value: Any) -> ImproperlyConfigured:
    secret = "password" in setting.name or "key" in setting.name
    shown = "a value" if secret else repr(value)
    expected = _EXPECTED[setting.kind]
    return ImproperlyConfigured(f"setting {setting.name!r} must be {expected}, not {shown} ({type(value).__name__})")
