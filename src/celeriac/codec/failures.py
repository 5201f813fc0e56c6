"""Exceptions ⇄ data, as Celery stores them in results (``celery-wire.md`` §3.5).

A stored failure is anybody's text. It becomes an instance of a class only when that class is a builtin ``Exception``,
one of ours, or was registered here; nothing is imported and no foreign constructor is called. All else becomes
``RemoteError`` with the names as text. Called by the worker (writing) and by results (reading).
"""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TypeVar

from celeriac import exceptions as ours
from celeriac.codec import serializers
from celeriac.codec.json import is_plain
from celeriac.codec.saferepr import saferepr
from celeriac.exceptions import EncodeError, RemoteError

__all__ = ["data_to_exception", "exception_to_data", "format_traceback", "register_exception"]

E = TypeVar("E", bound=type[Exception])

_BILLIARD = frozenset({"SoftTimeLimitExceeded", "Terminated", "TimeLimitExceeded", "WorkerLostError"})
_KOMBU = frozenset({"ContentDisallowed", "DecodeError", "EncodeError", "OperationalError"})
_UNKNOWN_TO_CELERY = frozenset({"MessageTooLarge", "RemoteError"})
_OUR_MODULES = frozenset({"celery.exceptions", "billiard.exceptions", "kombu.exceptions", ours.__name__})

_registered: dict[tuple[str, str], type[Exception]] = {}


def register_exception(cls: E) -> E:
    """Let stored failures of this class be rebuilt by ``get()``; also a decorator.

    The class is not called: an instance is made by ``__new__`` and gets the stored ``args``. Raises ``TypeError`` for
    what is no subclass of ``Exception``.
    """
    if not issubclass(cls, Exception):
        raise TypeError(f"{cls!r} is not a subclass of Exception")
    _registered[cls.__module__, cls.__qualname__] = cls
    return cls


def exception_to_data(exc: BaseException, serializer: str = "json") -> dict[str, Any]:
    """Names and arguments of an exception; arguments that the serializer refuses become their repr."""
    if isinstance(exc, RemoteError) and exc.exc_type:
        name, module = exc.exc_type, exc.exc_module  # passed on under its first name
    else:
        name, module = type(exc).__qualname__, _module_of(type(exc))
    args: Any = exc.args  # a subclass may have put anything there
    return {
        "exc_type": name,
        "exc_message": [_encodable(arg, serializer) for arg in (args if isinstance(args, tuple) else (args,))],
        "exc_module": module,
    }


def _module_of(cls: type) -> str:
    if cls.__module__ != ours.__name__ or cls.__name__ in _UNKNOWN_TO_CELERY:
        return cls.__module__
    if cls.__name__ in _BILLIARD:
        return "billiard.exceptions"
    return "kombu.exceptions" if cls.__name__ in _KOMBU else "celery.exceptions"


def _encodable(value: Any, serializer: str) -> Any:
    try:
        if is_plain(value):
            return value
        serializers.dumps(value, serializer)
        return value
    except (EncodeError, RecursionError):
        return saferepr(value)


def data_to_exception(data: Any) -> Exception:
    """The exception in a stored failure, safely rebuilt. Never raises; always an ``Exception``."""
    if isinstance(data, Exception):
        return data
    if isinstance(data, BaseException):  # only pickle, if accepted, brings instances
        return _remote(type(data).__qualname__, type(data).__module__, data.args)
    if not isinstance(data, Mapping):
        return _remote("", "", (data,))
    name, module, message = data.get("exc_type"), data.get("exc_module"), data.get("exc_message")
    args = tuple(message) if isinstance(message, (list, tuple)) else () if message is None else (message,)
    name = name if isinstance(name, str) else ""
    module = module if isinstance(module, str) else ""
    exc = _rebuild(name, module, args)
    return _remote(name, module, args) if exc is None else exc


def _rebuild(name: str, module: str, args: tuple[Any, ...]) -> Exception | None:
    cls = _registered.get((module, name))
    if cls is not None:
        return _without_init(cls, args)
    if module in _OUR_MODULES:
        found = getattr(ours, name, None) if name in ours.__all__ else None
    elif module in ("builtins", "exceptions", ""):
        found = getattr(builtins, name, None)
    else:
        return None
    if not (isinstance(found, type) and issubclass(found, Exception)):
        return None
    exc: Exception | None
    try:
        exc = found(*args)  # builtins and ours: their constructors do nothing but keep arguments
    except Exception:  # noqa: BLE001 - the stored arguments may be anybody's
        exc = _without_init(found, args)
    return exc if _shows(exc) else None


def _shows(exc: Exception | None) -> bool:
    """Whether its text can be had: whoever gets it will log it."""
    try:
        str(exc), repr(exc)
    except Exception:  # noqa: BLE001 - it has other arguments than those of its class
        return False
    return True


def _without_init(cls: type[Exception], args: tuple[Any, ...]) -> Exception | None:
    try:
        exc = cls.__new__(cls)
        exc.args = args
    except Exception:  # noqa: BLE001 - a registered class may define what happens here
        return None
    return exc


def _remote(name: str, module: str, args: tuple[Any, ...]) -> RemoteError:
    exc = RemoteError(*args)
    exc.exc_type, exc.exc_module = name, module
    return exc


_PACKAGE = __name__.partition(".")[0] + "."


def format_traceback(exc: BaseException) -> str:
    """The traceback as text, without our own frames above the task's."""
    import traceback  # brings linecache, tokenize and textwrap, which no producer needs

    return "".join(traceback.format_exception(type(exc), exc, _below_ours(exc.__traceback__)))


def _below_ours(tb: TracebackType | None) -> TracebackType | None:
    while tb is not None and tb.tb_next is not None:
        if not str(tb.tb_frame.f_globals.get("__name__", "")).startswith(_PACKAGE):
            break
        tb = tb.tb_next
    return tb
