"""The publisher on two servers: messages on one, keys and rules on the other. Blocking; safe in threads.

``publish_if`` is three steps: the keys for a short time, the message, the keys for theirs (``sending.py``).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from celeriac.beside.sending import MARGIN, UNSENT, hold, purged
from celeriac.exceptions import ImproperlyConfigured, OperationalError
from celeriac.model.ledger import Change
from celeriac.model.message import Message
from celeriac.model.rules import RuleChange, RulesRead
from celeriac.ports import BlockingLedger, Depth, Publisher, RulesDesk

__all__ = ["BesidePublisher"]

logger = logging.getLogger("celeriac.beside")

#: Least time in seconds for the last step: the message is sent by then.
_LAST = 1.0


class BesidePublisher:
    """See ``celeriac.ports.Publisher`` and ``RulesDesk``."""

    stepwise = True

    def __init__(self, inner: Publisher, ledger: BlockingLedger, desk: Publisher) -> None:
        if not isinstance(desk, RulesDesk):
            raise ImproperlyConfigured("this server keeps no rules: set ledger_url to one that does")
        self._inner = inner
        self._ledger = ledger
        self._desk: RulesDesk = desk
        self._side = desk
        self.publish = inner.publish  # what most calls are: not one step slower
        self.stage = inner.stage
        self.launch = inner.launch

    def publish_if(
        self, message: Message, changes: Sequence[Change], *, timeout: float
    ) -> Sequence[bytes | None] | None:
        """See ``Publisher.publish_if``. A message that may have been sent (the answer was lost, the caller was
        interrupted) keeps its keys for ``sending.MARGIN`` seconds beyond ``timeout``."""
        deadline = time.monotonic() + timeout
        try:
            sending, there = hold(self._ledger, message, changes, timeout=timeout)
        except OperationalError as error:
            error.uncertain = False  # of the keys some may be taken, for a short time; the message is not sent
            raise
        if sending is None:
            return there
        try:
            left = deadline - time.monotonic()
            if left < -MARGIN / 2:  # this process stood still: soon its keys are somebody else's
                raise OperationalError("the message is not sent: its keys were held for too long meanwhile")
            if sending.is_again:
                # Who gets both looks first whether the other has ended.
                message = replace(message, headers={**message.headers, "redelivered": True})
            self._inner.publish([message], timeout=max(0.05, left))
        except OperationalError as error:
            if not error.uncertain:
                self._write(sending.undone(), "give back", message)
            raise
        except UNSENT:
            self._write(sending.undone(), "give back", message)
            raise
        self._write(sending.sent(), "keep", message, max(_LAST, deadline - time.monotonic()))
        return None

    def _write(self, changes: Sequence[Change], what: str, message: Message, timeout: float = _LAST) -> None:
        """The last step. The message is sent, or is not, whether this works or not."""
        try:
            self._ledger.change(changes, timeout=timeout)
        except OperationalError as error:
            logger.warning(
                "Cannot %s the keys of task %s[%s], they last some seconds: %s", what, message.task, message.id, error
            )

    def purge(self, queue: str, *, timeout: float) -> int:
        """See ``Publisher.purge``. Whoever wants the lock of a dropped task is told that it is free; the values of such
        locks stay. Raises ``OperationalError``, too, when that cannot be written."""
        count = self._inner.purge(queue, timeout=timeout)
        self._ledger.change([purged(queue)], timeout=max(_LAST, timeout))
        return count

    def depth(self, queues: Sequence[str], *, timeout: float) -> Mapping[str, Depth]:
        """See ``Publisher.depth``."""
        return self._inner.depth(queues, timeout=timeout)

    def rules(self, prefix: str, *, timeout: float) -> RulesRead:
        """See ``RulesDesk.rules``."""
        return self._desk.rules(prefix, timeout=timeout)

    def set_rules(self, changes: Sequence[RuleChange], *, timeout: float) -> int:
        """See ``RulesDesk.set_rules``."""
        return self._desk.set_rules(changes, timeout=timeout)

    def close(self) -> None:
        """See ``Publisher.close``."""
        self._inner.close()
        self._ledger.close()
        self._side.close()
