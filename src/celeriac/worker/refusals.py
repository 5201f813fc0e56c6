"""Why a claimed delivery is not to run: malformed, unsigned, done already, revoked, not due, expired.

Asked by the fetcher for everything it claims. Reads the result records of redelivered messages, and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from celeriac import states
from celeriac.codec.signing import Signer, unseal
from celeriac.exceptions import DecodeError, OperationalError, SecurityError
from celeriac.model import outcome as o
from celeriac.model.message import Delivery, Malformed
from celeriac.model.settle import Completion, Release
from celeriac.ports import Clock, ResultStore
from celeriac.worker.rules import RuleBook

__all__ = ["Refusals"]

logger = logging.getLogger("celery.worker.consumer")

#: A message that comes back so soon after it was put off, in seconds, is due by its broker's clock.
_AGAIN = 5.0
#: Messages that were put off and are remembered.
_PUT_OFF = 10_000


class _Record(msgspec.Struct):
    status: str = ""
    retries: int | None = None
    result: Any = None


_decode_record = msgspec.json.Decoder(_Record).decode


class Refusals:
    """Of one child."""

    def __init__(
        self, store: ResultStore | None, signer: Signer | None, rules: RuleBook, clock: Clock, *, apart: bool = False
    ) -> None:
        """``apart``: results are stored in another step than messages are settled."""
        self._store = store
        self._apart = apart
        self._signer = signer
        self._rules = rules
        self._clock = clock
        #: Id and due time of messages that were not due → when they were put off (monotonic).
        self._put_off: dict[tuple[str, float], float] = {}

    def of(self, delivery: Delivery, now: float, done: Mapping[str, o.Repeated]) -> o.Outcome | Completion | None:
        """Why a delivery is not to run, or None; ``done`` is what ``repeated`` has found in its batch."""
        message = delivery.message
        if isinstance(message, Malformed):
            return o.Discarded(DecodeError(message.reason), message.reason)
        if self._signer is not None and (reason := self._signer.refusal(message)) is not None:
            return o.Unsigned(reason)
        if delivery.token in done:
            return done[delivery.token]
        # Before its time is looked at: it would be revoked only then.
        if self._rules.refuses and (revoked := self._rules.refusal(message, now)) is not None:
            return revoked
        if message.due is not None and message.due > now and self._is_early(message.id, message.due):
            return Completion(settlement=Release(delivery, due=message.due))
        if message.expires is not None and message.expires <= now:
            return o.Revoked("expired")
        return None

    def _is_early(self, task_id: str, due: float) -> bool:
        """Not due by our clock: put it off. Unless that was just done and it is here again: the broker's clock counts,
        and ours is slow."""
        put_off, now = self._put_off, self._clock.monotonic()
        before = put_off.get((task_id, due))
        if before is not None and now - before < _AGAIN:
            return False
        if len(put_off) >= _PUT_OFF:
            put_off.clear()
        put_off[task_id, due] = now
        return True

    async def repeated(self, redelivered: Sequence[Delivery]) -> Mapping[str, o.Repeated]:
        """Those redelivered messages, by token, whose record shows a terminal state, or a later attempt."""
        if not redelivered or self._store is None:
            return {}
        try:
            records = await self._store.get([delivery.message.id for delivery in redelivered])
        except OperationalError as error:
            logger.warning("Cannot read the results of %d redelivered tasks: %s", len(redelivered), error)
            return {}
        found = zip(redelivered, records, strict=True)
        done = ((d.token, self._done_record(d, raw)) for d, raw in found if raw)
        return {token: o.Repeated(r.status, r.result, self._apart) for token, r in done if r}

    def _done_record(self, delivery: Delivery, raw: bytes) -> _Record | None:
        """The record if it shows that this attempt is over. One that cannot be trusted shows nothing."""
        try:
            record = _decode_record(unseal(self._signer, "result", delivery.message.id, raw))
        except (msgspec.MsgspecError, SecurityError, ValueError, RecursionError):
            return None
        if record.status in states.READY_STATES:
            return record
        message = delivery.message
        own = message.retries if not isinstance(message, Malformed) else 0
        is_later = record.status == states.RETRY and record.retries is not None and record.retries >= own
        return record if is_later else None
