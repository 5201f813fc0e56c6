"""The bytes of a chord: a member's end, and the signature to send when all have ended (``celery-wire.md`` §3.5).

A member's end is ``[1, id, state, result]`` in the result serializer, as Celery's workers write and read it. A body is
JSON wherever JSON can hold it; else it is in the serializer of the message that brought it, whose name goes in front.
Called by the sender of chords and by workers; stores carry the bytes unread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from celeriac.codec import json, serializers
from celeriac.codec.failures import data_to_exception, exception_to_data
from celeriac.exceptions import DecodeError, EncodeError
from celeriac.model.chord import PartValue
from celeriac.states import EXCEPTION_STATES

__all__ = ["decode_body", "decode_part", "decode_shape", "encode_body", "encode_part"]

_encode_plain = msgspec.json.Encoder().encode


def encode_part(task_id: str, state: str, result: Any, serializer: str = "json") -> bytes:
    """A member's end. ``result`` is a value, an exception, or an exception as data. Raises ``EncodeError``."""
    if isinstance(result, BaseException):
        result = exception_to_data(result, serializer)
    if serializer == "json" and json.is_plain(result):
        try:
            return _encode_plain((1, task_id, state, result))
        except (TypeError, ValueError, OverflowError, RecursionError):
            pass  # the careful encoder knows, or says what is wrong
    return serializers.dumps([1, task_id, state, result], serializer)[2]


def decode_part(data: bytes, *, accept: frozenset[str], serializer: str = "json") -> PartValue:
    """A member's end, whoever wrote it; failures as exceptions. Raises ``DecodeError`` and ``ContentDisallowed``."""
    if serializer == "json":
        fields = json.loads(data)
    else:
        fields = serializers.loads(data, serializer, "", accept)
    if not isinstance(fields, (list, tuple)) or len(fields) != 4 or not isinstance(fields[2], str):
        raise DecodeError("not the end of a chord's member")
    _, task_id, state, result = fields
    return PartValue(str(task_id), state, data_to_exception(result) if state in EXCEPTION_STATES else result)


def encode_body(signature: Mapping[str, Any], content_type: str = "application/json") -> bytes:
    """A chord's body; ``content_type`` is that of the message it came with. Raises ``EncodeError``."""
    try:
        return json.dumps(dict(signature))
    except EncodeError:
        if content_type == "application/json":
            raise
    return content_type.encode() + b"\0" + serializers.dumps(dict(signature), content_type)[2]


def decode_body(data: bytes, *, accept: frozenset[str]) -> dict[str, Any]:
    """The signature in ``encode_body``'s bytes. Raises ``DecodeError`` and ``ContentDisallowed``."""
    content_type, separator, payload = data.partition(b"\0")
    if separator and not data.startswith(b"{"):
        signature = serializers.loads(payload, content_type.decode("utf-8", "replace"), "", accept)
    else:
        signature = json.loads(data)
    if not isinstance(signature, dict) or not isinstance(signature.get("task"), str):
        raise DecodeError("not a signature")
    return signature


def decode_shape(data: bytes) -> Any:
    """The result tuple of a header with nested groups: Celery's saved group ``{"result": tuple}``. Raises
    ``DecodeError``."""
    saved = json.loads(data)
    if isinstance(saved, dict):
        saved = saved.get("result")
    if not isinstance(saved, list) or len(saved) != 2 or not isinstance(saved[1], list):
        raise DecodeError("not the result tuple of a group")
    return saved
