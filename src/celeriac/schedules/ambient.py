"""Which app schedules have that were given none, told by the app layer, which loads nothing else of schedules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["current_app", "has_app", "set_current_app_getter"]

_getter: Callable[[], Any] | None = None


def set_current_app_getter(getter: Callable[[], Any]) -> None:
    """Set what knows the current app."""
    global _getter
    _getter = getter


def has_app() -> bool:
    """Whether any app was imported."""
    return _getter is not None


def current_app() -> Any:
    """The current app. Raises ``RuntimeError`` where none was ever imported."""
    if _getter is None:
        raise RuntimeError("the schedule has no app and no nowfun to tell the time: create celeriac.Celery(...) first")
    return _getter()
