"""Which of the messages of one batch the server has taken: publisher confirms of one channel. Pure.

One batch at a time; whoever gives one up also gives up the channel, for its late confirms would count for the next.
"""

from __future__ import annotations

from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.frames import Event

__all__ = ["Confirms"]


class Confirms:
    """``begin`` a batch, ``hear`` what comes in; over when ``left`` is 0."""

    def __init__(self) -> None:
        #: All below are answered; of those above, these are.
        self._low = 1
        self._above: set[int] = set()
        self.left = 0
        #: How many the server refused: a queue is full, or it failed inside.
        self.refused = 0
        #: Those that no queue took, as they came back.
        self.returned: list[Event] = []

    def begin(self, count: int) -> None:
        """So many messages are sent now."""
        self.left = count
        self.refused = 0
        self.returned = []

    def hear(self, event: Event) -> None:
        """basic.ack, basic.nack, basic.return; anything else is none of its business."""
        number = event.number
        if number == m.BASIC_RETURN:
            self.returned.append(event)
        elif number in {m.BASIC_ACK, m.BASIC_NACK}:
            tag, multiple = m.arguments(number, event.payload)[:2]
            count = self._answered(tag, multiple)
            self.left -= count
            if number == m.BASIC_NACK:
                self.refused += count

    def _answered(self, tag: int, multiple: bool) -> int:
        above = self._above
        if not multiple:
            above.add(tag)
            count = 1
        else:
            known = {each for each in above if each <= tag}
            count = tag + 1 - self._low - len(known)
            above -= known
            self._low = tag + 1
        while self._low in above:
            above.discard(self._low)
            self._low += 1
        return count
