"""STARTED records, and what tasks store of themselves while those are on their way."""

from __future__ import annotations

from typing import Any

import pytest

from celeriac import Celery
from celeriac.app.starts import Starts
from celeriac.model.settle import StoredResult


def record(body: bytes, task_id: str = "t") -> StoredResult:
    return StoredResult(task_id, body, False)


@pytest.fixture
def starts() -> Starts:
    starts = Starts()
    starts.begin(record(b"started"))
    return starts


def kept(starts: Starts) -> dict[str, Any]:
    return starts._newest


def test_what_came_first_is_not_replaced(starts: Starts) -> None:
    started = starts._newest["t"]
    other = record(b"started", "other")
    starts.begin(other)
    starts.overtake(record(b"half done"))
    assert starts.wanted([started, other]) == [other]
    assert starts.newer([other]) == []
    assert not kept(starts)


def test_what_came_meanwhile_is_written_once_more(starts: Starts) -> None:
    written = starts.wanted([starts._newest["t"]])
    half, most = record(b"half done"), record(b"mostly done")
    starts.overtake(half)
    assert (again := starts.newer(written)) == [half]
    starts.overtake(most)
    assert (again := starts.newer(again)) == [most]
    assert starts.newer(again) == []
    assert not kept(starts)


def test_who_is_written_needs_no_more_care(starts: Starts) -> None:
    assert starts.newer(starts.wanted([starts._newest["t"]])) == []
    starts.overtake(record(b"later"))
    assert not kept(starts)


def test_those_that_nobody_writes(starts: Starts) -> None:
    started = starts._newest["t"]
    starts.overtake(record(b"half done"))
    starts.forget([started])
    assert not kept(starts)


def test_what_never_began_is_written() -> None:
    assert Starts().wanted([record(b"x")]) == [record(b"x")]
    assert Starts().newer([record(b"x")]) == []


def test_the_backend_overtakes() -> None:
    app = Celery("proj", broker="memory://", backend="memory://", set_as_current=False)
    started = record(b"started")
    app.backend.starts.begin(started)
    app.backend.store_result("t", {"done": 1}, "PROGRESS")
    assert app.backend.starts.wanted([started]) == []
    assert app.backend.get_state("t") == "PROGRESS"
