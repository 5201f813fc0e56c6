"""Checking the arguments of a call against a task's signature when it is sent, at the speed of a call.

Knows functions only. Called once per task when it is made, and by ``Task.apply_async`` at each send.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any

__all__ = ["argument_checker", "is_coroutine_function", "takes_several"]

_VARARGS, _VARKEYWORDS, _COROUTINE = 0x04, 0x08, 0x80


def takes_several(fun: Any) -> bool:
    """``fun`` takes more than one positional argument: an errback that wants request, exception and traceback."""
    import inspect

    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        kinds = [parameter.kind for parameter in inspect.signature(fun).parameters.values()]
    except (TypeError, ValueError):
        return False
    return sum(kind in positional for kind in kinds) > 1 or inspect.Parameter.VAR_POSITIONAL in kinds


def is_coroutine_function(fun: Any) -> bool:
    """``fun`` is declared ``async def``, or marked so. Wrappers are not looked through: ``async_to_sync`` is one.

    ``inspect`` knows this too, but importing it costs 8 ms.
    """
    if isinstance(fun, MethodType):
        fun = fun.__func__
    code = getattr(fun, "__code__", None)
    if code is not None and code.co_flags & _COROUTINE:
        return True
    marker = getattr(fun, "_is_coroutine_mark", None) or getattr(fun, "_is_coroutine_marker", None)
    if marker is not None:
        import inspect

        return inspect.iscoroutinefunction(fun)
    function = getattr(fun, "func", None)  # functools.partial
    return function is not None and is_coroutine_function(function)


def argument_checker(fun: Any, *, bound: bool = False) -> Callable[..., object]:
    """A function that takes what ``fun`` takes, does nothing, and raises the same TypeError for anything else.

    ``bound`` leaves out the first parameter (``self`` of a task with ``bind=True``).
    """
    if isinstance(fun, MethodType):
        fun, bound = fun.__func__, True
    if type(fun) is FunctionType:
        return _same_parameters(fun, bound)
    return _binder(fun, bound)


def _nothing() -> None: ...


def _same_parameters(fun: FunctionType, bound: bool) -> Callable[..., object]:
    # The interpreter binds arguments from the code object's head before any byte code runs, so a body that does
    # nothing under the head of `fun` checks in 0.1 µs what inspect.Signature.bind checks in 4.
    code = fun.__code__
    flags = code.co_flags & (_VARARGS | _VARKEYWORDS)
    count = code.co_argcount + code.co_kwonlyargcount + bool(flags & _VARARGS) + bool(flags & _VARKEYWORDS)
    names, positional, positional_only = code.co_varnames[:count], code.co_argcount, code.co_posonlyargcount
    defaults = fun.__defaults__ or ()
    if bound and positional:
        names, positional, positional_only = names[1:], positional - 1, max(0, positional_only - 1)
        defaults = defaults[-positional:] if positional else ()
    head = _nothing.__code__.replace(
        co_argcount=positional,
        co_posonlyargcount=positional_only,
        co_kwonlyargcount=code.co_kwonlyargcount,
        co_nlocals=len(names),
        co_varnames=names,
        co_flags=_nothing.__code__.co_flags | flags,
        co_name=code.co_name,
        co_qualname=code.co_qualname,
    )
    checker = FunctionType(head, {}, fun.__name__, defaults)
    checker.__kwdefaults__ = dict(fun.__kwdefaults__) if fun.__kwdefaults__ else None
    # The message of a TypeError starts with this name.
    checker.__qualname__ = fun.__qualname__
    return checker


def _binder(fun: Any, bound: bool) -> Callable[..., object]:
    """For callables that are no plain functions: slower, made on first use."""
    signature: Any = None

    def check(*args: Any, **kwargs: Any) -> None:
        nonlocal signature
        if signature is None:
            import inspect

            try:
                signature = inspect.signature(fun)
            except (TypeError, ValueError):  # a builtin that does not say
                signature = False
        if signature:
            try:
                signature.bind(*((None, *args) if bound else args), **kwargs)
            except TypeError as error:
                name = getattr(fun, "__name__", type(fun).__name__)
                raise TypeError(f"{name}(): {error}") from None

    return check
