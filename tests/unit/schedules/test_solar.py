"""solar: the events of the sun. tests/compat compares with ephem, which Celery uses."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.schedules import crontab, solar
from celeriac.schedules.sun import Place, height, hour_angle

EVENTS = (
    "dawn_astronomical dawn_nautical dawn_civil sunrise solar_noon sunset dusk_civil dusk_nautical dusk_astronomical"
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_a_day_in_greenwich() -> None:
    """At the equinox, as ephem has it, within five seconds."""
    times = "04:09:34 04:50:24 05:29:39 06:02:53 12:07:26 18:12:59 18:46:19 19:25:44 20:06:48"
    for event, time in zip(EVENTS.split(), times.split(), strict=True):
        slot = solar(event, 51.4769, 0.0).next_after(at("2026-03-20 00:00"))
        assert slot is not None
        assert abs(slot - at(f"2026-03-20 {time}")) < timedelta(seconds=6)


def test_what_does_not_happen_every_day() -> None:
    tromso = 69.65, 18.96
    assert 14 <= (solar("sunrise", *tromso).next_after(at("2026-12-01")) or at("2026-12-01")).day <= 16  # in January
    assert (solar("sunset", *tromso).next_after(at("2026-06-01")) or at("2026-06-01")).month == 7
    assert (solar("sunrise", 90, 0).next_after(at("2026-06-01")) or at("2026-06-01")).month == 3
    assert (solar("sunset", -90, 0).next_after(at("2026-01-01")) or at("2026-01-01")).month == 3
    assert solar("dawn_civil", 90, 0).next_after(at("2026-01-01")) is not None


@given(
    st.sampled_from(EVENTS.split()),
    st.floats(-66, 66),
    st.floats(-180, 180),
    st.datetimes(datetime(2000, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),
)
@settings(max_examples=50)
def test_times_increase_by_about_a_day(event: str, lat: float, lon: float, moment: datetime) -> None:
    schedule = solar(event, lat, lon)
    slots = []
    for _ in range(3):
        slot = schedule.next_after(moment)
        assert slot is not None
        assert slot > moment
        slots.append(slot)
        moment = slot
    if abs(lat) < 45:
        assert all(abs(later - slot - timedelta(days=1)) < timedelta(minutes=6) for slot, later in pairwise(slots))


def test_the_sun_at_a_noon() -> None:
    """The highest sun of the year on the tropic."""
    noon = at("2026-06-21 12:02").timestamp()
    assert abs(hour_angle(noon, Place(23.4, 0.0))) < 0.5
    assert height(noon, Place(23.4, 0.0)) > 89.5
    assert height(noon, Place(-66.5, 0.0)) < 0.5


def test_slots_and_the_next_one() -> None:
    noon = solar("solar_noon", 59.9, 10.7, nowfun=lambda: at("2026-11-30 12:00"))
    assert len(list(noon.slots_between(at("2026-11-01"), at("2026-11-08")))) == 7
    due, following = noon.is_due(at("2026-11-30 00:00"))
    assert due
    assert 80_000 < following < 86_400
    assert noon.is_due(at("2026-11-30 12:00")) == (False, following)


def test_places_from_a_database() -> None:
    decimal = solar("sunset", Decimal("59.900000"), Decimal("10.7"))  # type: ignore[arg-type]
    assert decimal.next_after(at("2026-01-01")) == solar("sunset", 59.9, 10.7).next_after(at("2026-01-01"))
    assert sorted(solar._all_events) == sorted(EVENTS.split())


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^event: 'noon' is unknown; allowed are dawn_astronomical, "):
        solar("noon", 0, 0)
    with pytest.raises(ValueError, match=r"^lat: 91 is out of range; allowed is -90 to 90 degrees$"):
        solar("sunrise", 91, 0)
    with pytest.raises(ValueError, match=r"^lon: -180.5 is out of range; allowed is -180 to 180 degrees$"):
        solar("sunrise", 0, -180.5)
    with pytest.raises(ValueError, match="lat: nan"):
        solar("sunrise", float("nan"), 0)


def test_how_it_prints_compares_and_is_copied() -> None:
    sunrise = solar("sunrise", 59.9, 10.7)
    assert repr(sunrise) == "<solar: sunrise at latitude 59.9, longitude: 10.7>"
    assert sunrise == solar("sunrise", 59.9, 10.7)
    assert sunrise != solar("sunset", 59.9, 10.7)
    assert sunrise != crontab()
    assert pickle.loads(pickle.dumps(sunrise)) == sunrise
    assert pickle.loads(pickle.dumps(solar("sunrise", 1, 2, tz="Europe/Oslo"))).tz.key == "Europe/Oslo"
