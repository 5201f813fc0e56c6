"""What makes two calls of a unique task equal, and how long they are: ``@app.task(unique=…)``.

Knows attributes and arguments, no server. Made once per task, with what else its sends need; read by ``keyed.py``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from celeriac.codec.json import encode_hook
from celeriac.codec.reference import sum_of
from celeriac.conf.check import in_seconds
from celeriac.exceptions import ImproperlyConfigured
from celeriac.model.ledger import LOCK_LIFE

__all__ = ["Unique", "key_text", "unique_of"]

#: Keys longer than this are kept as their hashes.
_LONGEST = 200
_UNTIL = ("end", "start")
_CONFLICT = ("return", "replace", "raise")
_canonical = json.JSONEncoder(default=encode_hook, sort_keys=True, separators=(",", ":")).encode


class Unique(Struct, frozen=True):
    """The declaration of one task."""

    task: str
    #: What tells its calls apart.
    tell: Callable[[Sequence[Any], Mapping[str, Any]], str]
    #: Seconds for which the lock is kept beyond the due time.
    life: float
    until_start: bool
    #: ``return``, ``replace`` or ``raise``.
    conflict: str

    def key(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """The lock's key for a call. Raises ``TypeError`` when its arguments cannot be compared."""
        return f"lock:{self.task}:{key_text(self.tell(args, kwargs), f'what unique= of task {self.task} returned')}"


def key_text(key: Any, what: str) -> str:
    """A user's key as it is kept. Raises ``TypeError`` when it is no text, ``ValueError`` when it cannot be one."""
    if not isinstance(key, str):
        raise TypeError(f"{what} must be a text, not {type(key).__name__}")
    try:
        encoded = key.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{what} is not valid Unicode: {key!r}") from None
    return key if len(encoded) <= _LONGEST and "\0" not in key else f"sha256:{sum_of(encoded)}"


def unique_of(task: Any) -> Unique | None:
    """What a task declares, None when it is not unique. Raises ``ImproperlyConfigured`` for what cannot be."""
    unique = task.unique
    if unique is None or unique is False:
        return None
    name = task.name
    if unique is True:
        tell: Callable[[Sequence[Any], Mapping[str, Any]], str] = _any_call
    elif unique == "args":
        tell = _by_arguments(task)
    elif callable(unique):
        tell = _by_function(unique)
    else:
        raise ImproperlyConfigured(f"task {name}: unique must be True, 'args' or a function, not {unique!r}")
    until, conflict = task.unique_until, task.on_conflict
    if until not in _UNTIL:
        raise ImproperlyConfigured(f"task {name}: unique_until must be 'end' or 'start', not {until!r}")
    if conflict not in _CONFLICT:
        raise ImproperlyConfigured(f"task {name}: on_conflict must be 'return', 'replace' or 'raise', not {conflict!r}")
    life = LOCK_LIFE if task.unique_for is None else in_seconds(task.unique_for)
    if life is None or not 0 < life < 1e10:
        raise ImproperlyConfigured(f"task {name}: unique_for must be a number of seconds above 0, not {life!r}")
    return Unique(name, tell, life, until == "start", conflict)


def _any_call(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    return ""


def _by_function(function: Callable[..., str]) -> Callable[[Sequence[Any], Mapping[str, Any]], str]:
    return lambda args, kwargs: function(*args, **kwargs)


def _by_arguments(task: Any) -> Callable[[Sequence[Any], Mapping[str, Any]], str]:
    """Equal when the body would get the same: ``f(1, b=2)`` is ``f(1, 2)``, and a default is as good as its value."""
    from inspect import signature

    name, expected = task.name, signature(task.run)

    def tell(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        bound = expected.bind(*args, **kwargs)
        bound.apply_defaults()
        try:
            text = _canonical(bound.arguments)
        except (TypeError, ValueError, RecursionError) as error:
            raise TypeError(f"task {name}: unique='args' cannot compare its arguments: {error}") from error
        return sum_of(text.encode())

    return tell
