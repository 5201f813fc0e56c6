"""Envelopes: what comes from a broker becomes a message or says why it is none; it never raises."""

from __future__ import annotations

import base64
import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from celeriac.codec import envelope
from celeriac.model.message import Delivery, Malformed, Marks, Message

BODY = b'[[2,3],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'


def parts(headers: Any = None, body: bytes = BODY, **changes: Any) -> dict[str, Any]:
    headers = {"task": "t", "id": "i"} if headers is None else headers
    properties = {"body_encoding": "base64", "delivery_tag": "x", "delivery_info": {"exchange": "", "routing_key": "q"}}
    text = base64.b64encode(body).decode()
    return {"body": text, "headers": headers, "properties": properties, "content-type": "application/json", **changes}


def decode(value: Any) -> Message | Malformed:
    return envelope.decode(json.dumps(value).encode(), queue="q")


def test_the_least_that_is_a_message() -> None:
    message = decode(parts())
    assert isinstance(message, Message)
    assert (message.id, message.task, message.queue, message.body) == ("i", "t", "q", BODY)
    assert (message.due, message.expires, message.retries, message.priority) == (None, None, 0, 0)


def test_typed_fields_repeat_the_headers() -> None:
    message = decode(
        parts(
            {
                "task": "t",
                "id": "i",
                "eta": "2026-11-22T08:06:45+00:00",
                "expires": "2026-11-22T09:06:45",
                "retries": 2,
                "timelimit": [60, 50.5],
            }
        )
    )
    assert isinstance(message, Message)
    assert message.due == datetime(2026, 11, 22, 8, 6, 45, tzinfo=UTC).timestamp()
    assert message.expires == datetime(2026, 11, 22, 9, 6, 45, tzinfo=UTC).timestamp()
    assert (message.retries, message.time_limit, message.soft_time_limit) == (2, 60, 50.5)


def test_naive_times_are_in_the_given_zone() -> None:
    raw = json.dumps(parts({"task": "t", "id": "i", "eta": "2026-11-22T08:06:45"})).encode()
    message = envelope.decode(raw, queue="q", zone=ZoneInfo("Europe/Berlin"))
    assert isinstance(message, Message)
    assert message.due == datetime(2026, 11, 22, 7, 6, 45, tzinfo=UTC).timestamp()


def test_a_plain_text_body() -> None:
    value = parts()
    value["body"] = BODY.decode()
    del value["properties"]["body_encoding"]
    message = decode(value)
    assert isinstance(message, Message)
    assert message.body == BODY


def test_typed_headers_are_what_they_were_and_survive_a_restore() -> None:
    tagged = {"__type__": "uuid", "__value__": {"hex": "00000000000000000000000000000005"}}
    raw = json.dumps(parts({**dict.fromkeys(map(str, range(20))), "task": "t", "id": "i", "x": tagged})).encode()
    found = envelope.delivery(raw, token="t", queue="q")
    assert isinstance(found.message, Message)
    assert found.message.headers["x"] == UUID(int=5)
    again = envelope.delivery(envelope.remark(found, Marks(crashes=1)), token="t", queue="q")
    assert isinstance(again.message, Message)
    assert again.message.headers["x"] == UUID(int=5)
    assert again.marks.crashes == 1


@pytest.mark.parametrize("mark", ["nonsense", {"crashes": "many"}, {"\ud800": 1}, {"judged": 5}])
def test_marks_that_are_none_of_ours_are_no_marks(mark: Any) -> None:
    raw = json.dumps(parts({"id": "a", "task": "t", "celeriac": mark})).encode()
    assert envelope.delivery(raw, token="t", queue="q").marks == Marks()


def test_marks_of_no_encoding_can_be_written_again() -> None:
    raw = json.dumps(parts({"id": "a", "task": "t", "celeriac": {"judged": "\ud800"}})).encode()
    found = envelope.delivery(raw, token="t", queue="q")
    again = envelope.delivery(envelope.remark(found, Marks(crashes=1)), token="t", queue="q")
    assert again.marks == Marks(crashes=1)


@pytest.mark.parametrize("odd", [float("nan"), "\ud800", 2**80])
def test_what_only_pythons_json_reads(odd: Any) -> None:
    found = envelope.delivery(json.dumps(parts({"task": "t", "id": "i", "x": odd})).encode(), token="t", queue="q")
    assert isinstance(found.message, Message)
    assert repr(found.message.headers["x"]) == repr(odd)
    again = envelope.delivery(envelope.remark(found, Marks(crashes=1)), token="t", queue="q")
    assert again.marks == Marks(crashes=1)


@pytest.mark.parametrize(
    "headers",
    [
        {"task": "t"},
        {"id": "i", "task": ""},
        {"id": 5, "task": "t"},
        {"id": "i", "task": ["t"]},
        {"id": "\ud800", "task": "t"},
        {"id": "i", "task": "t", "eta": "tomorrow"},
        {"id": "i", "task": "t", "eta": 5},
        {"id": "i", "task": "t", "expires": []},
        {"id": "i", "task": "t", "retries": -1},
        {"id": "i", "task": "t", "retries": "many"},
        {"id": "i", "task": "t", "timelimit": 5},
        {"id": "i", "task": "t", "timelimit": ["a", "b"]},
        {"id": "i", "task": "t", "eta": "9999-12-31T23:59:59.999999-23:59"},
    ],
)
def test_wrong_headers_are_malformed(headers: Any) -> None:
    found = decode(parts(headers))
    if headers.get("eta", "").startswith("9999") if isinstance(headers.get("eta", ""), str) else False:
        return  # a time, if a far one: it only must not raise
    assert isinstance(found, Malformed)
    assert found.reason


def test_deep_headers_are_malformed() -> None:
    deep = json.loads("[" * 150 + "]" * 150)
    found = decode(parts({**dict.fromkeys(map(str, range(20))), "task": "t", "id": "i", "x": deep}))
    assert isinstance(found, Malformed)
    assert "nested deeper" in found.reason


def test_too_large_is_malformed() -> None:
    raw = json.dumps(parts(body=b"x" * 10_000)).encode()
    found = envelope.decode(raw, queue="q", max_bytes=5_000)
    assert isinstance(found, Malformed)
    assert "max_message_bytes=5000" in found.reason
    assert isinstance(envelope.decode(b"x" * 1_000_000, queue="q", max_bytes=5_000), Malformed)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=60)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "body": JUNK,
            "headers": JUNK | st.dictionaries(st.sampled_from(["task", "id", "eta", "retries", "timelimit"]), JUNK),
            "properties": JUNK | st.dictionaries(st.sampled_from(["priority", "delivery_info", "body_encoding"]), JUNK),
            "content-type": JUNK,
        },
    )
)
def test_junk_never_raises(value: Any) -> None:
    raw = json.dumps({**parts(), **value}).encode()
    found = envelope.delivery(raw, token="t", queue="q")
    assert isinstance(found.message, Message | Malformed)
    assert isinstance(envelope.remark(found, Marks(crashes=1)), bytes)


@given(st.binary())
@example(b"")
@example(b"null")
@example(b"[" * 100_000)
@example(b'{"a":' * 100_000)
@example(b"\xff\xfe\x00")
@example(json.dumps(parts()).encode()[:-20])
@example(json.dumps(parts(body=b"\x80\x04N.")).encode())
def test_bytes_never_raise(raw: bytes) -> None:
    found = envelope.decode(raw, queue="q")
    if isinstance(found, Malformed):
        assert found.raw == raw


def test_a_malformed_delivery_is_given_back_as_it_came() -> None:
    delivery = Delivery(message=Malformed(reason="x", raw=b"raw"), token="t", queue="q", raw=b"raw")
    assert envelope.remark(delivery, Marks(crashes=1)) == b"raw"


def test_ids_are_random_and_look_like_uuids() -> None:
    ids = {envelope.new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(UUID(text).version == 4 and str(UUID(text)) == text for text in ids)


def test_threads_and_forks_draw_ids_of_their_own() -> None:
    envelope.new_id()  # what was drawn with it is left
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: envelope.new_id(), range(2000)))
    assert len(set(ids)) == 2000
    reader, writer = os.pipe()
    envelope.new_id()
    pid = os.fork()
    if not pid:
        os.write(writer, "".join(envelope.new_id() for _ in range(40)).encode())
        os._exit(0)
    mine = {envelope.new_id() for _ in range(40)}
    os.waitpid(pid, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    theirs = {text[at : at + 36] for at in range(0, len(text), 36)}
    assert len(theirs) == 40
    assert not mine & theirs


def test_ids_that_were_drawn_long_ago_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    source = envelope._Random()
    drawn: list[int] = []
    monkeypatch.setattr(envelope, "time", lambda: clock[0])
    monkeypatch.setattr(envelope.os, "urandom", lambda size: drawn.append(size) or bytes(size))
    clock = [100.0]
    for _ in range(32):
        source(16)
    assert len(drawn) == 1
    source(16)
    assert len(drawn) == 2
    clock[0] += 1.0
    source(16)
    assert len(drawn) == 3
