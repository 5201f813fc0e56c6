"""Arguments of periodic tasks that are computed when the task is sent, under Celery's name. Used by whatever sends."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["BeatLazyFunc", "evaluated"]


class BeatLazyFunc:
    """A function that is called for its value each time the task is sent: ``BeatLazyFunc(datetime.now, UTC)``."""

    def __init__(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._func = func
        self._args = args
        self._kwargs = kwargs

    def __call__(self) -> Any:
        return self.delay()

    def delay(self) -> Any:
        """The value."""
        return self._func(*self._args, **self._kwargs)

    def __repr__(self) -> str:
        return f"<BeatLazyFunc: {getattr(self._func, '__qualname__', self._func)!s}>"


def evaluated(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments with what is lazy among them computed. What lies deeper stays as it is, as in Celery."""
    return [_value(each) for each in args], {name: _value(each) for name, each in kwargs.items()}


def _value(value: Any) -> Any:
    return value() if isinstance(value, BeatLazyFunc) else value
