"""The rule of docs/reference/schedules.md for hours that the clock skips or shows twice, by example.

Oslo, 2026: at 02:00 on March 29th the clock goes on to 03:00; at 03:00 on October 25th it goes back to 02:00.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from celeriac.schedules import crontab


def times(text: str, zone: str, day: datetime, hours: int) -> list[str]:
    cron = crontab.from_string(text, tz=zone)
    found = cron.slots_between(day - timedelta(seconds=1), day + timedelta(hours=hours))
    return [f"{slot.astimezone(ZoneInfo(zone)):%d %H:%M %z}"[:-2] for slot in found]


SPRING = datetime(2026, 3, 29, 0, 0, tzinfo=UTC)  # 01:00 in Oslo
AUTUMN = datetime(2026, 10, 24, 23, 0, tzinfo=UTC)  # 01:00 in Oslo


@pytest.mark.parametrize(
    ("text", "slots"),
    [
        ("30 2 * * *", ["29 03:00 +02"]),
        ("0,30 2,3 * * *", ["29 03:00 +02", "29 03:30 +02"]),
        ("*/30 2 * * *", ["29 03:00 +02"]),
        ("0 */2 * * *", ["29 03:00 +02", "29 04:00 +02"]),
        ("30 * * * *", ["29 01:30 +01", "29 03:30 +02", "29 04:30 +02"]),
        (
            "*/30 * * * *",
            [
                "29 01:00 +01",
                "29 01:30 +01",
                "29 03:00 +02",
                "29 03:30 +02",
                "29 04:00 +02",
                "29 04:30 +02",
                "29 05:00 +02",
            ],
        ),
        ("30 2 29 3 sun", ["29 03:00 +02"]),
        ("30 2 28 3 *", []),
    ],
)
def test_an_hour_that_is_skipped(text: str, slots: list[str]) -> None:
    assert times(text, "Europe/Oslo", SPRING, 3) == slots


@pytest.mark.parametrize(
    ("text", "slots"),
    [
        ("30 2 * * *", ["25 02:30 +02"]),
        ("0,30 2 * * *", ["25 02:00 +02", "25 02:30 +02"]),
        ("*/30 2 * * *", ["25 02:00 +02", "25 02:30 +02", "25 02:00 +01", "25 02:30 +01"]),
        ("0-59/30 2 * * *", ["25 02:00 +02", "25 02:30 +02", "25 02:00 +01", "25 02:30 +01"]),
        ("30 1-3 * * *", ["25 01:30 +02", "25 02:30 +02", "25 03:30 +01"]),
        ("0 */2 * * *", ["25 02:00 +02", "25 02:00 +01", "25 04:00 +01"]),
        ("30 * * * *", ["25 01:30 +02", "25 02:30 +02", "25 02:30 +01", "25 03:30 +01"]),
        ("0 3 * * *", ["25 03:00 +01"]),
    ],
)
def test_an_hour_that_comes_twice(text: str, slots: list[str]) -> None:
    assert times(text, "Europe/Oslo", AUTUMN, 4) == slots


def test_numbers_count_as_every_when_they_are_all() -> None:
    cron = crontab(minute=30, hour=range(24), tz="Europe/Oslo")
    assert len(list(cron.slots_between(AUTUMN, AUTUMN + timedelta(hours=4)))) == 4
    cron = crontab(minute=30, hour=range(23), tz="Europe/Oslo")
    assert len(list(cron.slots_between(AUTUMN, AUTUMN + timedelta(hours=4)))) == 3


def test_within_the_second_pass() -> None:
    moment = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)  # 02:10, the second time
    assert crontab(30, 2, tz="Europe/Oslo").next_after(moment) == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)
    assert crontab(30, 2, day_of_month="*", tz="Europe/Oslo").next_after(moment) == datetime(
        2026, 10, 26, 1, 30, tzinfo=UTC
    )
    assert crontab("*/30", 2, tz="Europe/Oslo").next_after(moment) == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)


def test_a_moment_between_two_seconds() -> None:
    moment = datetime(2026, 10, 25, 0, 59, 0, 1, tzinfo=UTC)  # 02:59, the first time
    assert crontab("*", "1-23/2", tz="Europe/Oslo").next_after(moment) == datetime(2026, 10, 25, 2, 0, tzinfo=UTC)
    assert crontab("*", "*/2", tz="Europe/Oslo").next_after(moment) == datetime(2026, 10, 25, 1, 0, tzinfo=UTC)


def test_a_midnight_that_does_not_exist() -> None:
    """Beirut goes from 00:00 to 01:00."""
    day = datetime(2026, 3, 28, 21, 0, tzinfo=UTC)
    assert times("0 0 * * *", "Asia/Beirut", day, 2) == ["29 01:00 +03"]
    assert times("59 23 * * *", "Asia/Beirut", day, 2) == ["28 23:59 +02"]


def test_a_midnight_that_comes_twice() -> None:
    """Havana goes from 01:00 back to 00:00."""
    day = datetime(2026, 11, 1, 3, 0, tzinfo=UTC)
    assert times("0 0 * * *", "America/Havana", day, 6) == ["01 00:00 -04"]
    assert times("0 * * * *", "America/Havana", day, 3) == [
        "31 23:00 -04",
        "01 00:00 -04",
        "01 00:00 -05",
        "01 01:00 -05",
    ]


def test_half_an_hour() -> None:
    """Lord Howe goes from 02:00 to 02:30, and from 02:00 back to 01:30."""
    spring = datetime(2026, 10, 3, 14, 40, tzinfo=UTC)  # 01:10
    assert times("15 2 * * *", "Australia/Lord_Howe", spring, 2) == ["04 02:30 +11"]
    assert times("15 * * * *", "Australia/Lord_Howe", spring, 2) == ["04 01:15 +10", "04 03:15 +11"]
    autumn = datetime(2026, 4, 4, 14, 10, tzinfo=UTC)  # 01:10
    assert times("45 1 * * *", "Australia/Lord_Howe", autumn, 2) == ["05 01:45 +11"]
    assert times("45 * * * *", "Australia/Lord_Howe", autumn, 2) == ["05 01:45 +11", "05 01:45 +10"]


def test_a_day_that_was_left_out() -> None:
    """Samoa had no December 30th in 2011."""
    day = datetime(2011, 12, 30, 0, 0, tzinfo=UTC)  # 14:00 on the 29th
    assert times("0 9 * * *", "Pacific/Apia", day, 30) == ["31 00:00 +14", "31 09:00 +14"]
    assert times("0 9 30 12 *", "Pacific/Apia", day, 30) == ["31 00:00 +14"]
