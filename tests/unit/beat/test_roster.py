"""Entries that leave the settings and come back, and edits that schedulers hear of at different times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from celeriac.beat import Entry
from celeriac.beat.roster import BRIEF, EVERY
from celeriac.beat.scheduler import SharedScheduler
from celeriac.beat.state import PAUSED
from celeriac.beat.track import MARGIN
from celeriac.beat.written import Written
from tests.unit.beat.conftest import START, Fleet, Port, away

DAY = 86400.0
LOOK = 300.0


def slots(fleet: Fleet, name: str = "x") -> list[float]:
    """Seconds since the start."""
    found = [message for message in fleet.sent() if message.headers["periodic_task_name"] == name]
    times = [datetime.fromisoformat(message.headers["periodic_slot"]) for message in found]
    return sorted((each - START).total_seconds() for each in times)


def rare(fleet: Fleet) -> SharedScheduler:
    """A scheduler that looks at its settings every five minutes, so that days pass quickly."""
    return fleet.scheduler(book=Written(fleet.app, every=LOOK))


def without(fleet: Fleet, name: str = "x") -> None:
    given = dict(fleet.app.conf.beat_schedule)
    del given[name]
    fleet.app.conf.beat_schedule = given


@pytest.mark.parametrize("restarted", [True, False])
def test_what_comes_back_months_later_counts_from_then(fleet: Fleet, restarted: bool) -> None:
    fleet.add("other", DAY)
    fleet.add("x", 3600, catch_up="all")
    scheduler = rare(fleet)
    fleet.run(3700, scheduler)
    assert slots(fleet) == [3600]
    without(fleet)
    scheduler = rare(fleet) if restarted else scheduler
    fleet.run(3 * DAY, scheduler)
    fleet.sent()
    fleet.add("x", 3600, catch_up="all")
    scheduler = rare(fleet) if restarted else scheduler
    began = fleet.clock.time - START.timestamp()
    fleet.run(3600 + LOOK + 10, scheduler)
    first = fleet.state("x").slot
    assert slots(fleet) == [(first - START).total_seconds()], "one, not three days of them"
    assert began + 3600 <= (first - START).total_seconds() <= began + 3600 + LOOK
    fleet.run(3600, rare(fleet))
    assert fleet.state("x").slot == first + timedelta(seconds=3600), "from then on it is counted as any"


def test_two_that_start_with_it_count_from_the_same_moment(fleet: Fleet) -> None:
    fleet.add("x", 3600)
    fleet.run(10, rare(fleet))
    without(fleet)
    fleet.run(DAY, rare(fleet))
    fleet.add("x", 3600)
    rare(fleet).tick()
    counted = fleet.state("x").slot
    fleet.clock.time += 600
    rare(fleet).tick()
    assert fleet.state("x").slot == counted


def test_a_fleet_that_was_down_for_months_catches_up(fleet: Fleet) -> None:
    fleet.add("x", 3600, catch_up="all")
    fleet.run(3700, rare(fleet))
    assert slots(fleet) == [3600]
    fleet.clock.time += DAY
    fleet.run(1, rare(fleet))
    assert len(slots(fleet)) == 24


def test_what_was_away_for_a_moment_was_never_away(fleet: Fleet) -> None:
    """Settings that are complete only some time after the start."""
    fleet.add("x", 3600, catch_up="all")
    fleet.run(3700, rare(fleet))
    fleet.clock.time += DAY
    fleet.sent()
    whole = fleet.app.conf.beat_schedule
    fleet.app.conf.beat_schedule = {}
    scheduler = rare(fleet)
    fleet.run(BRIEF / 2, scheduler)
    fleet.app.conf.beat_schedule = whole
    fleet.run(LOOK + 20, scheduler)
    assert len(slots(fleet)) > 20


def test_two_fleets_of_one_name_leave_each_other_alone(fleet: Fleet) -> None:
    fleet.add("x", 2 * DAY)
    ours = dict(fleet.app.conf.beat_schedule)
    theirs = {"y": {"task": "tasks.report", "schedule": 2 * DAY}}
    schedulers: dict[str, Any] = {}
    for day in range(6):  # both are deployed each day
        for name, given in (("ours", ours), ("theirs", theirs)):
            fleet.app.conf.beat_schedule = given
            schedulers[name] = fleet.scheduler(book=_Still(fleet))
            schedulers[name].tick()
        fleet.run(DAY, *schedulers.values())
        assert day < 1 or fleet.state("x").count == fleet.state("y").count == (day + 1) // 2


class _Still:
    """The settings as they are now."""

    every = LOOK

    def __init__(self, fleet: Fleet) -> None:
        given = fleet.app.conf.beat_schedule
        self._entries = {name: Entry.from_settings(name, each, fleet.app) for name, each in given.items()}

    def entries(self) -> tuple[int, dict[str, Entry]]:
        return 1, self._entries

    def changed(self, epoch: int) -> bool:
        return False


def test_a_note_costs_nothing_most_of_the_time_and_harms_nothing_when_it_fails(fleet: Fleet) -> None:
    fleet.add("x", 60)
    scheduler = fleet.scheduler()
    ledger: Any = scheduler._roster._ledger
    scheduler._roster._ledger = port = Port(ledger, "roster")  # type: ignore[assignment]
    fleet.run(EVERY - 60, scheduler)
    assert port.calls == ["read", "read", "change"]
    port.fails["read"] = away()
    fleet.run(EVERY, scheduler)
    assert port.calls.count("read") == 3
    assert len(slots(fleet)) == (2 * EVERY - 60) / 60


# -- edits


class Told:
    """A book whose scheduler hears of an edit when the test says so."""

    every = 1.0

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.epoch = 0

    def entries(self) -> tuple[int, dict[str, Entry]]:
        return self.epoch, {"x": self.entry}

    def changed(self, epoch: int) -> bool:
        return epoch != self.epoch

    def hears(self, entry: Entry) -> None:
        self.entry, self.epoch = entry, self.epoch + 1


def edits(fleet: Fleet) -> tuple[Entry, Entry, Entry]:
    """As it was added, paused after 100 seconds, and resumed after 200."""
    added = Entry.of("x", {"task": "tasks.report", "schedule": 10}, fleet.app, stored=True)
    at = [START, START + timedelta(seconds=100), START + timedelta(seconds=200)]
    made = [replace(added, since=since.astimezone(UTC)) for since in at]
    return made[0], replace(made[1], enabled=False), made[2]


def test_who_hears_late_of_a_pause_does_not_undo_what_came_after_it(fleet: Fleet) -> None:
    added, paused, resumed = edits(fleet)
    quick = Told(added)
    first = fleet.scheduler(book=quick)
    fleet.run(100, first)
    quick.hears(paused)
    fleet.run(100, first)
    assert fleet.state("x").fingerprint == PAUSED
    quick.hears(resumed)
    fleet.run(25, first)
    before = fleet.state("x")
    slow = Told(paused)  # it has read the pages before that, and gets to their states only now
    second = fleet.scheduler(book=slow)
    fleet.run(1, second)
    assert fleet.state("x") == before
    slow.hears(resumed)
    fleet.run(74, first, second)
    assert slots(fleet) == [*range(10, 101, 10), *range(210, 301, 10)], "each once, none left out"


def test_who_hears_late_of_being_resumed_does_not_undo_a_pause(fleet: Fleet) -> None:
    added, paused, _ = edits(fleet)
    first, second = fleet.scheduler(book=Told(paused)), fleet.scheduler(book=Told(added))
    fleet.clock.time += 100
    first.tick()
    assert fleet.state("x").fingerprint == PAUSED
    second.tick()
    assert fleet.state("x").fingerprint == PAUSED
    fleet.run(30, second)
    assert slots(fleet) == []


def test_a_clock_that_was_set_back_holds_nobody_up_for_long(fleet: Fleet) -> None:
    """Another server's, after a failover: the later edit has the earlier time."""
    _, paused, resumed = edits(fleet)
    fleet.clock.time += 200
    fleet.scheduler(book=Told(replace(paused, since=resumed.since))).tick()
    scheduler = fleet.scheduler(book=Told(replace(resumed, since=paused.since)))
    fleet.run(2 * MARGIN.total_seconds(), scheduler)
    assert len(slots(fleet)) >= 5
