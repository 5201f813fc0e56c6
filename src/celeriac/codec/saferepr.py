"""Display text of arguments and results: bounded in length and depth, by Celery's rules.

What ``argsrepr``, ``kwargsrepr`` and events carry. Called by the sender and by the worker's events; for small plain
values the builtin ``repr`` says the same and is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from numbers import Number
from typing import Any

from celeriac.codec.redaction import MASK, Hides, hides

__all__ = ["saferepr"]

_SCALARS = frozenset({int, float, bool, type(None)})
_are_scalars = _SCALARS.issuperset
_are_texts = frozenset({str}).issuperset
_CONTAINERS: dict[type, tuple[str, str]] = {list: ("[", "]"), dict: ("{", "}"), set: ("{", "}")}
#: Kinds of tokens: cut to what is left; brackets; never cut; and values that are yet to be shown.
_TEXT, _OPEN, _CLOSE, _WHOLE, _QUOTED, _BYTES, _KEY = range(7)
_Token = tuple[int, Any]
_DEFAULT = hides()


def saferepr(value: Any, maxlen: int | None = 1024, maxlevels: int = 3, hidden: Hides = _DEFAULT) -> str:
    """A text like ``repr(value)``, about ``maxlen`` characters long at most (None: any), showing ``maxlevels`` nested
    containers (0: all). Values under keys that are ``hidden`` are not shown. Never raises."""
    if not value and type(value) in (tuple, dict, list):
        return "()" if type(value) is tuple else "{}" if type(value) is dict else "[]"
    if _is_small(value, maxlen or 1024, maxlevels or 3, hidden):
        text = repr(value)
        # A backslash or a double quote: repr escapes or quotes otherwise than Celery.
        if (maxlen is None or len(text) < maxlen) and "\\" not in text and '"' not in text:
            return text
    try:
        return _slowly(value, maxlen, maxlevels, hidden)
    except Exception as error:  # noqa: BLE001 - containers of users, changed by another thread or odd in themselves
        return f"<Unrepresentable {type(value)!r}: {type(error).__name__}>"


def _slowly(value: Any, maxlen: int | None, maxlevels: int, hidden: Hides) -> str:
    return _join(_tokens(value, 0, maxlevels, frozenset(), hidden), maxlen, maxlevels, hidden)


def _is_small(value: Any, maxlen: int, levels: int, hidden: Hides) -> bool:
    kind = type(value)
    if kind is str:
        return len(value) < maxlen
    if kind in _SCALARS:
        return True
    if kind is dict:
        if len(value) > 16 or levels < 1 or not _are_texts(map(type, value)):
            return False
        if not hidden.harmless.issuperset(value) and any(len(key) >= maxlen or hidden(key) for key in value):
            return False
        value = value.values()
    elif (kind is not tuple and kind is not list) or len(value) > 64 or levels < 1:
        return False
    if _are_scalars(map(type, value)):
        return True
    for item in value:
        kind = type(item)
        if kind not in _SCALARS and not (
            len(item) < maxlen if kind is str else _is_small(item, maxlen, levels - 1, hidden)
        ):
            return False
    return True


def _join(tokens: Iterator[_Token], maxlen: int | None, maxlevels: int, hidden: Hides) -> str:
    parts: list[str] = []
    left = maxlen
    for kind, value in tokens:
        if left is not None and left <= 0:
            if kind == _CLOSE:  # nothing is left out of this one: just close it
                parts.append(value)
                continue
            parts.append(", ...")
            _close_rest(parts, kind, tokens)
            break
        text = _shown(kind, value, left, maxlevels, hidden)
        parts.append(text)
        if left is not None:
            left -= len(text)
    return "".join(parts)


def _shown(kind: int, value: Any, left: int | None, maxlevels: int, hidden: Hides) -> str:
    if kind == _QUOTED:
        return "'" + _truncate(value, left).replace("'", "\\'") + "'"
    if kind == _BYTES:
        return _bytes(value, left)
    if kind == _KEY:
        return _slowly(value, left, maxlevels, hidden)
    return _truncate(value, left) if kind == _TEXT else str(value)


def _close_rest(parts: list[str], kind: int, tokens: Iterator[_Token]) -> None:
    depth = 1 if kind == _OPEN else 0
    for kind, text in tokens:
        if kind == _OPEN:
            depth += 1
        elif kind == _CLOSE:
            if depth:
                depth -= 1
            else:
                parts.append(text)


def _tokens(value: Any, level: int, maxlevels: int, path: frozenset[int], hidden: Hides) -> Iterator[_Token]:
    if isinstance(value, str):
        yield _QUOTED, value
    elif isinstance(value, bytes):
        yield _BYTES, value
    elif isinstance(value, Number) and not isinstance(value, Decimal):
        yield _TEXT, _guarded(str, value)
    elif isinstance(value, (list, tuple, dict)) or (isinstance(value, (set, frozenset)) and value):
        yield from _container(value, level, maxlevels, path, hidden)
    elif isinstance(value, (set, frozenset)):
        yield _TEXT, f"{type(value).__name__}()"
    else:
        yield _TEXT, _guarded(repr, value)


def _container(value: Any, level: int, maxlevels: int, path: frozenset[int], hidden: Hides) -> Iterator[_Token]:
    start, end = _brackets(value)
    if maxlevels and level >= maxlevels:
        yield _WHOLE, f"{start}...{end}"
        return
    if id(value) in path:
        yield _TEXT, f"<Recursion on {type(value).__name__} with id={id(value)}>"
        return
    path = path | {id(value)}
    yield _OPEN, start
    for index, item in enumerate(value):
        if index:
            yield _WHOLE, ", "
        if isinstance(value, dict):
            yield _KEY, item
            yield _WHOLE, ": "
            if isinstance(item, str) and hidden(item):
                yield _QUOTED, MASK
                continue
            item = value[item]
        yield from _tokens(item, level + 1, maxlevels, path, hidden)
    yield _CLOSE, end


def _brackets(value: Any) -> tuple[str, str]:
    if isinstance(value, tuple):
        return "(", ",)" if len(value) == 1 else ")"
    for known, (start, end) in _CONTAINERS.items():
        if type(value) is known or (known is not set and isinstance(value, known)):
            return start, end
    return f"{type(value).__name__}({{", "})"


def _truncate(text: str, maxlen: int | None) -> str:
    if maxlen and len(text) >= maxlen:
        return text[:maxlen].rsplit(" ", 1)[0] + "..."
    return text


def _bytes(value: bytes, maxlen: int | None) -> str:
    shown, dots = (value[:maxlen], "...") if maxlen and len(value) > maxlen else (value, "")
    try:
        text = shown.decode()
    except UnicodeDecodeError:
        text = shown.hex()
    return f"b'{text}{dots}'"


def _guarded(show: Any, value: Any) -> str:
    try:
        text: str = show(value)
        return text
    except Exception as error:  # noqa: BLE001 - a user's __repr__
        return f"<Unrepresentable {type(value)!r}: {type(error).__name__}>"
