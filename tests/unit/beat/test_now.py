"""An entry that is run by hand: what it says of overlapping runs counts then, too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from celeriac.beat import EntryRuns, Periodic
from celeriac.beat.state import running_key
from celeriac.model.ledger import LOCK
from celeriac.model.limits import SEAT
from tests.unit.beat.conftest import Fleet

REPORT = "tasks.report"


@pytest.fixture
def desk(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Iterator[Periodic]:
    fleet.app.conf.broker_url = fleet.url
    monkeypatch.setattr(Periodic, "_now", lambda desk: fleet.clock.time)
    made = Periodic(fleet.app)
    yield made
    made.close()


@pytest.mark.parametrize("task", [REPORT, "elsewhere.task"])
def test_skip_refuses_while_a_run_goes_on(fleet: Fleet, desk: Periodic, task: str) -> None:
    fleet.add("x", 60, overlap="skip", task=task, kwargs={"a": 1}, options={"headers": {"tenant": 7}})
    first = desk.run("x")
    assert fleet.lock(running_key("x")) == first.id.encode()
    with pytest.raises(EntryRuns, match=f"its run before has not ended .task {first.id}.*--force") as refused:
        desk.run("x")
    assert refused.value.task_id == first.id
    (message,) = fleet.sent()
    assert (message.id, message.headers["periodic_task_name"], message.headers["tenant"]) == (first.id, "x", 7)
    assert message.headers[LOCK] == {"key": running_key("x"), "for": 86400.0, "until": "end"}
    forced = desk.run("x", force=True)
    (message,) = fleet.sent()
    assert message.id == forced.id
    assert LOCK not in message.headers
    assert fleet.lock(running_key("x")) == first.id.encode(), "it is that of the first still"
    fleet.change(running_key("x"), None)  # it has ended
    assert fleet.lock(running_key("x")) is None
    assert desk.run("x").id != first.id


def test_a_slot_and_a_run_by_hand_do_not_overlap(fleet: Fleet, desk: Periodic) -> None:
    fleet.add("x", 60, overlap="skip", expires=0)
    scheduler = fleet.scheduler()
    fleet.run(60, scheduler)
    (slot,) = fleet.sent()
    with pytest.raises(EntryRuns):
        desk.run("x")
    fleet.change(running_key("x"), None)
    by_hand = desk.run("x")
    assert [message.id for message in fleet.sent()] == [by_hand.id]
    fleet.run(60, scheduler)
    assert fleet.sent() == []
    assert (fleet.state("x").count, fleet.state("x").id) == (1, slot.id), "the slot was left out"


def test_the_lock_lasts_as_long_as_the_message(fleet: Fleet, desk: Periodic) -> None:
    fleet.app.sender.now = lambda: fleet.clock.time
    fleet.add("x", 3600, overlap="skip", options={"expires": 30})
    desk.run("x")
    fleet.clock.time += 29
    assert fleet.lock(running_key("x")) is not None
    fleet.clock.time += 2
    assert fleet.lock(running_key("x")) is None


def test_queue_waits_in_the_broker(fleet: Fleet, desk: Periodic) -> None:
    fleet.add("x", 60, overlap="queue")
    for force, seat in ((False, "beat:x"), (True, None)):
        desk.run("x", force=force)
        (message,) = fleet.sent()
        assert message.headers.get(SEAT) == seat


def test_tasks_that_run_here_hold_nothing(fleet: Fleet, desk: Periodic) -> None:
    ran: list[Any] = []
    fleet.app.task(name="here")(lambda: ran.append(1))
    fleet.app.conf.task_always_eager = True
    fleet.add("x", 60, overlap="skip", task="here")
    desk.run("x")
    desk.run("x")
    assert ran == [1, 1]
    assert fleet.lock(running_key("x")) is None
