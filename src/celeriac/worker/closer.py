"""Sends the bodies of complete chords: gather → build on a thread → publish and close, in one step where that can be.

Runs on the I/O loop, for the completer (a member of this child was the last) and for the agent's sweeper (whoever was
the last died). A chord's end may complete the chord around it, and so on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from msgspec.structs import replace

from celeriac.exceptions import OperationalError
from celeriac.model.chord import Closing, Gathered
from celeriac.model.message import Delivery, Message
from celeriac.model.settle import Completion, Hold, Verdict
from celeriac.ports import Broker, ResultStore, Unified

__all__ = ["Aside", "Closer", "once_more"]

#: Runs a function where user code may take its time: on a thread.
Aside = Callable[..., Awaitable[Any]]
#: Chords that are remembered while a server is away.
_BEGUN = 1000


class Closer:
    """``conclude`` makes the completion of a chord; ``aside`` runs it."""

    def __init__(
        self,
        broker: Broker,
        store: ResultStore,
        unified: Unified | None,
        conclude: Callable[[Gathered, Hold], Completion | None],
        aside: Aside = asyncio.to_thread,
    ) -> None:
        self._broker = broker
        self._store = store
        self._unified = unified
        self._conclude = conclude
        self._aside = aside
        #: What is still to be written for chords whose writing an outage has ended: building it again would call
        #: errbacks again, and each message that went out twice would run twice.
        self._begun: dict[str, Completion] = {}

    async def close(self, chords: Iterable[str], *, token: str, delivery: Delivery | None = None) -> None:
        """Close those of ``chords`` that ``token`` holds, and those that their ends complete in turn.

        ``delivery`` is the one whose lease stands for the token; without one the token goes by its time. Raises
        ``OperationalError``; may be called again then.
        """
        pending = deque(dict.fromkeys(chords))
        while pending:
            chord_id = pending.popleft()
            chord = await self._store.gather(chord_id, token=token)
            if chord is None:
                self._begun.pop(chord_id, None)
            else:
                pending.extend(await self.send(chord, delivery))

    async def send(self, chord: Gathered, delivery: Delivery | None = None) -> Sequence[str]:
        """Send the body of one chord and close it. Returns the chords that are complete now under the same token."""
        begun, hold = self._begun.get(chord.chord), Hold(delivery)
        if begun is None:
            completion = await self._aside(self._conclude, chord, hold)
            if completion is None:
                return ()
        else:
            completion = replace(begun, settlement=hold, closes=Closing(chord.chord, chord.token))
        if len(self._begun) >= _BEGUN:
            self._begun.clear()
        self._begun[chord.chord] = completion
        complete = await self._write(chord, completion, delivery)
        self._begun.pop(chord.chord, None)
        return complete

    async def _write(self, chord: Gathered, completion: Completion, delivery: Delivery | None) -> Sequence[str]:
        around = list(dict.fromkeys(part.chord for part in completion.parts))
        if delivery is not None and self._unified is not None:
            (verdict,) = await self._unified.finish([completion])
            if verdict is not Verdict.STEPWISE:
                # FENCED may be the second answer to a call whose first was lost: who holds tokens is asked again.
                return () if verdict is Verdict.DONE else around
        # Told before this chord is closed: a crash in between tells it again, and it counts once.
        complete = await self._store.join(completion.parts, token=chord.token) if around else ()
        if self._unified is not None:
            (verdict,) = await self._unified.finish([replace(completion, parts=())])
            if verdict is not Verdict.STEPWISE:
                return complete
        await self._step_by_step(chord.chord, completion)
        return complete

    async def _step_by_step(self, chord: str, completion: Completion) -> None:
        """A crash on the way sends the body again, under the same id; an outage only where an answer was lost."""
        if completion.opens:
            await self._store.open_chords(completion.opens)
        if completion.publish:
            try:
                await self._broker.publish(completion.publish)
            except OperationalError as error:
                if error.uncertain:
                    self._begun[chord] = replace(completion, publish=once_more(completion.publish))
                raise
            # Not opened anew either: a chord that is forgets who has joined.
            completion = self._begun[chord] = replace(completion, publish=(), opens=())
        if completion.others:
            await self._store.put(completion.others)
        if completion.closes is not None:
            await self._store.close_chord(completion.closes)


def once_more(messages: Sequence[Message]) -> Sequence[Message]:
    """Messages that may have been published already, for another try: who gets both looks first whether one has
    ended."""
    return [replace(message, headers={**message.headers, "redelivered": True}) for message in messages]
