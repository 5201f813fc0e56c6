"""The body of a task message: ``[args, kwargs, embed]``, serialized and perhaps compressed (``celery-wire.md`` §3.1).

``encode_body`` is called by the sender, ``decode_body`` by the runner, once per attempt. Both have a fast path for
JSON without type tags; neither executes anything, unless ``accept`` names pickle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from celeriac.codec import json, serializers
from celeriac.codec.compression import compress, decompress
from celeriac.exceptions import ContentDisallowed, DecodeError, EncodeError, InvalidTaskError, MessageTooLarge
from celeriac.model.message import Message
from celeriac.model.outcome import Embed

__all__ = ["NO_EMBED", "ChordBody", "EncodedBody", "decode_body", "encode_body"]

#: Shared by all messages after which nothing follows.
NO_EMBED = Embed()

_EMBED_KEYS = ("callbacks", "errbacks", "chain", "chord")
_BESIDE_A_CHORD = ("callbacks", "errbacks", "chain")
_NO_EMBED = dict.fromkeys(_EMBED_KEYS)
_NO_EMBED_JSON = msgspec.Raw(msgspec.json.encode(_NO_EMBED))
_NO_KWARGS_JSON = msgspec.Raw(b"{}")

_encode_plain = msgspec.json.Encoder().encode
_decode_plain = msgspec.json.Decoder(tuple[list[Any], dict[str, Any], Embed]).decode
_is_plain = json.is_plain
_by_name = serializers.by_name
_JSON = serializers.JSON


class ChordBody(dict[str, Any]):
    """A chord's body with its JSON: it goes into the message of each member, and is encoded once."""

    json: bytes

    def __init__(self, signature: Mapping[str, Any], encoded: bytes) -> None:
        super().__init__(signature)
        self.json = encoded


class _Member(Struct, frozen=True):
    """The embed of a chord's member after which nothing else follows."""

    chord: msgspec.Raw
    callbacks: None = None
    errbacks: None = None
    chain: None = None


class EncodedBody(Struct, frozen=True):
    """A body ready for the wire and the headers that describe it; ``compression`` is a content type or None."""

    content_type: str
    content_encoding: str
    body: bytes
    compression: str | None = None


def encode_body(
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    embed: Mapping[str, Any] | None = None,
    *,
    serializer: str = "json",
    compression: str | None = None,
    compression_min_bytes: int = 0,
    max_bytes: int | None = None,
) -> EncodedBody:
    """Serialize and compress, the latter from ``compression_min_bytes`` on. ``embed`` holds callbacks, errbacks, chain
    and chord as signatures; what lacks is null.

    Raises ``EncodeError`` naming the offending type, ``MessageTooLarge`` beyond ``max_bytes`` before compression,
    ``ImproperlyConfigured`` for unknown names.
    """
    if serializer == "json" and (embed is None or _is_members(embed)) and _by_name["json"] is _JSON:
        try:
            if _is_plain(args) and (not kwargs or _is_plain(kwargs)):
                follow = _NO_EMBED_JSON if embed is None else _Member(msgspec.Raw(embed["chord"].json))
                body = _encode_plain((args, kwargs or _NO_KWARGS_JSON, follow))
                if len(body) < compression_min_bytes:
                    compression = None
                return _encoded("application/json", "utf-8", body, compression, max_bytes)
        except (TypeError, ValueError, OverflowError, RecursionError):
            pass  # lone surrogates, ints beyond 64 bits: the careful encoder knows, or says what is wrong
    payload = (args, dict(kwargs), _NO_EMBED if embed is None else {**_NO_EMBED, **embed})
    encoded = serializers.dumps(payload, serializer)
    if len(encoded[2]) < compression_min_bytes:
        compression = None
    return _encoded(*encoded, compression, max_bytes)


def _is_members(embed: Mapping[str, Any]) -> bool:
    return type(embed.get("chord")) is ChordBody and not any(embed.get(key) for key in _BESIDE_A_CHORD)


def _encoded(
    content_type: str, content_encoding: str, body: bytes, compression: str | None, max_bytes: int | None
) -> EncodedBody:
    if max_bytes is not None and len(body) > max_bytes:
        raise MessageTooLarge(f"a body of {len(body)} bytes is more than max_message_bytes={max_bytes}")
    if content_type == "application/json":
        try:
            json.check_depth(body)
        except DecodeError as error:  # no worker would take it
            raise EncodeError(str(error)) from None
    if compression is None:
        return EncodedBody(content_type, content_encoding, body)
    return EncodedBody(content_type, content_encoding, *compress(body, compression))


def decode_body(message: Message, *, accept: frozenset[str], max_bytes: int) -> tuple[list[Any], dict[str, Any], Embed]:
    """Arguments and what follows. ``accept`` holds names or content types; ``max_bytes`` limits the decoded size.

    Raises ``ContentDisallowed``, ``DecodeError``, ``MessageTooLarge`` or ``InvalidTaskError``, nothing else.
    """
    data = message.body
    compression = message.headers.get("compression")
    content_type = message.content_type
    if compression is None:
        if len(data) > max_bytes:
            raise MessageTooLarge(f"a body of {len(data)} bytes is more than max_message_bytes={max_bytes}")
        if content_type == "application/json" and b"__type__" not in data and _accepts_json(accept):
            json.check_depth(data)
            try:
                return _decode_plain(data)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                pass  # odd but perhaps valid: the slow path knows, or says what is wrong
    else:
        # Refused content is not even unpacked.
        serializers.check_accepted(content_type, accept)
        data = decompress(data, str(compression), max_bytes)
    return _parts(serializers.loads(data, content_type, message.content_encoding, accept))


def _accepts_json(accept: frozenset[str]) -> bool:
    return ("application/json" in accept or "json" in accept) and _by_name.get("json") is _JSON


def _parts(payload: Any) -> tuple[list[Any], dict[str, Any], Embed]:
    if isinstance(payload, dict) and "args" in payload:  # protocol 1's body below protocol 2's headers
        args, kwargs, embed = payload["args"], payload.get("kwargs"), payload
    elif isinstance(payload, (list, tuple)) and len(payload) == 3:
        args, kwargs, embed = payload
    else:
        raise InvalidTaskError("the body is not [args, kwargs, embed]")
    args, kwargs, embed = args or [], kwargs or {}, embed or {}
    if not isinstance(args, (list, tuple)):
        raise InvalidTaskError(f"the arguments are a {type(args).__name__}, not a list")
    if not isinstance(kwargs, dict) or not all(isinstance(key, str) for key in kwargs):
        raise InvalidTaskError("the keyword arguments are not a mapping with texts as keys")
    if not isinstance(embed, dict):
        raise InvalidTaskError(f"the embed is a {type(embed).__name__}, not a mapping")
    return list(args), kwargs, _embed(embed)


def _embed(value: Mapping[str, Any]) -> Embed:
    chord = value.get("chord")
    if chord is not None and not isinstance(chord, Mapping):
        raise InvalidTaskError("'chord' in the embed is no signature")
    return Embed(
        callbacks=_signatures(value, "callbacks"),
        errbacks=_signatures(value, "errbacks"),
        chain=_signatures(value, "chain"),
        chord=chord,
    )


def _signatures(value: Mapping[str, Any], key: str) -> list[Mapping[str, Any]] | None:
    found = value.get(key)
    if found is None:
        return None
    if isinstance(found, Mapping):
        return [found]
    if isinstance(found, (list, tuple)) and all(isinstance(item, Mapping) for item in found):
        return list(found)
    raise InvalidTaskError(f"{key!r} in the embed is no list of signatures")


#: What ``decode_body`` may raise, for those who catch it.
ERRORS = (ContentDisallowed, DecodeError, MessageTooLarge, InvalidTaskError)
