"""Entries of the store: how they meet those of the settings, and what schedulers make of edits."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from celeriac.beat import Entry, EntryNotFound, EntryRefused, Periodic
from celeriac.beat.pages import KEYS, Pages, Record, page_of, records_of
from celeriac.beat.seen import Seen, read_seen, write_seen
from celeriac.beat.stored import LOOK, Stored
from celeriac.beat.unknown import Unknown
from celeriac.exceptions import ImproperlyConfigured, OperationalError
from celeriac.model.ledger import Change
from celeriac.schedules import BaseSchedule, schedule
from tests.unit.beat.conftest import START, Fleet

REPORT = "tasks.report"


class Own(BaseSchedule):
    """Of the program alone."""


@pytest.fixture
def desk(fleet: Fleet) -> Iterator[Periodic]:
    fleet.app.conf.broker_url = fleet.url
    made = Periodic(fleet.app)
    yield made
    made.close()


def ledger_of(fleet: Fleet) -> Any:
    return fleet._memory.ledger(fleet.url, fleet.options)


def names(desk: Periodic) -> list[str]:
    return [each.entry.name for each in desk.list()]


class TestDesk:
    def test_added_changed_paused_resumed_deleted(self, fleet: Fleet, desk: Periodic) -> None:
        fleet.add("written", 60)
        shown = desk.add("mine", task=REPORT, schedule={"every": 5}, args=[1], overlap="skip")
        assert (shown.entry.args, shown.entry.stored, shown.entry.overlap) == ((1,), True, "skip")
        assert names(desk) == ["mine", "written"]
        assert desk.change("mine", args=[2], overlap=None).entry.args == (2,)
        assert desk.show("mine").entry.overlap == "allow"
        assert not desk.pause("mine").entry.enabled
        assert desk.show("mine").next_run is None
        assert desk.resume("mine").entry.enabled
        desk.delete("mine")
        assert names(desk) == ["written"]

    def test_those_of_the_settings_can_be_paused_and_nothing_else(self, fleet: Fleet, desk: Periodic) -> None:
        fleet.add("written", 60)
        assert not desk.pause("written").entry.enabled
        assert desk.resume("written").entry.enabled
        for refused in (lambda: desk.add("written", task=REPORT, schedule=1), lambda: desk.change("written", args=[1])):
            with pytest.raises(EntryRefused, match="beat_schedule has it"):
                refused()
        with pytest.raises(EntryRefused, match="take it out there"):
            desk.delete("written")

    def test_one_that_cannot_say_when_it_is_due_is_shown(self, fleet: Fleet, desk: Periodic) -> None:
        class Failing(schedule):
            def next_after(self, moment: datetime) -> datetime:
                raise RuntimeError("the user's own")

        fleet.add("bad", Failing(1))
        fleet.add("good", 1)
        assert [(each.entry.name, each.next_run is None) for each in desk.list()] == [("bad", True), ("good", False)]

    def test_what_is_not_there(self, desk: Periodic) -> None:
        for call in (desk.show, desk.pause, desk.resume, desk.delete, desk.run, desk.change):
            with pytest.raises(EntryNotFound, match="'nothing'"):
                call("nothing")  # type: ignore[operator]

    @pytest.mark.parametrize(
        ("keys", "why"),
        [
            ({"task": REPORT, "schedule": {"crontab": "99 * * * *"}}, "minute: 99"),
            ({"task": REPORT, "schedule": 1, "overlaps": "skip"}, "'overlaps' is not known"),
            ({"task": REPORT, "schedule": {"at": "tomorrow"}}, "'tomorrow' is not a time such as '2030-"),
            ({"task": REPORT, "schedule": {"at": "2020-01-01"}}, "is never due"),
            ({"task": REPORT, "schedule": Own()}, "cannot be stored"),
            ({"task": REPORT, "schedule": 1, "options": {"task_id": "x"}}, "'task_id' cannot be given"),
            ({"schedule": 1}, "task is missing"),
        ],
    )
    def test_what_cannot_be(self, desk: Periodic, keys: dict[str, Any], why: str) -> None:
        with pytest.raises(EntryRefused, match=why):
            desk.add("x", **keys)
        assert names(desk) == []

    def test_a_name_is_taken_once(self, desk: Periodic) -> None:
        desk.add("x", task=REPORT, schedule=1)
        with pytest.raises(EntryRefused, match="already"):
            desk.add("x", task=REPORT, schedule=2)

    def test_run_sends_now_and_leaves_the_slots(self, fleet: Fleet, desk: Periodic) -> None:
        desk.add("x", task=REPORT, schedule=3600, args=[7], enabled=False)
        result = desk.run("x")
        (message,) = fleet.sent()
        assert (message.id, message.headers["periodic_task_name"]) == (result.id, "x")
        assert desk.show("x").count == 0


class TestSince:
    """What was due before an entry was added, resumed or got its schedule is none of its; all after it is."""

    def scheduler(self, fleet: Fleet) -> Any:
        """One that looks at the store at each look."""
        return fleet.scheduler(book=Stored(fleet.app, ledger_of(fleet), fleet.clock.now))

    @pytest.fixture(autouse=True)
    def the_same_clock(self, fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Periodic, "_now", lambda desk: fleet.clock.time)

    def slots(self, fleet: Fleet) -> list[float]:
        begin = START.timestamp()
        found = [datetime.fromisoformat(m.headers["periodic_slot"]).timestamp() - begin for m in fleet.sent()]
        return sorted(found)

    def test_added_again(self, fleet: Fleet, desk: Periodic) -> None:
        scheduler = self.scheduler(fleet)
        desk.add("x", task=REPORT, schedule=60)
        fleet.run(130, scheduler)
        desk.delete("x")
        fleet.run(3600, scheduler)
        assert self.slots(fleet) == [60, 120]
        desk.add("x", task=REPORT, schedule=60)
        assert desk.show("x").next_run == START + timedelta(seconds=3730 + 60)
        fleet.run(70, scheduler, self.scheduler(fleet))
        assert self.slots(fleet) == [3790]

    def test_deleted_and_added_between_two_looks(self, fleet: Fleet, desk: Periodic) -> None:
        scheduler = self.scheduler(fleet)
        desk.add("x", task=REPORT, schedule=60)
        fleet.run(90, scheduler)
        desk.delete("x")
        desk.add("x", task=REPORT, schedule=60)
        fleet.run(70, scheduler)
        assert self.slots(fleet) == [60, 150]

    def test_paused_and_resumed_while_no_scheduler_runs(self, fleet: Fleet, desk: Periodic) -> None:
        fleet.add("x", 60)
        scheduler = self.scheduler(fleet)
        scheduler.tick()
        fleet.run(60, scheduler)
        desk.pause("x")
        fleet.clock.time += 3600
        desk.resume("x")
        assert not desk.show("x").overdue
        fleet.run(30, scheduler)
        assert self.slots(fleet) == [60]
        desk.resume("x")  # it goes on already: nothing begins anew
        fleet.run(40, scheduler)
        assert self.slots(fleet) == [3720]

    def test_once_at_a_time_at_which_no_scheduler_runs(self, fleet: Fleet, desk: Periodic) -> None:
        desk.add("x", task=REPORT, schedule={"at": (START + timedelta(seconds=60)).isoformat()})
        fleet.clock.time += 300
        assert desk.show("x").overdue
        fleet.run(10, self.scheduler(fleet), self.scheduler(fleet))
        assert self.slots(fleet) == [60]
        shown = desk.show("x")
        assert (shown.next_run, shown.overdue, shown.count) == (None, False, 1)

    def test_once_that_is_over_is_not_overdue(self, fleet: Fleet, desk: Periodic) -> None:
        desk.add("x", task=REPORT, schedule={"at": (START + timedelta(seconds=60)).isoformat()}, catch_up="none")
        fleet.clock.time += 300
        fleet.run(10, self.scheduler(fleet))
        assert self.slots(fleet) == []
        assert (desk.show("x").next_run, desk.show("x").overdue) == (None, False)

    def test_another_schedule_of_the_settings_counts_from_now_though_it_was_resumed_long_ago(
        self, fleet: Fleet, desk: Periodic
    ) -> None:
        fleet.add("x", 600)
        scheduler = self.scheduler(fleet)
        scheduler.tick()
        desk.pause("x")
        fleet.run(5, scheduler)
        desk.resume("x")
        fleet.run(1200, scheduler)
        assert self.slots(fleet) == [605, 1205]
        fleet.run(400, scheduler)
        fleet.add("x", 700)
        fleet.run(690, scheduler)
        assert self.slots(fleet) == []
        fleet.run(30, scheduler)
        assert self.slots(fleet) == [1605 + 700]

    def test_other_changes_do_not_begin_anew(self, fleet: Fleet, desk: Periodic) -> None:
        scheduler = self.scheduler(fleet)
        desk.add("x", task=REPORT, schedule=60)
        fleet.run(90, scheduler)
        desk.change("x", args=[1], schedule=60.0)
        fleet.run(60, scheduler)
        assert self.slots(fleet) == [60, 120]
        desk.change("x", schedule=100)
        fleet.run(110, scheduler)
        assert self.slots(fleet) == [250]


class TestStored:
    def test_schedulers_obey_edits_within_a_second(self, fleet: Fleet, desk: Periodic) -> None:
        now = [0.0]
        scheduler = fleet.scheduler()
        scheduler._book = Stored(fleet.app, ledger_of(fleet), lambda: now[0])
        assert scheduler.tick() <= LOOK
        desk.add("x", task=REPORT, schedule=2)
        scheduler.tick()
        assert scheduler.entries == {}, "asked at most once a second"
        now[0] += LOOK
        scheduler.tick()
        assert list(scheduler.entries) == ["x"]
        desk.pause("x")
        now[0] += LOOK
        scheduler.tick()
        assert not scheduler.entries["x"].enabled
        desk.delete("x")
        now[0] += LOOK
        scheduler.tick()
        assert scheduler.entries == {}

    def test_an_edit_whose_editor_was_killed_before_it_said_so(self, fleet: Fleet) -> None:
        now = [0.0]
        ledger = ledger_of(fleet)
        book = Stored(fleet.app, ledger, lambda: now[0])
        epoch, _ = book.entries()
        pages = Pages(lambda: ledger, 1.0)
        pages._announce = lambda name: None  # type: ignore[method-assign]
        pages.edit("x", lambda record: Record(entry={"task": REPORT, "schedule": {"every": 1}}))
        now[0] = 30.0
        assert not book.changed(epoch)
        now[0] = 61.0
        assert book.changed(epoch), "the pages themselves are looked at each minute"
        assert list(book.entries()[1]) == ["x"]

    def test_the_settings_win(self, fleet: Fleet, desk: Periodic, caplog: pytest.LogCaptureFixture) -> None:
        desk.add("x", task=REPORT, schedule=5)
        fleet.add("x", 60)
        book = Stored(fleet.app, ledger_of(fleet))
        for _ in range(2):
            assert not book.entries()[1]["x"].stored
        (told,) = [record.message for record in caplog.records if "passed over" in record.message]
        assert told.startswith("beat: Stored entry 'x' is passed over: beat_schedule has one of that name")
        desk.delete("x")
        assert not desk.show("x").entry.stored

    def test_what_cannot_be_read_is_passed_over(self, fleet: Fleet, desk: Periodic) -> None:
        desk.add("good", task=REPORT, schedule=5)
        pages = Pages(lambda: ledger_of(fleet), 1.0)
        pages.edit("bad", lambda record: Record(entry={"task": REPORT, "schedule": {"crontab": "nonsense"}}))
        ledger_of(fleet).change([Change("beat:page:0", b"\xff{")], timeout=1.0)
        assert "bad" not in Stored(fleet.app, ledger_of(fleet)).entries()[1]

    def test_two_editors_lose_nothing(self, fleet: Fleet) -> None:
        import threading

        def add(part: int) -> None:
            pages = Pages(lambda: ledger_of(fleet), 5.0)
            for number in range(50):
                pages.edit(f"{part}-{number}", lambda record: Record(entry={"task": REPORT, "schedule": {"every": 1}}))

        threads = [threading.Thread(target=add, args=(part,)) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(Stored(fleet.app, ledger_of(fleet)).entries()[1]) == 200

    def test_a_lost_answer_is_looked_up(self, fleet: Fleet) -> None:
        ledger = ledger_of(fleet)

        class Lossy:
            def __getattr__(self, name: str) -> Any:
                return getattr(ledger, name)

            def change(self, changes: Any, *, timeout: float) -> Any:
                ledger.change(changes, timeout=timeout)
                error = OperationalError("the answer was lost")
                error.uncertain = True
                raise error

        lossy: Any = Lossy()
        record = Pages(lambda: lossy, 1.0).edit("x", lambda record: Record(enabled=False))
        assert record == Pages(lambda: ledger, 1.0).get("x")


@pytest.mark.parametrize("other", ["celeriac.beat:PersistentScheduler", "celery.beat.Scheduler"])
def test_entries_of_another_scheduler_are_not_here(fleet: Fleet, desk: Periodic, other: str) -> None:
    fleet.app.conf.beat_scheduler = other
    for call in (desk.list, desk.schedulers, lambda: desk.pause("x")):
        with pytest.raises(ImproperlyConfigured, match="keeps its entries elsewhere"):
            call()


class TestPassedOver:
    """What is stored and cannot be an entry."""

    def store(self, fleet: Fleet, name: str, raw: bytes) -> None:
        key = KEYS[page_of(name)]
        ledger = ledger_of(fleet)
        (there,) = ledger.read([key], timeout=1.0)
        page = {**records_of(there, key), name: Raw(raw)}
        assert ledger.change([Change(key, msgspec.json.encode(page), there)], timeout=1.0) == [True]

    @pytest.mark.parametrize(
        ("raw", "why"),
        [
            (b'{"entry": {"task": "t", "schedule": {"every": 1}, "color": "red"}}', "key 'color' is not known"),
            (b'{"entry": 5}', "it cannot be read (Expected `object | null`, got `int` - at `$.entry`)"),
            (b'"newer"', "it cannot be read"),
        ],
    )
    def test_it_is_shown_with_its_reason_and_can_be_deleted(
        self, fleet: Fleet, desk: Periodic, raw: bytes, why: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        desk.add("good", task=REPORT, schedule=5)
        self.store(fleet, "not good", raw)
        entries, passed_over = desk.survey()
        assert [each.entry.name for each in entries] == ["good"]
        assert why in passed_over["not good"]
        assert passed_over["not good"].endswith("; `celeriac beat delete 'not good'` forgets it")
        for call in (desk.show, desk.run):
            with pytest.raises(EntryRefused, match="Stored entry 'not good' is passed over: "):
                call("not good")
        with pytest.raises(EntryRefused):
            desk.change("not good", color=1)
        book = Stored(fleet.app, ledger_of(fleet))
        caplog.clear()
        for _ in range(2):
            book.entries()
            assert list(book.passed_over) == ["not good"]
        (told,) = [record.message for record in caplog.records]
        assert told == f"beat: Stored entry 'not good' is passed over: {passed_over['not good']}"
        desk.delete("not good")
        assert desk.survey().passed_over == {}
        assert names(desk) == ["good"]

    def test_a_page_that_cannot_be_read(self, fleet: Fleet, desk: Periodic) -> None:
        key = KEYS[page_of("lost")]
        ledger_of(fleet).change([Change(key, b"[", None)], timeout=1.0)
        book = Stored(fleet.app, ledger_of(fleet))
        for _ in range(2):
            book.entries()
            assert "remove this key of the ledger" in book.passed_over[key]
        for call in (desk.show, desk.delete, desk.pause):
            with pytest.raises(EntryRefused, match="the whole page cannot be read"):
                call("lost")  # type: ignore[operator]


class TestSeen:
    def test_who_runs(self, fleet: Fleet) -> None:
        ledger = ledger_of(fleet)
        write_seen(ledger, "a:1", Seen(at=100.0, host="a", pid=1), 100.0, timeout=1.0)
        write_seen(ledger, "b:2", Seen(at=120.0, host="b", pid=2), 120.0, timeout=1.0)
        assert set(read_seen(ledger, 120.0, timeout=1.0)) == {"a:1", "b:2"}
        assert set(read_seen(ledger, 140.0, timeout=1.0)) == {"b:2"}, "a was not heard of for too long"
        write_seen(ledger, "b:2", None, 121.0, timeout=1.0)
        assert set(read_seen(ledger, 121.0, timeout=1.0)) == {"a:1"}

    def test_a_scheduler_tells_and_says_good_bye(self, fleet: Fleet, desk: Periodic) -> None:
        fleet.add("x", 1)
        scheduler = fleet.scheduler()
        fleet.run(30, scheduler)
        (seen,) = read_seen(ledger_of(fleet), fleet.clock.time, timeout=1.0).values()
        assert (seen.entries, seen.sent) == (1, 30 - int(fleet.clock.time - seen.at))
        scheduler.close()
        assert read_seen(ledger_of(fleet), fleet.clock.time, timeout=1.0) == {}


def test_tasks_that_no_worker_knows(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    unknown = Unknown(fleet.app, ledger_of(fleet))
    unknown.begin({"y": Entry(name="y", task="tasks.typo", schedule=schedule(1))})
    assert "The task tasks.typo of entry 'y' is not registered in this app" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "celery.beat"):
        for known in (set(), set(), {"tasks.other"}, {REPORT}, {REPORT}):
            unknown.judge({"x": REPORT}, known)
    told = [record.message for record in caplog.records]
    assert [text.partition(":")[2].strip()[:16] for text in told] == ["No worker that a", "The task of entr"]


def test_one_of_all_schedulers_asks(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    class Control:
        def inspect(self, timeout: float) -> Any:
            asked.append("inspect")
            return self

        def registered(self) -> dict[str, list[str]]:
            return {"w1@h": [f"{REPORT} [rate_limit=1/s]"]}

    monkeypatch.setattr(fleet.app, "_control", Control())
    for _ in range(3):
        Unknown(fleet.app, ledger_of(fleet))._ask({"x": REPORT})
    assert asked == ["inspect"]


def test_what_is_sent_late_is_told(fleet: Fleet, caplog: pytest.LogCaptureFixture) -> None:
    fleet.add("x", 60)
    scheduler = fleet.scheduler()
    fleet.run(30, scheduler)
    fleet.clock.time += 45.0
    scheduler.tick()
    assert "Entry 'x' was due at" in caplog.text
    assert "sent 15 s late" in caplog.text
