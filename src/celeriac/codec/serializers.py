"""The registry of serializers: name and content type ⇄ encoder and decoder, as kombu has it.

``json`` and ``msgpack`` are safe with anybody's bytes. ``pickle`` and ``yaml`` are known but decode only what the
caller's ``accept`` names, and are imported when first used. Called by ``codec.body`` and ``codec.results``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import Struct

from celeriac.codec import json
from celeriac.exceptions import ContentDisallowed, DecodeError, EncodeError, ImproperlyConfigured

__all__ = [
    "JSON",
    "Serializer",
    "accept_set",
    "by_name",
    "check_accepted",
    "dumps",
    "find",
    "loads",
    "register",
    "unregister",
]


class Serializer(Struct, frozen=True):
    """One entry of the registry; ``encode`` and ``decode`` may raise anything."""

    name: str
    encode: Callable[[Any], bytes | str]
    decode: Callable[[bytes], Any]
    content_type: str
    content_encoding: str = "utf-8"


#: The registry; read-only outside of this module.
by_name: dict[str, Serializer] = {}
_by_type: dict[str, Serializer] = {}


def register(
    name: str,
    encoder: Callable[[Any], bytes | str],
    decoder: Callable[[Any], Any],
    content_type: str,
    content_encoding: str = "utf-8",
) -> None:
    """Add or replace a serializer (``kombu.serialization.register``).

    A decoder gets text when ``content_encoding`` is a character encoding, bytes when it is ``binary``.
    """
    if content_encoding.lower() == "binary":
        decode = decoder
    else:

        def decode(data: bytes) -> Any:
            return decoder(bytes(data).decode(content_encoding))

    _add(Serializer(name, encoder, decode, content_type, content_encoding))


def _add(serializer: Serializer) -> None:
    by_name[serializer.name] = serializer
    _by_type[serializer.content_type] = serializer


def unregister(name: str) -> None:
    """Remove a serializer. Raises ``ImproperlyConfigured`` when there is none of that name."""
    serializer = find(name)
    del by_name[serializer.name]
    del _by_type[serializer.content_type]


def find(name: str) -> Serializer:
    """The serializer of a name or content type. Raises ``ImproperlyConfigured`` when there is none."""
    serializer = by_name.get(name) or _by_type.get(name)
    if serializer is None:
        raise ImproperlyConfigured(f"unknown serializer {name!r}; registered are {', '.join(sorted(by_name))}")
    return serializer


def accept_set(names: Iterable[str]) -> frozenset[str]:
    """``accept_content`` as the content types it stands for; names of nothing stay as they are."""
    return frozenset(by_name[name].content_type if name in by_name else name for name in names)


def dumps(obj: Any, serializer: str) -> tuple[str, str, bytes]:
    """Content type, content encoding and bytes. Raises ``EncodeError`` naming what cannot be encoded."""
    chosen = find(serializer)
    try:
        data = chosen.encode(obj)
    except EncodeError:
        raise
    except Exception as error:  # foreign encoders and __reduce__ methods run here
        raise EncodeError(f"{chosen.name} cannot encode this: {_words(error)}") from error
    if isinstance(data, str):
        data = data.encode(chosen.content_encoding)
    return chosen.content_type, chosen.content_encoding, data


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def loads(data: bytes, content_type: str, content_encoding: str, accept: frozenset[str]) -> Any:
    """The value in serialized bytes.

    ``accept`` holds names or content types; what is not in it is refused unread. Raises ``ContentDisallowed`` and
    ``DecodeError`` only.
    """
    chosen = check_accepted(content_type, accept)
    if content_encoding not in _PLAIN_ENCODINGS and chosen.content_encoding == "utf-8":
        data = _recode(data, content_encoding)
    try:
        return chosen.decode(data)
    except DecodeError:
        raise
    except Exception as error:  # pickle, yaml and registered decoders raise whatever they like
        raise DecodeError(f"invalid {chosen.name}: {_words(error)}") from error


def check_accepted(content_type: str, accept: frozenset[str]) -> Serializer:
    """The serializer of a content type. Raises ``ContentDisallowed`` when it is unknown or not in ``accept``."""
    chosen = _by_type.get(content_type) or by_name.get(content_type)
    if chosen is None:
        raise ContentDisallowed(f"unknown content type {content_type!r:.80}")
    if chosen.content_type not in accept and chosen.name not in accept:
        raise ContentDisallowed(f"content type {content_type!r} is not in accept_content")
    return chosen


_PLAIN_ENCODINGS = frozenset({"utf-8", "UTF-8", "utf8", "us-ascii", "ascii", "binary", ""})


def _recode(data: bytes, encoding: str) -> bytes:
    try:
        return data.decode(encoding).encode()
    except (LookupError, UnicodeError, ValueError) as error:
        raise DecodeError(f"content encoding {encoding!r:.40}: {error}") from error


# ---------------------------------------------------------------- the built-in ones


def _encode_msgpack(obj: Any) -> bytes:
    # msgspec would write dates, UUIDs and dataclasses its own way; Celery's msgpack refuses them.
    foreign = _first_foreign(obj)
    if foreign is not None:
        raise EncodeError(f"msgpack cannot encode a value of type {foreign}")
    return msgspec.msgpack.encode(obj)


_PACK_SCALARS = (str, int, float, bytes, type(None))


def _first_foreign(obj: Any) -> str | None:
    pending = [obj]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(item)
            pending.extend(item.values())
        elif isinstance(item, (list, tuple)):
            pending.extend(item)
        elif not isinstance(item, _PACK_SCALARS):
            return f"{type(item).__module__}.{type(item).__qualname__}"
    return None


def _decode_msgpack(data: bytes) -> Any:
    value = msgspec.msgpack.decode(data)
    if len(data) > json.MAX_DEPTH:
        _check_depth(value)
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(json.MAX_DEPTH + 1):
        containers = [item for item in level if isinstance(item, (dict, list))]
        if not containers:
            return
        level = [child for item in containers for child in (item.values() if isinstance(item, dict) else item)]
    raise DecodeError(f"msgpack nested deeper than {json.MAX_DEPTH} levels")


def _encode_pickle(obj: Any) -> bytes:
    import pickle

    return pickle.dumps(obj, protocol=4)  # kombu's protocol, so that its oldest readers can read it


def _decode_pickle(data: bytes) -> Any:
    import pickle

    return pickle.loads(data)


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise ImproperlyConfigured("serializer yaml needs an extra: pip install 'celeriac[yaml]'") from error
    return yaml


def _encode_yaml(obj: Any) -> str:
    text: str = _yaml().safe_dump(obj)
    return text


def _decode_yaml(data: bytes) -> Any:
    return _yaml().safe_load(data)


#: kombu's JSON; the fast paths ask whether it is still the one registered under its name.
JSON = Serializer("json", json.dumps, json.loads, "application/json")

_add(JSON)
_add(Serializer("msgpack", _encode_msgpack, _decode_msgpack, "application/x-msgpack", "binary"))
_add(Serializer("pickle", _encode_pickle, _decode_pickle, "application/x-python-serialize", "binary"))
_add(Serializer("yaml", _encode_yaml, _decode_yaml, "application/x-yaml"))
