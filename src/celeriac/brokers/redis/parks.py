"""The fields of ``celeriac:parks``, ``["<queue>","<key>"]``: those who wait for a seat of a key, in each queue."""

from __future__ import annotations

import msgspec

__all__ = ["park_field", "park_of", "queue_of"]

_json_text = msgspec.json.Encoder().encode
_json_pair = msgspec.json.Decoder(tuple[str, str]).decode


def park_field(queue: str, key: str) -> str:
    """The field of a park in the hash of all."""
    return _json_text((queue, key)).decode()


def park_of(field: bytes) -> tuple[str, str] | None:
    """Queue and key of a park by its field; None when somebody else wrote it."""
    try:
        return _json_pair(field)
    except msgspec.MsgspecError:
        return None


def queue_of(field: bytes) -> str | None:
    """The queue alone."""
    park = park_of(field)
    return park and park[0]
