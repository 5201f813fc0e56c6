"""``SharedScheduler``: sends what is due, together with any number of others like it, each slot once.

There is no leader. Each scheduler knows all entries and looks at those that are due; the state of an entry in the
ledger decides who sends (``firing.py``). A look costs what is due, not what there is. Blocking, in one thread; driven
by ``service.py`` through ``tick``, Celery's contract.
"""

from __future__ import annotations

import heapq
import logging
import os
import random
import socket
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from math import inf
from typing import Any, Final, TypeAlias

from celeriac import __version__
from celeriac.beat.due import due
from celeriac.beat.entry import Entry
from celeriac.beat.firing import UNFIT, Fired, Firing, Outcome, Shot
from celeriac.beat.hours import Hours
from celeriac.beat.making import check
from celeriac.beat.places import ledger_of, publisher_of
from celeriac.beat.roster import Roster
from celeriac.beat.seen import EVERY, Seen, write_seen
from celeriac.beat.state import LIFE, state_key
from celeriac.beat.stored import Stored
from celeriac.beat.track import Track, anchored, spread
from celeriac.beat.unknown import Unknown
from celeriac.beat.written import Book
from celeriac.codec.escape import one_line
from celeriac.exceptions import ImproperlyConfigured, OperationalError
from celeriac.model.ledger import Change
from celeriac.ports import BlockingLedger, Publisher

__all__ = ["MAX_INTERVAL", "SharedScheduler"]

logger = logging.getLogger("celery.beat")

#: Most seconds between two looks at the entries, when nobody said how many.
MAX_INTERVAL: Final = 300.0
#: Keys that are read in one call.
_PAGE: Final = 1000
#: Tries to catch up with others that send the same entry at this moment.
_TRIES: Final = 20
#: Seconds until an entry is looked at again whose task could not be made a message.
_BROKEN: Final = 60.0
_TIMEOUT: Final = 5.0
#: Seconds between two tries while a server is away: the first, and the most.
_FIRST: Final = 0.1
_MOST: Final = 2.0
#: Seconds by which a task is sent late that deserve a warning.
_OVERDUE: Final = 10.0
#: Latenesses that are remembered.
_REMEMBERED: Final = 1000
#: Most slots that are sent in one call: the first of them is late by the making of them all.
_CALL: Final = 100
#: What looks at one entry: asks for shots, is told what became of them, and says when to look again.
Look: TypeAlias = Generator[Shot, Outcome, float]


class SharedScheduler:
    """One of any number of schedulers. ``ledger``, ``publisher`` and ``book`` are the app's unless they are given.

    Raises ``ImproperlyConfigured`` where there is no ledger, and for entries that cannot be.
    """

    def __init__(
        self,
        app: Any,
        *,
        max_interval: float | None = None,
        ledger: BlockingLedger | None = None,
        publisher: Publisher | None = None,
        book: Book | None = None,
        wall: Callable[[], float] | None = None,
        **ignored: Any,
    ) -> None:
        self.app = app
        self.max_interval: float = max_interval or app.conf.seconds("beat_max_loop_interval") or MAX_INTERVAL
        self._publisher = publisher_of(app) if publisher is None else publisher
        self._ledger = ledger_of(app) if ledger is None else ledger
        self._book = Stored(app, self._ledger) if book is None else book
        #: The time that counts.
        self.hours = Hours(self._ledger, wall)
        self._firing = Firing(app, self._publisher, self._ledger)
        self._roster = Roster(app.main or "", self._ledger)
        self._tracks: dict[str, Track] = {}
        self._heap: list[tuple[float, int, Track]] = []
        self._order = 0
        self._epoch: Any = None
        self._loaded = False
        self._failures = 0
        self._told = ""
        #: When it has last looked, and how late the last tasks were sent, in seconds.
        self.last_tick = 0.0
        self.lateness: deque[float] = deque(maxlen=_REMEMBERED)
        #: Tasks sent by this one.
        self.sent = 0
        #: It is part of a worker.
        self.embedded = False
        self._name = f"{socket.gethostname()}:{os.getpid()}"
        self._seen_at = -inf
        #: What it said of itself last.
        self.seen: Seen | None = None
        self._unknown = Unknown(app, self._ledger)

    @property
    def entries(self) -> dict[str, Entry]:
        """The entries that it knows, by name."""
        return {name: track.entry for name, track in self._tracks.items()}

    def next_of(self, name: str) -> datetime | None:
        """When it will look at an entry next; None: never, as far as it knows."""
        track = self._tracks.get(name)
        return None if track is None or track.when == inf else datetime.fromtimestamp(track.when, UTC)

    # -- a look --------------------------------------------------------------------------------------------------

    def tick(self) -> float:
        """Send what is due; returns the seconds until the next look. Raises nothing for an outage: it tries again."""
        try:
            self.hours.ask()
            self._read_book()
            self._send_due()
        except OperationalError as error:
            return self._failed(error)
        if self._failures:
            logger.info("beat: The servers are there again")
            self._failures = 0
        now = self.last_tick = self.hours.now()
        self._unknown.look(lambda: self.entries)
        self._tell(now)
        with suppress(OperationalError):  # nor this: the next note makes up for it
            self._roster.note(lambda: _written(self.entries), now)
        soonest = self._heap[0][0] if self._heap else inf
        return max(0.0, min(soonest - now, self.max_interval, self._book.every))

    def _failed(self, error: OperationalError) -> float:
        self._failures += 1
        pause: float = min(_MOST, _FIRST * 2 ** min(self._failures - 1, 10)) * (0.5 + 0.5 * random.random())
        if self._failures & (self._failures - 1) == 0 or self._failures % 64 == 0:
            logger.error("beat: Cannot send what is due, next try in %.1f s: %s", pause, error)
        return pause

    def _tell(self, now: float) -> None:
        """Let others know that it is there. An outage is not worth a word: sending will meet it too."""
        if now < self._seen_at + EVERY:
            return
        self._seen_at = now
        late = sorted(self.lateness)
        self.seen = Seen(
            at=now,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            entries=len(self._tracks),
            sent=self.sent,
            tick=self.last_tick,
            next=self._heap[0][0] if self._heap else None,
            late=(late[len(late) // 2], late[len(late) * 99 // 100], late[-1]) if late else None,
            skew=self.hours.skew,
            embedded=self.embedded,
        )
        with suppress(OperationalError):
            write_seen(self._ledger, self._name, self.seen, now, timeout=_TIMEOUT)

    def close(self) -> None:
        """Give the connection of the ledger back."""
        if self._seen_at > -inf:
            with suppress(OperationalError):
                write_seen(self._ledger, self._name, None, self.hours.now(), timeout=1.0)
        self._ledger.close()

    # -- the entries ---------------------------------------------------------------------------------------------

    def _read_book(self) -> None:
        """Take over what has changed of the entries. Their states are read before anything is taken over, so that an
        outage leaves all as it was."""
        if self._loaded and not self._book.changed(self._epoch):
            return
        try:
            epoch, entries = self._book.entries()
            for name, entry in entries.items():
                if name not in self._tracks or self._tracks[name].entry is not entry:
                    check(self.app, entry)
        except ImproperlyConfigured as error:
            if not self._loaded:
                raise
            if self._told != str(error):
                self._told = str(error)
                logger.error("beat: The entries stay as they were: %s", error)
            return
        tracks: dict[str, Track] = {}
        fresh: list[Track] = []
        for name, entry in entries.items():
            old = self._tracks.get(name)
            if old is not None and old.entry is entry:
                tracks[name] = old
                continue
            if old is not None and old.entry == entry and old.fingerprint == Track.of(entry).fingerprint:
                old.entry = entry
                tracks[name] = old
                continue
            track = Track.of(entry)
            if old is not None and old.fingerprint == track.fingerprint:
                old.entry, old.told = entry, ""
                old.see(old.raw)
                tracks[name] = old
                self._firing.forget(name)
                continue
            tracks[name] = track
            fresh.append(track)
        self._begin(fresh, self._roster.returned(_written(entries)) if fresh else ())
        for name in self._tracks.keys() - tracks.keys():
            self._firing.forget(name)
        for track in fresh:
            self._firing.forget(track.entry.name)
        self._tracks, self._epoch = tracks, epoch
        now = self.hours.now()
        on = [track for track in tracks.values() if track.entry.enabled]
        for track in on:
            if track.when == inf:
                track.when = now
        self._heap = [(track.when, order, track) for order, track in enumerate(on)]
        self._order = len(on)
        heapq.heapify(self._heap)
        if not self._loaded:
            logger.info("beat: entries: %d", len(tracks))
            self._unknown.begin(entries)
        self._loaded = True

    def _begin(self, tracks: Sequence[Track], returned: Collection[str]) -> None:
        """Read where the entries stand; those that are new, changed, back in the settings or go on count from now."""
        self._read(tracks)
        wrong = [track for track in tracks if track.state is None or (track.foreign and not track.outdated)]
        back = [track for track in tracks if track.entry.name in returned and track not in wrong]
        if wrong or back:
            self._anchor([*wrong, *back])

    def _read(self, tracks: Sequence[Track]) -> None:
        for page in _pages(tracks):
            keys = [state_key(track.entry.name) for track in page]
            for track, raw in zip(page, self._ledger.read(keys, timeout=_TIMEOUT), strict=True):
                track.see(raw)

    def _anchor(self, tracks: Sequence[Track]) -> None:
        """Let entries count from now, unless somebody else has said so before: then from then."""
        now = datetime.fromtimestamp(self.hours.now(), UTC)
        for page in _pages(tracks):
            written = [anchored(track, moment).encode() for track, moment in zip(page, spread(page, now), strict=True)]
            changes = [
                Change(state_key(track.entry.name), raw, track.raw, LIFE)
                for track, raw in zip(page, written, strict=True)
            ]
            made = self._ledger.change(changes, timeout=_TIMEOUT)
            for track, raw, done in zip(page, written, made, strict=True):
                if done:
                    track.see(raw)
            self._read([track for track, done in zip(page, made, strict=True) if not done])

    # -- what is due ---------------------------------------------------------------------------------------------

    def _put(self, track: Track, when: float) -> None:
        track.when = when
        if when < inf:
            self._order += 1
            heapq.heappush(self._heap, (when, self._order, track))

    def _send_due(self) -> None:
        """Look at each entry that is due once: who has more to send comes again after the others."""
        now = self.hours.now()
        found: list[Track] = []
        while self._heap and self._heap[0][0] <= now:
            when, _, track = heapq.heappop(self._heap)
            if track.when == when and self._tracks.get(track.entry.name) is track:
                found.append(track)
        for first in range(0, len(found), _CALL):
            try:
                self._send(found[first : first + _CALL])
            except BaseException:
                for left in found[first + _CALL :]:
                    self._put(left, left.when)
                raise

    def _send(self, tracks: Sequence[Track]) -> None:
        """Look at entries and send what is due of them: a call sends one slot of each."""
        going: list[tuple[Track, Look, Any]] = [(track, self._look(track), None) for track in tracks]  # None: begin
        left = {track.entry.name: track for track in tracks}

        def done(track: Track, when: float) -> None:
            del left[track.entry.name]
            self._put(track, when)

        try:
            while going:
                asked: list[tuple[Track, Look]] = []
                shots: list[Shot] = []
                for track, look, outcome in going:
                    try:
                        shots.append(look.send(outcome))
                        asked.append((track, look))
                    except StopIteration as end:
                        done(track, end.value)
                    except OperationalError:
                        raise
                    except UNFIT as error:
                        done(track, self._broken(track, error))
                going = []
                for (track, look), ended in zip(asked, self._firing.fire(shots, self.hours.now()), strict=True):
                    if isinstance(ended, Exception):
                        done(track, self._broken(track, ended))
                    else:
                        going.append((track, look, ended))
        except OperationalError as error:
            known = all(track.told == _text(error) for track in left.values())
            # Others first, next time: the server may refuse these for ever.
            for track in left.values():
                self._put(track, self.hours.now() + (_MOST if known else 0.0))
            if not known:
                raise
        except BaseException:  # nobody foresaw it: what is due must not be forgotten for that
            for track in left.values():
                self._put(track, self.hours.now())
            raise

    def _broken(self, track: Track, error: Exception) -> float:
        """What is due cannot be made a message: its slots stay, for a scheduler that can, or until this is mended."""
        text = _text(error)
        if track.told != text:
            track.told = text
            entry = track.entry
            logger.error("beat: Cannot send entry %r (task %s): %s", entry.name, one_line(entry.task), text)
        return self.hours.now() + (_MOST if isinstance(error, OperationalError) else _BROKEN)

    def _look(self, track: Track) -> Look:
        """Asks to send what is due of one entry, slot by slot; returns when to look again."""
        if track.unsure:
            before = track.raw
            self._read([track])
            track.unsure = False
            if track.raw == before and track.foreign:
                logger.info("beat: Entry %r is counted by this schedule from now on", track.entry.name)
                self._anchor([track])
        for _ in range(_TRIES):
            now = self.hours.now()
            state = track.state
            if state is None:
                self._anchor([track])
            elif track.foreign:
                return self._other(track, now)
            elif state.sending and state.slot >= track.passed and now < track.later(now):
                track.unsure = True
                return track.later(now)
            elif state.sending and state.slot >= track.passed:
                if not (yield from self._shoot(track, [state.slot], state.next)):
                    continue
            else:
                try:
                    found = due(track.entry, track.passed, datetime.fromtimestamp(now, UTC), self._deadline)
                except Exception as error:  # noqa: BLE001 - a schedule of the user's own: others must not wait for it
                    return self._broken(track, error)
                if not (yield from self._shoot(track, found.slots, found.next)):
                    continue
                track.passed = found.passed
                return inf if found.next is None else found.next.timestamp()
        return self.hours.now()

    @property
    def _deadline(self) -> float | None:
        deadline: float | None = self.app.conf.seconds("beat_cron_starting_deadline")
        return deadline

    def _other(self, track: Track, now: float) -> float:
        """Another scheduler, started later, counts by another schedule: it sends, as long as it does."""
        if track.told != "other" and not track.outdated:
            track.told = "other"
            logger.warning(
                "beat: Entry %r has another schedule in a scheduler that was started later: this one leaves it alone",
                track.entry.name,
            )
        track.unsure = True
        return track.later(now)

    def _shoot(
        self, track: Track, slots: Iterable[datetime], following: datetime | None
    ) -> Generator[Shot, Outcome, bool]:
        """Asks to send slots in order; False when somebody else was faster: what is due has to be worked out again."""
        slots = list(slots)
        for number, slot in enumerate(slots):
            behind = slots[number + 1] if number + 1 < len(slots) else following
            fired, raw = yield Shot(
                entry=track.entry,
                fingerprint=track.fingerprint,
                slot=slot,
                next=behind,
                seen=track.raw,
                state=track.state,
            )
            track.see(raw)
            if fired is Fired.TAKEN:
                return False
            track.told = ""
            self._note(track, slot, fired)
        return True

    def _note(self, track: Track, slot: datetime, fired: Fired) -> None:
        entry = track.entry
        name = one_line(entry.name)
        if fired is Fired.LEFT:
            logger.info("beat: Slot %s of %s is left out: the run before goes on", slot.isoformat(), name)
            return
        self.sent += 1
        late = max(0.0, self.hours.now() - slot.timestamp())
        self.lateness.append(late)
        if late > _OVERDUE:
            logger.warning("beat: Entry %r was due at %s: sent %.0f s late", entry.name, slot.isoformat(), late)
        logger.info("Scheduler: Sending due task %s (%s)", name, one_line(entry.task))


def _written(entries: Mapping[str, Entry]) -> list[str]:
    """Names of those of the settings."""
    return [name for name, entry in entries.items() if not entry.stored]


def _text(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}")


def _pages(tracks: Sequence[Track]) -> Iterable[Sequence[Track]]:
    for first in range(0, len(tracks), _PAGE):
        yield tracks[first : first + _PAGE]
