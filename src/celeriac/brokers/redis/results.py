"""The result store of a worker on Redis: Celery's keys, texts and channels."""

from __future__ import annotations

from collections.abc import Sequence

from celeriac.brokers.redis import scripts
from celeriac.brokers.redis.chords import concern, gathered_from, grow_keys, join_args, open_args
from celeriac.brokers.redis.endings import result_args
from celeriac.brokers.redis.layout import Layout
from celeriac.brokers.redis.link import Link
from celeriac.brokers.redis.urls import parse
from celeriac.model.chord import Closing, Gathered, NewChord, Part
from celeriac.model.settle import StoredResult
from celeriac.ports import CHORD_LOOK, AdapterOptions, Traits

__all__ = ["RedisStore"]

_BATCH = 500
#: Most chords that one script opens or looks at.
_CHORDS = 100


class RedisStore:
    """See ``celeriac.ports.ResultStore``."""

    def __init__(self, url: str, options: AdapterOptions, *, link: Link | None = None) -> None:
        """With a ``link`` it is part of a cluster's store, and the link knows the address."""
        self._address = parse(url, options) if link is None else link.address
        self._layout = Layout(self._address, options)
        self._link = link or Link(self._address)
        self._token_time = options.chord_token
        self.traits = Traits(durable=True, native_delay=False, server=self._address.server)

    async def open(self) -> None:
        """Connect. Idempotent."""
        await self._link.open()

    async def close(self) -> None:
        """Close the connection. Idempotent."""
        self._link.close()

    async def put(self, results: Sequence[StoredResult]) -> None:
        """See ``ResultStore.put``."""
        for at in range(0, len(results), _BATCH):
            keys, args = result_args(self._layout, results[at : at + _BATCH])
            await self._link.script(scripts.STORE, keys, args)

    async def get(self, ids: Sequence[str]) -> Sequence[bytes | None]:
        """See ``ResultStore.get``."""
        found: list[bytes | None] = []
        for at in range(0, len(ids), _BATCH):
            found += await self._link.call("MGET", *map(self._layout.result, ids[at : at + _BATCH]))
        return found

    async def forget(self, ids: Sequence[str]) -> None:
        """See ``ResultStore.forget``."""
        for at in range(0, len(ids), _BATCH):
            await self._link.call("UNLINK", *map(self._layout.result, ids[at : at + _BATCH]))

    async def sweep(self) -> int:
        """Nothing to do: Redis drops expired records itself."""
        return 0

    # -- chords

    async def open_chords(self, chords: Sequence[NewChord]) -> None:
        """See ``ResultStore.open_chords``."""
        for at in range(0, len(chords), _CHORDS):
            await self._link.script(
                scripts.CHORD_OPEN, *open_args(self._layout, chords[at : at + _CHORDS], self._token_time)
            )

    async def join(self, parts: Sequence[Part], *, token: str) -> Sequence[str]:
        """See ``ResultStore.join``. A token goes by its time alone: deliveries may be on another server."""
        complete: dict[str, None] = {}
        for at in range(0, len(parts), _BATCH):
            keys, args, chords = join_args(self._layout, parts[at : at + _BATCH], token, self._token_time)
            numbers = await self._link.script(scripts.CHORD_JOIN, keys, args)
            complete.update((chords[number], None) for number in numbers)
        return list(complete)

    async def gather(self, chord: str, *, token: str) -> Gathered | None:
        """See ``ResultStore.gather``."""
        asked = concern(self._layout, [chord], self._token_time, token)
        return gathered_from(chord, token, await self._link.script(scripts.CHORD_GATHER, *asked))

    async def close_chord(self, closing: Closing) -> bool:
        """See ``ResultStore.close_chord``."""
        asked = concern(self._layout, [closing.chord], self._token_time, closing.token)
        return bool(await self._link.script(scripts.CHORD_CLOSE, *asked))

    async def grow_chord(self, chord: str, by: int) -> None:
        """See ``ResultStore.grow_chord``."""
        await self._link.script(scripts.CHORD_GROW, grow_keys(self._layout, chord), [by])

    async def overdue(self, *, token: str, limit: int = 10) -> Sequence[Gathered]:
        """See ``ResultStore.overdue``. One read of ``celeriac:chords`` when no look is due."""
        found: list[Gathered] = []
        while len(found) < limit:
            due = await self._link.script(scripts.CHORD_LOOK, [self._layout.chords], [CHORD_LOOK, _CHORDS])
            ids = [each.decode("utf-8", "replace") for each in due]
            if ids:
                asked = concern(self._layout, ids, self._token_time, token, limit - len(found))
                for number in await self._link.script(scripts.CHORD_SWEEP, *asked):
                    gathered = await self.gather(ids[number], token=token)
                    if gathered is not None:
                        found.append(gathered)
            if len(ids) < _CHORDS:
                break
        return found
