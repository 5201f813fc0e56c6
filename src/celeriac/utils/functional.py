"""``celery.utils.functional``: the small functions that applications and add-ons import.

Not there: ``head_from_fun``, ``mlazy``, and what builds on them: ``inspect.signature`` and ``functools`` do it.
"""

from __future__ import annotations

import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from itertools import islice
from typing import Any, TypeVar

__all__ = [
    "LRUCache",
    "chunks",
    "dictfilter",
    "first",
    "firstmethod",
    "fun_accepts_kwargs",
    "is_list",
    "lazy",
    "mattrgetter",
    "maybe",
    "maybe_evaluate",
    "maybe_list",
    "memoize",
    "noop",
    "padlist",
    "pass1",
    "regen",
    "uniq",
]

T = TypeVar("T")
_SCALARS = (Mapping, str, bytes)


class LRUCache(OrderedDict[Any, Any]):
    """A dict of ``limit`` items at most (None: any number), which forgets those that were not used for longest."""

    def __init__(self, limit: int | None = None) -> None:
        super().__init__()
        self.limit = limit
        self.mutex = threading.RLock()

    def __getitem__(self, key: Any) -> Any:
        with self.mutex:
            value = super().__getitem__(key)
            self.move_to_end(key)
            return value

    def __setitem__(self, key: Any, value: Any) -> None:
        with self.mutex:
            super().__setitem__(key, value)
            self.move_to_end(key)
            while self.limit and len(self) > self.limit:
                self.popitem(last=False)

    def incr(self, key: Any, delta: int = 1) -> int:
        """Count up; the value is kept as text, as Celery's is. Returns it."""
        with self.mutex:
            value = int(self.pop(key)) + delta
            self[key] = str(value)
            return value


class lazy:  # noqa: N801 - Celery's name
    """A call that is made when its value is asked for: ``lazy(fun, *args)()``."""

    def __init__(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._fun, self._args, self._kwargs = fun, args, kwargs

    def __call__(self) -> Any:
        return self.evaluate()

    def evaluate(self) -> Any:
        """The value, computed each time."""
        return self._fun(*self._args, **self._kwargs)

    def __str__(self) -> str:
        return str(self())

    def __repr__(self) -> str:
        return repr(self())

    def __eq__(self, other: object) -> bool:
        return bool(self() == other)

    __hash__ = None  # type: ignore[assignment]  # equal to what changes


class regen(list[Any]):  # noqa: N801 - Celery's name
    """What an iterator yields, which may be gone through again and again: read as it is needed.

    A list or tuple is returned as it is, as in Celery.
    """

    def __new__(cls, it: Iterable[Any]) -> Any:
        return it if isinstance(it, list | tuple) else super().__new__(cls)

    def __init__(self, it: Iterable[Any]) -> None:
        if it is self:  # one of these is a list already
            return
        super().__init__()
        self._rest = iter(it)

    def _read(self, count: int | None = None) -> None:
        """So many more of what is left, or all."""
        super().extend(self._rest if count is None else islice(self._rest, count))

    def __iter__(self) -> Iterator[Any]:
        at = 0
        while True:
            if at >= super().__len__():
                self._read(1)
                if at >= super().__len__():
                    return
            yield super().__getitem__(at)
            at += 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int) and index >= 0:
            self._read(max(0, index + 1 - super().__len__()))
        else:
            self._read()
        return super().__getitem__(index)

    def __len__(self) -> int:
        self._read()
        return super().__len__()

    def __bool__(self) -> bool:
        if not super().__len__():
            self._read(1)
        return bool(super().__len__())

    def __contains__(self, value: object) -> bool:
        return any(each == value for each in self)

    def __reversed__(self) -> Iterator[Any]:
        self._read()
        return super().__reversed__()

    def __eq__(self, other: object) -> bool:
        self._read()
        return super().__eq__(other)

    def __repr__(self) -> str:
        self._read()
        return super().__repr__()

    def __reduce__(self) -> Any:
        return list, (list(self),)

    __hash__ = None  # as of any list


def noop(*args: Any, **kwargs: Any) -> None:
    """Take anything, do nothing."""


def pass1(arg: T, *args: Any, **kwargs: Any) -> T:
    """The first argument."""
    return arg


def is_list(obj: Any, scalars: tuple[type, ...] = _SCALARS, iters: tuple[type, ...] = (Iterable,)) -> bool:
    """It can be gone through, and is no text or mapping."""
    return isinstance(obj, iters) and not isinstance(obj, scalars or ())


def maybe_list(obj: Any, scalars: tuple[type, ...] = _SCALARS) -> Any:
    """A list of one, for what is none; None stays."""
    return obj if obj is None or is_list(obj, scalars) else [obj]


def maybe(typ: Callable[[Any], Any], val: Any) -> Any:
    """``typ(val)``; None stays."""
    return None if val is None else typ(val)


def maybe_evaluate(value: Any) -> Any:
    """The value of what is ``lazy``, anything else as it is."""
    return value.evaluate() if isinstance(value, lazy) else value


def chunks(it: Iterator[T], n: int) -> Iterator[list[T]]:
    """Lists of ``n``, the last one of what is left."""
    it = iter(it)
    while part := list(islice(it, n)):
        yield part


def padlist(container: Iterable[Any], size: int, default: Any = None) -> list[Any]:
    """``size`` items: the first ones, and ``default`` for those that are missing."""
    found = list(container)[:size]
    return found + [default] * (size - len(found))


def uniq(it: Iterable[T]) -> Iterator[T]:
    """Each one once, in the order of their first."""
    yield from dict.fromkeys(it)


def first(predicate: Callable[[Any], Any] | None, it: Iterable[Any]) -> Any:
    """The first one of which that is true (without a predicate: which is not None), else None."""
    return next((each for each in it if (predicate(each) if predicate is not None else each is not None)), None)


def firstmethod(method: str, on_call: Callable[..., Any] | None = None) -> Callable[..., Any]:
    """A function that calls this method of each object of a list until one returns something that is not None."""

    def call(it: Iterable[Any], *args: Any, **kwargs: Any) -> Any:
        for each in it:
            bound = getattr(maybe_evaluate(each), method)
            answer = on_call(bound, *args, **kwargs) if on_call is not None else bound(*args, **kwargs)
            if answer is not None:
                return answer
        return None

    return call


def mattrgetter(*attrs: str) -> Callable[[Any], dict[str, Any]]:
    """A function that makes a dict of these attributes; those that are missing are None."""
    return lambda obj: {attr: getattr(obj, attr, None) for attr in attrs}


def dictfilter(d: Mapping[str, Any] | None = None, **kw: Any) -> dict[str, Any]:
    """What is not None."""
    return {key: value for key, value in {**(d or {}), **kw}.items() if value is not None}


def fun_accepts_kwargs(fun: Callable[..., Any]) -> bool:
    """It takes any keyword argument."""
    return any(each.kind is each.VAR_KEYWORD for each in inspect.signature(fun).parameters.values())


def memoize(
    maxsize: int | None = None,
    keyfun: Callable[..., Any] | None = None,
    Cache: Callable[..., Any] = LRUCache,  # noqa: N803 - Celery's name
) -> Callable[[Callable[..., Any]], Any]:
    """A decorator that remembers values by their arguments (``keyfun(args, kwargs)``), ``maxsize`` of them. The
    function gets ``hits``, ``misses``, ``clear()`` and ``original_func``."""

    def decorate(fun: Callable[..., Any]) -> Any:
        cache, mutex = Cache(limit=maxsize) if Cache is LRUCache else Cache(), threading.Lock()

        @wraps(fun)
        def call(*args: Any, **kwargs: Any) -> Any:
            key = keyfun(args, kwargs) if keyfun is not None else (args, frozenset(kwargs.items()))
            try:
                with mutex:
                    value = cache[key]
            except KeyError:
                value = fun(*args, **kwargs)
                made.misses += 1
                with mutex:
                    cache[key] = value
            else:
                made.hits += 1
            return value

        def clear() -> None:
            cache.clear()
            made.hits = made.misses = 0

        made: Any = call
        made.hits, made.misses, made.clear, made.original_func = 0, 0, clear, fun
        return made

    return decorate
