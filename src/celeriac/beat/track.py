"""What a scheduler knows of one entry between two looks: its state as last seen, and when to look again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from celeriac.beat.entry import Entry
from celeriac.beat.firing import PATIENCE
from celeriac.beat.state import PAUSED, State, newer
from celeriac.schedules import schedule

__all__ = ["MARGIN", "Track", "anchored", "counted_from", "spread"]

#: How long after its next slot an entry is taken over whose schedule another scheduler has changed.
MARGIN: Final = timedelta(seconds=60)
#: How long a schedule counts as the other's whose next slot nobody knows.
_UNKNOWN: Final = timedelta(hours=1)
#: So many intervals that begin together are spread.
_MANY: Final = 10
_ZERO: Final = timedelta(0)
_SECOND: Final = timedelta(seconds=1)
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


class Track(Struct, kw_only=True, eq=False):
    """One entry of one scheduler."""

    entry: Entry
    #: Of its schedule, or ``PAUSED``.
    fingerprint: str
    #: When to look at it, in seconds since the epoch.
    when: float = inf
    #: Bytes under the key of the state, and what they say.
    raw: bytes | None = None
    state: State | None = None
    #: Up to where slots are behind us.
    passed: datetime = _NEVER
    #: It has to be read again before anything is done: somebody was sending, or has another schedule.
    unsure: bool = False
    #: Said in the log already: another schedule; an error.
    told: str = ""

    @classmethod
    def of(cls, entry: Entry) -> Track:
        """Before its state was read."""
        return cls(entry=entry, fingerprint=entry.fingerprint if entry.enabled else PAUSED)

    @property
    def foreign(self) -> bool:
        """Another scheduler counts by another schedule."""
        return self.state is not None and self.state.fingerprint != self.fingerprint

    @property
    def outdated(self) -> bool:
        """Somebody counts by a later edit of the entry: this scheduler is still to hear of that."""
        since = self.state.since if self.state is not None else None
        return since is not None and self.entry.since is not None and self.entry.since < since

    def see(self, raw: bytes | None) -> None:
        """Take over what stands under the key."""
        self.raw, self.state = raw, State.decode(raw)
        if self.state is not None:
            self.passed = max(self.state.slot, self.entry.since or _NEVER)

    def later(self, now: float) -> float:
        """When to read the state again, of which somebody else has to write more."""
        assert self.state is not None
        if self.foreign and self.outdated:
            return now + MARGIN.total_seconds()
        if self.foreign:
            following = self.state.next or datetime.fromtimestamp(now, UTC) + _UNKNOWN
            return max(now + 1.0, (following + MARGIN).timestamp())
        return self.state.at + PATIENCE


def spread(tracks: Sequence[Track], now: datetime) -> list[datetime]:
    """From when each of these counts that are seen for the first time together. Many intervals begin one after the
    other within a second, or they would all be due at the same moments for ever."""
    lengths = [_length(track.entry) for track in tracks]
    many = sum(length > _ZERO for length in lengths)
    if many < _MANY:
        return [now] * len(tracks)
    return [now + min(length, _SECOND) * (number / len(tracks)) for number, length in enumerate(lengths)]


def _length(entry: Entry) -> timedelta:
    """Of an interval that no clock fixes; nothing for other schedules."""
    timetable: Any = entry.schedule
    return timetable.run_every if type(timetable) is schedule and not timetable.relative else _ZERO


def anchored(track: Track, now: datetime) -> State:
    """The state from which an entry counts that is new here, was changed, or goes on: what was before is behind us."""
    before = track.state or State(slot=now, fingerprint="")
    begin = counted_from(track.entry, track.state, now)
    since = newer(before.since, track.entry.since)
    return replace(before, slot=begin, fingerprint=track.fingerprint, next=None, sending=False, since=since)


def counted_from(entry: Entry, state: State | None, now: datetime) -> datetime:
    """From when an entry counts whose state is none of its schedule: from when somebody said so, where that is news to
    the state, so that nothing is lost while no scheduler runs; else from ``now``."""
    since = entry.since
    if since is None or since > now or (state is not None and state.slot >= since):
        return now
    return since
