"""How a connection begins: the exchange of methods up to connection.open-ok. Pure; both drivers run it."""

from __future__ import annotations

from celeriac.brokers.rabbitmq import methods as m
from celeriac.brokers.rabbitmq.address import Address
from celeriac.brokers.rabbitmq.errors import Closed
from celeriac.brokers.rabbitmq.frames import HEADER, Event

__all__ = ["Handshake"]

_CAPABILITIES = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "publisher_confirms": True,
}


class Handshake:
    """``begin`` gives the first bytes, ``hear`` the answer to each event; over when ``done``."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self.done = False
        self.frame_max = address.frame_max
        self.channel_max = 2047
        #: Seconds; 0: none.
        self.heartbeat = address.heartbeat

    def begin(self) -> bytes:
        """The protocol header."""
        return HEADER

    def hear(self, event: Event) -> bytes:
        """What to answer. Raises ``Closed`` when the server does not want us, ``ValueError`` on nonsense."""
        number = event.number
        if number == m.CONNECTION_START:
            return self._start_ok(m.arguments(number, event.payload))
        if number == m.CONNECTION_TUNE:
            channels, frame, heartbeat = m.arguments(number, event.payload)
            self.channel_max = min(channels or 2047, 2047)
            self.frame_max = min(frame or self.frame_max, self.frame_max)
            ours = self.heartbeat
            self.heartbeat = min(heartbeat, ours) if heartbeat and ours else max(heartbeat, ours) if ours else 0
            tuned = m.method(0, m.CONNECTION_TUNE_OK, self.channel_max, self.frame_max, self.heartbeat)
            return tuned + m.method(0, m.CONNECTION_OPEN, self._address.vhost, "", False)
        if number == m.CONNECTION_OPEN_OK:
            self.done = True
        elif number == m.CONNECTION_CLOSE:
            code, text, _, _ = m.arguments(number, event.payload)
            raise Closed(code, text)
        elif number:
            raise ValueError(f"the server says {m.name_of(number)} before the connection is open")
        return b""

    def _start_ok(self, start: list[object]) -> bytes:
        address = self._address
        offered = start[3]
        method = address.method
        if isinstance(offered, bytes) and method.encode() not in offered.split():
            raise Closed(403, f"ACCESS_REFUSED - it offers {offered.decode(errors='replace')}, not {method}")
        answer = f"\0{address.username}\0{address.password}".encode() if method == "PLAIN" else b""
        properties = {
            "product": "celeriac",
            "platform": "Python",
            "connection_name": address.name,
            "capabilities": _CAPABILITIES,
        }
        return m.method(0, m.CONNECTION_START_OK, properties, method, answer, "en_US")
