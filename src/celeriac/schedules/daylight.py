"""``solar``: at sunrise, at solar noon, at nightfall, of a place. Knows no clock; the sun is in ``sun.py``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from math import floor
from typing import Any, NamedTuple

from celeriac.schedules.base import BaseSchedule, aware
from celeriac.schedules.sun import Place, next_crossing, next_noon

__all__ = ["solar"]


class _Level(NamedTuple):
    """How many degrees above the horizon the sun's centre then stands, and whether it rises."""

    height: float
    rising: bool


#: The sun's upper rim on the horizon, lifted by 34 minutes of arc of refraction, as almanacs have it.
_RIM = -(34 + 16) / 60
_LEVELS = {
    "dawn_astronomical": _Level(-18.0, True),
    "dawn_nautical": _Level(-12.0, True),
    "dawn_civil": _Level(-6.0, True),
    "sunrise": _Level(_RIM, True),
    "solar_noon": None,
    "sunset": _Level(_RIM, False),
    "dusk_civil": _Level(-6.0, False),
    "dusk_nautical": _Level(-12.0, False),
    "dusk_astronomical": _Level(-18.0, False),
}
#: How far to look for what does not happen every day: a sunrise at the pole comes once a year.
_SEARCH_DAYS = 400


class solar(BaseSchedule):  # noqa: N801 - Celery's name
    """At a solar event: ``dawn_astronomical``, ``dawn_nautical``, ``dawn_civil``, ``sunrise``, ``solar_noon``,
    ``sunset``, ``dusk_civil``, ``dusk_nautical`` or ``dusk_astronomical``, at latitude ``lat`` (north positive) and
    longitude ``lon`` (east positive), in degrees. Days without the event are passed over. Raises ``ValueError`` for
    other events and places.
    """

    _all_events = frozenset(_LEVELS)  # as in Celery: forms offer them

    def __init__(
        self,
        event: str,
        lat: float,
        lon: float,
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
        *,
        tz: str | tzinfo | None = None,
    ) -> None:
        if event not in _LEVELS:
            raise ValueError(f"event: {event!r} is unknown; allowed are {', '.join(_LEVELS)}")
        for name, value, most in (("lat", lat, 90), ("lon", lon, 180)):
            if not -most <= value <= most:
                raise ValueError(f"{name}: {value} is out of range; allowed is -{most} to {most} degrees")
        self.event = event
        self.lat = lat
        self.lon = lon
        super().__init__(nowfun=nowfun, app=app, tz=tz)

    def next_after(self, moment: datetime) -> datetime | None:
        """The first time after ``moment``, an aware time, to the second; in UTC. None: not within 400 days."""
        after, place, level = (
            floor(aware(moment).timestamp()),
            Place(float(self.lat), float(self.lon)),
            _LEVELS[self.event],
        )
        if level is None:
            second: int | None = next_noon(after, place)
        else:
            second = next_crossing(after, place, level.height, rising=level.rising, days=_SEARCH_DAYS)
        return None if second is None else datetime.fromtimestamp(second, UTC)

    def __repr__(self) -> str:
        return f"<solar: {self.event} at latitude {self.lat}, longitude: {self.lon}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, solar):
            return NotImplemented
        return (self.event, self.lat, self.lon) == (other.event, other.lat, other.lon)

    def __reduce__(self) -> tuple[Any, ...]:
        made = self.__class__, (self.event, self.lat, self.lon)
        return made if self._tz is None else (*made, {"_tz": self._tz})
