"""The blocking ``DeadLetters`` of PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.brokers.postgres.address import Address
from celeriac.brokers.postgres.blocking import Pool
from celeriac.brokers.postgres.broker_port import dead_record
from celeriac.brokers.postgres.rows import change_columns, message_columns
from celeriac.model.dead import DeadFilter, DeadPage, DeadRecord, Replay, Stayed
from celeriac.model.ledger import Change
from celeriac.ports import AdapterOptions

__all__ = ["PostgresDeadLetters"]

#: Most letters, and about how many bytes, that one page looks at, and letters that are read at a time.
_SCAN, _SCAN_BYTES, _STEP = 1000, 8 * 1024 * 1024, 50
_BEHIND_ALL = 2**63 - 1
_NOTHING = Change("", None)


class PostgresDeadLetters:
    """See ``celeriac.ports.DeadLetters``. What changes letters is one transaction a call."""

    def __init__(self, address: Address, options: AdapterOptions) -> None:
        self._pool = Pool(address, options.pool_limit)

    def page(self, wanted: DeadFilter, *, limit: int, after: str = "", timeout: float) -> DeadPage:
        """See ``DeadLetters.page``."""
        found: list[DeadRecord] = []
        seen = size = 0
        key = _key(after) if after else _BEHIND_ALL
        while seen < _SCAN and size <= _SCAN_BYTES:
            rows = self._pool.call("dead_before", (key, None, _STEP), timeout)
            for record in map(dead_record, rows):
                key = int(record.key)
                seen, size = seen + 1, size + len(record.raw) + len(record.traceback)
                if wanted.matches(record):
                    found.append(record)
                    if len(found) == limit:
                        return DeadPage(records=tuple(found), after=record.key)
            if len(rows) < _STEP:
                return DeadPage(records=tuple(found), after="")
        return DeadPage(records=tuple(found), after=str(key))

    def get(self, keys: Sequence[str], *, timeout: float) -> Sequence[DeadRecord | None]:
        """See ``DeadLetters.get``."""
        rows = self._pool.call("dead", ([_key(key) for key in keys],), timeout) if keys else []
        found = {record.key: record for record in map(dead_record, rows)}
        return [found.get(key) for key in keys]

    def replay(self, replays: Sequence[Replay], *, timeout: float) -> Sequence[Stayed]:
        """See ``DeadLetters.replay``."""
        if not replays:
            return ()
        args = (
            [_key(each.key) for each in replays],
            *message_columns(each.message for each in replays),
            [each.change is not None for each in replays],
            *change_columns([each.change or _NOTHING for each in replays]),
        )
        ((ends, there),) = self._pool.call("replay", args, timeout)
        return [
            Stayed(each.key) if end == "gone" else Stayed(each.key, False, value)
            for each, end, value in zip(replays, ends, there, strict=True)
            if end != "sent"
        ]

    def drop(self, keys: Sequence[str], *, timeout: float) -> int:
        """See ``DeadLetters.drop``."""
        if not keys:
            return 0
        ((count,),) = self._pool.call("drop_dead", ([_key(key) for key in keys],), timeout)
        return int(count)

    def close(self) -> None:
        """See ``DeadLetters.close``."""
        self._pool.close()


def _key(text: str) -> int:
    """A key as the table knows it; of a foreign text one that no letter has."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1
