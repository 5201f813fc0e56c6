"""Schedules as plain JSON and back, and the fingerprint by which a changed schedule is known. Pure.

Called by ``entry.py`` for entries that are kept in the store, and by ``due.py``'s callers to tell whether what was kept
of an entry's last slot still counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, tzinfo
from hashlib import sha256
from typing import Any

import msgspec

from celeriac.schedules import BaseSchedule, clocked, crontab, schedule, solar

__all__ = ["fingerprint", "from_plain", "to_plain"]

_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
#: The key that says which kind of schedule it is, and what else may stand beside it.
_KINDS = {
    "every": {"relative", "tz"},
    "crontab": {"tz"},
    "solar": {"tz"},
    "at": {"tz"},
}


def to_plain(timetable: Any) -> dict[str, Any]:
    """The schedule as JSON has it. Raises ``ValueError`` for what only a program can say: a class of its own, a clock
    of its own, a zone without a name."""
    if getattr(timetable, "nowfun", None) is not None:
        raise ValueError(f"schedule: {timetable!r} has a nowfun, and no function can be stored")
    if type(timetable) is schedule:
        made: dict[str, Any] = {"every": timetable.run_every.total_seconds()}
        if timetable.relative:
            made["relative"] = True
    elif type(timetable) is crontab:
        made = {"crontab": " ".join(_field(getattr(timetable, f"_orig_{name}")) for name in _FIELDS)}
    elif type(timetable) is solar:
        made = {"solar": [timetable.event, float(timetable.lat), float(timetable.lon)]}
    elif type(timetable) is clocked:
        return {"at": timetable.clocked_time.isoformat()}
    else:
        raise ValueError(
            f"schedule: {timetable!r} cannot be stored, for only this program knows the class "
            f"{type(timetable).__qualname__}; keep the entry in beat_schedule"
        )
    zone = timetable._tz
    if zone is not None:
        made["tz"] = _zone_name(zone)
    return made


def from_plain(plain: Mapping[str, Any], app: Any = None) -> BaseSchedule:
    """The schedule that ``to_plain`` has written, or somebody by hand. Raises ``ValueError`` or ``TypeError`` naming
    the key and what is allowed."""
    kinds = _KINDS.keys() & plain.keys()
    if len(kinds) != 1:
        raise ValueError(f"schedule: {dict(plain)!r} must have exactly one of the keys {', '.join(_KINDS)}")
    (kind,) = kinds
    for key in plain.keys() - {kind} - _KINDS[kind]:
        raise ValueError(f"schedule: {key!r} means nothing beside {kind!r}")
    value, zone = plain[kind], plain.get("tz")
    if zone is not None and not isinstance(zone, str):
        raise TypeError(f"schedule: tz: {zone!r} is not the name of a time zone")
    if kind == "every":
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"schedule: every: {value!r} is not a number of seconds")
        return schedule(value, bool(plain.get("relative", False)), app=app, tz=zone)
    if kind == "crontab":
        if not isinstance(value, str):
            raise TypeError(f"schedule: crontab: {value!r} is not text")
        return crontab.from_string(value, app=app, tz=zone)
    if kind == "solar":
        if not isinstance(value, list | tuple) or len(value) != 3:
            raise TypeError(f"schedule: solar: {value!r} is not [event, latitude, longitude]")
        event, lat, lon = value
        return solar(event, lat, lon, app=app, tz=zone)
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"schedule: at: {value!r} is not a time such as '2030-01-31T09:00:00+01:00'") from None
    return clocked(moment, app=app, tz=zone)


def fingerprint(timetable: Any) -> str:
    """A short text that is another one when the schedule is another one, in every process. A class of the user's own
    is known by its name and its ``repr``, where it has one of its own."""
    try:
        text = msgspec.json.encode(to_plain(timetable), order="sorted")
    except ValueError:
        kind = type(timetable)
        shown = repr(timetable) if any("__repr__" in vars(each) for each in kind.__mro__[:-1]) else ""  # no addresses
        text = f"{kind.__module__}.{kind.__qualname__} {shown}".encode("utf-8", "replace")
    return sha256(text).hexdigest()[:16]


def _field(spec: Any) -> str:
    """A field of a crontab as ``from_string`` reads it; sets in the order of their numbers."""
    if isinstance(spec, str):
        return "".join(spec.split())
    if isinstance(spec, Iterable):
        return ",".join(str(number) for number in sorted({int(number) for number in spec}))
    return str(spec)


def _zone_name(zone: tzinfo) -> str:
    name = getattr(zone, "key", None)
    if name is None and str(zone) == "UTC":
        name = "UTC"
    if not isinstance(name, str):
        raise ValueError(f"tz: {zone!r} has no name that could be stored; write one such as 'Europe/Oslo'")
    return name
