"""Dead letters as people see them, and the message that a dead letter becomes when it is sent again.

Reads what the broker has kept; knows no server and no app. Called by ``app/dead.py``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct, structs

from celeriac.codec import serializers
from celeriac.codec.body import decode_body, encode_body
from celeriac.codec.envelope import delivery
from celeriac.codec.redaction import Hides, hides
from celeriac.codec.saferepr import saferepr
from celeriac.exceptions import CeleryError
from celeriac.model.dead import REPLAY, DeadRecord
from celeriac.model.message import MARK, Malformed, Message
from celeriac.model.outcome import Embed
from celeriac.model.workflow import abandoned

__all__ = ["Edit", "Letter", "arguments", "letter", "message_of", "replayed", "unborn"]

#: Headers that a new attempt does not have: what earlier deliveries left behind, and times that are over.
_OVER = frozenset({MARK, REPLAY, "redelivered", "expires", "eta"})
_HIDDEN = hides()


class Letter(DeadRecord, frozen=True, kw_only=True):
    """One dead letter, with what its message tells. Texts that the message does not have are empty."""

    #: Earlier attempts that the task itself asked for.
    retries: int
    #: Leases that ran out while it was held.
    expired_leases: int
    #: How often it was sent again from the dead letters before.
    replays: int
    root_id: str
    parent_id: str
    group_id: str
    #: Arguments as the sender has described them.
    argsrepr: str
    kwargsrepr: str
    #: Why it cannot be sent again as it is; empty when it can.
    problem: str

    @property
    def died(self) -> datetime:
        """``at`` as a time in UTC; the epoch when a damaged letter says something impossible."""
        try:
            return datetime.fromtimestamp(self.at, UTC)
        except (ValueError, OverflowError, OSError):
            return datetime.fromtimestamp(0, UTC)


class Edit(Struct, frozen=True, kw_only=True):
    """What is different when a letter is sent again; None: as it was."""

    args: Sequence[Any] | None = None
    kwargs: Mapping[str, Any] | None = None
    queue: str | None = None
    #: Seconds from now.
    countdown: float | None = None

    @property
    def changes_arguments(self) -> bool:
        """Whether the body has to be written anew."""
        return self.args is not None or self.kwargs is not None


def letter(record: DeadRecord, *, max_bytes: int) -> Letter:
    """A record with what its message tells."""
    held = delivery(record.raw, token="", queue=record.queue, max_bytes=max_bytes)
    message = held.message
    headers: Mapping[str, Any] = {} if isinstance(message, Malformed) else message.headers

    def text(name: str) -> str:
        value = headers.get(name)
        return value if isinstance(value, str) else ""

    return Letter(
        **structs.asdict(record),
        retries=0 if isinstance(message, Malformed) else message.retries,
        expired_leases=held.marks.expired_leases,
        replays=_times(headers),
        root_id=text("root_id"),
        parent_id=text("parent_id"),
        group_id=text("group"),
        argsrepr=text("argsrepr"),
        kwargsrepr=text("kwargsrepr"),
        problem=message.reason if isinstance(message, Malformed) else "",
    )


def message_of(dead: Letter, *, max_bytes: int) -> Message | Malformed:
    """The message that died."""
    return delivery(dead.raw, token="", queue=dead.queue, max_bytes=max_bytes).message


def arguments(
    message: Message, *, accept: frozenset[str], max_bytes: int
) -> tuple[list[Any], dict[str, Any], Embed] | None:
    """Arguments and what follows; None when the body cannot be decoded here."""
    try:
        return decode_body(message, accept=accept, max_bytes=max_bytes)
    except (CeleryError, ValueError):
        return None


def replayed(
    dead: Letter,
    message: Message,
    edit: Edit,
    *,
    now: float,
    accept: frozenset[str],
    max_bytes: int,
    hidden: Hides = _HIDDEN,
) -> Message:
    """The message that takes a letter's place: the same task with the same id, as if it had never been tried.

    A header (``REPLAY``) says where it comes from. Expiry and ETA of the first sending are over. New arguments are
    described without values under ``hidden`` names. Raises ``EncodeError``, ``MessageTooLarge``; ``DecodeError`` for
    other arguments in a body that cannot be decoded here.
    """
    headers = {name: value for name, value in message.headers.items() if name not in _OVER}
    due = None if edit.countdown is None else now + edit.countdown
    headers["retries"] = 0
    headers["expires"] = None
    headers["eta"] = None if due is None else datetime.fromtimestamp(due, UTC).isoformat()
    headers[REPLAY] = {
        "key": dead.key,
        "reason": dead.reason,
        "died": dead.at,
        "at": now,
        "times": _times(message.headers) + 1,
    }
    message = structs.replace(message, headers=headers, queue=dead.queue, due=due, expires=None, retries=0)
    if edit.changes_arguments:
        message = _rewritten(message, edit, accept, max_bytes, hidden)
    if edit.queue is not None:
        message = structs.replace(message, queue=edit.queue, exchange="", routing_key=edit.queue)
    return message


def _rewritten(message: Message, edit: Edit, accept: frozenset[str], max_bytes: int, hidden: Hides) -> Message:
    """With other arguments, in the serializer and compression that it had."""
    args, kwargs, embed = decode_body(message, accept=accept, max_bytes=max_bytes)
    if edit.args is not None:
        args = list(edit.args)
    if edit.kwargs is not None:
        kwargs = dict(edit.kwargs)
    compression = message.headers.get("compression")
    encoded = encode_body(
        args,
        kwargs,
        msgspec.to_builtins(embed),
        serializer=serializers.find(message.content_type).name,
        compression=compression if isinstance(compression, str) else None,
        max_bytes=max_bytes,
    )
    shown = {"argsrepr": saferepr(tuple(args), hidden=hidden), "kwargsrepr": saferepr(kwargs, hidden=hidden)}
    headers = {**message.headers, **shown}
    if encoded.compression is not None:
        headers["compression"] = encoded.compression
    return structs.replace(
        message,
        headers=headers,
        body=encoded.body,
        content_type=encoded.content_type,
        content_encoding=encoded.content_encoding,
    )


def unborn(embed: Embed | None) -> list[str]:
    """Ids of the tasks behind a message, which ended with it and will be sent if it succeeds now."""
    return [] if embed is None else [each.id for each in abandoned(embed.chain)]


def _times(headers: Mapping[str, Any]) -> int:
    lineage = headers.get(REPLAY)
    times = lineage.get("times") if isinstance(lineage, Mapping) else 0
    return times if isinstance(times, int) else 0
