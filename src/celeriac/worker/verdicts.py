"""What a death says about the task that ran, told through the ledger: for brokers that give back by themselves.

There the agent has nothing to settle when a child dies. So it leaves its verdict about the culprit under the task's id,
and whoever gets that task concludes it by the verdict instead of running it. What the child held goes back when the
verdict is there (``lifelines.py``). One that comes back without a verdict waits for it a moment, apart from all others:
its agent may have been away when the child died. The verdict stays until the task it is about is settled by it: whoever
concludes may die as well, and then the next one needs it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from celeriac.codec.signing import Signer, seal, unseal
from celeriac.exceptions import OperationalError, SecurityError
from celeriac.model import outcome as o
from celeriac.model.ledger import Change
from celeriac.model.message import Delivery
from celeriac.ports import Broker, Clock, Ledger
from celeriac.worker.concluding import Concluder

__all__ = ["Verdicts"]

logger = logging.getLogger("celery.worker")

#: Seconds for which a verdict waits for its task: longer than a broker that is away keeps it.
_LIFE = 6 * 3600.0
#: Pauses in seconds before the looks for a verdict that was not there at once: a child's death is known within some
#: milliseconds.
_LOOKS = (0.01, 0.02, 0.05)
#: The same before further tries to drop a verdict that was obeyed; then its life ends it.
_DROPS = (0.1, 1.0, 10.0)
_VERDICT = "verdict"


class _Verdict(msgspec.Struct, omit_defaults=True):
    """An outcome as it is written: one of the four that a death can have."""

    kind: str
    text: str = ""
    limit: float = 0.0
    signum: int | None = None
    by: str = ""
    why: str = ""
    #: The token of the delivery that the dead child ran: no verdict is taken for the one before.
    of: str = ""


_decode = msgspec.json.Decoder(_Verdict).decode


class Verdicts:
    """Of one process. ``active`` where the broker needs it: all else is for such brokers only."""

    def __init__(self, broker: Broker, signer: Signer | None, clock: Clock) -> None:
        """``signer`` is that of remote commands: without its signature no verdict is believed."""
        self._ledger: Ledger | None = broker if broker.traits.requeues and isinstance(broker, Ledger) else None
        self.active = self._ledger is not None
        self._signer = signer
        self._clock = clock
        self._waiting: set[asyncio.Future[None]] = set()
        #: What is dropped from the ledger once the delivery of this token is settled.
        self._obeyed: dict[str, Change] = {}

    # -- the agent

    async def leave(self, task_id: str, outcome: o.Outcome, token: str = "") -> None:
        """Write a verdict about the delivery ``token``. Raises ``OperationalError``."""
        assert self._ledger is not None
        verdict = replace(_written(outcome), of=token)
        value = seal(self._signer, _VERDICT, _key(task_id), msgspec.json.encode(verdict))
        await self._ledger.change_ledger([Change(_key(task_id), value, expires=_LIFE)])

    # -- a child

    async def known(self, deliveries: Sequence[Delivery], conclude: Concluder) -> Sequence[Delivery]:
        """Conclude those that have a verdict; returns the others."""
        back = [delivery for delivery in deliveries if delivery.redelivered or delivery.returned]
        found = await self._take(back) if back else {}
        if not found:
            return deliveries
        conclude([(_cleared(each, found[each.token][1]), found[each.token][0]) for each in back if each.token in found])
        return [delivery for delivery in deliveries if delivery.token not in found]

    def later(
        self,
        deliveries: Sequence[Delivery],
        conclude: Concluder,
        admit: Callable[[Sequence[Delivery]], Awaitable[None]],
        failed: Callable[[BaseException], None],
    ) -> Sequence[Delivery]:
        """Let those that came back wait for a verdict, then ``admit`` those that got none; returns the others. Of what
        goes wrong meanwhile hears ``failed``."""
        back = [delivery for delivery in deliveries if delivery.redelivered]
        if not back:
            return deliveries
        waiting = asyncio.ensure_future(self._wait(back, conclude, admit))
        self._waiting.add(waiting)
        waiting.add_done_callback(lambda done: self._over(done, failed))
        return [delivery for delivery in deliveries if not delivery.redelivered]

    def _over(self, done: asyncio.Future[None], failed: Callable[[BaseException], None]) -> None:
        self._waiting.discard(done)
        error = None if done.cancelled() else done.exception()
        if error is not None:
            failed(error)

    async def _wait(
        self, back: Sequence[Delivery], conclude: Concluder, admit: Callable[[Sequence[Delivery]], Awaitable[None]]
    ) -> None:
        for pause in _LOOKS:
            await self._clock.sleep(pause)
            back = await self.known(back, conclude)
            if not back:
                return
        await admit(back)

    def settled(self, deliveries: Sequence[Delivery]) -> None:
        """These are over: verdicts by which they were concluded are of no use any more."""
        if not self._obeyed:
            return
        over = [self._obeyed.pop(each.token) for each in deliveries if each.token in self._obeyed]
        if over:
            dropping = asyncio.ensure_future(self._drop(over))
            self._waiting.add(dropping)
            dropping.add_done_callback(self._waiting.discard)

    def forget(self, deliveries: Sequence[Delivery]) -> None:
        """These are held no more: a verdict that was not written under their lease stays for whoever gets them next."""
        if self._obeyed:
            for delivery in deliveries:
                self._obeyed.pop(delivery.token, None)

    async def _drop(self, over: Sequence[Change], pauses: Sequence[float] = _DROPS) -> None:
        assert self._ledger is not None
        for pause in (0.0, *pauses):
            await self._clock.sleep(pause)
            try:
                await self._ledger.change_ledger(over)
            except OperationalError as error:
                logger.debug("Cannot drop %d verdicts that were obeyed: %s", len(over), error)
            else:
                return

    async def _take(self, back: Sequence[Delivery]) -> Mapping[str, tuple[o.Outcome, str]]:
        """Verdicts by token, and of which deliveries they are. While the ledger is away nobody is judged, as after an
        outage."""
        assert self._ledger is not None
        keys = [_key(delivery.message.id) for delivery in back]
        try:
            values = await self._ledger.read_ledger(keys)
        except OperationalError as error:
            logger.warning("Cannot look for the verdicts about %d redelivered tasks: %s", len(back), error)
            return {}
        found: dict[str, tuple[o.Outcome, str]] = {}
        innocent: list[Change] = []
        for delivery, key, value in zip(back, keys, values, strict=True):
            verdict = self._read(key, value) if value is not None else None
            if verdict is None or (verdict.of and verdict.of == delivery.marks.judged):
                continue  # it has obeyed that one, and is just not dropped yet
            outcome, drop = _outcome(verdict), Change(key, None, value)
            found[delivery.token] = outcome, verdict.of
            if isinstance(outcome, o.Unstarted):
                innocent.append(drop)  # it does no harm to whoever runs it without
            else:
                self._obeyed[delivery.token] = drop
        if innocent:
            await self._drop(innocent, pauses=())
        return found

    def _read(self, key: str, value: bytes) -> _Verdict | None:
        try:
            return _decode(unseal(self._signer, _VERDICT, key, value))
        except (msgspec.MsgspecError, SecurityError, ValueError) as error:
            logger.warning("A verdict about a task that came back is not believed: %s", error)
            return None


def _outcome(verdict: _Verdict) -> o.Outcome:
    match verdict.kind:
        case "crashed":
            return o.Crashed(verdict.text)
        case "timed out":
            return o.TimedOut(verdict.limit)
        case "revoked":
            return o.Revoked(verdict.text, verdict.signum, verdict.by, verdict.why)
        case _:
            return o.Unstarted(orphaned=True)


def _written(outcome: o.Outcome) -> _Verdict:
    match outcome:
        case o.Crashed(how):
            return _Verdict(kind="crashed", text=how)
        case o.TimedOut(limit):
            return _Verdict(kind="timed out", limit=limit)
        case o.Revoked(reason, signum, by, why):
            return _Verdict(kind="revoked", text=reason, signum=signum, by=by, why=why)
        case _:
            return _Verdict(kind="unstarted")


def _cleared(delivery: Delivery, of: str) -> Delivery:
    """It was suspect because nobody knew what its child died of. What is published of it names the verdict."""
    return replace(delivery, marks=replace(delivery.marks, suspect=False, judged=of))


def _key(task_id: str) -> str:
    return f"verdict:{task_id}"
