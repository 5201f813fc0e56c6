"""``Entry``: a periodic task, as the schedulers know it. A frozen value; pure.

Made from an item of ``beat_schedule`` or from what the store keeps. When it last ran is not part of it (``state.py``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Literal, Self, get_args

from msgspec import Struct

from celeriac.beat.timetable import fingerprint, from_plain, to_plain
from celeriac.codec.json import dumps, loads
from celeriac.exceptions import EncodeError, ImproperlyConfigured
from celeriac.schedules import maybe_schedule

__all__ = ["CATCH_UP", "OVERLAP", "CatchUp", "Entry", "Overlap"]

CatchUp = Literal["none", "once", "all"]
Overlap = Literal["allow", "skip", "queue"]
#: What an entry may say of slots that nobody saw, and of a run that has not ended when the next is due.
CATCH_UP: Final = get_args(CatchUp)
OVERLAP: Final = get_args(Overlap)

#: Keys of an entry: Celery's, then ours.
_KEYS: Final = (
    "task",
    "schedule",
    "args",
    "kwargs",
    "options",
    "relative",
    "enabled",
    "catch_up",
    "deadline",
    "overlap",
    "expires",
)
_KINDS: Final[tuple[tuple[str, type, str], ...]] = (
    ("args", tuple, "a list"),
    ("kwargs", Mapping, "a dict"),
    ("options", Mapping, "a dict"),
    ("enabled", bool, "True or False"),
    ("stored", bool, "True or False"),
)
#: More seconds than anybody means, and fewer than break the arithmetic of times.
_MOST = 1e10


class Entry(Struct, frozen=True, kw_only=True):
    """A periodic task: what to send, and when. Raises ``ValueError`` or ``TypeError`` naming entry and key."""

    name: str
    #: Name of the task.
    task: str
    #: One of ``celeriac.schedules``, or an object with Celery's ``is_due``.
    schedule: Any
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    #: Options of ``apply_async``.
    options: Mapping[str, Any] = {}
    #: Off: paused.
    enabled: bool = True
    #: What becomes of slots that passed while no scheduler ran: none of them, the last, or each is sent.
    catch_up: CatchUp = "once"
    #: Seconds after which a slot is too old to be caught up; None: the setting ``beat_cron_starting_deadline``.
    deadline: float | None = None
    #: What becomes of a slot while the run of an earlier one has not ended: sent, left out, or sent to start after it.
    overlap: Overlap = "allow"
    #: Seconds after it was sent within which a run may start; 0: any time; None: until the next slot, and a minute at
    #: least (``making.py``), unless the task has ``expires``. That of ``options`` comes before it.
    expires: float | None = None
    #: It comes from the store, not from the settings.
    stored: bool = False
    #: Slots up to this moment are none of its: it was added, changed or resumed then. None: nobody said.
    since: datetime | None = None

    def __post_init__(self) -> None:
        given: Any = self
        if not isinstance(given.name, str) or not given.name:
            raise TypeError(f"name: {given.name!r} is not the name of an entry")
        if not isinstance(given.task, str) or not given.task:
            raise self._wrong("task", "the name of a task")
        if not (hasattr(given.schedule, "is_due") or hasattr(given.schedule, "next_after")):
            raise self._wrong("schedule", "a schedule, a number of seconds or a timedelta")
        for key, kind, what in _KINDS:
            if not isinstance(getattr(given, key), kind):
                raise self._wrong(key, what)
        for key in ("kwargs", "options"):
            if not all(isinstance(name, str) for name in getattr(given, key)):
                raise self._wrong(key, "a dict whose keys are names")
        for key, allowed in (("catch_up", CATCH_UP), ("overlap", OVERLAP)):
            if getattr(given, key) not in allowed:
                raise ValueError(
                    f"entry {self.name!r}: {key}: {getattr(given, key)!r} is not one of {', '.join(allowed)}"
                )
        for key, least in (("deadline", math.ulp(0.0)), ("expires", 0.0)):
            value = getattr(given, key)
            if value is not None and not (isinstance(value, int | float) and least <= value < _MOST):
                raise self._wrong(key, "a number of seconds" + (" above 0" if least else ""))

    def _wrong(self, key: str, what: str) -> TypeError:
        return TypeError(f"entry {self.name!r}: {key}: {getattr(self, key)!r} is not {what}")

    @classmethod
    def of(cls, name: str, given: Mapping[str, Any], app: Any = None, *, stored: bool = False) -> Self:
        """From the keys of ``beat_schedule``; the schedule may be plain JSON too. Raises ``ValueError`` or
        ``TypeError`` naming entry and key."""
        if not isinstance(given, Mapping):
            raise TypeError(f"entry {name!r}: {given!r} is not a dict with the keys {', '.join(_KEYS)}")
        unknown = sorted(str(key) for key in given if key not in _KEYS)
        if unknown:
            raise ValueError(f"entry {name!r}: key {unknown[0]!r} is not known; allowed are {', '.join(_KEYS)}")
        missing = [key for key in ("task", "schedule") if given.get(key) is None]
        if missing:
            raise ValueError(f"entry {name!r}: {missing[0]} is missing")
        fields = dict(given)
        fields["task"] = _task_name(given["task"])
        relative = fields.pop("relative", None) or False
        if not isinstance(relative, bool):
            raise TypeError(f"entry {name!r}: relative: {relative!r} is not True or False")
        try:
            fields["schedule"] = _timetable(given["schedule"], relative, app)
        except (TypeError, ValueError) as error:
            raise type(error)(f"entry {name!r}: {error}") from None
        for key, empty in (("args", ()), ("kwargs", {}), ("options", {})):
            value = given.get(key)
            fields[key] = (
                empty if value is None else tuple(value) if key == "args" and isinstance(value, list) else value
            )
        for key in ("deadline", "expires"):
            if isinstance(given.get(key), timedelta):
                fields[key] = given[key].total_seconds()
        return cls(name=name, stored=stored, **fields)

    @classmethod
    def from_settings(cls, name: str, mapping: Mapping[str, Any], app: Any) -> Self:
        """From an item of ``beat_schedule``. Raises ``ImproperlyConfigured`` naming entry and key."""
        try:
            return cls.of(name, mapping, app)
        except (TypeError, ValueError) as error:
            raise ImproperlyConfigured(f"beat_schedule: {error}") from error

    @classmethod
    def from_json(cls, name: str, plain: Mapping[str, Any], app: Any) -> Self:
        """A stored entry, from what ``to_json`` has written. Raises as ``of``."""
        return cls.of(name, loads(dumps(plain)), app, stored=True)

    def to_json(self) -> dict[str, Any]:
        """Everything but the name and where it comes from, as plain JSON; what has its default is left out.

        Raises ``ValueError`` naming entry and key for what cannot be stored: a schedule class of the user's own, a
        function (``BeatLazyFunc``) or any other object among the arguments or options.
        """
        try:
            made: dict[str, Any] = {"task": self.task, "schedule": to_plain(self.schedule)}
        except ValueError as error:
            raise ValueError(f"entry {self.name!r}: {error}") from None
        for key, default in _DEFAULTS.items():
            value = getattr(self, key)
            if value == default:
                continue
            try:
                made[key] = loads(dumps(list(value) if key == "args" else value), resolve=False)
            except EncodeError as error:
                raise ValueError(f"entry {self.name!r}: {key}: {error}") from error
        return made

    @property
    def relative(self) -> bool:
        """Celery's: an interval is rounded down on the clock."""
        return bool(getattr(self.schedule, "relative", False))

    @property
    def fingerprint(self) -> str:
        """Another text when the schedule is another one: what was kept of its last slot does not count then."""
        return fingerprint(self.schedule)


_DEFAULTS: Final = {
    key: getattr(Entry(name="-", task="-", schedule=maybe_schedule(1)), key)
    for key in _KEYS
    if key not in ("task", "schedule", "relative")
}


def _task_name(task: Any) -> Any:
    """Tasks themselves stand for their names."""
    return task if isinstance(task, str) else getattr(task, "name", task)


def _timetable(given: Any, relative: bool, app: Any) -> Any:
    if isinstance(given, Mapping):
        return from_plain({"relative": True, **given} if relative and "every" in given else given, app)
    if isinstance(given, bool):
        raise TypeError(f"schedule: {given!r} is neither a schedule, nor a number of seconds, nor a timedelta")
    return maybe_schedule(given, relative, app=app)
