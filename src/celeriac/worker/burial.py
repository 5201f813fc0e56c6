"""What becomes of the deliveries of a child that died: its culprit, and all else that it held."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import msgspec

from celeriac.exceptions import OperationalError
from celeriac.model import outcome as o
from celeriac.model.backoff import Backoff
from celeriac.model.message import Delivery, Malformed
from celeriac.ports import Broker, Clock
from celeriac.worker.concluding import Concluder
from celeriac.worker.enforcer import Enforcer
from celeriac.worker.obituary import Obituary
from celeriac.worker.verdicts import Verdicts

__all__ = ["LOOKS", "NO_MORE", "Burial", "Died", "notice"]

logger = logging.getLogger("celery.worker")

T = TypeVar("T")

#: Seconds before the further looks at what a dead child holds: a claim that it had sent is granted after its death.
LOOKS = (0.02, 0.1, 0.4)
#: The supervisor's last line: every child that died has been told.
NO_MORE = b"\n"


class Died(msgspec.Struct, frozen=True, kw_only=True):
    """What the supervisor tells about a child that is gone: who, how, and what its slot named."""

    owner: str
    how: str
    #: Token and id of the task that ran, or empty.
    token: str = ""
    id: str = ""
    #: The hard limit in seconds that ended it, or 0.
    limit: float = 0.0
    #: It ran several tasks at once, so none of them is the culprit.
    many: bool = False
    #: Tasks that the child had run.
    tasks: int = 0
    #: The task that ran was acknowledged before, and its result is to be stored.
    early: bool = False
    #: Of such a task: where its sender waits for the result, with ``rpc://``.
    reply_to: str = ""


class Burial:
    """Of one node. ``conclude`` takes what is to be written for each."""

    def __init__(
        self,
        broker: Broker,
        enforcer: Enforcer,
        verdicts: Verdicts,
        conclude: Concluder,
        obituary: Obituary,
        *,
        clock: Clock,
        backoff: Backoff,
        cut: Callable[[str], None] = lambda owner: None,
    ) -> None:
        """``cut(owner)`` lets a broker that gives back by itself do so (``Lifelines.cut``)."""
        self._cut = cut
        self._broker = broker
        self._enforcer = enforcer
        self._verdicts = verdicts
        self._conclude = conclude
        self._obituary = obituary
        self._clock = clock
        self._backoff = backoff
        #: Tasks run by children that are gone.
        self.tasks = 0

    async def notices(self, reader: asyncio.StreamReader) -> None:
        """Read the supervisor's notices, one JSON line each, until it says that there are no more."""
        async with asyncio.TaskGroup() as group:
            while (line := await reader.readline()) and line != NO_MORE:
                died = msgspec.json.decode(line, type=Died)
                self.tasks += died.tasks
                group.create_task(self.bury(died))

    async def bury(self, died: Died) -> None:
        """Settle what a dead child held: the culprit by what ended it, the others as they were. Tries until it worked,
        and looks again for what was claimed in its name meanwhile."""
        culprit = Delivery(message=Malformed(reason="", raw=b"", id=died.id), token=died.token, queue="")
        if self._verdicts.active and died.id and not died.early:
            # What it ran goes to somebody else, who is told by its id.
            verdict = self._verdict(culprit, died, False)
            await self._insist(lambda: self._verdicts.leave(died.id, verdict, died.token))
        self._cut(died.owner)
        if died.early:
            verdict = self._verdict(culprit, died, False)
            await self._insist(lambda: self._obituary.write(died.id, verdict, died.reply_to))
        orphans = await self._orphans(died)
        # Of many, none is named; but a suspect that was alone is taken for the cause (``model/leases.py``).
        alone = died.many and len(orphans) == 1 and orphans[0].marks.suspect
        self._conclude([(delivery, self._verdict(delivery, died, alone)) for delivery in orphans])
        if not self._broker.traits.requeues:
            await self._look_again(died, orphans)

    async def _look_again(self, died: Died, buried: Iterable[Delivery]) -> None:
        """What a server grants to the dead would else wait for the end of its lease: nobody had it in hands."""
        seen = {delivery.token for delivery in buried}
        for pause in LOOKS:
            await self._clock.sleep(pause)
            late = [delivery for delivery in await self._orphans(died) if delivery.token not in seen]
            seen.update(delivery.token for delivery in late)
            if late:
                self._conclude([(delivery, o.Unstarted(orphaned=True)) for delivery in late])

    async def _orphans(self, died: Died) -> Sequence[Delivery]:
        return await self._insist(lambda: self._broker.orphans(died.owner))

    async def _insist(self, work: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                done = await work()
            except OperationalError as error:
                await self._wait(error)
            else:
                self._backoff.reset()
                return done

    async def _wait(self, error: OperationalError) -> None:
        pause = self._backoff.next()
        if self._backoff.loud:
            logger.error("Cannot give back the tasks of a dead child, next try in %.1f s: %s", pause, error)
        await self._clock.sleep(pause)

    def _verdict(self, delivery: Delivery, died: Died, alone: bool) -> o.Outcome:
        outcome: o.Outcome
        terminating = self._enforcer.terminating
        if delivery.token != died.token and not alone:
            outcome = o.Unstarted(suspect=died.many, orphaned=True)
        elif delivery.token in terminating:
            outcome = terminating.pop(delivery.token)
        elif died.limit:
            outcome = o.TimedOut(died.limit)
        elif (refusal := self._enforcer.refusal(delivery.message)) is not None:
            outcome = refusal  # it would be refused when it is claimed again
        elif self._enforcer.killed(died.owner):
            outcome = o.Unstarted(orphaned=True)
        else:
            outcome = o.Crashed(died.how)
        return outcome


def notice(died: Died) -> bytes:
    """A notice as the supervisor writes it."""
    return json.dumps(msgspec.to_builtins(died)).encode() + b"\n"
