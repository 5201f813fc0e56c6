"""Large payloads: a warning, or a place beside the broker.

Above ``payload_store_min_bytes`` a body goes to the payload store before its message is published, and the message
carries a reference; workers fetch it before the task runs, and drop it when its message has ended. Results likewise.
What nobody drops (its producer died, its message was purged) goes with the day in its name. Called by the sender, by
readers of results, and by workers. Thread-safe; survives forks.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from celeriac.codec import serializers
from celeriac.codec.body import EncodedBody
from celeriac.codec.reference import CONTENT_TYPE, Reference, decode_reference, encode_reference, read_reference, sum_of
from celeriac.exceptions import MessageTooLarge, PayloadLost
from celeriac.model.message import Message
from celeriac.payloads import open_store
from celeriac.ports import PayloadStore

__all__ = ["Payloads", "payloads_of"]

_DAY = 86400.0
#: The day of what never expires.
_NEVER = "9999-12-31"


class Payloads:
    """The payload store as the settings want it used."""

    def __init__(self, store: PayloadStore, *, min_bytes: int, max_bytes: int, expires: float) -> None:
        """``expires``: seconds beyond its start for which a body is kept, whatever happens."""
        self.min_bytes = min_bytes
        self._store = store
        self._max_bytes = max_bytes
        self._expires = expires

    # ------------------------------------------------------------ bodies

    def put_body(self, body: EncodedBody, due: float | None) -> EncodedBody:
        """The body of a message that refers to ``body``, which is stored. Raises ``OperationalError``."""
        until = max(due or 0.0, time.time()) + self._expires
        reference = self._put(body.body, until, body.content_type, body.content_encoding, body.compression)
        return EncodedBody(CONTENT_TYPE, "utf-8", encode_reference(reference))

    def fetch(self, message: Message) -> Message:
        """The message with its own body. Raises ``PayloadLost``, ``DecodeError``, ``MessageTooLarge``, and
        ``OperationalError`` while the store is away."""
        reference = decode_reference(message.body)
        headers = message.headers
        if reference.compression is not None:
            headers = {**headers, "compression": reference.compression}
        return replace(
            message,
            body=self._get(reference),
            content_type=reference.content_type,
            content_encoding=reference.content_encoding,
            headers=headers,
        )

    def drop_body(self, message: Message) -> None:
        """Its message has ended. Raises ``OperationalError``, ``DecodeError``."""
        self._store.drop(decode_reference(message.body).name)

    # ------------------------------------------------------------ results

    def put_result(self, value: Any, serializer: str, expires: float | None) -> dict[str, Any]:
        """What a result record says in place of ``value``, which is stored for ``expires`` seconds (None: for ever).
        Raises ``OperationalError``, ``EncodeError``."""
        content_type, encoding, data = serializers.dumps(value, serializer)
        until = None if expires is None else time.time() + expires
        found: dict[str, Any] = msgspec.to_builtins(self._put(data, until, content_type, encoding, None))
        return found

    def get_result(self, value: Any, accept: frozenset[str]) -> Any:
        """The result that a record refers to. Raises as ``fetch``, and ``ContentDisallowed``."""
        reference = read_reference(value)
        return serializers.loads(self._get(reference), reference.content_type, reference.content_encoding, accept)

    def drop_result(self, value: Any) -> None:
        """The record that refers to it is forgotten. Raises ``OperationalError``, ``DecodeError``."""
        self._store.drop(read_reference(value).name)

    def sweep(self) -> int:
        """Drop what is past its day; returns how many. Raises ``OperationalError``."""
        return self._store.sweep(_day(time.time()))

    # ------------------------------------------------------------ inside

    def _put(
        self, data: bytes, until: float | None, content_type: str, encoding: str, compression: str | None
    ) -> Reference:
        # Kept to the end of that day.
        day = _NEVER if until is None else _day(until + _DAY)
        reference = Reference(
            name=f"{day}/{os.urandom(16).hex()}",
            size=len(data),
            sha256=sum_of(data),
            content_type=content_type,
            content_encoding=encoding,
            compression=compression,
        )
        self._store.write(reference.name, data)
        return reference

    def _get(self, reference: Reference) -> bytes:
        if reference.size > self._max_bytes:
            raise MessageTooLarge(
                f"a payload of {reference.size} bytes is more than max_message_bytes={self._max_bytes}"
            )
        data = self._store.read(reference.name, reference.size)
        if len(data) != reference.size or sum_of(data) != reference.sha256:
            raise PayloadLost(f"the payload {reference.name} is damaged: it is not what its sender stored")
        return data


def _day(moment: float) -> str:
    try:
        return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")
    except (OverflowError, ValueError, OSError):
        return _NEVER


_known: dict[tuple[Any, ...], Payloads] = {}


def payloads_of(conf: Any) -> Payloads | None:
    """The payload store of some settings, or None when they name none. Raises ``ImproperlyConfigured``."""
    url = conf.payload_store
    if not url:
        return None
    options = (
        str(url),
        conf.payload_store_min_bytes,
        conf.max_message_bytes,
        conf.seconds("payload_store_expires"),
    )
    found = _known.get(options)
    if found is None:
        store = open_store(options[0])
        found = Payloads(store, min_bytes=options[1], max_bytes=options[2], expires=options[3])
        _known[options] = found
    return found
