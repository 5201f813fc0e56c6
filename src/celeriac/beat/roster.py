"""Which entries the settings of a fleet have, and since when they have them no more.

The state of an entry stays when a deploy takes the entry out; when another brings it back months later, nothing of the
time between was missed. A fleet that was down for months, though, has missed it. So every scheduler notes now and then
which names its settings have, and of the others that it runs without them. Two fleets of one app name, with settings of
their own, disturb each other only when one of them is down for longer than ``BRIEF``.

Blocking. Used by ``scheduler.py``; knows neither entries nor states.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from celeriac.beat.state import LIFE, short
from celeriac.model.ledger import Change
from celeriac.ports import BlockingLedger

__all__ = ["BRIEF", "EVERY", "Roster"]

#: Seconds between two notes of a scheduler.
EVERY: Final = 600.0
#: Schedulers that ran without an entry for less, in seconds, say nothing: settings may be complete only some time after
#: the start.
BRIEF: Final = 3600.0
_TIMEOUT: Final = 5.0
#: Tries to write while others write; the next note comes anyway.
_TRIES: Final = 5


class _Times(Struct, frozen=True, array_like=True):
    """When a scheduler last ran with an entry; and from when until when others have run without it since."""

    kept: float = 0.0
    since: float = 0.0
    until: float = 0.0


_decoder = msgspec.json.Decoder(dict[str, _Times])


class Roster:
    """That of one app, by its name."""

    def __init__(self, app: str, ledger: BlockingLedger) -> None:
        self._key = f"beat:written:{short(app)}"
        self._ledger = ledger
        self._noted = -EVERY

    def returned(self, names: Collection[str]) -> set[str]:
        """Those of these names that are back after others ran without them. Raises ``OperationalError``."""
        times = self._read()[1]
        keys = {short(name): name for name in names}
        back = {key for key in times.keys() & keys.keys() if times[key].until - times[key].since > BRIEF}
        if times.keys() != keys.keys() or back:
            self._noted = -EVERY  # others than before: it is time for a note
        return {keys[key] for key in back}

    def note(self, names: Callable[[], Collection[str]], now: float) -> None:
        """Write, once in a while, that these are the names. Raises ``OperationalError``; the next note makes up for
        it."""
        if now < self._noted + EVERY:
            return
        self._noted = now
        keys = [short(name) for name in names()]
        for _ in range(_TRIES):
            raw, times = self._read()
            known = {key: each for key, each in times.items() if now - each.kept < LIFE}
            noted = {key: replace(each, since=each.since or now, until=now) for key, each in known.items()}
            noted |= {key: _Times(now) for key in keys}
            if not noted and raw is None:
                return
            body = msgspec.json.encode(noted, order="sorted")
            if self._ledger.change([Change(self._key, body, raw, LIFE)], timeout=_TIMEOUT)[0]:
                return

    def _read(self) -> tuple[bytes | None, dict[str, _Times]]:
        raw = self._ledger.read([self._key], timeout=_TIMEOUT)[0]
        try:
            return raw, {} if raw is None else _decoder.decode(raw)
        except msgspec.MsgspecError:  # nobody's: written anew
            return raw, {}
