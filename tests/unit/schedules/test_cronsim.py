"""A second opinion: cronsim follows Debian's cron, and so do we but for two things, which the comparison leaves out.

Where both days of month and weekday are restricted, cron takes either, Celery's crontab both. And where a schedule says
every minute or every few hours, cron leaves out what falls into a gap; we run it after the gap, unless it comes by
itself. Zones whose clock changes at midnight are left out, for cronsim 2.8 then loses the minutes behind it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice
from zoneinfo import ZoneInfo, available_timezones

import pytest
from cronsim import CronSim
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from celeriac.schedules import crontab
from tests.unit.schedules.minutes import FIRST, LAST, MINUTE, changes, matches, says_every

ZONES = sorted(available_timezones())


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    return st.one_of(
        st.just("*"),
        st.builds("*/{}".format, st.integers(1, high)),
        st.builds(lambda ends: f"{min(ends)}-{max(ends)}", st.tuples(number, number)),
        st.builds(lambda numbers: ",".join(map(str, numbers)), st.lists(number, min_size=1, max_size=3)),
    )


DAYS = st.one_of(
    st.builds("* {} *".format, field(1, 12)),
    st.builds("{} * *".format, field(1, 28)),
    st.builds("* * {}".format, field(0, 6)),
)


def starts(zone: ZoneInfo) -> st.SearchStrategy[datetime]:
    """Mostly half a day before a change of the clock, never near the hours that come twice."""
    anywhere = st.integers(0, (LAST - FIRST) // timedelta(hours=1)).map(lambda hours: FIRST + timedelta(hours=hours))
    if not changes(zone):
        return anywhere
    return st.sampled_from(changes(zone)).map(lambda change: change - timedelta(hours=12))


@cache
def changes_at_midnight(zone: ZoneInfo) -> bool:
    return any((each - MINUTE).astimezone(zone).date() != each.astimezone(zone).date() for each in changes(zone))


def ambiguous(moment: datetime, zone: ZoneInfo) -> bool:
    local = moment.astimezone(zone)
    return local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()


def ours(text: str, zone: ZoneInfo, start: datetime) -> list[datetime]:
    cron = crontab.from_string(text, tz=zone)
    slots = cron.slots_between(start, start + timedelta(days=20_000))
    made_up = says_every(cron)
    return list(
        islice((each for each in slots if not made_up or matches(each.astimezone(zone).replace(tzinfo=None), cron)), 8)
    )


def test_cronsim_agrees(pytestconfig: pytest.Config) -> None:
    @settings(max_examples=pytestconfig.option.crontabs)
    @given(st.data(), st.sampled_from(ZONES), field(0, 59), field(0, 23), DAYS)
    def holds(data: st.DataObject, name: str, minute: str, hour: str, days: str) -> None:
        zone = ZoneInfo(name)
        assume(not changes_at_midnight(zone))
        start = data.draw(starts(zone))
        assume(not ambiguous(start, zone))
        text = f"{minute} {hour} {days}"
        theirs = CronSim(text, start.astimezone(zone))
        assert ours(text, zone, start) == [next(theirs).astimezone(UTC) for _ in range(8)], (text, name, start)

    holds()
