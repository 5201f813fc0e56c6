"""Where the sun stands: its height and hour angle at an instant and a place, and when it passes a height.

Meeus' low-precision series (Astronomical Algorithms, chapters 12, 22 and 25): right to 0.01°, which is seconds of time
where the sun is steep. Pure arithmetic on seconds since the epoch. Called by ``daylight.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from math import asin, atan2, cos, degrees, radians, sin
from typing import NamedTuple

__all__ = ["Place", "height", "hour_angle", "next_crossing", "next_noon"]

_J2000 = 946_728_000.0  # seconds from 1970 to 2000-01-01 12:00 UTC
_DAY = 86_400.0
_CENTURY = 36_525.0
_TURN = 360.0
_HALF = 180.0


class Place(NamedTuple):
    """In degrees, north and east positive."""

    lat: float
    lon: float


def _equatorial(days: float) -> tuple[float, float]:
    """Right ascension and declination of the sun in radians, ``days`` after J2000."""
    t = days / _CENTURY
    mean_longitude = 280.46646 + t * (36_000.76983 + t * 0.0003032)
    anomaly = radians(357.52911 + t * (35_999.05029 - t * 0.0001537))
    center = (
        (1.914602 - t * (0.004817 + t * 0.000014)) * sin(anomaly)
        + (0.019993 - t * 0.000101) * sin(2 * anomaly)
        + 0.000289 * sin(3 * anomaly)
    )
    node = radians(125.04 - 1_934.136 * t)
    longitude = radians(mean_longitude + center - 0.00569 - 0.00478 * sin(node))
    obliquity = radians(23.43929 - t * 0.0130042 + 0.00256 * cos(node))
    ascension = atan2(cos(obliquity) * sin(longitude), cos(longitude))
    return ascension, asin(sin(obliquity) * sin(longitude))


def hour_angle(seconds: float, place: Place) -> float:
    """Degrees past the meridian, -180 to 180: 0 is solar noon, 15 an hour later."""
    days = (seconds - _J2000) / _DAY
    ascension, _ = _equatorial(days)
    return (_sidereal(days) + place.lon - degrees(ascension) + _HALF) % _TURN - _HALF


def height(seconds: float, place: Place) -> float:
    """Degrees of the sun's centre above the horizon, without refraction."""
    days = (seconds - _J2000) / _DAY
    ascension, declination = _equatorial(days)
    angle = radians(_sidereal(days) + place.lon) - ascension
    lat = radians(place.lat)
    return degrees(asin(max(-1.0, min(1.0, sin(lat) * sin(declination) + cos(lat) * cos(declination) * cos(angle)))))


def _sidereal(days: float) -> float:
    """Sidereal time at Greenwich in degrees; beyond 360 is welcome."""
    return 280.46061837 + 360.98564736629 * days


def next_noon(after: int, place: Place) -> int:
    """The first second after ``after`` at which the sun has passed the meridian."""
    return _turn(after, place, 0.0)


def next_crossing(after: int, place: Place, level: float, *, rising: bool, days: int) -> int | None:
    """The first second after ``after`` at which the sun has risen to ``level`` degrees, or sunk below it; None when it
    does not within ``days`` days. Looks from noon to midnight to noon: between them the sun only sinks or rises."""

    def beyond(second: int) -> bool:
        return (height(second, place) >= level) == rising

    begin, was = after, beyond(after)
    while begin < after + days * _DAY:
        end = _turn(begin, place, 0.0 if hour_angle(begin, place) < 0 else _HALF)
        now = beyond(end)
        if now and not was:
            return _first(begin, end, beyond)
        begin, was = end, now
    return None


def _turn(after: int, place: Place, angle: float) -> int:
    """The first second after ``after`` at which the hour angle has passed ``angle``, 0 or 180."""

    def past(second: int) -> float:  # degrees past the goal, -180 to 180
        return (hour_angle(second, place) - angle + _HALF) % _TURN - _HALF

    to_go = -past(after) % _TURN or _TURN
    guess = after + int(to_go / _TURN * _DAY)
    low, high = max(after, guess - 300), max(after, guess - 300) + 600
    return _first(low, high, lambda second: past(second) >= 0)


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The first second in (low, high] for which ``holds``, which holds from there to ``high``."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
