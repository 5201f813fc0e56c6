"""Conformance: result records, and waiting for them."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Sequence

import pytest

from celeriac.model.settle import StoredResult
from celeriac.ports import Reader
from celeriac.testing.conformance.harness import Harness
from celeriac.testing.conformance.tools import Background, asynchronous, child, ended

__all__ = ["Results", "record"]

_TERMINAL = frozenset({"SUCCESS", "FAILURE", "REVOKED"})


def record(task_id: str, state: str = "SUCCESS", result: object = None, expires: float | None = 60.0) -> StoredResult:
    """A record as Celery stores it."""
    body = {"status": state, "result": result, "traceback": None, "children": [], "task_id": task_id}
    return StoredResult(task_id, json.dumps(body).encode(), state in _TERMINAL, expires)


class Results:
    """``ResultStore`` and ``Reader``."""

    @asynchronous
    async def test_what_is_put_is_got(self, harness: Harness) -> None:
        store, reader = await harness.open_store(), harness.reader()
        a, b = record("a", result=[1, "ü"]), record("b", "FAILURE")
        await store.put([a, b])
        expected = [b.body, None, a.body, a.body]
        assert list(await store.get(["b", "none", "a", "a"])) == expected, (
            "get: in the order of the ids, None where none"
        )
        assert list(reader.get(["b", "none", "a", "a"], timeout=5.0)) == expected, "get: the reader sees the same"
        reader.close()

    @pytest.mark.parametrize(
        "body",
        [b"", b"\0", bytes(range(256)), b"\x80\x04\x95 pickle \xff", b"\"quoted'\\", b"x" * 5_000_000],
        ids=["empty", "nul", "every byte", "pickle", "quotes", "5 MB"],
    )
    @asynchronous
    async def test_records_are_opaque(self, harness: Harness, body: bytes) -> None:
        store = await harness.open_store()
        await store.put([StoredResult("a", body, True, 60.0)])
        assert list(await store.get(["a"])) == [body], "put: records are opaque bytes"
        await store.put([StoredResult("a", b"new", True, 60.0)])
        assert list(await store.get(["a"])) == [b"new"], "put: a terminal record replaces what was there"

    @pytest.mark.parametrize("task_id", ["x" * 300, "ü😀", "a b:c*[d]{e}", "'\"\\;--", "a/b"])
    @asynchronous
    async def test_results_of_odd_ids(self, harness: Harness, task_id: str) -> None:
        store, reader = await harness.open_store(), harness.reader()
        await store.put([record(task_id)])
        assert list(await store.get([task_id])) == [record(task_id).body], "put: any text is an id"
        assert await asyncio.to_thread(reader.wait, [task_id], timeout=5.0) == task_id, "wait: any text is an id"
        await store.forget([task_id])
        assert list(await store.get([task_id])) == [None], "forget: any text is an id"
        reader.close()

    @asynchronous
    async def test_many_results_at_once(self, harness: Harness) -> None:
        store = await harness.open_store()
        records = [record(f"id-{number}", result=number) for number in range(2000)]
        await store.put(records)
        names = [each.id for each in records]
        assert list(await store.get(names)) == [each.body for each in records], "put, get: any number in one call"
        await store.forget(names)
        assert set(await store.get(names)) == {None}, "forget: any number in one call"

    @asynchronous
    async def test_states_replace_each_other(self, harness: Harness) -> None:
        store = await harness.open_store()
        for state in ("STARTED", "PROGRESS", "RETRY", "STARTED", "FAILURE", "STARTED", "REVOKED", "RETRY", "SUCCESS"):
            await store.put([record("a", state)])
            (body,) = await store.get(["a"])
            assert body == record("a", state).body, f"put: {state} replaces what is no SUCCESS"

    @pytest.mark.parametrize("state", ["STARTED", "RETRY", "PROGRESS"])
    @asynchronous
    async def test_a_stored_success_stays(self, harness: Harness, state: str) -> None:
        store, reader = await harness.open_store(), harness.reader()
        await store.put([record("a", "SUCCESS", 1)])
        await store.put([record("a", state, 2), record("b", state)])
        reader.put([record("a", state, 3)], timeout=5.0)
        reader.close()
        expected = [record("a", "SUCCESS", 1).body, record("b", state).body]
        assert list(await store.get(["a", "b"])) == expected, "put: a lesser state never replaces a stored SUCCESS"

    @asynchronous
    async def test_a_state_within_one_call(self, harness: Harness) -> None:
        store = await harness.open_store()
        await store.put([record("a", "STARTED"), record("a", "SUCCESS", 1), record("a", "RETRY")])
        assert list(await store.get(["a"])) == [record("a", "SUCCESS", 1).body], "put: in order, SUCCESS stays"

    @asynchronous
    async def test_success_in_the_value_is_no_success(self, harness: Harness) -> None:
        store = await harness.open_store()
        await store.put([record("a", "STARTED", 'SUCCESS "status": "SUCCESS"')])
        await store.put([record("a", "RETRY")])
        assert list(await store.get(["a"])) == [record("a", "RETRY").body], "put: only a stored SUCCESS stays"

    @asynchronous
    async def test_records_expire(self, harness: Harness) -> None:
        store = await harness.open_store()
        await store.put(
            [record("short", expires=harness.lease), record("long", expires=3600.0), record("ever", expires=None)]
        )
        await store.put([record("renewed", expires=harness.lease)])
        await store.put([record("renewed", expires=3600.0)])
        assert None not in await store.get(["short", "long", "ever", "renewed"]), "expires: not before its time"
        assert await store.sweep() == 0, "sweep: drops expired records only"
        await harness.lapse(harness.lease * 1.3)
        names = ["short", "long", "ever", "renewed"]
        there = [name for name, body in zip(names, await store.get(names), strict=True) if body is not None]
        assert there == ["long", "ever", "renewed"], "expires: the life time in seconds, counted from the last write"
        assert await store.sweep() >= 0, "sweep: returns how many it dropped"
        assert await store.sweep() == 0, "sweep: drops once"
        await store.put([record("short", "STARTED")])
        assert list(await store.get(["short"])) == [record("short", "STARTED").body], "expires: gone is gone"

    @asynchronous
    async def test_forget_drops(self, harness: Harness) -> None:
        store, reader = await harness.open_store(), harness.reader()
        await store.put([record("a"), record("b"), record("c")])
        await store.forget(["a", "none"])
        reader.forget(["b", "none"], timeout=5.0)
        assert [body is None for body in await store.get(["a", "b", "c"])] == [True, True, False], (
            "forget: drops records"
        )
        await store.put([record("a", "STARTED")])
        assert list(await store.get(["a"])) == [record("a", "STARTED").body], "forget: guards nothing any more"
        reader.close()

    # -- waiting ----------------------------------------------------------------------------------------------------

    @asynchronous
    async def test_a_reader_wakes_when_a_record_is_written(self, harness: Harness) -> None:
        store, reader = await harness.open_store(), harness.reader()
        waiting = asyncio.create_task(asyncio.to_thread(_wait_for, reader, "a", 10.0))
        await asyncio.sleep(0.1)
        await store.put([record("other")])
        await store.put([record("a")])
        begin = time.monotonic()
        assert await waiting == record("a").body, "wait: blocks until a record of one of the ids is written"
        assert time.monotonic() - begin <= harness.late, "wait: wakes when the record is written"
        reader.close()

    def test_a_reader_notices_what_was_written_before(self, harness: Harness) -> None:
        reader = harness.reader()
        reader.put([record("b", "FAILURE")], timeout=5.0)
        begin = time.monotonic()
        assert reader.wait(["a", "b", "c"], timeout=10.0) == "b", "wait: notices records written before the call"
        assert time.monotonic() - begin <= harness.late, "wait: notices records written before the call, at once"
        reader.close()

    def test_a_reader_waits_no_longer(self, harness: Harness) -> None:
        reader = harness.reader()
        begin = time.monotonic()
        deadline = begin + 0.3
        while (left := deadline - time.monotonic()) > 0:
            assert reader.wait(["a", "b"], timeout=left) in {None, "a", "b"}
        assert 0.3 <= time.monotonic() - begin <= 0.3 + harness.late, "wait: None when the time is up"
        assert reader.wait(["a"], timeout=0.0) is None, "wait: no time, no wait"
        reader.close()

    def test_an_unfinished_record_does_not_wake_for_ever(self, harness: Harness) -> None:
        reader = harness.reader()
        reader.put([record("a", "STARTED")], timeout=5.0)
        deadline, wakes = time.monotonic() + 0.3, 0
        while (left := deadline - time.monotonic()) > 0:
            reader.wait(["a"], timeout=left)
            wakes += 1
        assert wakes <= 10, "wait: a record that is not terminal must not wake its caller again and again"
        reader.close()

    def test_each_state_wakes(self, harness: Harness) -> None:
        reader, writer = harness.reader(), harness.reader()
        reader.put([record("a", "STARTED")], timeout=5.0)
        for state in ("PROGRESS", "SUCCESS"):
            begin = time.monotonic()
            writing = Background(lambda state=state: _later(writer, record("a", state)))  # type: ignore[misc]
            expected = record("a", state).body
            while reader.get(["a"], timeout=5.0) != [expected] and time.monotonic() - begin < 5:
                reader.wait(["a"], timeout=5.0)
            writing.join()
            assert time.monotonic() - begin <= 0.1 + harness.late, f"wait: wakes when {state} is written"
        reader.close()
        writer.close()

    def test_many_ids_wake_one_by_one(self, harness: Harness) -> None:
        reader, writer = harness.reader(), harness.reader()
        names = [f"id-{number}" for number in range(150)]
        writing = Background(lambda: _write_each(writer, [record(name) for name in reversed(names)]))
        left = set(names)
        deadline = time.monotonic() + 15
        while left and time.monotonic() < deadline:
            woken = reader.wait(sorted(left), timeout=5.0)
            assert woken is None or woken in left, "wait: returns one of its ids"
            bodies = reader.get(sorted(left), timeout=5.0)
            left -= {name for name, body in zip(sorted(left), bodies, strict=True) if body is not None}
        writing.join()
        assert not left, "wait: many ids, none is missed"
        reader.close()
        writer.close()

    def test_a_reader_serves_many_threads(self, harness: Harness) -> None:
        reader, writer = harness.reader(), harness.reader()
        names = [f"id-{number}" for number in range(12)]
        got: dict[str, bytes | None] = {}

        def wait(name: str) -> None:
            got[name] = _wait_for(reader, name, 10.0)

        threads = [Background(lambda name=name: wait(name)) for name in names]  # type: ignore[misc]
        _later(writer, *(record(name) for name in names))
        for thread in threads:
            thread.join()
        assert got == {name: record(name).body for name in names}, "wait: safe in threads, each gets its own"
        reader.close()
        writer.close()

    def test_a_reader_survives_a_fork(self, harness: Harness) -> None:
        if not harness.between_processes:
            harness.cannot("be reached from another process")
        reader, other = harness.reader(), harness.reader()
        reader.put([record("before")], timeout=5.0)
        assert reader.wait(["before"], timeout=5.0) == "before"

        def in_child() -> None:
            assert _wait_for(reader, "answer", 8.0) == record("answer").body
            reader.put([record("echo")], timeout=5.0)

        pid = child(in_child)
        assert list(reader.get(["before"], timeout=5.0)) == [record("before").body], "a fork leaves the parent alone"
        other.put([record("answer")], timeout=5.0)
        assert _wait_for(reader, "echo", 8.0) == record("echo").body, "wait: woken from another process"
        assert ended(pid) == 0, "a reader survives a fork"
        reader.close()
        other.close()


def _wait_for(reader: Reader, task_id: str, timeout: float) -> bytes | None:
    """The record of an id, as ``.get()`` waits for it."""
    deadline = time.monotonic() + timeout
    while True:
        (body,) = reader.get([task_id], timeout=5.0)
        left = deadline - time.monotonic()
        if body is not None or left <= 0:
            return body
        reader.wait([task_id], timeout=left)


def _later(writer: Reader, *records: StoredResult) -> None:
    """Write records when those who wait are likely to wait already."""
    threading.Event().wait(0.1)
    _write_each(writer, records)


def _write_each(writer: Reader, records: Sequence[StoredResult]) -> None:
    for each in records:
        writer.put([each], timeout=5.0)
