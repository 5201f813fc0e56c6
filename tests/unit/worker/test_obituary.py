"""What is stored of a task whose message was gone when its process died."""

from __future__ import annotations

import asyncio
import json
import mmap
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from celeriac import Celery
from celeriac.exceptions import OperationalError
from celeriac.model import outcome as o
from celeriac.model.settle import StoredResult
from celeriac.worker.obituary import Obituary
from celeriac.worker.runner import Runner
from celeriac.worker.slot import SLOT_SIZE, Running, Slot
from tests.unit.worker.fakes import FakeStore, delivery


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


def written(store: FakeStore | None, runner: Runner, outcome: o.Outcome) -> list[dict[str, Any]]:
    records: list[StoredResult] = []
    asyncio.run(Obituary(store, runner, records.extend).write("id-1", outcome, "mine"))
    assert all((each.id, each.terminal, each.reply_to) == ("id-1", True, "mine") for each in records)
    return [json.loads(each.body) for each in records]


@pytest.mark.parametrize(
    ("outcome", "status", "error", "text"),
    [
        (o.TimedOut(5.0), "FAILURE", "TimeLimitExceeded", "5"),
        (o.Crashed("signal 9 (SIGKILL)"), "FAILURE", "WorkerLostError", "died by signal 9 (SIGKILL)"),
        (o.Unstarted(orphaned=True), "FAILURE", "WorkerLostError", "ended for another task"),
        (o.Revoked("terminated", by="me"), "REVOKED", "TaskRevokedError", "terminated by me"),
    ],
)
@pytest.mark.parametrize("there", [None, b'{"status": "STARTED"}', b'{"status": "RETRY"}', b'{"status": "PROGRESS"}'])
def test_how_it_ended(
    store: FakeStore, runner: Runner, outcome: o.Outcome, status: str, error: str, text: str, there: bytes | None
) -> None:
    if there is not None:
        store.records["id-1"] = there
    (record,) = written(store, runner, outcome)
    assert (record["status"], record["result"]["exc_type"]) == (status, error)
    assert text in str(record["result"]["exc_message"])


@pytest.mark.parametrize("there", [b'{"status": "SUCCESS"}', b'{"status": "REVOKED"}', b'{"status": "FAILURE"}', b"?"])
def test_an_end_that_is_stored_stays(store: FakeStore, runner: Runner, there: bytes) -> None:
    store.records["id-1"] = there
    assert written(store, runner, o.Crashed("exit code 1")) == []


def test_without_a_store_there_is_nothing_to_write(runner: Runner) -> None:
    assert written(None, runner, o.Crashed("exit code 1")) == []


def test_an_outage_is_the_callers(store: FakeStore, runner: Runner) -> None:
    store.faults.away("get")
    with pytest.raises(OperationalError):
        written(store, runner, o.Crashed("exit code 1"))


@pytest.mark.parametrize(
    ("options", "early"),
    [({}, False), ({"acks_late": False}, True), ({"acks_late": False, "ignore_result": True}, False)],
)
def test_the_slot_says_whether_only_its_process_can_tell_the_end(
    app: Celery, make_runner: Callable[..., Runner], options: dict[str, bool], early: bool
) -> None:
    slot = Slot(mmap.mmap(-1, SLOT_SIZE), 0)
    seen: list[Running | None] = []
    app.task(name="look", **options)(lambda: seen.append(slot.running()))
    told = delivery("look")
    make_runner(slot=slot).run(replace(told, message=replace(told.message, reply_to="mine")))
    (running,) = seen
    assert running is not None
    assert (running.early, running.reply_to) == (early, "mine" if early else "")
