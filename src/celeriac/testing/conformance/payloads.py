"""Conformance: payloads and names that break careless adapters, and bytes that are no messages."""

from __future__ import annotations

import json

import pytest

from celeriac.exceptions import OperationalError
from celeriac.model.message import Malformed, Marks
from celeriac.model.settle import Accept, DeadLetter, DeadReason, Release
from celeriac.testing.conformance.harness import Harness
from celeriac.testing.conformance.tools import accept, asynchronous, ids, message, messages, only, take, well_formed

__all__ = ["MALFORMED", "Payloads"]

ODD_BODIES = {
    "empty": b"",
    "nul": b"\0",
    "every byte": bytes(range(256)),
    "unicode": "ü€😀\u2028".encode(),
    "not UTF-8": b"\xff\xfe\xc3\x28",
    "quotes": b"\"'\\\n\r\t]]>--;%s{0}$1 KEYS[1]",
}
ODD_IDS = {
    "long": "x" * 300,
    "unicode": "ü€😀",
    "spaces": "  a b\tc ",
    "controls": "a\nb\r\x1b[31m\x7f",
    "quotes": "'\"\\; DROP TABLE x; --",
    "globs": "*[a]?{b}:c",
}
ODD_QUEUES = {
    "long": "q" * 400,
    "globs": "a*[b]?{c}",
    "separators": "a:b/c.d,e|f",
    "controls": "a\x06b\x01",
    "spaces": " a b ",
    "quotes": "a\"b'c\\d`",
    "unicode": "Schlänge-队列-😀",
    "percent": "%s %(x)s {0}",
}
_ENVELOPE = {
    "body": "W10=",
    "content-encoding": "utf-8",
    "content-type": "application/json",
    "headers": {"task": "t", "id": "i"},
    "properties": {"delivery_info": {"exchange": "", "routing_key": "q"}, "body_encoding": "base64"},
}


def _envelope(**changes: object) -> bytes:
    return json.dumps({**_ENVELOPE, **changes}).encode()


#: Bytes that no producer may send and every worker may meet.
MALFORMED = {
    "empty": b"",
    "spaces": b"   ",
    "text": b"hello",
    "truncated": _envelope()[:-20],
    "trailing": _envelope() + b"}",
    "invalid UTF-8": b'{"body": "\xff\xfe"}',
    "binary": bytes(range(256)),
    "null": b"null",
    "number": b"17",
    "list": b"[1, 2]",
    "string": b'"text"',
    "empty object": b"{}",
    "no headers": json.dumps({key: value for key, value in _ENVELOPE.items() if key != "headers"}).encode(),
    "null headers": _envelope(headers=None),
    "list headers": _envelope(headers=[1]),
    "no id": _envelope(headers={"task": "t"}),
    "empty id": _envelope(headers={"task": "t", "id": ""}),
    "numeric id": _envelope(headers={"task": "t", "id": 5}),
    "object id": _envelope(headers={"task": "t", "id": {"a": 1}}),
    "null task": _envelope(headers={"task": None, "id": "i"}),
    "list task": _envelope(headers={"task": ["t"], "id": "i"}),
    "bad eta": _envelope(headers={"task": "t", "id": "i", "eta": "tomorrow"}),
    "numeric eta": _envelope(headers={"task": "t", "id": "i", "eta": 5}),
    "bad limits": _envelope(headers={"task": "t", "id": "i", "timelimit": "soon"}),
    "bad retries": _envelope(headers={"task": "t", "id": "i", "retries": "many"}),
    "numeric body": _envelope(body=5),
    "null body": _envelope(body=None),
    "bad base64": _envelope(body="W"),
    "null properties": _envelope(properties=None),
    "list properties": _envelope(properties=[]),
    "text priority": _envelope(properties={"priority": "high", "body_encoding": "base64"}),
    "nested lists": b"[" * 200 + b"]" * 200,
    "nested without end": b"[" * 100_000,
    "nested objects": b'{"a":' * 200 + b"1" + b"}" * 200,
}


class Payloads:
    """Anything goes through unchanged, and nothing raises in ``claim``."""

    @pytest.mark.parametrize("body", ODD_BODIES.values(), ids=ODD_BODIES)
    @asynchronous
    async def test_odd_bodies(self, harness: Harness, body: bytes) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        sent = message("a", body=body, content_type="application/x-odd", content_encoding="binary")
        publisher.publish([sent], timeout=5.0)
        publisher.close()
        delivery = await only(broker)
        got = well_formed(delivery)
        assert (got.body, got.content_type, got.content_encoding) == (body, "application/x-odd", "binary"), (
            "claim: the body's bytes as they were published"
        )
        await broker.settle([Release(delivery, marks=Marks(crashes=1))])
        assert well_formed(await only(broker)).body == body, "release: the body's bytes stay"

    @pytest.mark.parametrize("task_id", ODD_IDS.values(), ids=ODD_IDS)
    @asynchronous
    async def test_odd_ids(self, harness: Harness, task_id: str) -> None:
        broker = await harness.open_broker()
        await broker.publish([message(task_id, task=task_id, headers={task_id: task_id})])
        delivery = await only(broker)
        got = well_formed(delivery)
        assert (got.id, got.task, got.headers[task_id]) == (task_id, task_id, task_id), "claim: texts as published"
        await broker.settle([DeadLetter(delivery=delivery, reason=DeadReason.FAILED)])
        assert [each.id for each in await broker.dead()] == [task_id], "dead: texts as published"

    @pytest.mark.parametrize("queue", ODD_QUEUES.values(), ids=ODD_QUEUES)
    @asynchronous
    async def test_odd_queue_names(self, harness: Harness, queue: str) -> None:
        broker = await harness.open_broker()
        await broker.declare([queue])
        await broker.publish([message("a", queue), message("b", queue, priority=9), message("c", "plain")])
        await broker.publish([message("d", queue, due=harness.now() + 1000)])
        taken = await take(broker, queue)
        assert [(each.message.id, each.queue) for each in taken] == [("a", queue), ("b", queue)], (
            "claim: any queue name"
        )
        await broker.settle([Release(taken[0]), DeadLetter(delivery=taken[1], reason=DeadReason.FAILED)])
        depth = (await broker.depth([queue]))[queue]
        assert (depth.ready, depth.scheduled, depth.leased, depth.dead) == (1, 1, 0, 1), "depth: any queue name"
        assert [each.id for each in await broker.dead(queue=queue)] == ["b"], "dead: any queue name"
        assert await broker.purge(queue) == 2, "purge: any queue name"
        assert ids(await take(broker, "plain")) == ["c"], "purge: of one queue"

    @asynchronous
    async def test_queue_names_that_are_alike(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        names = ["q", "Q", "q ", "q0", "q:", "q*", "q\x06", "{q}", "q/9", "q.q", "qq"]
        await broker.publish([message(f"in {name!r}", name, priority=9) for name in names])
        assert await broker.purge("q*") == 1, "purge: a name is no pattern"
        for name in names:
            expected = [] if name == "q*" else [f"in {name!r}"]
            assert ids(await take(broker, name)) == expected, "claim: each queue on its own"

    @asynchronous
    async def test_a_huge_payload(self, harness: Harness) -> None:
        broker, publisher = await harness.open_broker(), harness.publisher()
        body = bytes(range(256)) * (20 * 1024 * 4)
        publisher.publish([message("a", body=body), message("b")], timeout=20.0)
        publisher.close()
        taken = await take(broker)
        assert ids(taken) == ["a", "b"], "claim: 20 MB and its neighbour"
        assert well_formed(taken[0]).body == body, "claim: 20 MB unchanged"
        await broker.settle([Release(taken[0])])
        await accept(broker, [await only(broker), taken[1]])

    @asynchronous
    async def test_what_is_too_large_is_malformed(self, harness: Harness) -> None:
        broker = await harness.open_broker(max_message_bytes=1000)
        await broker.publish([message("a", body=b"x" * 2000), message("b")])
        big, small = await take(broker)
        assert isinstance(big.message, Malformed), "claim: more than max_message_bytes is Malformed"
        assert small.message.id == "b", "claim: a bad message costs itself only"

    @pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
    @asynchronous
    async def test_malformed_bytes(self, harness: Harness, raw: bytes) -> None:
        broker = await harness.open_broker()
        await broker.publish([message("before")])
        await harness.inject("q", raw)
        await broker.publish([message("after")])
        before, bad, after = await take(broker)
        assert (before.message.id, after.message.id) == ("before", "after"), "claim: a bad message costs itself only"
        assert isinstance(bad.message, Malformed), f"claim: never raises, returns Malformed: {bad.message}"
        assert (bad.message.raw, bad.raw) == (raw, raw), "claim: Malformed has the bytes as they were stored"
        assert bad.message.reason, "claim: Malformed says why"
        assert list(await broker.extend([bad])) == [], "extend: a malformed one is held like any other"
        letter = DeadLetter(delivery=bad, reason=DeadReason.MALFORMED, detail=bad.message.reason)
        assert not await broker.settle([Accept(before), letter, Accept(after)]), "settle: a malformed one ends too"
        (record,) = await broker.dead()
        assert (record.raw, record.reason) == (raw, "malformed"), "dead: the bytes as they were stored"

    @asynchronous
    async def test_malformed_bytes_go_back_unchanged(self, harness: Harness) -> None:
        holder = await harness.open_broker(lease=harness.lease, owner="holder")
        other = await harness.open_broker()
        bad = list(MALFORMED.values())
        for raw in bad:
            await harness.inject("q", raw)
        taken = await take(holder)
        await holder.settle([Release(each, marks=Marks(crashes=1)) for each in taken])
        again = await take(holder)
        assert [each.raw for each in again] == bad, "release: malformed bytes go back unchanged"
        orphans = [each.message for each in await other.orphans("holder")]
        assert [type(each) for each in orphans] == [Malformed] * len(bad), "orphans: never raises on a malformed one"
        await harness.lapse(harness.lease * 1.2)
        await other.maintain()
        restored = sorted(each.raw for each in await take(other))
        assert restored == sorted(bad), "maintain: malformed bytes are restored unchanged"

    @asynchronous
    async def test_foreign_headers_and_extras_are_no_harm(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        deep: object = 1
        for _ in range(100):
            deep = [deep]
        headers = {"task": "t", "id": "i", "celeriac": "not ours", "redelivered": "yes", "x": deep}
        await harness.inject("q", _envelope(headers=headers, extra={"a": 1}))
        await harness.inject("q", _envelope(headers={"task": "t", "id": "i2"}, properties={}))
        first, second = await take(broker)
        assert (first.message.id, first.marks) == ("i", Marks()), "claim: foreign marks are none"
        assert second.message.id == "i2", "claim: task and id are enough"

    @asynchronous
    async def test_a_claim_from_a_spoilt_queue_takes_nothing_from_others(self, harness: Harness) -> None:
        broker = await harness.open_broker()
        await broker.publish(messages("a", "b"))
        await harness.spoil("bad")
        try:
            got = ids(await broker.claim(["q", "bad"], limit=5, wait=0.0))
        except OperationalError:
            got = []
        await harness.heal("bad")
        assert [*got, *ids(await take(broker))] == ["a", "b"], "claim: an error takes nothing"

    @asynchronous
    async def test_a_publish_to_a_spoilt_queue_publishes_nothing(self, harness: Harness) -> None:
        harness.needs_one_server()
        broker, publisher = await harness.open_broker(), harness.publisher()
        await harness.spoil("bad")
        with pytest.raises(OperationalError):
            publisher.publish([message("a"), message("b", "bad"), message("c")], timeout=5.0)
        await harness.heal("bad")
        assert await take(broker, "q", "bad") == [], "publish: all or none"
        publisher.publish([message("d")], timeout=5.0)
        publisher.close()
        assert ids(await take(broker)) == ["d"], "publish: works again"

    @asynchronous
    async def test_a_release_to_a_spoilt_queue_loses_nothing(self, harness: Harness) -> None:
        broker = await harness.open_broker(lease=harness.lease)
        await broker.publish([message("a", "bad"), message("b", "good")])
        taken = await take(broker, "bad", "good")
        await harness.spoil("bad")
        try:
            await broker.settle([Release(each) for each in taken])
        except OperationalError:
            pass
        try:
            await harness.lapse(harness.lease * 1.2)
            await broker.maintain()
        except OperationalError:
            pass
        await harness.heal("bad")
        await harness.lapse(harness.lease * 1.2)
        await broker.maintain()
        got = sorted(ids(await take(broker, "bad", "good")))
        assert got == ["a", "b"], "settle, maintain: an error half-way loses nothing and doubles nothing"
