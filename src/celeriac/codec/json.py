"""JSON as kombu writes it: plain values as they are, a few more types under tags (``celery-wire.md`` §3.8).

Two encoders. msgspec is several times faster, but writes dates, UUIDs, bytes and dataclasses its own way and NaN as
null; so it gets only trees that a cheap look at the types shows to be plain. The rest goes through the stdlib's C
encoder, whose output is Celery's. Decoding never imports and calls nothing but the decoders of the tag table.
Called by the other codec modules and, for headers, by the adapters; knows nothing of messages.
"""

from __future__ import annotations

import json as _stdlib
import re
import sys
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from math import isfinite
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from celeriac.codec.secret import Secret
from celeriac.exceptions import DecodeError, EncodeError

__all__ = ["MAX_DEPTH", "check_depth", "dumps", "encode_hook", "is_plain", "loads", "plain", "register_type"]

T = TypeVar("T")

#: Deepest nesting that is decoded. Workflows nest a handful of levels; deeper trees exhaust the stack of whoever walks
#: them next.
MAX_DEPTH = 128

_TYPE, _VALUE = "__type__", "__value__"
_TAG_KEYS = frozenset({_TYPE, _VALUE})

_SCALARS = frozenset({str, int, bool, type(None)})
_KEYS = frozenset({str, int})
_FLOATS = {float}
_MANY = 16
_are_scalars = _SCALARS.issuperset
_are_keys = _KEYS.issuperset

_encoders: dict[type, tuple[str | None, Callable[[Any], Any]]] = {}
_decoders: dict[str, Callable[[Any], Any]] = {}


def register_type(
    t: type[T], marker: str | None, encoder: Callable[[T], Any], decoder: Callable[[Any], T] = lambda value: value
) -> None:
    """Teach JSON a type (kombu's name for it: ``kombu.utils.json.register_type``).

    ``encoder`` turns an instance, or one of a subclass, into something JSON knows; ``decoder`` turns that back. With
    ``marker=None`` the encoder's output is written without a tag, so it is never turned back.
    """
    _encoders[t] = (marker, encoder)
    if marker is not None:
        _decoders[marker] = decoder


def encode_hook(obj: Any) -> Any:
    """What JSON writes for an object it does not know. Raises ``TypeError`` when nobody registered its type."""
    reduce = getattr(obj, "__json__", None)
    if reduce is not None:
        return reduce()
    for known, (marker, encode) in _encoders.items():
        if isinstance(obj, known):
            value = encode(obj)
            return value if marker is None else {_TYPE: marker, _VALUE: value}
    if isinstance(obj, bytes):
        try:
            return {_TYPE: "bytes", _VALUE: obj.decode()}
        except UnicodeDecodeError:
            return {_TYPE: "base64", _VALUE: b64encode(obj).decode()}
    functional = sys.modules.get("django.utils.functional")
    if functional is not None and isinstance(obj, functional.Promise):
        return str(obj)
    kind = type(obj)
    raise TypeError(f"a value of type {kind.__module__}.{kind.__qualname__} cannot be written as JSON")


_encode_fast = msgspec.json.Encoder().encode
_encode_tagged = _stdlib.JSONEncoder(default=encode_hook).encode


def is_plain(value: Any, depth: int = 3) -> bool:
    """Whether msgspec is known to write the value exactly as Celery does.

    Looks ``depth`` containers deep and at few nested containers only: for big trees the look costs more than it saves,
    so the answer is no.
    """
    kind = type(value)
    if kind in _SCALARS:
        return True
    if kind is list or kind is tuple:
        items = value
    elif kind is dict:
        if not _are_keys(map(type, value)):
            return False
        items = value.values()
    else:
        return kind is float and isfinite(value)
    if _are_scalars(map(type, items)):
        return True
    if len(items) > _MANY:
        return set(map(type, items)) == _FLOATS and isfinite(sum(items))  # NaN and infinities survive a sum
    return depth > 1 and all(is_plain(item, depth - 1) for item in items)


def dumps(obj: Any) -> bytes:
    """JSON text in UTF-8. Raises ``EncodeError`` naming the type that cannot be written."""
    try:
        if is_plain(obj):
            return _encode_fast(obj)
    except (TypeError, ValueError, OverflowError, RecursionError):
        pass  # lone surrogates, ints beyond 64 bits, trees too deep: the careful encoder knows, or says what is wrong
    try:
        return _encode_tagged(obj).encode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EncodeError(str(error) or type(error).__name__) from error


def plain(obj: Any) -> Any:
    """The value with everything that needs a tag replaced by its tagged form, as it would look on the wire.

    Raises ``EncodeError``.
    """
    return obj if is_plain(obj) else loads(dumps(obj), resolve=False)


def _resolve(value: dict[str, Any]) -> Any:
    if len(value) != 2 or value.keys() != _TAG_KEYS:
        return value
    tag = value[_TYPE]
    decode = _decoders.get(tag) if isinstance(tag, str) else None
    if decode is None:
        raise DecodeError(f"unknown type tag {tag!r:.60} in JSON")
    return decode(value[_VALUE])


_decode_fast = msgspec.json.Decoder().decode
_STRINGS = re.compile(rb'"[^"]*"')
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_NEITHER_BRACKET_NOR_QUOTE = bytes(set(range(256)) - set(b'[]{}"'))


def check_depth(data: bytes) -> None:
    """Raise ``DecodeError`` when a JSON text is nested deeper than ``MAX_DEPTH``; cheap when it cannot be."""
    if len(data) > 2 * MAX_DEPTH and data.count(b"[") + data.count(b"{") > MAX_DEPTH and _too_deep(data):
        raise DecodeError(f"JSON nested deeper than {MAX_DEPTH} levels")


def _too_deep(data: bytes) -> bool:
    # At the speed of memchr: leave the brackets outside of strings, then take the innermost pairs away, round by round.
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = _STRINGS.sub(b"", data.translate(_ONE_KIND, _NEITHER_BRACKET_NOR_QUOTE).replace(b'""', b""))
    for _ in range(MAX_DEPTH):
        if not brackets:
            return False
        shorter = brackets.replace(b"[]", b"")
        if len(shorter) == len(brackets):
            return False  # unbalanced: the decoder will say so
        brackets = shorter
    return bool(brackets)


def loads(data: bytes | str, *, resolve: bool = True) -> Any:
    """The value in a JSON text. Raises nothing but ``DecodeError``: malformed, nested deeper than ``MAX_DEPTH``, or
    with an unknown tag. ``resolve=False`` leaves tagged values as they are on the wire."""
    text = None
    if isinstance(data, str):
        text, data = data, data.encode("utf-8", "surrogatepass")
    check_depth(data)
    if not resolve or b"__type__" not in data:
        try:
            return _decode_fast(data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            pass  # NaN, Infinity, lone surrogates and huge ints are for the tolerant decoder
    try:
        return _stdlib.loads(data.decode() if text is None else text, object_hook=_resolve if resolve else None)
    except DecodeError:
        raise
    except Exception as error:  # decoders that users registered run here
        raise DecodeError(f"invalid JSON: {error}") from error


def _decode_uuid(value: Any) -> UUID:
    return UUID(hex=value["hex"] if isinstance(value, dict) else value)


# datetime before date: it is one, too.
register_type(datetime, "datetime", datetime.isoformat, datetime.fromisoformat)
register_type(date, "date", date.isoformat, lambda text: datetime.fromisoformat(text).date())
register_type(time, "time", time.isoformat, time.fromisoformat)
register_type(Decimal, "decimal", str, Decimal)
register_type(UUID, "uuid", lambda value: {"hex": value.hex}, _decode_uuid)
register_type(Secret, "secret", lambda secret: secret.value, Secret)
_decoders["bytes"] = str.encode
_decoders["base64"] = b64decode
