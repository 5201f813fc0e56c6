"""The asyncio ``ResultStore`` of PostgreSQL: for workers whose broker is another server, and for what they read.

What happens in the database is in ``sql/results.sql`` and ``sql/chords.sql``.
"""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.brokers.postgres.address import Address
from celeriac.brokers.postgres.rows import as_new, as_part, clean, json_text, result_columns, unpack
from celeriac.brokers.postgres.session import LONG, Session
from celeriac.model.chord import Closing, Gathered, NewChord, Part
from celeriac.model.settle import StoredResult
from celeriac.ports import AdapterOptions, Traits

__all__ = ["PostgresStore", "gathered"]

_SWEEP_CHUNK = 2000
_CHORDS_CHUNK = 200


class PostgresStore:
    """Result records and chords in a database; see the ``ResultStore`` port."""

    def __init__(self, address: Address, options: AdapterOptions) -> None:
        self.traits = Traits(durable=True, native_delay=True, server=address.server)
        self._wait = options.chord_token
        self._session = Session(address)

    async def open(self) -> None:
        """Connect; make the schema when there is none."""
        await self._session.open()

    async def close(self) -> None:
        """Close the connection."""
        await self._session.close()

    async def put(self, results: Sequence[StoredResult]) -> None:
        """Write records and wake their waiters."""
        if results:
            await self._session.call("put", result_columns(results))

    async def get(self, ids: Sequence[str]) -> Sequence[bytes | None]:
        """The records, None where there is none."""
        if not ids:
            return ()
        names = [clean(task_id) for task_id in ids]
        found = {task_id: body for task_id, _, body in await self._session.call("get", (names,))}
        return [found.get(name) for name in names]

    async def forget(self, ids: Sequence[str]) -> None:
        """Drop records."""
        if ids:
            await self._session.call("forget", ([clean(task_id) for task_id in ids],))

    async def sweep(self) -> int:
        """Drop expired records; returns how many."""
        dropped = 0
        for name, chunk in (("sweep_results", _SWEEP_CHUNK), ("sweep_chords", _CHORDS_CHUNK)):
            while count := (await self._session.call(name, (chunk,), LONG))[0][0]:
                dropped += count
        return dropped

    # ------------------------------------------------------------ chords

    async def open_chords(self, chords: Sequence[NewChord]) -> None:
        """Write chords before their members are sent."""
        if chords:
            await self._session.call("open_chords", (self._wait, json_text([as_new(chord) for chord in chords])))

    async def join(self, parts: Sequence[Part], *, token: str) -> Sequence[str]:
        """Add members to their chords; returns those that are complete and held by ``token`` now."""
        if not parts:
            return ()
        back = {clean(part.chord): part.chord for part in parts}
        args = (json_text([as_part(part) for part in parts]), clean(token), *unpack(token), self._wait)
        rows = await self._session.call("join", args)
        taken = {back[name] for (name,) in rows}
        return [chord for chord in back.values() if chord in taken]

    async def gather(self, chord: str, *, token: str) -> Gathered | None:
        """The complete chord, when ``token`` holds it."""
        name, holder = clean(chord), clean(token)
        ((renewed,),) = await self._session.call("renew_chord", (name, holder, *unpack(token), self._wait))
        return await self._lent(chord, token) if renewed else None

    async def _lent(self, chord: str, token: str) -> Gathered | None:
        rows = await self._session.call("lent_chord", (clean(chord), clean(token)), LONG)
        return gathered(chord, token, rows)

    async def close_chord(self, closing: Closing) -> bool:
        """Let a chord be done; False when its token is gone."""
        ((closed,),) = await self._session.call("close_chord", (clean(closing.chord), clean(closing.token)))
        return bool(closed)

    async def grow_chord(self, chord: str, by: int) -> None:
        """Let a chord wait for more members."""
        await self._session.call("grow_chord", (clean(chord), by, self._wait))

    async def overdue(self, *, token: str, limit: int = 10) -> Sequence[Gathered]:
        """Complete chords that nobody is about to close; one look into an index when there are none."""
        taken: list[str] = []
        while len(taken) < limit and (await self._session.call("chord_is_due", ()))[0][0]:
            rows = await self._session.call("look_at_chords", (clean(token), limit - len(taken), self._wait), LONG)
            taken += [name for (name,) in rows]
        found = [await self._lent(chord, token) for chord in taken]
        return [chord for chord in found if chord is not None]


def gathered(chord: str, token: str, rows: Sequence[Sequence[object]]) -> Gathered | None:
    """The answer of ``lent_chord``."""
    if not rows:
        return None
    *parts, (_, body, shape) = rows
    return Gathered(
        chord=chord,
        token=token,
        parts=[value for _, value, _ in parts],  # type: ignore[misc]
        body=body,  # type: ignore[arg-type]
        shape=shape,  # type: ignore[arg-type]
    )
