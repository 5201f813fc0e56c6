"""Warnings about settings: each is given once, at the line of the user's that caused it.

Called by ``settings.py``, which knows the values.
"""

from __future__ import annotations

import sys
import warnings
from types import FunctionType, ModuleType
from typing import Any

from celeriac.conf.setting import Level, Setting
from celeriac.conf.suggest import closest
from celeriac.exceptions import CeleryWarning

__all__ = ["CODE", "Remarks", "level_outside"]

#: What a module that holds settings holds besides: functions, modules and classes.
CODE = (FunctionType, ModuleType, type)


class Remarks:
    """What one app was warned of."""

    __slots__ = ("_given",)

    def __init__(self) -> None:
        self._given: set[str] = set()

    def on_value(self, setting: Setting, value: Any) -> None:
        """A setting was given ``value``: warn if it has no effect."""
        if setting.status.level is Level.NO_EFFECT and value != setting.default:
            self._warn(setting.name, f"setting {setting.name!r} has no effect: {setting.status.reason}")

    def on_unknown(self, key: str, value: Any, origin: str, prefix: str) -> None:
        """A key that is no setting: warn if it looks like one."""
        guess = closest(key, prefix)
        if guess is None or isinstance(value, CODE):
            return
        hint = ", or namespace='CELERY' in config_from_object" if key == f"CELERY_{guess.upper()}" else ""
        self._warn(key, f"{origin} has {key!r}, which is no setting: did you mean {guess!r}{hint}?")

    def _warn(self, name: str, message: str) -> None:
        if name not in self._given:
            self._given.add(name)
            warnings.warn(message, CeleryWarning, stacklevel=level_outside())


def level_outside() -> int:
    """The stacklevel at which the caller has left this package: the user's line."""
    level, frame = 2, sys._getframe(2)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("celeriac."):
        level, frame = level + 1, frame.f_back
    return level
