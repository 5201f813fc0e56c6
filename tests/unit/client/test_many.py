"""Waiting for many records in whatever order they come, a window at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from celeriac.client import many
from celeriac.client.many import arriving, present
from celeriac.exceptions import TimeoutError  # noqa: A004 - Celery's name

CONF: Any = SimpleNamespace(
    result_serializer="json", result_accept_content=["json"], signing_key=None, max_message_bytes=1 << 20
)


def record(task_id: str, status: str = "SUCCESS", result: Any = 1) -> bytes:
    return json.dumps({"status": status, "result": result, "traceback": None, "task_id": task_id}).encode()


class Reader:
    """Answers from ``records``; each wait calls the next of ``then``, and answers what that returns."""

    def __init__(self, *ready: str) -> None:
        self.records: dict[str, bytes] = {task_id: record(task_id) for task_id in ready}
        self.then: list[Callable[[], str | None]] = []
        self.reads: list[int] = []
        self.waits: list[tuple[list[str], float | None]] = []

    def get(self, ids: Sequence[str], *, timeout: float) -> Sequence[bytes | None]:
        self.reads.append(len(ids))
        return [self.records.get(each) for each in ids]

    def wait(self, ids: Sequence[str], *, timeout: float | None) -> str | None:
        self.waits.append((list(ids), timeout))
        return self.then.pop(0)()

    def comes(self, *ids: str) -> None:
        def now() -> str:
            self.records.update({task_id: record(task_id) for task_id in ids})
            return ids[0]

        self.then.append(now)


def names(found: Any) -> list[str]:
    return [task_id for task_id, _ in found]


def test_those_that_are_there() -> None:
    reader = Reader("a", "c")
    reader.records["b"] = record("b", "STARTED")
    reader.records["d"] = record(
        "d", "FAILURE", {"exc_type": "KeyError", "exc_message": ["k"], "exc_module": "builtins"}
    )
    found = dict(present(reader, iter("abcde"), CONF))  # type: ignore[arg-type]
    assert list(found) == ["a", "c", "d"]
    assert isinstance(found["d"]["result"], KeyError)
    assert reader.waits == []


def test_many_are_read_a_window_at_a_time() -> None:
    ids = [str(n) for n in range(1000)]
    reader = Reader(*ids)
    assert names(present(reader, ids, CONF)) == ids  # type: ignore[arg-type]
    assert max(reader.reads) == many._WINDOW
    assert len(reader.reads) == 4


def test_in_the_order_in_which_they_come() -> None:
    reader = Reader("b")
    reader.comes("c")
    reader.comes("a")
    assert names(arriving(reader, ["a", "b", "c"], CONF, timeout=None)) == ["b", "c", "a"]  # type: ignore[arg-type]
    assert [ids for ids, _ in reader.waits] == [["a", "c"], ["a"]]


def test_each_once_and_nothing_for_nothing() -> None:
    reader = Reader("a", "b")
    assert names(arriving(reader, ["a", "b", "a"], CONF, timeout=None)) == ["a", "b"]  # type: ignore[arg-type]
    assert list(arriving(reader, [], CONF, timeout=0)) == []  # type: ignore[arg-type]


def test_a_wake_up_without_a_reason_and_states_that_are_no_end() -> None:
    reader = Reader()
    reader.then.append(lambda: "a")
    reader.then.append(lambda: reader.records.update(a=record("a", "RETRY")) or "a")
    reader.then.append(lambda: None)
    reader.comes("a")
    assert names(arriving(reader, ["a"], CONF, timeout=None)) == ["a"]  # type: ignore[arg-type]


def test_only_the_first_that_are_missing_are_watched() -> None:
    ids = [str(n) for n in range(many._WINDOW + 10)]
    reader = Reader(*ids[:5])
    reader.comes(*ids)
    assert sorted(names(arriving(reader, ids, CONF, timeout=None)), key=int) == ids  # type: ignore[arg-type]
    assert reader.waits[0][0] == ids[5 : many._WINDOW + 5]


def test_it_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(many.time, "monotonic", lambda: now[0])
    reader = Reader("a")
    reader.then.append(lambda: now.__setitem__(0, 103.0))
    found = arriving(reader, ["a", "b"], CONF, timeout=3.0)  # type: ignore[arg-type]
    assert next(found)[0] == "a"
    with pytest.raises(TimeoutError, match="timed out"):
        next(found)
    assert reader.waits == [(["b"], 3.0)]


def test_no_time_at_all_is_a_look() -> None:
    reader = Reader("a")
    assert names(arriving(reader, ["a"], CONF, timeout=0)) == ["a"]  # type: ignore[arg-type]
    with pytest.raises(TimeoutError):
        list(arriving(reader, ["b"], CONF, timeout=0))  # type: ignore[arg-type]


def test_what_is_called_while_nothing_comes() -> None:
    reader, called = Reader(), list[int]()
    reader.then += [lambda: None, lambda: None]
    reader.comes("a")
    found = arriving(
        reader, ["a"], CONF, timeout=None, interval=0.5, on_interval=lambda: called.append(1)  # type: ignore[arg-type]
    )  # fmt: skip
    assert names(found) == ["a"]
    assert len(called) == 2
    assert {timeout for _, timeout in reader.waits} == {0.5}


def test_an_error_of_the_store_reaches_the_caller() -> None:
    reader = Reader()

    def broken() -> str | None:
        raise OSError("gone")

    reader.then.append(broken)
    with pytest.raises(OSError, match="gone"):
        list(arriving(reader, ["a"], CONF, timeout=None))  # type: ignore[arg-type]
