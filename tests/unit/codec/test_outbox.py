"""What goes through an outbox is what was sent."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from celeriac import Celery, chain, signature
from celeriac.client.queues import Exchange, Queue
from celeriac.codec import envelope
from celeriac.codec.outbox import chord_in, chord_parcel, message_in, message_parcel
from celeriac.codec.signing import signer_of
from celeriac.exceptions import DecodeError
from celeriac.model.chord import NewChord
from celeriac.model.message import Message
from celeriac.model.outbox import Kind, Parcel

_LIMIT = 2**31
OPTIONS: list[dict[str, Any]] = [
    {},
    {"countdown": 10, "expires": 20, "priority": 7, "queue": "other", "retries": 3},
    {"eta": datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))},
    {"headers": {"mine": {"deep": [1, None, "ü\ud800"]}}, "shadow": "shown", "time_limit": 9, "soft_time_limit": 8},
    {"headers": {"at": datetime(2030, 1, 2, tzinfo=UTC), "price": Decimal("1.5")}},
    {"serializer": "msgpack", "compression": "gzip"},
    {"link": signature("after"), "link_error": signature("failed"), "ignore_result": True},
    {"exchange": "there", "routing_key": "key.of.mine", "reply_to": "me", "task_id": "mine"},
]


@pytest.fixture(scope="module")
def app() -> Celery:
    return Celery("shop", broker="memory://codec-outbox", set_as_current=True)


def made(app: Celery, options: dict[str, Any]) -> Message:
    app.conf.task_queues = [
        Queue("celery"), Queue("other"), Queue("bound", exchange=Exchange("there"), routing_key="key.of.mine"),
    ]  # fmt: skip
    (message,) = app.sender.outgoing([app.sender.message("a.task", (1, "ü", b"\0"), {"k": [None]}, options)])
    return message


def stored(message: Message) -> Any:
    """What a broker would store, but for the delivery tag."""
    text = json.loads(envelope.encode(message))
    del text["properties"]["delivery_tag"]
    return text


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ",".join(options) or "none")
def test_messages_come_back_as_they_were(app: Celery, options: dict[str, Any]) -> None:
    message = made(app, options)
    parcel = message_parcel(message)
    assert (parcel.kind, parcel.task, parcel.task_id) == (Kind.MESSAGE, "a.task", message.id)
    back = message_in(parcel, max_bytes=_LIMIT)
    assert stored(back) == stored(message)
    assert (back.due, back.expires) == (pytest.approx(message.due), pytest.approx(message.expires))
    same: dict[str, Any] = {"headers": {}, "correlation_id": "", "routing_key": "", "due": None, "expires": None}
    assert replace(back, **same) == replace(message, **same)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ",".join(options) or "none")
def test_signatures_hold(options: dict[str, Any]) -> None:
    with Celery("shop", broker="memory://codec-outbox", signing_key="k" * 32) as app:
        signer = signer_of(app.conf)
        assert signer is not None
        back = message_in(message_parcel(made(app, options)), max_bytes=_LIMIT)
        assert signer.refusal(back) is None


def test_chains_go_along(app: Celery) -> None:
    message = made(app, {"chain": chain(signature("b"), signature("c")).tasks})
    assert message_in(message_parcel(message), max_bytes=_LIMIT).body == message.body


def test_chords_come_back_as_they_were() -> None:
    chord = NewChord(id="c", size=3, body=b'{"task": "t"}\0\xff', shape=b"[]", expires=86400.0)
    parcel = chord_parcel(chord)
    assert (parcel.kind, parcel.task_id, parcel.task, parcel.queue) == (Kind.CHORD, "c", "", "")
    assert chord_in(parcel) == chord


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff", b'{"body": 1}', b"[]"])
def test_what_is_none_is_said(body: bytes) -> None:
    parcel = Parcel(id="i", kind=Kind.MESSAGE, task_id="t", body=body)
    with pytest.raises(DecodeError):
        message_in(parcel, max_bytes=_LIMIT)
    with pytest.raises(DecodeError, match="not a chord"):
        chord_in(parcel)
