"""What stands in a message or a result record for a payload that lies in the payload store (the claim-check pattern,
Hohpe and Woolf 2003).

A reference names a place under the store that the settings say, never a URL, and says what must be found there. Made
and followed by ``client.payloads``.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct

from celeriac.exceptions import DecodeError

__all__ = ["CONTENT_TYPE", "Reference", "decode_reference", "encode_reference", "read_reference", "sum_of"]

#: Content type of a message whose body is a reference; Celery's workers refuse it.
CONTENT_TYPE = "application/x-celeriac-payload"
_NAME = re.compile(r"\d{4}-\d{2}-\d{2}/[0-9a-f]{32}")


class Reference(Struct, frozen=True, kw_only=True):
    """Where a payload is and what it is. ``name`` is ``<day on which it may be dropped>/<32 hex digits>``."""

    name: str
    #: Bytes, as stored.
    size: int
    #: SHA-256 of these bytes, in hex.
    sha256: str
    content_type: str = "application/json"
    content_encoding: str = "utf-8"
    compression: str | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Reference).decode


def encode_reference(reference: Reference) -> bytes:
    """The body of the message."""
    return _encode(reference)


def decode_reference(body: bytes) -> Reference:
    """The reference in a message's body. Raises ``DecodeError``."""
    try:
        return _checked(_decode(body))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DecodeError(f"no payload reference: {error}") from error


def read_reference(value: Any) -> Reference:
    """The reference in a result record. Raises ``DecodeError``."""
    try:
        return _checked(msgspec.convert(value, Reference))
    except (msgspec.ValidationError, UnicodeError) as error:
        raise DecodeError(f"no payload reference: {error}") from error


def _checked(reference: Reference) -> Reference:
    if not _NAME.fullmatch(reference.name) or reference.size < 0:
        raise DecodeError(f"no payload reference: the name {reference.name!r:.60} is none of ours")
    return reference


def sum_of(data: bytes) -> str:
    """SHA-256 in hex."""
    import hashlib  # 2 ms, for those who keep payloads

    return hashlib.sha256(data).hexdigest()
