"""Reply queues without a server: the mailbox of those who wait, and records as messages."""

from __future__ import annotations

import json
import logging
import threading

import pytest

from celeriac.brokers.rabbitmq.fields import decode_header
from celeriac.brokers.rabbitmq.frames import Event, Parser
from celeriac.brokers.rabbitmq.mailbox import Mailbox
from celeriac.brokers.rabbitmq.reply_reader import ReplyReader, state_of
from celeriac.brokers.rabbitmq.replying import addressee, declaring_replies, letter_of
from celeriac.codec.results import encode_result
from celeriac.model.settle import StoredResult
from celeriac.ports import AdapterOptions, ReplyQueue


def test_a_record_is_kept_until_it_is_forgotten() -> None:
    box = Mailbox(None)
    box.take("a", b"1", True, True)
    assert box.get(["a", "b"]) == [b"1", None]
    box.forget(["a", "b"])
    assert box.get(["a"]) == [None]


def test_a_success_is_not_replaced_by_less() -> None:
    box = Mailbox(None)
    box.take("a", b"failed", True, False)
    box.take("a", b"retry", False, False)
    assert box.get(["a"]) == [b"retry"]
    box.take("a", b"done", True, True)
    box.take("a", b"started", False, False)
    assert box.get(["a"]) == [b"done"]


def test_what_wakes() -> None:
    box = Mailbox(None)
    box.take("final", b"", True, True)
    box.take("started", b"", False, False)
    there = box.enter(["x", "final"])
    assert there.wait(0) == "final"
    box.leave(there)
    waiter = box.enter(["started", "b", "b"])
    assert waiter.wait(0) is None
    box.take("c", b"", True, True)
    assert waiter.wait(0) is None
    thread = threading.Thread(target=box.take, args=("b", b"", False, False))
    thread.start()
    assert waiter.wait(10) == "b"
    thread.join()
    box.leave(waiter)
    assert not box._waiting


def test_what_was_read_goes_first(caplog: pytest.LogCaptureFixture) -> None:
    box = Mailbox(None, most_read=2, most_bytes=10 * 501)
    with caplog.at_level(logging.WARNING):
        for name in "abcdefghij":
            box.take(name, b"x", True, True)
        assert box.get("gehf") == [b"x"] * 4
        box.take("k", b"x", True, True)
        assert box.get("ge") == [None, None]
        assert box.get("hf") == [b"x"] * 2
        for name in "lm":
            box.take(name, b"x", True, True)
        assert box.get("hf") == [None, b"x"]
        box.take("n", b"x", True, True)
        assert box.get("f") == [None]
        assert not caplog.records
        assert box.get("abcdij") == [b"x"] * 6


def test_the_oldest_go_when_nobody_asks(caplog: pytest.LogCaptureFixture) -> None:
    box = Mailbox(None, most_bytes=3 * 501)
    with caplog.at_level(logging.WARNING):
        for name in "abcde":
            box.take(name, b"x", True, True)
    assert box.get("abcde") == [None, None, b"x", b"x", b"x"]
    assert len([each for each in caplog.records if "ignore_result" in each.getMessage()]) == 1
    box.take("huge", b"x" * 10_000, True, True)
    assert box.get(["huge", "e"]) == [b"x" * 10_000, None]


def test_what_has_expired_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("celeriac.brokers.rabbitmq.mailbox.monotonic", lambda: now)
    box = Mailbox(10.0)
    box.take("a", b"1", True, True)
    now = 109.0
    assert box.get(["a"]) == [b"1"]
    now = 111.0
    assert box.get(["a"]) == [None]
    box.take("b", b"2", True, True)
    assert list(box._new) == ["b"]
    assert not box._read


@pytest.mark.parametrize("state", ["SUCCESS", "FAILURE", "REVOKED", "STARTED", "RETRY", "PROGRESS"])
@pytest.mark.parametrize("serializer", ["json", "msgpack", "pickle"])
def test_the_state_of_a_record(state: str, serializer: str) -> None:
    record = encode_result(task_id="a", state=state, result=None, serializer=serializer)
    final = state in {"SUCCESS", "FAILURE", "REVOKED"}
    assert state_of(record) == (state.encode() if final else b"")


def test_a_value_is_no_state() -> None:
    record = encode_result(task_id="a", state="PROGRESS", result="SUCCESS")
    assert state_of(record) == b""
    assert state_of(json.dumps({"status": "SUCCESS", "result": "FAILURE"}).encode()) == b"SUCCESS"


def _came(result: StoredResult, replies: ReplyQueue) -> Event:
    frames = letter_of(result, replies).frames(131072)
    # What was published comes in as a delivery: only the method differs.
    deliver = Parser().feed(frames.replace(b"\x00\x3c\x00\x28", b"\x00\x3c\x00\x3c", 1))
    return deliver[0]


def test_a_record_on_the_wire() -> None:
    replies = ReplyQueue(name="q", persistent=False)
    event = _came(StoredResult("task", b'{"status": "SUCCESS"}', True, 60.0, "q"), replies)
    properties = decode_header(event.header)
    assert (properties.content_type, properties.content_encoding) == ("application/json", "utf-8")
    assert (properties.delivery_mode, properties.correlation_id) == (1, "task")
    assert addressee(event) == "task"
    letter = letter_of(StoredResult("task", b"{}", True, 60.0, "q"), ReplyQueue(persistent=True))
    assert (letter.exchange, letter.key, letter.queue, letter.mandatory) == ("", "q", "", False)
    assert decode_header(letter.header).delivery_mode == 2
    assert b"60000" in letter.header


def test_an_id_that_is_too_long_for_a_property() -> None:
    long = "ü" * 200
    body = json.dumps({"status": "SUCCESS", "task_id": long}).encode()
    assert addressee(_came(StoredResult(long, body, True, None, "q"), ReplyQueue())) == long


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"{}", b'{"task_id": null}', b"[" * 10_000])
def test_what_is_nobodys(body: bytes) -> None:
    assert addressee(Event(1, 0, b"", letter_of(StoredResult("", body, True), ReplyQueue()).header, body)) == ""
    assert addressee(Event(1, 0, b"", b"\x00", body)) == ""


@pytest.mark.parametrize(
    ("expires", "arguments"), [(None, {}), (0.5, {"x-expires": 500}), (1e9, {"x-expires": 2**32 - 1})]
)
def test_the_queue_as_it_is_declared(expires: float | None, arguments: dict[str, int]) -> None:
    (ask,) = declaring_replies(ReplyQueue(name="q", expires=expires))
    assert ask[2:] == ("q", False, True, False, False, False, arguments)


def test_the_server_hears_of_a_reader_whatever_it_says_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    now, closing = [0.0], threading.Event()
    monkeypatch.setattr("celeriac.brokers.rabbitmq.reply_reader.monotonic", lambda: now[0])
    sent: list[float] = []

    class Connection:
        heartbeat, cancelled, delivered = 10, False, ()

        def hear(self, deadline: float) -> None:
            """The server's own heartbeats come in time."""
            now[0] += min(4.9, deadline - now[0])
            if now[0] > 60:
                closing.set()

        def send(self, data: bytes, deadline: float) -> None:
            sent.append(now[0])

    reader = ReplyReader(AdapterOptions(alternates=["amqp://somewhere//"]))
    reader._listen(Connection(), closing)  # type: ignore[arg-type]
    assert max(later - former for former, later in zip([0.0, *sent], [*sent, 60.0], strict=True)) <= 10.0
