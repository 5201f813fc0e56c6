"""Which slots are due: in time, late, missed, too old."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from celeriac.beat.due import BATCH, Due, due, next_slot
from celeriac.beat.entry import Entry
from celeriac.schedules import BaseSchedule, clocked, crontab, schedstate, schedule

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def entry(timetable: Any, **more: Any) -> Entry:
    return Entry(name="x", task="t", schedule=timetable, **more)


def test_before_its_time_nothing_is_due() -> None:
    assert due(entry(schedule(30)), NOON, at(29.999)) == Due((), NOON, at(30))


def test_in_time() -> None:
    assert due(entry(schedule(30)), NOON, at(30)) == Due((at(30),), at(30), at(60))
    assert due(entry(crontab(tz="UTC")), at(-1), at(0.2)) == Due((NOON,), NOON, at(60))


@pytest.mark.parametrize("catch_up", ["none", "once", "all"])
def test_a_short_delay_misses_nothing(catch_up: Any) -> None:
    """Schedulers that were restarted, a broker that was away for a moment."""
    found = due(entry(schedule(3), catch_up=catch_up), NOON, at(12.9))
    assert found == Due((at(3), at(6), at(9), at(12)), at(12), at(15))


def test_once_is_the_last_one_that_was_missed() -> None:
    found = due(entry(schedule(60)), NOON, at(3 * 3600 + 31))
    assert found == Due((at(3 * 3600),), at(3 * 3600), at(3 * 3600 + 60))


def test_none_leaves_out_what_was_missed() -> None:
    found = due(entry(schedule(60), catch_up="none"), NOON, at(3 * 3600 + 31))
    assert found == Due((), at(3 * 3600), at(3 * 3600 + 60))


def test_none_sends_what_is_due_now_behind_what_was_missed() -> None:
    found = due(entry(schedule(60), catch_up="none"), NOON, at(3 * 3600 + 2))
    assert found == Due((at(3 * 3600),), at(3 * 3600), at(3 * 3600 + 60))


def test_all_are_sent_in_order_in_portions() -> None:
    found = due(entry(schedule(1), catch_up="all"), NOON, at(250))
    assert found == Due(tuple(at(n) for n in range(1, BATCH + 1)), at(BATCH), at(BATCH + 1))
    found = due(entry(schedule(1), catch_up="all"), found.passed, at(250))
    assert (found.slots[0], found.slots[-1]) == (at(101), at(200))


@pytest.mark.parametrize("catch_up", ["once", "all"])
def test_what_is_older_than_the_deadline_is_left_out(catch_up: Any) -> None:
    given = entry(crontab(minute=0, tz="UTC"), catch_up=catch_up)
    found = due(given, at(-1), at(3 * 3600 + 600), 300)
    assert found == Due((), at(3 * 3600), at(4 * 3600))


def test_all_since_the_deadline() -> None:
    given = entry(crontab(minute="*/10", tz="UTC"), catch_up="all", deadline=1300)
    found = due(given, at(-86400), NOON, 5)  # its own deadline, not the general one
    assert found == Due((at(-1200), at(-600), NOON), NOON, at(600))


def test_a_deadline_counts_for_short_delays_too() -> None:
    found = due(entry(schedule(1), deadline=2.5), NOON, at(8.4))
    assert found == Due((at(6), at(7), at(8)), at(8), at(9))


def test_years_of_missed_seconds_cost_nothing() -> None:
    found = due(entry(schedule(1), catch_up="all", deadline=2), NOON, at(86400 * 365 * 10 + 0.5))
    assert len(found.slots) == 2


def test_a_single_one() -> None:
    once = entry(clocked(at(60)))
    assert due(once, NOON, at(59)) == Due((), NOON, at(60))
    assert due(once, NOON, at(61)) == Due((at(60),), at(60), None)
    assert due(once, at(60), at(61)) == Due((), at(60), None)


class Celerys(BaseSchedule):
    """Written for Celery: says only whether it is due."""

    def is_due(self, last_run_at: datetime) -> schedstate:
        return schedstate(last_run_at < at(10), 0 if last_run_at < at(5) else 7)


def test_a_schedule_that_was_written_for_celery() -> None:
    given = entry(Celerys())
    assert due(given, NOON, at(20)) == Due((at(20),), at(20), at(20.01))
    assert due(given, at(20), at(21)) == Due((), at(20), at(28))
    assert next_slot(given, NOON) is None


def test_one_that_changes_only_celerys_question() -> None:
    class Changed(crontab):
        def is_due(self, last_run_at: datetime) -> schedstate:
            return schedstate(False, 5)

    assert due(entry(Changed()), NOON, at(86400)) == Due((), NOON, at(86405))
